"""What the training data of a potential covered, and how a new structure compares with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.structures.alignment import angle_swept
from remul_md.structures.topology import bond_lengths, bond_pairs

if TYPE_CHECKING:
    from remul_md.structures.frames import Frames

# A pair distance may leave the trained range by this much before a warning: MD at the training temperature does.
DISTANCE_MARGIN = 0.15  # Angstrom


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Statistics of the training frames, JSON-able.

    Args:
        compositions: atoms of each element for every composition seen, such as {"C": 2, "H": 6, "O": 1}.
        reference_numbers: atomic numbers of the training frame of lowest energy, [N].
        reference_positions: its positions, [N, 3], Angstrom.
        bonds: bond graph of that frame, pairs of atom indices, [M, 2].
        bond_min: shortest length of each bond over the frames of that composition and atom order, [M], Angstrom.
        bond_max: longest, [M], Angstrom.
        distance_ranges: shortest and longest distance of each pair of elements, such as {"C-H": [1.0, 4.1]}, Angstrom.
        rotation_angle_median: median angle by which the frames are rotated against the reference frame, degrees; how
            much of the sphere of orientations the original data show (uniformly random orientations: 132).
        n_frames: training frames.
        periodic: whether any frame had a cell.
    """

    compositions: list[dict[str, int]]
    reference_numbers: list[int]
    reference_positions: list[list[float]]
    bonds: list[list[int]]
    bond_min: list[float]
    bond_max: list[float]
    distance_ranges: dict[str, list[float]]
    rotation_angle_median: float
    n_frames: int
    periodic: bool

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Coverage:
        """The inverse of `to_json`."""
        return cls(**values)


def formula(numbers: NDArray[np.int64]) -> dict[str, int]:
    """Atoms of each element, in the order of the symbols."""
    counts = Counter(chemical_symbols[int(number)] for number in numbers)
    return {symbol: counts[symbol] for symbol in sorted(counts)}


def coverage_of(frames: Frames) -> Coverage:
    """Statistics of the training frames."""
    compositions: list[dict[str, int]] = []
    ranges: dict[str, list[float]] = {}
    # The frame of lowest energy: the least strained, so its bond graph is the molecule's.
    chosen = 0 if frames.energy is None else int(np.argmin(frames.energy))
    numbers, reference = frames.frame_numbers(chosen), frames.frame_positions(chosen)
    bonds = bond_pairs(numbers, reference)
    lengths, angles = [], []
    for index in range(len(frames)):
        positions, own = frames.frame_positions(index), frames.frame_numbers(index)
        if formula(own) not in compositions:
            compositions.append(formula(own))
        for pair, (low, high) in element_distance_ranges(own, positions).items():
            known = ranges.setdefault(pair, [low, high])
            ranges[pair] = [min(known[0], low), max(known[1], high)]
        if np.array_equal(own, numbers):
            lengths.append(bond_lengths(positions, bonds))
            angles.append(superposition_angle(reference, positions))
    measured = np.array(lengths).reshape(len(lengths), len(bonds))
    return Coverage(
        compositions=compositions,
        reference_numbers=[int(number) for number in numbers],
        reference_positions=reference.tolist(),
        bonds=[[int(a), int(b)] for a, b in bonds],
        bond_min=measured.min(0).tolist(),
        bond_max=measured.max(0).tolist(),
        distance_ranges=ranges,
        rotation_angle_median=float(np.median(angles)),
        n_frames=len(frames),
        periodic=bool(frames.pbc.any()),
    )


def merged_coverage(coverages: Mapping[str, Coverage]) -> Coverage:
    """What the members of an ensemble covered together, by the members' names.

    Ranges of distances and bonds are the widest ones; the reference frame, its bond graph and angle, and the number
    of frames are those of the first member. Bond ranges of members that chose a frame with other bonds do not enter.

    Raises:
        InputError: the members know other compositions, or some know cells and some do not.
    """
    (first_name, first), *others = coverages.items()
    bond_min, bond_max = np.array(first.bond_min), np.array(first.bond_max)
    ranges = {pair: list(limits) for pair, limits in first.distance_ranges.items()}
    for name, other in others:
        for what in ("compositions", "periodic"):
            ours, theirs = getattr(first, what), getattr(other, what)
            if ours != theirs and not (isinstance(ours, list) and sorted(map(str, ours)) == sorted(map(str, theirs))):
                raise InputError(
                    f"{first_name} and {name} were trained on other {what}: {ours} and {theirs}; "
                    "members share one kind of data"
                )
        if other.bonds == first.bonds and other.reference_numbers == first.reference_numbers:
            bond_min, bond_max = np.minimum(bond_min, other.bond_min), np.maximum(bond_max, other.bond_max)
        for pair, (low, high) in other.distance_ranges.items():
            known = ranges.setdefault(pair, [low, high])
            ranges[pair] = [min(known[0], low), max(known[1], high)]
    return replace(first, bond_min=bond_min.tolist(), bond_max=bond_max.tolist(), distance_ranges=ranges)


def element_distance_ranges(
    numbers: NDArray[np.int64], positions: NDArray[np.float64]
) -> dict[str, tuple[float, float]]:
    """Shortest and longest distance of each pair of elements in one frame, Angstrom; keys such as "C-H"."""
    first, second = np.triu_indices(len(numbers), k=1)
    distances = np.linalg.norm(positions[first] - positions[second], axis=1)
    low, high = np.minimum(numbers[first], numbers[second]), np.maximum(numbers[first], numbers[second])
    ranges = {}
    for key in np.unique(low * 1000 + high):
        chosen = distances[(low * 1000 + high) == key]
        name = "-".join(sorted((chemical_symbols[key // 1000], chemical_symbols[key % 1000])))
        ranges[name] = (float(chosen.min()), float(chosen.max()))
    return ranges


def superposition_angle(reference: NDArray[np.float64], positions: NDArray[np.float64]) -> float:
    """Angle of the proper rotation that best superposes `reference` on `positions`, degrees; both [N, 3]."""
    return float(angle_swept(positions[None], reference=reference)[0])


def require_known_composition(coverage: Coverage, numbers: NDArray[np.int64], *, species: tuple[int, ...]) -> None:
    """Refuse a composition that was never trained on.

    Raises:
        InputError: an element or a composition is new, or there are no atoms.
    """
    if len(numbers) == 0:
        raise InputError("the structure has no atoms; give at least one")
    unknown = sorted({int(number) for number in numbers} - set(species))
    if unknown:
        names = ", ".join(chemical_symbols[number] for number in unknown)
        known = ", ".join(chemical_symbols[number] for number in species)
        raise InputError(f"element {names} was never trained on; this potential knows {known}")
    own = formula(numbers)
    if own not in coverage.compositions:
        trained = ", ".join("".join(f"{s}{n}" for s, n in entry.items()) for entry in coverage.compositions[:5])
        raise InputError(
            f"composition {''.join(f'{s}{n}' for s, n in own.items())} was never trained on; this potential knows "
            f"{trained}; train on it (RemulCalculator takes it all the same with allow_unseen=True, `remul-md md` with "
            "--allow-unseen)"
        )


def coverage_warnings(coverage: Coverage, numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> list[str]:
    """Why a structure looks unlike the training data: another bond graph, distances far out of range; often empty."""
    warnings = []
    own = [[int(a), int(b)] for a, b in bond_pairs(numbers, positions)]
    if list(numbers) == coverage.reference_numbers and own != coverage.bonds:
        broken = [bond for bond in coverage.bonds if bond not in own]
        formed = [bond for bond in own if bond not in coverage.bonds]
        warnings.append(f"the bond graph is not the trained one: missing {broken}, new {formed} (atom indices)")
    for pair, (low, high) in element_distance_ranges(numbers, positions).items():
        if pair not in coverage.distance_ranges:
            continue
        seen_low, seen_high = coverage.distance_ranges[pair]
        if low < seen_low - DISTANCE_MARGIN or high > seen_high + DISTANCE_MARGIN:
            warnings.append(
                f"{pair} distances {low:.2f} to {high:.2f} Angstrom leave the trained {seen_low:.2f} to {seen_high:.2f}"
            )
    return warnings
