"""What is known of the geometries that a potential was trained on, as far as a run is held against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.structure import BondRanges
from remul_md.errors import InputError
from remul_md.potentials.domain import trained_bond_ranges
from remul_md.potentials.structure_check import StructureCheck
from remul_md.structures.alignment import centred, superposition_rotations
from remul_md.structures.topology import bond_kinds, matching_orders

if TYPE_CHECKING:
    from remul_md.potentials.domain import Domain


MAX_ORDERS = 1000  # exchanges of equal atoms that are tried; 12 of ethanol


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingStatistics:
    """Ranges of the training data, in the order of a run's atoms; None for what is not known.

    Args:
        bonds: ranges of the bond lengths.
        distance_ranges: shortest and longest distance of each pair of elements, such as {"C-H": [1.0, 4.1]}, Angstrom.
        reference_positions: a training frame that orientations are measured from, [N, 3], Angstrom.
        rotation_angle_median: median angle of the training frames from it, degrees.
        unlike: in which way the run has other bonds than the trained molecule, or "".
    Raises:
        InputError: reference positions without the median angle, or the other way round.
    """

    bonds: BondRanges | None
    distance_ranges: Mapping[str, Sequence[float]] | None = None
    reference_positions: NDArray[np.float64] | None = None
    rotation_angle_median: float | None = None
    unlike: str = ""

    def __post_init__(self) -> None:
        if (self.reference_positions is None) != (self.rotation_angle_median is None):
            missing = "reference_positions" if self.reference_positions is None else "rotation_angle_median"
            raise InputError(f"training statistics lack {missing}: give reference_positions and rotation_angle_median")

    @classmethod
    def of(cls, domain: Domain, *, numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> TrainingStatistics:
        """Those that a potential carries, for a molecule whose atoms may be numbered in any order.

        Args:
            domain: of the potential.
            numbers: atomic numbers of the run, [N].
            positions: its first frame, [N, 3], Angstrom: its bonds say which atom is which.
        """
        bonds, unlike = StructureCheck(domain).known_bonds(numbers, positions)
        if bonds is None:
            return cls(bonds=None, distance_ranges=domain.distance_ranges, unlike=unlike)
        ranges = trained_bond_ranges(domain)
        limits = np.array([ranges[kind] for kind in bond_kinds(numbers, bonds)]).reshape(-1, 2)
        return cls(
            bonds=BondRanges(pairs=bonds, min_A=limits[:, 0], max_A=limits[:, 1]),
            distance_ranges=domain.distance_ranges,
            reference_positions=_reference_in_order(domain, numbers, bonds, positions),
            rotation_angle_median=domain.rotation_angle_median,
        )


def trained_bonds(domain: Domain) -> BondRanges:
    """Ranges of the bond lengths that a potential has seen, in the order of its reference frame."""
    return BondRanges(
        pairs=np.array(domain.bonds, dtype=np.int64).reshape(-1, 2),
        min_A=np.array(domain.bond_min, dtype=np.float64),
        max_A=np.array(domain.bond_max, dtype=np.float64),
    )


def _reference_in_order(
    domain: Domain, numbers: NDArray[np.int64], bonds: NDArray[np.int64], positions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The reference frame in the order of the run's atoms, [N, 3], Angstrom.

    Equal atoms may be exchanged; of the orders that keep the bonds, the one in which both frames are closest, so that
    an exchange of hydrogens does not count as a turn. Atoms numbered as in training are left so.
    """
    reference = np.array(domain.reference_positions, dtype=np.float64)
    known = np.array(domain.reference_numbers, dtype=np.int64)
    reference_bonds = np.array(domain.bonds, dtype=np.int64).reshape(-1, 2)
    orders = matching_orders(numbers, bonds, reference_numbers=known, reference_pairs=reference_bonds)
    best, smallest = np.arange(len(numbers)), np.inf
    for order in islice(orders, MAX_ORDERS):
        if np.array_equal(order, np.arange(len(order))):
            return reference
        own, other = centred(positions[order], None), centred(reference, None)
        rotated = other @ superposition_rotations(own[None], other)[0].T
        distance = float(((own - rotated) ** 2).sum())
        if distance < smallest:
            best, smallest = order, distance
    placed = np.empty_like(reference)
    placed[best] = reference
    return placed
