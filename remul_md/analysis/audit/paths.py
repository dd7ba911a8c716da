"""Which distances and angles an audit scans, and how the atoms move along each: geometry only, no energies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.audit.graph import BondGraph
from remul_md.analysis.audit.probe import Array

if TYPE_CHECKING:
    from ase import Atoms

MAX_KINDS = 4  # bonds of unlike elements, and as many angles
COMPRESSION = 0.6  # of the distance at rest
REACH_A = 9.0  # beyond the distance at rest: past the cutoff of nearly every model
STEP_A, STEP_SHARE = 0.05, 0.04  # the larger of both: what happens far away happens slowly
ANGLE_REACH_DEG, ANGLE_STEP_DEG = 50.0, 2.5
PAIR_SHARE = 0.35  # of a distance within a molecule or crystal, inwards and outwards


@dataclass(frozen=True, kw_only=True)
class Path:
    """One coordinate and the positions along it.

    Args:
        kind: bond, angle or pair.
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
    """A bond of each pair of elements, an angle of each triple, and the closest pairs that are not bonded.

    Bonds are stretched until the parts are `REACH_A` apart; the smaller part moves as a rigid body. In a periodic
    structure, which has no parts, one atom moves to and from its nearest neighbour.
    """
    if len(atoms) < 2:
        return []
    if atoms.pbc.any():
        return [_neighbour_path(atoms)]
    graph = BondGraph(atoms)
    return [*_bond_paths(graph), *_angle_paths(graph), *_pair_paths(graph)]


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
    for _, i, j in list(best.values())[:MAX_KINDS]:
        part, separates = graph.part(i, j)
        yield _distance_path(graph.positions, graph.names, (i, j), part, kind="bond")


def _angle_paths(graph: BondGraph) -> Iterator[Path]:
    chosen: dict[tuple[int, int, int], tuple[int, int, int]] = {}
    for middle, neighbours in enumerate(graph.neighbours):
        for first in neighbours:
            for last in neighbours:
                part, separates = graph.part(middle, last)
                if first == last or first in part or (separates and 2 * len(part) > len(graph.numbers)):
                    continue
                low, high = _sorted_pair(int(graph.numbers[first]), int(graph.numbers[last]))
                chosen.setdefault((low, int(graph.numbers[middle]), high), (first, middle, last))
    for first, middle, last in list(chosen.values())[:MAX_KINDS]:
        yield _angle_path(graph, first, middle, last)


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
) -> Path:
    """Move `part` along the line of a pair, between two shares of its distance (None: REACH_A beyond it).

    Without shares the pair is compressed and pulled out of reach, and only one well is expected on the way.
    """
    (i, j), one_well = pair, shares is None
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
