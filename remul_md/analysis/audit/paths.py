"""Which distances and angles an audit scans, and how the atoms move along each: geometry only, no energies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.audit.graph import BondGraph
from remul_md.analysis.audit.probe import Array
from remul_md.structures.topology import dihedral_angles, torsion_chains

if TYPE_CHECKING:
    from ase import Atoms

MAX_KINDS = 4  # bonds of unlike elements that are pulled apart
NEAR_SHARES = (0.75, 1.4)  # of its length, where every bond is scanned: 300 K does not go further
COMPRESSION = 0.6  # of the distance at rest
REACH_A = 9.0  # beyond the distance at rest: past the cutoff of nearly every model
STEP_A, STEP_SHARE = 0.05, 0.04  # the larger of both: what happens far away happens slowly
ANGLE_REACH_DEG, ANGLE_STEP_DEG = 50.0, 5.0
TORSION_STEP_DEG = 5.0
PAIR_SHARE = 0.35  # of a distance within a molecule or crystal, inwards and outwards


@dataclass(frozen=True, kw_only=True)
class Path:
    """One coordinate and the positions along it.

    Args:
        kind: bond, angle, torsion or pair.
        label: such as `bond C0-O2`.
        unit: of the coordinate, Angstrom or degrees.
        start: its value in the structure.
        outwards: values from there on, increasing.
        inwards: values from there on, decreasing.
        place: positions [N, 3], Angstrom, at a value.
        one_well: a second minimum would be spurious. Not so where an atom is moved among others: it may find a bond.
    """

    kind: str
    label: str
    unit: str
    start: float
    outwards: Array
    inwards: Array
    place: Callable[[float], Array]
    one_well: bool


def scan_paths(atoms: Atoms) -> list[Path]:
    """All bonds, angles (in rings: of each kind one) and rotatable bonds of a molecule, and its closest pairs else.

    A bond of each pair of elements is stretched until the parts are `REACH_A` apart, the others as far as dynamics
    goes; bonds in no ring that have something on both sides are rotated all the way round. The smaller part moves as a
    rigid body. In a periodic structure, which has no parts, one atom moves to and from its nearest neighbour.
    """
    if len(atoms) < 2:
        return []
    if atoms.pbc.any():
        return [_neighbour_path(atoms)]
    graph = BondGraph(atoms)
    return [*_bond_paths(graph), *_angle_paths(graph), *_torsion_paths(graph), *_pair_paths(graph)]


def _bond_paths(graph: BondGraph) -> Iterator[Path]:
    centre = graph.positions.mean(axis=0)
    best: dict[tuple[int, int], tuple[float, int, int]] = {}
    for i, j in [*graph.bonds.tolist(), *graph.bonds[:, ::-1].tolist()]:
        part, separates = graph.part(i, j)
        axis = graph.positions[j] - graph.positions[i]
        outward = float(axis @ (graph.positions[part].mean(axis=0) - centre)) / float(np.linalg.norm(axis))
        kind = _sorted_pair(int(graph.numbers[i]), int(graph.numbers[j]))
        # Of equal bonds the one that leads out of the molecule: nothing stands in the way of the moving part. Of the
        # two parts of a bond that is the smaller one, whose centre lies farther out.
        best[kind] = max(best.get(kind, (-np.inf, 0, 0)), (outward + 100.0 * separates, i, j))
    pulled = {_sorted_pair(i, j): (i, j) for _, i, j in list(best.values())[:MAX_KINDS]}
    for i, j in pulled.values():
        yield _distance_path(graph.positions, graph.names, (i, j), graph.part(i, j)[0], kind="bond")
    for bond in graph.bonds.tolist():
        if tuple(bond) in pulled:
            continue
        i, j = _smaller_side(graph, *bond)
        part = graph.part(i, j)[0]
        yield _distance_path(graph.positions, graph.names, (i, j), part, kind="bond", shares=NEAR_SHARES, one_well=True)


def _smaller_side(graph: BondGraph, first: int, second: int) -> tuple[int, int]:
    """The bond in the direction in which less hangs on its end."""
    moved, other = graph.part(first, second)[0], graph.part(second, first)[0]
    return (first, second) if len(moved) <= len(other) else (second, first)


def _angle_paths(graph: BondGraph) -> Iterator[Path]:
    of_rings: set[tuple[int, int, int]] = set()  # in clusters and cages there are many: one of each triple of elements
    for middle, neighbours in enumerate(graph.neighbours):
        for ends in combinations(neighbours, 2):
            # What hangs on one end moves, without the other end and less than half of the molecule.
            moved = [(len(graph.part(middle, last)[0]), first, last) for first, last in (ends, ends[::-1])]
            size, first, last = min(moved)
            part, separates = graph.part(middle, last)
            if first in part or 2 * size > len(graph.numbers):
                continue
            if not separates:
                low, high = _sorted_pair(int(graph.numbers[first]), int(graph.numbers[last]))
                kind = low, int(graph.numbers[middle]), high
                if kind in of_rings:
                    continue
                of_rings.add(kind)
            yield _angle_path(graph, first, middle, last)


def _torsion_paths(graph: BondGraph) -> Iterator[Path]:
    """Once round each bond in no ring with something on both sides, beginning at its first torsion."""
    chains, _ = torsion_chains(graph.numbers, graph.bonds)
    done: set[tuple[int, int]] = set()
    for i, j, k, end in chains.tolist():
        if _sorted_pair(j, k) not in done:
            done.add(_sorted_pair(j, k))
            yield _torsion_path(graph, (i, j, k, end))


def _torsion_path(graph: BondGraph, chain: tuple[int, int, int, int]) -> Path:
    """Rotate the smaller side of the middle bond about it."""
    from scipy.spatial.transform import Rotation

    start = float(dihedral_angles(graph.positions, np.array([chain]))[0])
    fixed, moved_end = _smaller_side(graph, chain[1], chain[2])
    part = graph.part(fixed, moved_end)[0]
    axis = graph.positions[chain[2]] - graph.positions[chain[1]]
    axis = axis / np.linalg.norm(axis)
    # Positive is clockwise seen along the axis: its end goes forward, its beginning backward.
    sense = 1.0 if moved_end == chain[2] else -1.0

    def place(angle_deg: float) -> Array:
        moved = graph.positions.copy()
        turn = Rotation.from_rotvec(sense * np.radians(angle_deg - start) * axis).as_matrix()
        moved[part] = (moved[part] - moved[moved_end]) @ turn.T + moved[moved_end]
        return moved

    half = np.arange(TORSION_STEP_DEG, 180.0 + 1e-9, TORSION_STEP_DEG)
    return Path(
        kind="torsion",
        label=f"torsion {'-'.join(graph.names[atom] for atom in chain)}",
        unit="degrees",
        start=start,
        outwards=start + half,
        inwards=start - half,
        place=place,
        one_well=False,
    )


def _angle_path(graph: BondGraph, first: int, middle: int, last: int) -> Path:
    """Turn what hangs on `last` about `middle`, in the plane of the three atoms."""
    from scipy.spatial.transform import Rotation

    part, separates = graph.part(middle, last)
    one, other = (graph.positions[atom] - graph.positions[middle] for atom in (first, last))
    normal = np.cross(one, other)
    size = float(np.linalg.norm(normal))
    start = float(np.degrees(np.arctan2(size, one @ other)))
    if size < 1e-3:  # straight: any plane through it
        normal = np.cross(one, np.eye(3)[np.argmin(np.abs(one))])
    axis = normal / np.linalg.norm(normal)

    def place(angle_deg: float) -> Array:
        moved = graph.positions.copy()
        turn = Rotation.from_rotvec(np.radians(angle_deg - start) * axis).as_matrix()
        moved[part] = (moved[part] - moved[middle]) @ turn.T + moved[middle]
        return moved

    return Path(
        kind="angle",
        label=f"angle {graph.names[first]}-{graph.names[middle]}-{graph.names[last]}",
        unit="degrees",
        start=start,
        outwards=np.arange(start, min(start + ANGLE_REACH_DEG, 178.0), ANGLE_STEP_DEG)[1:],
        inwards=np.arange(start, max(start - ANGLE_REACH_DEG, 40.0), -ANGLE_STEP_DEG)[1:],
        place=place,
        one_well=separates,
    )


def _pair_paths(graph: BondGraph) -> Iterator[Path]:
    """The closest pair of two molecules, taken apart; within a molecule the closest pair three bonds apart."""
    first, second = np.triu_indices(len(graph.numbers), k=1)
    lengths = np.linalg.norm(graph.positions[second] - graph.positions[first], axis=1)
    within_is_done = between_is_done = False
    for pair in np.argsort(lengths, kind="stable"):
        i, j = int(first[pair]), int(second[pair])
        reached = graph.reached(i)
        if j not in reached and not between_is_done:
            between_is_done = True
            part = sorted(graph.reached(j))
            if 2 * len(part) > len(graph.numbers):
                i, j, part = j, i, sorted(reached)
            yield _distance_path(graph.positions, graph.names, (i, j), part, kind="pair")
        elif reached.get(j, 0) >= 3 and not within_is_done:
            within_is_done = True
            if graph.numbers[i] < graph.numbers[j]:  # the lighter one moves
                i, j = j, i
            yield _distance_path(
                graph.positions, graph.names, (i, j), [j], kind="pair", shares=(1.0 - PAIR_SHARE, 1.0 + PAIR_SHARE)
            )


def _neighbour_path(atoms: Atoms) -> Path:
    distances = atoms.get_all_distances(mic=True) + np.diag(np.full(len(atoms), np.inf))
    i, j = (int(index) for index in np.unravel_index(np.argmin(distances), distances.shape))
    positions = atoms.get_positions()
    # From the image next to j, so that j moves along the shortest line.
    positions[i] = positions[j] - atoms.get_distance(i, j, mic=True, vector=True)
    names = [f"{symbol}{index}" for index, symbol in enumerate(atoms.get_chemical_symbols())]
    return _distance_path(positions, names, (i, j), [j], kind="pair", shares=(1.0 - PAIR_SHARE, 1.0 + PAIR_SHARE))


def _distance_path(
    positions: Array,
    names: Sequence[str],
    pair: tuple[int, int],
    part: list[int],
    *,
    kind: str,
    shares: tuple[float, float | None] | None = None,
    one_well: bool | None = None,
) -> Path:
    """Move `part` along the line of a pair, between two shares of its distance (None: REACH_A beyond it).

    Without shares the pair is compressed and pulled out of reach; then, unless told, one well is expected on the way.
    """
    i, j = pair
    one_well = shares is None if one_well is None else one_well
    shares = shares or (COMPRESSION, None)
    label = f"{kind} {names[i]}-{names[j]}"
    axis = positions[j] - positions[i]
    start = float(np.linalg.norm(axis))
    axis = axis / start

    def place(distance: float) -> Array:
        moved = positions.copy()
        moved[part] += (distance - start) * axis
        return moved

    far = start + REACH_A if shares[1] is None else shares[1] * start
    return Path(
        kind=kind,
        label=label,
        unit="Å",
        start=start,
        outwards=_steps(start, far),
        inwards=_steps(start, shares[0] * start),
        place=place,
        one_well=one_well,
    )


def _steps(start: float, end: float) -> Array:
    values = [start]
    while abs(values[-1] - end) > 1e-9:
        step = max(STEP_A, STEP_SHARE * values[-1])
        values.append(min(values[-1] + step, end) if end > start else max(values[-1] - step, end))
    return np.array(values[1:])


def _sorted_pair(first: int, second: int) -> tuple[int, int]:
    return (first, second) if first < second else (second, first)


def path_length(start: NDArray[np.float64], end: NDArray[np.float64]) -> float:
    """How far the atom that moves furthest goes from one geometry [N, 3] to another, Angstrom."""
    return float(np.linalg.norm(end - start, axis=1).max())
