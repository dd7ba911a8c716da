"""The mean of few independent runs, with an interval that holds for few."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from remul_md.errors import InputError


def mean_and_half_width(values: Sequence[float]) -> tuple[float, float]:
    """Mean of independent values and the half width of its 95 % interval, by Student's t.

    Two values need 12.7 times their standard error, five 2.8, and only very many the 1.96 of known scatter.

    Args:
        values: one for each run or seed, two at least.
    Raises:
        InputError: fewer, or values that are not finite.
    """
    from scipy.stats import t as student

    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all():
        raise InputError(
            f"the interval of a mean needs two finite values at least, got {list(values)}; run another seed"
        )
    error = float(array.std(ddof=1)) / len(array) ** 0.5
    return float(array.mean()), float(student.ppf(0.975, len(array) - 1)) * error
