"""What imperfect symmetry costs: one name, one formula.

With K independent Haar draws f_k = g_k^-1 f(g_k x) and their mean m, for each frame

    s2 = sum |f_k - m|^2 / (K - 1)        the loss due to broken symmetry
    T  = |m - y|^2 - s2 / K               the loss of the orientation-averaged ("twirled") model

and T + s2 is exactly the mean squared loss over the draws. Single frames may have T < 0: sum, never clip.
Source: Shen et al. (2025), arXiv:2512.02303 (the decomposition); the estimators are unbiased for every K >= 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from remul_md.errors import InputError


def twirl_statistics(turned_back: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """T and s2 of each sample from K predictions that were turned back.

    Args:
        turned_back: f_k, [K, n, ...]; for an invariant output f_k = f(g_k x).
        target: labels y, [n, ...].
    Returns:
        T [n] and s2 [n], in the squared unit of the output, summed over the output's components.
    Raises:
        InputError: K < 2.
    """
    n_draws = turned_back.shape[0]
    if n_draws < 2:
        raise InputError(f"the twirl statistics need at least 2 rotations, got {n_draws}")
    mean = turned_back.mean(0)
    spread = (
        (turned_back - mean).square().sum(0).flatten(1).sum(1)
        if turned_back.ndim > 2
        else ((turned_back - mean).square().sum(0))
    )
    spread = spread / (n_draws - 1)
    error = (mean - target).square()
    error = error.flatten(1).sum(1) if error.ndim > 1 else error
    return error - spread / n_draws, spread


@dataclass(frozen=True)
class Percent:
    """Share of the squared loss due to broken symmetry, percent, with a 95 % interval over frames."""

    value: float
    low: float
    high: float


def equivariance_percent(
    twirled: NDArray[np.float64], spread: NDArray[np.float64], *, n_bootstrap: int = 1000, seed: int = 0
) -> Percent:
    """100 sum(s2) / sum(T + s2) over the frames, with a bootstrap interval over frames (percentiles 2.5 and 97.5).

    Args:
        twirled: T of each frame, [n].
        spread: s2 of each frame, [n].
        n_bootstrap: resamples of the frames.
        seed: seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    total = twirled + spread
    rows = rng.integers(0, len(total), size=(n_bootstrap, len(total)))
    shares = 100.0 * spread[rows].sum(1) / total[rows].sum(1)
    low, high = np.percentile(shares, [2.5, 97.5])
    return Percent(value=float(100.0 * spread.sum() / total.sum()), low=float(low), high=float(high))


def bootstrap_interval(values: NDArray[np.float64], *, n_bootstrap: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of [n] values, by resampling them (percentiles 2.5 and 97.5)."""
    rows = np.random.default_rng(seed).integers(0, len(values), size=(n_bootstrap, len(values)))
    low, high = np.percentile(values[rows].mean(1), [2.5, 97.5])
    return float(low), float(high)


def rotational_error(turned: Tensor, reference: Tensor) -> Tensor:
    """Mean absolute component of f(g x) - g f(x), in the unit of f; both [..., 3]."""
    return (turned - reference).abs().mean()


def equivariance_norm(turned: Tensor, reference: Tensor) -> Tensor:
    """E' of the REMUL paper: mean over samples and draws of the 2-norm over all 3N components of a frame.

    Args:
        turned: f(g x), [K, n, N, 3].
        reference: g f(x), the same shape.
    Source: Elhag et al. (2024), arXiv:2410.17878, eq. (9).
    """
    return (turned - reference).flatten(2).norm(dim=2).mean()
