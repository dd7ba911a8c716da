"""T, s2, equivariance percent and E': exact identities, and models whose values are known in closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from remul_md.errors import InputError
from remul_md.symmetry.measures import equivariance_norm, equivariance_percent, rotational_error, twirl_statistics
from remul_md.symmetry.rotations import Group, random_rotations

Model = Callable[[Tensor], Tensor]


def turned_back(model: Model, x: Tensor, *, n_draws: int, seed: int = 0, group: Group = "SO3") -> Tensor:
    """g_k^-1 f(g_k x) for vectors x [n, 3] and independent draws, [K, n, 3]."""
    generator = torch.Generator().manual_seed(seed)
    g = random_rotations(n_draws * len(x), generator=generator, group=group).view(n_draws, len(x), 3, 3)
    turned = torch.einsum("knij,nj->kni", g, x)
    return torch.einsum("knji,knj->kni", g, model(turned.flatten(0, 1)).view_as(turned))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(11,), (11, 3), (11, 7, 3)])
@pytest.mark.parametrize("n_draws", [2, 5])
def test_t_and_s2_add_up_to_the_mean_squared_loss(shape: tuple[int, ...], n_draws: int) -> None:
    draws, target = normal(n_draws, *shape), normal(*shape, seed=1)
    twirled, spread = twirl_statistics(draws, target)
    loss = (draws - target).square().reshape(n_draws, 11, -1).sum(2).mean(0)
    assert twirled.shape == spread.shape == (11,)
    torch.testing.assert_close(twirled + spread, loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(spread, draws.reshape(n_draws, 11, -1).var(0).sum(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_draws", [2, 8, 32])
@pytest.mark.parametrize("group", ["SO3", "O3"])
def test_estimators_are_unbiased_for_a_crooked_matrix(n_draws: int, group: Group) -> None:
    """f(x) = M x: the mean over poses is tr(M)/3 x, the mean of |f|^2 is |x|^2 |M|_F^2 / 3."""
    matrix = torch.tensor([[1.4, 0.3, -0.2], [0.1, 0.7, 0.5], [0.0, -0.6, 1.1]], dtype=torch.float64)
    n = 40_000 // n_draws
    x = torch.tensor([[0.8, -1.1, 0.5]], dtype=torch.float64).expand(n, 3)
    target = 1.3 * x + torch.tensor([0.2, 0.0, -0.3], dtype=torch.float64)
    twirled, spread = twirl_statistics(turned_back(lambda v: v @ matrix.T, x, n_draws=n_draws, group=group), target)
    mean = torch.trace(matrix) / 3
    true_spread = x[0].square().sum() * (matrix.square().sum() / 3 - mean**2)
    true_twirled = (mean * x[0] - target[0]).square().sum()
    for found, true in ((spread, true_spread), (twirled, true_twirled)):
        error = found.std() / n**0.5
        assert abs(found.mean() - true) < 4 * error
        # Sharp enough to see a factor (K - 1)/K in s2, or s2/K left in T.
        assert 5 * error < true_spread / n_draws
    if n_draws == 2:  # single frames may be negative; only sums mean something
        assert twirled.min() < 0 < true_twirled


def test_an_equivariant_model_has_no_spread() -> None:
    x, target = normal(13, 3), normal(13, 3, seed=1)

    def model(v: Tensor) -> Tensor:
        return v * v.norm(dim=1, keepdim=True)

    twirled, spread = twirl_statistics(turned_back(model, x, n_draws=6), target)
    torch.testing.assert_close(twirled, (model(x) - target).square().sum(1), rtol=1e-12, atol=1e-12)
    assert spread.max() < 1e-28
    assert equivariance_percent(twirled.numpy(), spread.numpy()).value < 1e-25


def test_a_constant_vector_is_all_spread() -> None:
    """f = c turns back to g^-1 c, uniform on a sphere: its mean is 0, so E s2 = |c|^2 and E T = |y|^2."""
    c = torch.tensor([0.3, -1.2, 0.4], dtype=torch.float64)
    n = 5_000
    target = torch.tensor([0.5, 0.1, 0.2], dtype=torch.float64).expand(n, 3)
    twirled, spread = twirl_statistics(turned_back(lambda v: c.expand_as(v), normal(n, 3), n_draws=3), target)
    assert spread.mean() == pytest.approx(c.square().sum().item(), abs=4 * float(spread.std()) / n**0.5)
    assert twirled.mean() == pytest.approx(0.3, abs=4 * float(twirled.std()) / n**0.5)
    found = equivariance_percent(twirled.numpy(), spread.numpy())
    assert found.low < 100 * 1.69 / (1.69 + 0.30) < found.high


def test_percent_is_a_ratio_of_sums() -> None:
    twirled, spread = np.array([4.0, -0.5, 1.0, 0.25]), np.array([0.5, 0.75, 0.0, 0.125])
    found = equivariance_percent(twirled, spread, seed=3)
    assert found.value == pytest.approx(100 * 1.375 / 6.125, rel=1e-14)
    assert found.low < found.value < found.high
    assert found == equivariance_percent(twirled, spread, seed=3)
    assert found.low != equivariance_percent(twirled, spread, n_bootstrap=37, seed=4).low


def test_the_interval_covers_the_true_percent() -> None:
    rng = np.random.default_rng(0)
    n_repeats, n_frames, inside, widths = 300, 80, 0, []
    for repeat in range(n_repeats):
        spread, twirled = rng.exponential(0.2, n_frames), rng.exponential(0.6, n_frames) + rng.normal(0, 0.2, n_frames)
        found = equivariance_percent(twirled, spread, n_bootstrap=300, seed=repeat)
        inside += found.low <= 25.0 <= found.high
        widths.append(found.high - found.low)
    assert 0.90 <= inside / n_repeats <= 0.99  # 95 % nominal; three binomial standard errors are 3.8 %
    large = equivariance_percent(np.tile(twirled, 100), np.tile(spread, 100), n_bootstrap=300)
    assert large.high - large.low < 0.15 * np.mean(widths)


def test_rotational_error_and_norm_by_hand() -> None:
    turned, reference = normal(4, 5, 7, 3), normal(4, 5, 7, 3, seed=1)
    gaps = (turned - reference).numpy()
    assert rotational_error(turned, reference).item() == pytest.approx(np.abs(gaps).sum() / (4 * 5 * 7 * 3), rel=1e-12)
    norms = [np.sqrt((gaps[k, b] ** 2).sum()) for k in range(4) for b in range(5)]
    assert equivariance_norm(turned, reference).item() == pytest.approx(np.mean(norms), rel=1e-12)


def test_one_draw_is_refused() -> None:
    with pytest.raises(InputError, match="the twirl statistics need at least 2 rotations, got 1"):
        twirl_statistics(normal(1, 11, 3), normal(11, 3))
