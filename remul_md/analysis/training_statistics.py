"""What is known of the geometries that a potential was trained on, as far as a run is held against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.structure import BondRanges
from remul_md.errors import InputError

if TYPE_CHECKING:
    from remul_md.potentials.domain import Coverage


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingStatistics:
    """Ranges of the training data; None for what is not known.

    Args:
        bonds: ranges of the bond lengths.
        distance_ranges: shortest and longest distance of each pair of elements, such as {"C-H": [1.0, 4.1]}, Angstrom.
        reference_positions: a training frame that orientations are measured from, [N, 3], Angstrom.
        rotation_angle_median: median angle of the training frames from it, degrees.
    Raises:
        InputError: one of the last two without the other.
    """

    bonds: BondRanges
    distance_ranges: Mapping[str, Sequence[float]] | None = None
    reference_positions: NDArray[np.float64] | None = None
    rotation_angle_median: float | None = None

    def __post_init__(self) -> None:
        if (self.reference_positions is None) != (self.rotation_angle_median is None):
            missing = "reference_positions" if self.reference_positions is None else "rotation_angle_median"
            raise InputError(f"training statistics lack {missing}: give reference_positions and rotation_angle_median")

    @classmethod
    def of(cls, coverage: Coverage) -> TrainingStatistics:
        """Those that a potential carries."""
        return cls(
            bonds=trained_bonds(coverage),
            distance_ranges=coverage.distance_ranges,
            reference_positions=np.array(coverage.reference_positions, dtype=np.float64),
            rotation_angle_median=coverage.rotation_angle_median,
        )


def trained_bonds(coverage: Coverage) -> BondRanges:
    """Ranges of the bond lengths that a potential has seen."""
    return BondRanges(
        pairs=np.array(coverage.bonds, dtype=np.int64).reshape(-1, 2),
        min_A=np.array(coverage.bond_min, dtype=np.float64),
        max_A=np.array(coverage.bond_max, dtype=np.float64),
    )
