"""How the loss of networks falls with their size and with the data: nominal operations, a law, and its intervals.

L(N, D) = L_inf + A N^-a + B D^-b, for N weights and D tokens seen in training. Fitted to the logarithm of the loss with
Huber's function, so that one run that went wrong weighs as its size, not as its square.

Source: the form and the way of fitting of Hoffmann et al. (2022), arXiv:2203.15556, appendix D.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp
from torch import nn

from remul_md.errors import InputError
from remul_md.studies.models.gatr import N_COMPONENTS, N_MAPS, EquivariantLinear

A_STEP = 6  # operations a weight and token: a multiplication and an addition, forward and twice backward
HUBER = 0.02  # of the logarithm: errors below 2 % count as their squares
MAX_EXPONENT = 3.0
N_PARAMETERS = 5
# Where a fit begins: floors as shares of the lowest loss, and the two exponents.
STARTS = ((0.05, 0.7), (0.2, 0.7), (0.2, 0.7))
Array = NDArray[np.float64]


def nominal_flops(model: nn.Module, *, of_weights: bool = False) -> int:
    """Operations of a training step for one token, counted as is usual: 6 for each weight of a dense layer.

    Attention, products of multivectors, norms and biases are left out. An equivariant map of multivectors counts as the
    dense matrix of 16 x 16 that it is applied as, 256 for each pair of channels, as GATr's authors count it.

    Args:
        model: tokens go through each of its dense layers once.
        of_weights: count the nine weights of such a pair instead.
    """
    a_pair = N_MAPS if of_weights else N_COMPONENTS**2
    dense = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear))
    maps = [layer.weight for layer in model.modules() if isinstance(layer, EquivariantLinear)]
    return A_STEP * (dense + sum(a_pair * weight.shape[0] * weight.shape[1] for weight in maps))


@dataclass(frozen=True, kw_only=True)
class Law:
    """L(N, D) = floor + a N^-alpha + b D^-beta.

    Args:
        floor: the loss that no size and no data take away.
        a, alpha: of the size.
        b, beta: of the data.
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float

    def __call__(self, n_weights: ArrayLike, n_tokens: ArrayLike) -> Array:
        """Losses at sizes and tokens."""
        n, d = np.asarray(n_weights, dtype=np.float64), np.asarray(n_tokens, dtype=np.float64)
        losses: Array = self.floor + self.a * n**-self.alpha + self.b * d**-self.beta
        return losses


@dataclass(frozen=True, kw_only=True, eq=False)
class Runs:
    """Finished runs: weights, tokens seen, and the loss on held-out data, [R] each.

    Raises:
        InputError: numbers that have no logarithm.
    """

    n_weights: Array
    n_tokens: Array
    losses: Array

    def __post_init__(self) -> None:
        if not all(np.isfinite(each).all() and (each > 0).all() for each in vars(self).values()):
            raise InputError("sizes, tokens and losses must be finite and > 0: leave out runs that diverged")

    def select(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Runs:
        """These runs."""
        return Runs(n_weights=self.n_weights[rows], n_tokens=self.n_tokens[rows], losses=self.losses[rows])


def fit_law(runs: Runs) -> Law:
    """The law that is nearest to the runs, the best of what the `STARTS` lead to.

    Args:
        runs: of several sizes and numbers of tokens.
    Raises:
        InputError: no more runs than the law has parameters.
    """
    _check_number(runs)
    middle = np.array([np.log(runs.n_weights).mean(), np.log(runs.n_tokens).mean()])
    x, y = np.log(runs.n_weights) - middle[0], np.log(runs.n_tokens) - middle[1]
    told = np.log(runs.losses)

    def off(parameters: Array) -> tuple[float, Array]:
        floor, a, alpha, b, beta = parameters
        terms = np.stack([np.full_like(x, floor), a - alpha * x, b - beta * y])
        total = logsumexp(terms, axis=0)
        shares, gap = np.exp(terms - total), total - told
        far = np.abs(gap) > HUBER
        value = np.where(far, HUBER * (np.abs(gap) - 0.5 * HUBER), 0.5 * gap**2).sum()
        slope = np.clip(gap, -HUBER, HUBER)
        of = [shares[0], shares[1], -shares[1] * x, shares[2], -shares[2] * y]
        return value / HUBER, np.array([(slope * each).sum() for each in of]) / HUBER

    third = told.mean() - np.log(3.0)
    begins = [
        np.array([told.min() + np.log(floor), third, alpha, third, beta]) for floor, alpha, beta in product(*STARTS)
    ]
    free = (told.min() - 30.0, told.max() + 30.0)
    bounds = [(free[0], told.min()), free, (0.0, MAX_EXPONENT), free, (0.0, MAX_EXPONENT)]
    found = [minimize(off, begin, jac=True, bounds=bounds, method="L-BFGS-B") for begin in begins]
    floor, a, alpha, b, beta = min(found, key=lambda each: float(each.fun)).x
    return Law(
        floor=float(np.exp(floor)),
        a=float(np.exp(a + alpha * middle[0])),
        alpha=float(alpha),
        b=float(np.exp(b + beta * middle[1])),
        beta=float(beta),
    )


def _check_number(runs: Runs) -> None:
    if len(runs.losses) <= N_PARAMETERS:
        raise InputError(f"a law of {N_PARAMETERS} parameters needs more runs than that, got {len(runs.losses)}")


def bootstrap(runs: Runs, *, n_draws: int, seed: int) -> list[Law]:
    """Laws fitted to runs drawn with replacement; a draw of too few distinct runs is drawn again.

    Args:
        runs: as `fit_law`.
        n_draws: >= 1.
        seed: of the draws.
    Raises:
        InputError: as `fit_law`.
    """
    rng, n = np.random.default_rng(seed), len(runs.losses)
    laws: list[Law] = []
    _check_number(runs)
    while len(laws) < n_draws:
        rows = rng.integers(n, size=n)
        if len(np.unique(rows)) > N_PARAMETERS:
            laws.append(fit_law(runs.select(rows)))
    return laws


def intervals(laws: Sequence[Law], *, level: float = 0.9) -> dict[str, tuple[float, float]]:
    """The middle share of each parameter of laws: (low, high) by name."""
    ends = [50.0 * (1.0 - level), 50.0 * (1.0 + level)]
    values = {name: [asdict(law)[name] for law in laws] for name in asdict(laws[0])}
    return {
        name: (float(low), float(high)) for name, each in values.items() for low, high in [np.percentile(each, ends)]
    }


def best_size(sizes: ArrayLike, losses: ArrayLike) -> float | None:
    """The size of the lowest loss at one budget: the lowest point of a parabola in log size through three runs.

    They are the run of the lowest loss and its neighbours. None where the lowest is at an end, so that the best size is
    not between the sizes that were run.

    Args:
        sizes: weights, rising.
        losses: of the runs of one budget.
    """
    x, y = np.log(np.asarray(sizes, dtype=np.float64)), np.log(np.asarray(losses, dtype=np.float64))
    lowest = int(y.argmin())
    if lowest in (0, len(y) - 1):
        return None
    near = slice(lowest - 1, lowest + 2)
    curve = np.polynomial.Polynomial.fit(x[near], y[near], 2)
    return float(np.exp(curve.deriv().roots()[0].real))


def exponent(x: ArrayLike, y: ArrayLike) -> float | None:
    """Slope of log y with log x; None of fewer than two points."""
    across, up = np.log(np.asarray(x, dtype=np.float64)), np.log(np.asarray(y, dtype=np.float64))
    return None if len(across) < 2 else float(np.polyfit(across, up, 1)[0])
