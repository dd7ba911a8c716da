"""N-body as a task: the losses of the methods, and the symmetry figures on models whose asymmetry is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from remul_md.studies.nbody.generator import Bodies, rotate_bodies, simulate_bodies
from remul_md.studies.nbody.methods import nbody_config
from remul_md.studies.nbody.models import BodyTransformer, BodyTransformerConfig, Egnn, EgnnConfig
from remul_md.studies.nbody.task import SYMMETRY_FIGURES, NBodyObjective, mean_squared_error, symmetry_figures
from remul_md.symmetry.rotations import random_rotations


class Constant(nn.Module):
    """Ignores its input: one direction for all, nothing turns."""

    def forward(self, bodies: Bodies) -> Tensor:
        return torch.tensor([0.1, -0.2, 0.3]).expand(bodies.displacements.shape)


@pytest.fixture(scope="module")
def bodies() -> Bodies:
    return simulate_bodies(230, seed=11)


@pytest.fixture(scope="module")
def transformer() -> BodyTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BodyTransformer(BodyTransformerConfig(width=16, n_layers=2, n_heads=4))


def test_an_equivariant_model_pays_nothing_for_symmetry(bodies: Bodies) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        figures = symmetry_figures(Egnn(EgnnConfig(width=8, n_layers=2)), bodies, n_draws=5)
    assert figures["percent"] < 1e-6
    assert 0 < figures["equivariance_norm"] < 1e-5
    assert figures["twirled_mse"] > 1e-3


@pytest.mark.parametrize("n_draws", [2, 9])
def test_a_model_that_ignores_its_input_gives_the_closed_form(bodies: Bodies, n_draws: int) -> None:
    """Averaged over all turns a constant is 0: T = |y|^2 and s2 = |c|^2, here per coordinate."""
    figures = symmetry_figures(Constant(), bodies, n_draws=n_draws)
    constant, label = 0.14 / 3, bodies.displacements.square().mean().item()
    # relative standard errors of 230 systems: s2 varies by (2 / 3 / (K - 1))^0.5 |c|^2 a system
    assert figures["spread_mse"] == pytest.approx(constant, rel=4 * (0.67 / (n_draws - 1) / 230) ** 0.5)
    assert figures["twirled_mse"] == pytest.approx(label, abs=4 * constant * (1 / n_draws / 230) ** 0.5)
    assert figures["percent"] == pytest.approx(100 * constant / (constant + label), rel=0.1)
    # the end of g c is uniform on the sphere, so |c - g c| is 4/3 |c| on average; four bodies make it twice as long
    assert figures["equivariance_norm"] == pytest.approx(2 * 4 / 3 * 0.14**0.5, rel=0.07)


def test_the_parts_sum_to_the_error_over_orientations(bodies: Bodies, transformer: BodyTransformer) -> None:
    figures = symmetry_figures(transformer, bodies, n_draws=3, seed=4)
    drawn = random_rotations(3 * len(bodies), generator=torch.Generator().manual_seed(4)).view(3, len(bodies), 3, 3)
    error = mean_squared_error(transformer, rotate_bodies(bodies, drawn))
    assert figures["twirled_mse"] + figures["spread_mse"] == pytest.approx(error, rel=1e-5)


def test_errors_do_not_depend_on_the_size_of_a_pass(
    bodies: Bodies, transformer: BodyTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = mean_squared_error(transformer, bodies)
    monkeypatch.setattr("remul_md.studies.nbody.task.MAX_SYSTEMS", 70)  # the last pass is shorter
    assert mean_squared_error(transformer, bodies) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("method", ["plain", "augmentation", "augmentation-2", "remul-10"])
def test_the_losses_of_the_methods(method: str, bodies: Bodies, transformer: BodyTransformer) -> None:
    """Each loss against a loop over the same draws."""
    batch, options = bodies.select(slice(7)), nbody_config().train_config(method, seed=0)
    n_rotated = options.n_rotated if options.beta > 0 else 0
    losses = NBodyObjective.from_config(options)(transformer, batch, torch.Generator().manual_seed(3))
    assert set(losses) == ({"task"} if options.alpha else set()) | ({"equivariance"} if options.beta else set())
    if "task" in losses:
        assert losses["task"].item() == pytest.approx(mean_squared_error(transformer, batch), rel=1e-5)
    if "equivariance" in losses:
        drawn = random_rotations(7 * n_rotated, generator=torch.Generator().manual_seed(3)).view(n_rotated, 7, 3, 3)
        assert (drawn.diagonal(dim1=2, dim2=3).sum(-1) - 3).abs().min() > 1e-3
        loop = [mean_squared_error(transformer, rotate_bodies(batch, g[None])) for g in drawn]
        assert losses["equivariance"].item() == pytest.approx(sum(loop) / n_rotated, rel=1e-5)
        assert losses["equivariance"].requires_grad


def test_the_one_forward_method_estimates_the_losses_of_remul(bodies: Bodies, transformer: BodyTransformer) -> None:
    """Over many draws, both losses are those of the paired method; each call sees as many systems as plain training."""
    batch = bodies.select(slice(40))
    config = nbody_config()
    generator = torch.Generator().manual_seed(0)
    found, seen = {}, []
    counting = transformer.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    for method in ("remul-1", "remul-one-forward"):
        objective = NBodyObjective.from_config(config.train_config(method, seed=0))
        with torch.no_grad():
            draws = [objective(transformer, batch, generator) for _ in range(250)]
        found[method] = {name: torch.stack([draw[name] for draw in draws]).mean().item() for name in draws[0]}
    counting.remove()
    assert set(seen[:250]) == {80}
    assert set(seen[250:]) == {40}
    # the standard error of the mean over 250 draws is below 2 % for either
    assert found["remul-one-forward"]["task"] == pytest.approx(found["remul-1"]["task"], rel=0.06)
    assert found["remul-one-forward"]["equivariance"] == pytest.approx(found["remul-1"]["equivariance"], rel=0.06)


def test_the_figures_are_those_the_log_expects(bodies: Bodies, transformer: BodyTransformer) -> None:
    assert set(symmetry_figures(transformer, bodies.select(slice(20)), n_draws=3)) == set(SYMMETRY_FIGURES)
