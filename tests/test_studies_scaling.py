"""Scaling laws that are known come back, with intervals that hold them; operations are those of the layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from remul_md.errors import InputError
from remul_md.studies.models.faces import FaceGatr, FaceTransformer
from remul_md.studies.models.gatr import EquivariantLinear
from remul_md.studies.scaling import Law, Runs, best_size, bootstrap, exponent, fit_law, intervals, nominal_flops

TRUE = Law(floor=0.02, a=6.0, alpha=0.45, b=40.0, beta=0.35)
SIZES = np.geomspace(3e3, 1e5, 5)
BUDGETS = (1e10, 1e11, 1e12, 1e13)


def some_runs(*, noise: float = 0.0, budgets: tuple[float, ...] = BUDGETS, law: Law = TRUE, seed: int = 0) -> Runs:
    n = np.tile(SIZES, len(budgets))
    d = np.repeat(budgets, len(SIZES)) / (6.0 * n)
    spread = np.exp(noise * np.random.default_rng(seed).normal(size=len(n)))
    return Runs(n_weights=n, n_tokens=d, losses=law(n, d) * spread)


@pytest.mark.parametrize("law", [TRUE, Law(floor=1e-3, a=0.5, alpha=0.2, b=1e3, beta=0.7)])
def test_a_law_without_noise_comes_back(law: Law) -> None:
    found = fit_law(some_runs(law=law))
    assert [found.alpha, found.beta, found.floor] == pytest.approx([law.alpha, law.beta, law.floor], rel=0.02)
    assert [found.a, found.b] == pytest.approx([law.a, law.b], rel=0.1)


def test_intervals_hold_the_exponents_and_a_held_out_budget_is_predicted() -> None:
    runs = some_runs(noise=0.01)
    laws = bootstrap(runs, n_draws=20, seed=1)
    found = intervals(laws)
    for name in ("alpha", "beta", "floor"):
        low, high = found[name]
        assert low < getattr(TRUE, name) < high, name
        assert high - low < 4 * getattr(TRUE, name)
    fewer = fit_law(some_runs(noise=0.01, budgets=BUDGETS[:3]))
    unseen = some_runs(budgets=BUDGETS[3:])
    assert fewer(unseen.n_weights, unseen.n_tokens) == pytest.approx(unseen.losses, rel=0.1)


def test_one_run_that_went_wrong_changes_little() -> None:
    runs = some_runs()
    runs.losses[7] *= 3.0
    found = fit_law(runs)
    assert [found.alpha, found.beta] == pytest.approx([TRUE.alpha, TRUE.beta], rel=0.05)


def test_too_few_runs_and_losses_without_a_logarithm_are_refused() -> None:
    for call in (fit_law, lambda runs: bootstrap(runs, n_draws=1, seed=0)):
        with pytest.raises(InputError, match="more runs than that, got 5"):
            call(some_runs(budgets=BUDGETS[:1]))
    runs = some_runs()
    with pytest.raises(InputError, match="finite and > 0"):
        Runs(n_weights=runs.n_weights, n_tokens=runs.n_tokens, losses=np.where(runs.losses > 0.1, np.nan, runs.losses))


def test_the_best_size_of_a_budget_grows_as_the_law_says() -> None:
    """N ~ C^(beta / (alpha + beta)) at the minimum of L(N, C / 6 N)."""
    sizes, found, budgets = np.geomspace(1e2, 1e7, 101), [], (1e10, 1e11, 1e12)
    for budget in budgets:
        size = best_size(sizes, TRUE(sizes, budget / (6.0 * sizes)))
        assert size is not None
        found.append(size)
    assert exponent(budgets, found) == pytest.approx(TRUE.beta / (TRUE.alpha + TRUE.beta), rel=0.01)
    assert best_size(SIZES, 1.0 / SIZES) is None
    assert best_size([1.0, 10.0, 100.0], [2.0, 1.0, 2.0]) == pytest.approx(10.0)
    assert exponent([1.0], [2.0]) is None


def test_operations_are_six_for_each_weight_and_token() -> None:
    width, depth, n_scalars = 24, 3, 5
    model = FaceTransformer(n_scalars=n_scalars, width=width, n_layers=depth, n_heads=4)
    weights = (n_scalars + 18) * width + depth * (3 + 1 + 2 + 2) * width**2 + 9 * width
    assert nominal_flops(model) == nominal_flops(model, of_weights=True) == 6 * weights
    layer = EquivariantLinear(n_in=3, n_out=5, scalars_in=7, scalars_out=11)
    n_tokens, making = 13, 2 * 5 * 3 * 9 * 256  # the matrix is made once for all tokens
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(torch.randn(n_tokens, 3, 16), torch.randn(n_tokens, 7))
    assert 3 * (counter.get_total_flops() - making) == n_tokens * nominal_flops(layer)
    gatr = FaceGatr(n_scalars=n_scalars, n_channels=4, n_scalar_channels=8, n_layers=1, n_heads=4)
    pairs = sum(x.weight.shape[0] * x.weight.shape[1] for x in gatr.modules() if isinstance(x, EquivariantLinear))
    assert nominal_flops(gatr) - nominal_flops(gatr, of_weights=True) == 6 * (256 - 9) * pairs
