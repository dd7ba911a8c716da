"""Tokens: how they turn, the losses of the methods, and the symmetry figures on models whose asymmetry is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from remul_md.studies.lab import Job, study_options
from remul_md.studies.models.egnn import Egnn
from remul_md.studies.models.transformer import PlainTransformer
from remul_md.studies.particles import (
    MAX_PAIRS,
    SYMMETRY_FIGURES,
    TOKEN_TURN,
    TokenObjective,
    Tokens,
    mean_squared_error,
    predict,
    rotate_tokens,
    symmetry_figures,
)
from remul_md.studies.tasks.nbody import TASK, simulate_bodies
from remul_md.symmetry.evaluate import rotated_back
from remul_md.symmetry.rotations import random_rotations
from remul_md.training.config import TrainConfig


class Constant(nn.Module):
    """Ignores its input: one direction for all, nothing turns."""

    def forward(self, bodies: Tokens) -> Tensor:
        return torch.tensor([0.1, -0.2, 0.3]).expand(bodies.targets.shape)


def train_config(method: str, *, n_steps: int = 100) -> TrainConfig:
    job = Job(case="limited", model="transformer", method=method, seed=0, budgets=("steps",), n_steps=n_steps)
    return study_options(TASK).train_config(job)


@pytest.fixture(scope="module")
def bodies() -> Tokens:
    return simulate_bodies(230, seed=11)


@pytest.fixture(scope="module")
def transformer() -> PlainTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PlainTransformer(n_scalars=1, width=16, n_layers=2, n_heads=4)


def test_turning_turns_everything_but_scalars_and_pairs() -> None:
    """And is an action of the group: by g2, then by g1, is by g1 g2."""
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randn(5, 4, 3, generator=generator, dtype=torch.float64) for _ in range(3)]
    tokens = Tokens(
        scalars=torch.rand(5, 4, 2, generator=generator),
        pairs=torch.rand(5, 4, 4, 3, generator=generator),
        positions=drawn[0],
        velocities=drawn[1],
        targets=drawn[2],
    )
    g1, g2 = random_rotations(2 * 5, generator=generator).view(2, 1, 5, 3, 3)
    twice, once = (
        TOKEN_TURN.inputs(TOKEN_TURN.inputs(tokens, g2), g1),
        TOKEN_TURN.inputs(tokens, g1 @ g2),
    )
    for name in ("scalars", "pairs", "positions", "velocities", "targets"):
        assert torch.allclose(getattr(twice, name), getattr(once, name), atol=1e-12)
        turns = name not in ("scalars", "pairs")
        assert torch.equal(getattr(once, name), getattr(tokens, name)) is not turns
    assert torch.allclose(
        TOKEN_TURN.outputs(TOKEN_TURN.outputs(drawn[0], g2), g1), TOKEN_TURN.outputs(drawn[0], g1 @ g2), atol=1e-12
    )
    copies = TOKEN_TURN.inputs(tokens, torch.cat([g1, g2]))
    assert torch.allclose(copies.velocities[5 + 3], tokens.velocities[3] @ g2[0, 3].T, atol=1e-12)


def test_an_equivariant_model_pays_nothing_for_symmetry(bodies: Tokens) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        figures = symmetry_figures(Egnn(n_scalars=1, n_pair_features=0, width=8, n_layers=2), bodies, n_draws=5)
    assert figures["percent"] < 1e-6
    assert 0 < figures["equivariance_norm"] < 1e-5
    assert figures["twirled"] > 1e-3


@pytest.mark.parametrize("n_draws", [2, 9])
def test_a_model_that_ignores_its_input_gives_the_closed_form(bodies: Tokens, n_draws: int) -> None:
    """Averaged over all turns a constant is 0: T = |y|^2 and s2 = |c|^2, here per coordinate."""
    figures = symmetry_figures(Constant(), bodies, n_draws=n_draws)
    constant, label = 0.14 / 3, bodies.targets.square().mean().item()
    # relative standard errors of 230 systems: s2 varies by (2 / 3 / (K - 1))^0.5 |c|^2 a system
    assert figures["spread"] == pytest.approx(constant, rel=4 * (0.67 / (n_draws - 1) / 230) ** 0.5)
    assert figures["twirled"] == pytest.approx(label, abs=4 * constant * (1 / n_draws / 230) ** 0.5)
    assert figures["percent"] == pytest.approx(100 * constant / (constant + label), rel=0.1)
    # the end of g c is uniform on the sphere, so |c - g c| is 4/3 |c| on average; four bodies make it twice as long
    assert figures["equivariance_norm"] == pytest.approx(2 * 4 / 3 * 0.14**0.5, rel=0.07)


def test_the_parts_sum_to_the_error_over_orientations(bodies: Tokens, transformer: PlainTransformer) -> None:
    figures = symmetry_figures(transformer, bodies, n_draws=3, seed=4)
    drawn = random_rotations(3 * len(bodies), generator=torch.Generator().manual_seed(4)).view(3, len(bodies), 3, 3)
    error = mean_squared_error(transformer, rotate_tokens(bodies, drawn))
    assert figures["twirled"] + figures["spread"] == pytest.approx(error, rel=1e-5)


def test_errors_do_not_depend_on_the_size_of_a_pass(
    bodies: Tokens, transformer: PlainTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = mean_squared_error(transformer, bodies)
    monkeypatch.setitem(MAX_PAIRS, "cpu", 70 * bodies.positions.shape[1] ** 2 + 3)  # the last pass is shorter
    assert len(bodies) % 70
    assert mean_squared_error(transformer, bodies) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("method", ["plain", "augmentation", "augmentation-2", "remul-10"])
def test_the_losses_of_the_methods(method: str, bodies: Tokens, transformer: PlainTransformer) -> None:
    """Each loss against a loop over the same draws."""
    batch, options = bodies.select(slice(7)), train_config(method)
    n_rotated = options.n_rotated if options.beta > 0 else 0
    losses = TokenObjective(options)(transformer, batch, torch.Generator().manual_seed(3))
    assert set(losses) == ({"task"} if options.alpha else set()) | ({"equivariance"} if options.beta else set())
    if "task" in losses:
        assert losses["task"].item() == pytest.approx(mean_squared_error(transformer, batch), rel=1e-5)
    if "equivariance" in losses:
        drawn = random_rotations(7 * n_rotated, generator=torch.Generator().manual_seed(3)).view(n_rotated, 7, 3, 3)
        assert (drawn.diagonal(dim1=2, dim2=3).sum(-1) - 3).abs().min() > 1e-3
        loop = [mean_squared_error(transformer, rotate_tokens(batch, g[None])) for g in drawn]
        assert losses["equivariance"].item() == pytest.approx(sum(loop) / n_rotated, rel=1e-5)
        assert losses["equivariance"].requires_grad


def test_the_one_forward_method_estimates_the_losses_of_remul(bodies: Tokens, transformer: PlainTransformer) -> None:
    """Over many draws, both losses are those of the paired method; each call sees as many systems as plain training."""
    batch = bodies.select(slice(40))
    generator = torch.Generator().manual_seed(0)
    found, seen = {}, []
    counting = transformer.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    for method in ("remul-1", "remul-one-forward"):
        objective = TokenObjective(train_config(method))
        with torch.no_grad():
            draws = [objective(transformer, batch, generator) for _ in range(250)]
        found[method] = {name: torch.stack([draw[name] for draw in draws]).mean().item() for name in draws[0]}
    counting.remove()
    assert set(seen[:250]) == {80}
    assert set(seen[250:]) == {40}
    # the standard error of the mean over 250 draws is below 2 % for either
    assert found["remul-one-forward"]["task"] == pytest.approx(found["remul-1"]["task"], rel=0.06)
    assert found["remul-one-forward"]["equivariance"] == pytest.approx(found["remul-1"]["equivariance"], rel=0.06)


def test_the_figures_are_those_the_log_expects(bodies: Tokens, transformer: PlainTransformer) -> None:
    assert set(symmetry_figures(transformer, bodies.select(slice(20)), n_draws=3)) == set(SYMMETRY_FIGURES)


def test_a_symmetry_about_an_axis_is_measured_about_it(bodies: Tokens) -> None:
    """The z components alone turn with rotations about z, and with no others."""

    class Height(nn.Module):
        def forward(self, tokens: Tokens) -> Tensor:
            return tokens.positions * torch.tensor([0.0, 0.0, 1.0])

    tilted = rotate_tokens(bodies, random_rotations(230, generator=torch.Generator().manual_seed(5)).unsqueeze(0))
    about_z = symmetry_figures(Height(), tilted, n_draws=4, axis=(0.0, 0.0, 1.0))
    about_x = symmetry_figures(Height(), tilted, n_draws=4, axis=(1.0, 0.0, 0.0))
    assert about_z["percent"] < 1e-9
    assert about_z["equivariance_norm"] < 1e-6
    assert about_x["percent"] > 1
    assert about_x["equivariance_norm"] > 0.1


def test_consistency_turns_from_a_random_first_orientation(bodies: Tokens, transformer: PlainTransformer) -> None:
    """The gap between predictions of two drawn orientations, both rotated back: no label is in it."""
    batch, config = bodies.select(slice(9)), train_config("consistent-10")
    losses = TokenObjective(config)(transformer, batch, torch.Generator().manual_seed(8))
    drawn = random_rotations(18, generator=torch.Generator().manual_seed(8)).view(2, 9, 3, 3)
    first, second = rotated_back(lambda systems: predict(transformer, systems), batch, turn=TOKEN_TURN, rotations=drawn)
    assert losses["equivariance"].item() == pytest.approx((first - second).square().mean().item(), rel=1e-5)
    assert losses["task"].item() == pytest.approx((first - batch.targets).square().mean().item(), rel=1e-5)
    early = TokenObjective(train_config("recipe"), early=True)
    assert set(early(transformer, batch, torch.Generator().manual_seed(8))) == {"task"}
