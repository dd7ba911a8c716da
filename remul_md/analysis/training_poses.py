"""How a run stands to the poses in which a potential saw the molecule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.superposition import angle_swept

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class PoseAngles:
    """Orientation of some frames relative to the training data.

    Args:
        angle_deg: rotation angle of each frame from the reference frame of the training data, [R], 0 to 180.
        median_of_training_deg: median of the same angle over the training frames as they stand in the data; uniformly
            random poses have 132.
    """

    angle_deg: Array
    median_of_training_deg: float


def pose_angles(
    positions: Array, training_statistics: Mapping[str, Any] | None, *, masses: Array | None = None
) -> PoseAngles | None:
    """Angles from the reference frame of the training data; None where the statistics do not hold one.

    Args:
        positions: frames, [R, N, 3], Angstrom, atoms in the order of the reference frame.
        training_statistics: with `reference_positions` [N, 3], Angstrom, and `rotation_angle_median`, degrees, as in
            `remul_md.coverage.Coverage`.
        masses: weights of the superposition, [N], amu.
    Raises:
        InputError: one of the two without the other, or a reference frame of another shape.
    """
    known = training_statistics or {}
    reference, median = known.get("reference_positions"), known.get("rotation_angle_median")
    if reference is None and median is None:
        return None
    if reference is None or median is None:
        missing = "reference_positions" if reference is None else "rotation_angle_median"
        raise InputError(f"training statistics lack {missing}: give reference_positions and rotation_angle_median")
    angle = angle_swept(positions, reference=np.asarray(reference, dtype=np.float64), masses=masses)
    return PoseAngles(angle_deg=angle, median_of_training_deg=float(median))
