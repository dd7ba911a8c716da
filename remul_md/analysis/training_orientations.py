"""How a run stands to the orientations in which a potential saw the molecule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.training_statistics import TrainingStatistics
from remul_md.structures.alignment import angle_swept

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class OrientationAngles:
    """Orientation of some frames relative to the training data.

    Args:
        angle_deg: rotation angle of each frame from the reference frame of the training data, [R], 0 to 180.
        median_of_training_deg: median of the same angle over the training frames as they stand in the data; uniformly
            random orientations have 132.
    """

    angle_deg: Array
    median_of_training_deg: float


def orientation_angles(
    positions: Array, trained: TrainingStatistics | None, *, masses: Array | None = None
) -> OrientationAngles | None:
    """Angles from the reference frame of the training data; None where the statistics do not hold one.

    Args:
        positions: frames, [R, N, 3], Angstrom, atoms in the order of the reference frame.
        trained: what is known of the training data.
        masses: weights of the superposition, [N], amu.
    Raises:
        InputError: a reference frame of another shape.
    """
    if trained is None or trained.reference_positions is None or trained.rotation_angle_median is None:
        return None
    angle = angle_swept(positions, reference=trained.reference_positions, masses=masses)
    return OrientationAngles(angle_deg=angle, median_of_training_deg=float(trained.rotation_angle_median))
