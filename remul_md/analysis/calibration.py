"""Is an error bar right? Predicted standard deviations against the errors that were really made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Figures of `calibration`.

    Args:
        n_values: pairs of an error and a standard deviation.
        spearman: rank correlation of |error| with the standard deviation: does it know where the errors are large?
            For normal errors of exactly that standard deviation it stays below 1, and is 0 if all are alike.
        rms_error: root mean square error, in the unit of the errors.
        rms_std: root mean square of the standard deviations, likewise.
        error_over_std: rms_error / rms_std; 1 if the size is right, above 1 where the error bar promises too much.
        within_1_std: share of the errors within one standard deviation, percent; 68.3 for normal errors.
        within_2_std: within two; 95.4.
    """

    n_values: int
    spearman: float
    rms_error: float
    rms_std: float
    error_over_std: float
    within_1_std: float
    within_2_std: float


def calibration(errors: NDArray[np.float64], stds: NDArray[np.float64]) -> Calibration:
    """How well standard deviations describe errors; arrays of one shape and unit, every entry counts alike.

    The scatter of M members is that of one member, while the error is that of their mean plus what all of them share:
    so a ratio of 1 is nothing that an ensemble gives by itself, and is worth being measured.

    Raises:
        InputError: shapes that differ, fewer than 2 values, a negative standard deviation, or none above 0.
    """
    from scipy.stats import spearmanr

    if errors.shape != stds.shape:
        raise InputError(f"errors have shape {errors.shape}, standard deviations {stds.shape}; they must be one")
    if errors.size < 2:
        raise InputError(f"calibration needs at least 2 errors, got {errors.size}")
    if (stds < 0).any() or not (stds > 0).any():
        raise InputError(f"standard deviations must be >= 0 and not all 0, got {stds.min()} to {stds.max()}")
    size, std = np.abs(errors).ravel(), stds.ravel()
    rms_error, rms_std = float(np.sqrt(np.mean(size**2))), float(np.sqrt(np.mean(std**2)))
    alike = size.min() == size.max() or std.min() == std.max()
    return Calibration(
        n_values=size.size,
        spearman=0.0 if alike else float(spearmanr(size, std).statistic),
        rms_error=rms_error,
        rms_std=rms_std,
        error_over_std=rms_error / rms_std,
        within_1_std=100.0 * float(np.mean(size <= std)),
        within_2_std=100.0 * float(np.mean(size <= 2.0 * std)),
    )
