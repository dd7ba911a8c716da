"""Flow matching: the path and its ends, a velocity that is known, padding, what a network gets, and the samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from remul_md.datasets import read_frames
from remul_md.studies.lab import Job, run_job, study_options
from remul_md.studies.learn import Splits
from remul_md.studies.models.flow import FlowTransformer
from remul_md.studies.particles import Tokens, symmetry_figures
from remul_md.studies.tasks.flow import (
    PARTS,
    TASK,
    FlowObjective,
    FlowOptions,
    baselines,
    clean,
    ends,
    flowed,
    geometry,
    on_path,
    parts_of_time,
    sample_figures,
)

SMALL = ["width=8", "n_layers=1", "n_heads=2", "n_draws=2", "n_draw_systems=5", "n_samples=2", "n_flow_steps=2"]
SMALL += ["n_train=6", "n_validation=4", "n_test=5", "batch_size=3", "n_steps=10"]


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def conformers() -> Tokens:
    """Ethanol and malonaldehyde (both of 9 atoms) in 11 places."""
    parts = [clean(read_frames(f"rmd17/{name}/test-01").select(range(4)), n_places=11) for name in NAMES]
    return Tokens(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])})


NAMES = ("ethanol", "malonaldehyde")


class Towards(nn.Module):
    """The straight way to one conformer: (x1 - x_t) / (1 - t), whose flow is known."""

    def __init__(self, end: Tensor) -> None:
        super().__init__()
        self.end = nn.Parameter(end)

    def forward(self, tokens: Tokens) -> Tensor:
        return (self.end - tokens.positions) / (1.0 - tokens.scalars[..., -1:])


class Linear(nn.Module):
    """A x + c with one A and c for all atoms: its s2 is known."""

    def __init__(self, matrix: Tensor, vector: Tensor) -> None:
        super().__init__()
        self.matrix, self.vector = nn.Parameter(matrix), nn.Parameter(vector)

    def forward(self, tokens: Tokens) -> Tensor:
        return tokens.positions @ self.matrix.mT + self.vector


def test_a_place_on_a_path_knows_both_ends(conformers: Tokens) -> None:
    start, end = ends(conformers)
    assert torch.equal(end, conformers.positions)
    there = on_path(conformers, noise=0.7, generator=drawn())
    time, (start, again) = there.scalars[..., -1:], ends(there)
    assert torch.allclose(again, end, atol=1e-6)
    assert torch.allclose(there.positions, (1 - time) * start + time * end, atol=1e-6)
    assert torch.allclose(there.targets, end - start, atol=1e-6)
    assert time.std() > 0.1
    assert start[:, 9:].abs().max() < 1e-6  # padding
    assert start.sum(1).abs().max() < 1e-5
    assert start[:, :9].square().mean().sqrt() == pytest.approx(0.7 * (8 / 9) ** 0.5, rel=0.1)
    # From there to elsewhere: the same conformer, other noise; and the noise is drawn for one seed alike.
    elsewhere = on_path(there, noise=0.7, generator=drawn(1))
    assert torch.allclose(ends(elsewhere)[1], end, atol=1e-5)
    assert not torch.allclose(ends(elsewhere)[0], start, atol=0.1)


def test_the_flow_of_a_known_velocity_ends_where_it_leads(conformers: Tokens) -> None:
    begin = on_path(conformers, noise=1.0, generator=drawn(), times=torch.zeros(len(conformers)))
    made = flowed(Towards(conformers.positions), begin, n_steps=7)
    assert torch.allclose(made, conformers.positions, atol=1e-5)


def test_the_share_of_broken_symmetry_of_a_linear_field_is_that_of_a_sum_by_hand(conformers: Tokens) -> None:
    """g^-1 A g x has the mean trace(A) x / 3; of symmetric traceless A the spread is |A|^2 |x|^2 / 3, and that of a
    constant vector its square for each atom."""
    diagonal, vector = torch.tensor([1.0, 0.5, -1.5]), torch.tensor([0.3, 0.0, -0.4])
    squares = conformers.positions.square().sum((1, 2)).mean().item()
    model = Linear(torch.diag(diagonal) + 0.8 * torch.eye(3), vector)
    wanted = replace(conformers, targets=torch.zeros_like(conformers.targets))
    found = symmetry_figures(model, wanted, n_draws=300)
    n_coordinates = 11 * 3
    spread = (diagonal.square().sum().item() * squares / 3 + 11 * 0.25) / n_coordinates
    assert found["spread"] == pytest.approx(spread, rel=0.08)
    assert found["twirled"] == pytest.approx(0.64 * squares / n_coordinates, rel=0.08)
    assert found["percent"] == pytest.approx(100 * spread / (spread + 0.64 * squares / n_coordinates), rel=0.08)


def network() -> FlowTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FlowTransformer(n_elements=3, width=16, n_layers=2, n_heads=4)


def test_padding_is_seen_by_none_and_the_time_by_all(conformers: Tokens) -> None:
    model, there = network(), on_path(conformers, noise=1.0, generator=drawn())
    found = model(there)
    assert found[:, 9:].abs().max() == 0
    assert found.sum(1).abs().max() < 1e-5
    moved = there.positions.clone()
    moved[:, 9:] = 5.0
    assert torch.allclose(model(replace(there, positions=moved)), found, atol=1e-6)
    whole = Tokens(**{name: value[:, :9] for name, value in vars(there).items() if name != "pairs"}, pairs=there.pairs)
    assert torch.allclose(model(whole), found[:, :9], atol=1e-6)
    later = there.scalars.clone()
    later[..., -1] += 0.2
    assert (model(replace(there, scalars=later)) - found).abs().max() > 1e-3


def test_every_step_draws_its_paths_and_a_method_rotates_them(conformers: Tokens) -> None:
    options, seen = FlowOptions(), []

    class Watch(nn.Module):
        def forward(self, tokens: Tokens) -> Tensor:
            seen.append(tokens)
            return tokens.targets * 0.0

    for method in ("plain", "augmentation"):
        job = Job(case="ethanol", model="transformer", method=method, seed=0, budgets=("steps",), n_steps=100)
        objective, generator = FlowObjective(options, options.train_config(job)), drawn(3)
        losses = [objective(Watch(), conformers, generator) for _ in range(2)]
        assert [*losses[0]] == [{"plain": "task", "augmentation": "equivariance"}[method]]
    plain, second, rotated, _ = seen
    assert not torch.allclose(plain.positions, second.positions, atol=0.1)
    assert torch.allclose(ends(plain)[1], conformers.positions, atol=1e-5)
    gap = torch.cdist(ends(rotated)[1], ends(rotated)[1]) - torch.cdist(conformers.positions, conformers.positions)
    assert gap.abs().max() < 1e-4
    assert not torch.allclose(ends(rotated)[1], conformers.positions, atol=0.1)


def test_the_gaussian_is_best_for_gaussian_clouds_and_parts_hold_all(conformers: Tokens) -> None:
    many = conformers.select(np.arange(4000) % len(conformers))
    cloud = (
        1.3 * torch.randn(many.positions.shape, generator=drawn(5)) * (many.positions.abs().sum(2, keepdim=True) > 0)
    )
    there = on_path(replace(many, positions=cloud), noise=0.7, generator=drawn())
    found = baselines(there)
    assert found["a Gaussian cloud"] < found["velocity of 0"]
    time = there.scalars[..., -1:]
    for factor in (0.9, 1.1):
        s2, d2 = (0.7**2 * 8 / 9, 1.3**2)
        slope = factor * (time * d2 - (1 - time) * s2) / ((1 - time) ** 2 * s2 + time**2 * d2)
        assert (slope * there.positions - there.targets).square().mean() > found["a Gaussian cloud"]
    rows = parts_of_time(there)
    assert [*rows] == [*PARTS]
    assert sorted(np.concatenate([*rows.values()])) == [*range(4000)]
    assert there.scalars[rows["t1"], 0, -1].min() >= 0.25
    assert there.scalars[rows["t1"], 0, -1].max() < 0.5


def test_conformers_of_the_data_are_at_no_distance_from_them_and_noise_is(conformers: Tokens) -> None:
    options = FlowOptions(n_samples=8, n_flow_steps=3)
    splits = Splits(train=conformers, validation=conformers, tests={"test": conformers})
    exact = sample_figures(options, Towards(conformers.positions), splits)
    assert exact["right_bonds"] == 100.0
    assert max(exact[f"{name}_wasserstein"] for name in ("bond", "distance")) < 1e-3
    assert exact["angle_wasserstein"] < 0.05
    longer = sample_figures(options, Towards(1.1 * conformers.positions), splits)
    lengths, _ = geometry(conformers.positions, conformers.scalars)
    assert longer["distance_wasserstein"] == pytest.approx(0.1 * lengths["distance"].mean(), rel=1e-3)
    noise = sample_figures(options, Towards(torch.zeros_like(conformers.positions)), splits)
    assert noise["right_bonds"] == 0.0


def test_a_run_tells_symmetry_by_time(tmp_path: Path) -> None:
    job = Job(case="salicylic", model="transformer", method="augmentation", seed=1, budgets=("steps",), n_steps=10)
    found = run_job(TASK, study_options(TASK, overrides=SMALL), job, str(tmp_path))
    assert {f"percent_{part}" for part in PARTS} <= found["figures"].keys()
    last = found["history"][-1]
    assert last["step"] == 10
    assert all(last[f"error_{part}"] * last[f"percent_{part}"] > 0 for part in PARTS)
    assert found["figures"]["right_bonds"] == 0.0
