"""Charged particles: physics of the generator, and the baselines that were measured on the published one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from remul_md.errors import InputError
from remul_md.studies.lab import study_options
from remul_md.studies.tasks import charged
from remul_md.studies.tasks.charged import TASK, baselines, forces, load, simulate_charges, tokens_of


def energy(q: np.ndarray, x: np.ndarray, v: np.ndarray) -> np.ndarray:
    i, j = np.triu_indices(x.shape[1], 1)
    potential = (q[:, i] * q[:, j] / np.linalg.norm(x[:, i] - x[:, j], axis=2)).sum(1)
    return 0.5 * np.square(v).sum((1, 2)) + potential


def test_forces_are_the_slope_of_the_energy() -> None:
    rng = np.random.default_rng(1)
    q, x = rng.choice([-1.0, 1.0], size=(3, 5)), rng.normal(size=(3, 5, 3))
    still, found = np.zeros_like(x), forces(q, x)
    for particle, axis in ((0, 2), (3, 1)):
        step = np.zeros_like(x)
        step[:, particle, axis] = 1e-6
        slope = (energy(q, x + step, still) - energy(q, x - step, still)) / 2e-6
        assert found[:, particle, axis] == pytest.approx(-slope, rel=1e-6, abs=1e-8)
    close = np.zeros((1, 2, 3))
    close[0, 1, 0] = 0.01  # the force would be 10,000
    assert forces(np.ones((1, 2)), close)[0].tolist() == [[-100.0, 0, 0], [100.0, 0, 0]]


@pytest.mark.slow
def test_momentum_and_energy_are_kept_and_the_baselines_are_those_of_the_generator() -> None:
    """Standing still costs 0.26 from frame 30 to 40, a straight line 0.125 (200 systems of the published one)."""
    q, x, v = simulate_charges(400, frames=(0, 20, 30, 40), seed=4)
    assert x.shape == v.shape == (4, 400, 5, 3)
    # Opposite charges that meet lose accuracy, not momentum, unless a force was cut.
    drift = np.abs(v.sum(2) - v[0].sum(1)).max((0, 2))
    assert np.median(drift) < 1e-12
    change = np.abs(energy(q, x[3], v[3]) - energy(q, x[0], v[0]))
    assert np.median(change) < 5e-3
    alike = np.abs(q.sum(1)) == 5  # nothing attracts, so nothing meets
    assert alike.sum() > 10
    assert change[alike].max() < 5e-3
    found = baselines(tokens_of(q, x[2], v[2], x[3]))
    assert found["no motion"] == pytest.approx(0.26, rel=0.15)
    assert found["straight line x + v"] == pytest.approx(0.125, rel=0.2)


def test_the_start_is_what_the_docstring_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charged, "TIMESTEP", 0.0)  # nothing moves
    q, x, v = simulate_charges(300, frames=(0,), seed=2)
    assert set(np.unique(q)) == {-1.0, 1.0}
    assert abs(q.mean()) < 0.1
    assert x.std() == pytest.approx(1.0, rel=0.05)
    assert np.linalg.norm(v[0], axis=2) == pytest.approx(0.5)
    monkeypatch.setattr(charged, "BOX", 1.5)
    _, inside, away = simulate_charges(300, frames=(0,), seed=2)
    assert np.abs(inside).max() < 3.0
    outside = np.abs(x) > 1.5
    assert inside[outside] == pytest.approx((np.sign(x) * 3.0 - x)[outside])
    assert (np.sign(away) == -np.sign(x))[outside].all()
    assert inside[~outside] == pytest.approx(x[~outside])


@pytest.mark.slow
def test_splits_are_seeded_and_share_their_test_systems() -> None:
    options = study_options(TASK, overrides=["n_train=5", "n_validation=4", "n_test=6"])
    first, again, other = (load(options, "charged", seed) for seed in (3, 3, 4))
    assert torch.equal(first.train.targets, again.train.targets)
    assert not torch.equal(first.train.targets, other.train.targets)
    assert torch.equal(first.tests["in"].positions, other.tests["in"].positions)
    assert [len(part) for part in (first.train, first.validation, *first.tests.values())] == [5, 4, 6, 6]
    near, early = first.tests["in"], first.tests["early"]
    assert torch.equal(near.scalars, early.scalars)
    assert torch.equal(near.pairs[..., 0], near.scalars @ near.scalars.mT)
    # The earlier pair of frames ends where the later one begins.
    ends = early.positions + early.targets
    assert torch.allclose(ends - ends.mean(1, keepdim=True), near.positions, atol=1e-5)
    with pytest.raises(InputError, match="must be >= 1, got 0"):
        simulate_charges(0, frames=(0,), seed=0)
