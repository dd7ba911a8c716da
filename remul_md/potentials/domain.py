"""What the training data of a potential covered, and how a new structure compares with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.potentials.torsions import merged_torsions, trained_torsions
from remul_md.structures.alignment import angle_swept
from remul_md.structures.topology import bond_kinds, bond_lengths, bond_pairs, matching_orders

if TYPE_CHECKING:
    from remul_md.structures.frames import Frames

# A pair distance may leave the trained range by this much before a warning: MD at the training temperature does.
DISTANCE_MARGIN = 0.15  # Angstrom


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Statistics of the training frames, JSON-able.

    Args:
        compositions: atoms of each element for every composition seen, such as {"C": 2, "H": 6, "O": 1}.
        reference_numbers: atomic numbers of the training frame of lowest energy, [N].
        reference_positions: its positions, [N, 3], Angstrom.
        bonds: bond graph of that frame, pairs of atom indices, [M, 2].
        bond_min: shortest length of each bond over the frames of that composition, in any order of their atoms, [M],
            Angstrom.
        bond_max: longest, [M], Angstrom.
        distance_ranges: shortest and longest distance of each pair of elements, such as {"C-H": [1.0, 4.1]}, Angstrom.
        rotation_angle_median: median angle by which the frames are rotated against the reference frame, degrees; how
            much of the sphere of orientations the original data show (uniformly random orientations: 132).
        n_frames: training frames.
        periodic: whether any frame had a cell.
        charges: total charges seen, elementary charges; files that name none are of neutral molecules.
        torsions: for each kind of torsion about a bond in no ring, which ranges of 30 degrees were seen, see
            `remul_md.potentials.torsions`; empty where that is not known, as in files of before.
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
    charges: list[int] = field(default_factory=lambda: [0])
    torsions: dict[str, list[int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers; a charge and torsions are named where there are some."""
        values = asdict(self)
        if not self.torsions:
            del values["torsions"]
        if self.charges == [0]:
            del values["charges"]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Domain:
        """The inverse of `to_json`."""
        return cls(**values)


def formula(numbers: NDArray[np.int64]) -> dict[str, int]:
    """Atoms of each element, in the order of the symbols."""
    counts = Counter(chemical_symbols[int(number)] for number in numbers)
    return {symbol: counts[symbol] for symbol in sorted(counts)}


def domain_of(frames: Frames) -> Domain:
    """Statistics of the training frames."""
    compositions: list[dict[str, int]] = []
    ranges: dict[str, list[float]] = {}
    # The frame of lowest energy: the least strained, so its bond graph is the molecule's.
    chosen = 0 if frames.energy is None else int(np.argmin(frames.energy))
    numbers, reference = frames.frame_numbers(chosen), frames.frame_positions(chosen)
    bonds = bond_pairs(numbers, reference)
    lengths, angles, ordered = [], [], []
    for index in range(len(frames)):
        positions, own = frames.frame_positions(index), frames.frame_numbers(index)
        if formula(own) not in compositions:
            compositions.append(formula(own))
        for pair, (low, high) in element_distance_ranges(own, positions).items():
            known = ranges.setdefault(pair, [low, high])
            ranges[pair] = [min(known[0], low), max(known[1], high)]
        if formula(own) == formula(numbers):
            order = _reading_order(own, positions, numbers=numbers, bonds=bonds)
            if order is not None:
                lengths.append(bond_lengths(positions[order], bonds))
                angles.append(superposition_angle(reference, positions[order]))
                ordered.append(positions[order])
    measured = np.array(lengths).reshape(len(lengths), len(bonds))
    return Domain(
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
        charges=[0] if frames.charge is None else np.unique(frames.charge).tolist(),
        torsions={} if frames.pbc.any() else trained_torsions(numbers, bonds, np.array(ordered)),
    )


def _reading_order(
    own: NDArray[np.int64], positions: NDArray[np.float64], *, numbers: NDArray[np.int64], bonds: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """How to read a frame in the order of the reference; None where it has other bonds and another order."""
    pairs = bond_pairs(own, positions)
    order = next(matching_orders(own, pairs, reference_numbers=numbers, reference_pairs=bonds), None)
    # A frame in which a bond is stretched has other bonds by distance, but is the same molecule as it is numbered.
    return np.arange(len(own)) if order is None and np.array_equal(own, numbers) else order


def merged_domain(domains: Mapping[str, Domain]) -> Domain:
    """What the members of an ensemble covered together, by the members' names.

    Ranges of distances and bonds are the widest ones; the reference frame, its bond graph and angle, and the number
    of frames are those of the first member. Bond ranges of members that chose a frame with other bonds do not enter.

    Raises:
        InputError: the members know other compositions or charges, or some know cells and some do not.
    """
    (first_name, first), *others = domains.items()
    bond_min, bond_max = np.array(first.bond_min), np.array(first.bond_max)
    ranges = {pair: list(limits) for pair, limits in first.distance_ranges.items()}
    torsions = merged_torsions([domain.torsions for domain in domains.values()])
    for name, other in others:
        for what in ("compositions", "periodic", "charges"):
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
    return replace(
        first, bond_min=bond_min.tolist(), bond_max=bond_max.tolist(), distance_ranges=ranges, torsions=torsions
    )


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


def shortest_distances(*parts: Frames) -> dict[str, float]:
    """Shortest distance of each pair of elements in any of the frames, Angstrom; keys such as "C-H"."""
    found: dict[str, float] = {}
    for frames in parts:
        for index in range(len(frames)):
            ranges = element_distance_ranges(frames.frame_numbers(index), frames.frame_positions(index))
            for pair, (low, _) in ranges.items():
                found[pair] = min(low, found.get(pair, low))
    return found


def superposition_angle(reference: NDArray[np.float64], positions: NDArray[np.float64]) -> float:
    """Angle of the proper rotation that best superposes `reference` on `positions`, degrees; both [N, 3]."""
    return float(angle_swept(positions[None], reference=reference)[0])


def require_known_composition(domain: Domain, numbers: NDArray[np.int64], *, species: tuple[int, ...]) -> None:
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
    if own not in domain.compositions:
        trained = ", ".join("".join(f"{s}{n}" for s, n in entry.items()) for entry in domain.compositions[:5])
        raise InputError(
            f"composition {''.join(f'{s}{n}' for s, n in own.items())} was never trained on; this potential knows "
            f"{trained}; train on it (RemulCalculator takes it all the same with allow_unseen=True, `remul-md md` with "
            "--allow-unseen)"
        )


def require_known_frames(domain: Domain, frames: Frames, *, species: tuple[int, ...]) -> None:
    """Refuse frames of which one has a composition, a charge or a cell that was never trained on.

    Raises:
        InputError: as `require_known_composition` and `require_known_charge`, or a periodic frame for a potential of
            isolated molecules.
    """
    if frames.pbc.any() and not domain.periodic:
        raise InputError(
            f"{frames.name}: frame {int(np.argmax(frames.pbc.any(axis=1)))} is periodic, but this potential was "
            "trained on isolated molecules; give --ignore-cell (Frames.isolated()) if they are molecules in a box"
        )
    for index in range(len(frames)):
        require_known_composition(domain, frames.frame_numbers(index), species=species)
    for charge in (0,) if frames.charge is None else np.unique(frames.charge):
        require_known_charge(domain, int(charge))


def require_known_charge(domain: Domain, charge: int) -> None:
    """Refuse a total charge that was never trained on: the networks read no charge, so they would ignore it.

    Raises:
        InputError: another charge than those of the training data.
    """
    if charge not in domain.charges:
        known = ", ".join(f"{value:+d}" if value else "0" for value in domain.charges)
        raise InputError(
            f"the structure has the total charge {charge:+d} (atoms.info['charge'] or initial charges), but this "
            f"potential was trained on charge {known} and knows no other; correct the charge, or train on such ions"
        )


def trained_bond_ranges(domain: Domain) -> dict[str, tuple[float, float]]:
    """Shortest and longest length of each kind of bond, Angstrom: bonds that differ only in numbering count as one.

    Kinds are those of `remul_md.structures.topology.bond_kinds`.
    """
    numbers = np.array(domain.reference_numbers, dtype=np.int64)
    kinds = bond_kinds(numbers, np.array(domain.bonds, dtype=np.int64).reshape(-1, 2))
    ranges: dict[str, tuple[float, float]] = {}
    for kind, low, high in zip(kinds, domain.bond_min, domain.bond_max, strict=True):
        known = ranges.get(kind, (low, high))
        ranges[kind] = (min(low, known[0]), max(high, known[1]))
    return ranges
