"""What the tables of all studies say of several seeds: means, scatter, and when the symmetry was good enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

SMALL_PERCENT = 2.0  # the share of the loss that is called small by Shen et al. (2025), arXiv:2512.02303
History = Sequence[Mapping[str, float]]


def step_of_percent(history: History, *, key: str, percent: float = SMALL_PERCENT) -> int | None:
    """The first measured step from which `key` stays at or below `percent`; None if it never does."""
    above = [row["step"] for row in history if row[key] > percent]
    later = [row["step"] for row in history if not above or row["step"] > max(above)]
    return int(min(later)) if later else None


def lowest(history: History, *, key: str) -> tuple[float, int]:
    """The lowest value of `key` during training, and its step: it can rise again while the error falls."""
    return min((row[key], int(row["step"])) for row in history)


def mean_and_scatter(values: Sequence[float] | NDArray[np.float64]) -> str:
    """Mean ± standard deviation over seeds; a single value stands alone."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) == 1:
        return f"{array[0]:.3g}"
    return f"{array.mean():.3g} ± {array.std(ddof=1):.2g}"
