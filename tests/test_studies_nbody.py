"""The gravity generator: its physics, its published baselines, its orientations and its splits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from remul_md.errors import InputError
from remul_md.studies.lab import study_options
from remul_md.studies.learn import Splits
from remul_md.studies.particles import Tokens
from remul_md.studies.tasks import nbody
from remul_md.studies.tasks.nbody import TASK, TOTAL_TIME, baselines, load, rotations_between, simulate_bodies


@pytest.fixture(scope="module")
def bodies() -> Tokens:
    return simulate_bodies(4000, seed=7)


def angles_deg(rotations: torch.Tensor) -> torch.Tensor:
    cosine = (rotations.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    return torch.rad2deg(cosine.clamp(-1, 1).acos())


def test_the_baselines_are_those_of_the_reference_generator(bodies: Tokens) -> None:
    """Staying costs 16.1e-3 and flying straight 5.80e-3 there (5,000 systems); the spread of a sample is 2 %."""
    errors = baselines(bodies)
    assert errors["no motion"] == pytest.approx(16.1e-3, rel=0.05)
    assert errors["straight line x + 0.1 v"] == pytest.approx(5.80e-3, rel=0.06)


def test_the_systems_are_what_the_docstring_says(bodies: Tokens) -> None:
    assert bodies.positions.shape == (4000, 4, 3)
    assert bodies.positions.dtype == torch.float32
    assert bodies.positions.mean(1).abs().max() < 1e-6
    masses = bodies.scalars.squeeze(2)
    star = masses.argmax(1)
    assert set(star.tolist()) == {0, 1, 2, 3}  # the order is shuffled
    rows = torch.arange(len(bodies))
    star_mass = masses[rows, star]
    assert 1.0 <= star_mass.min() < 1.01
    assert 9.9 < star_mass.max() <= 10.0
    assert star_mass.log().mean() == pytest.approx(np.log(10) / 2, rel=0.03)
    assert (bodies.velocities[rows, star] == 0).all()
    relative = bodies.positions - bodies.positions[rows, star].unsqueeze(1)
    planets = torch.arange(4) != star.unsqueeze(1)
    planet_mass = masses[planets]
    assert 0.01 <= planet_mass.min() < 0.0101
    assert 0.099 < planet_mass.max() <= 0.1
    assert planet_mass.log10().mean() == pytest.approx(-1.5, abs=0.02)
    radius = relative.norm(dim=2)[planets]
    assert 0.1 <= radius.min() < radius.max() <= 1.0 + 1e-6
    # uniform in the area: r^2 is uniform between 0.01 and 1, less the few rejected near the star
    assert radius.square().mean() == pytest.approx(0.505, rel=0.03)
    assert bodies.positions[..., 2].abs().max() < 1e-6  # in the plane
    speed = bodies.velocities.norm(dim=2)[planets]
    circular = (star_mass.unsqueeze(1).expand(-1, 3).flatten() / radius).sqrt()
    assert (speed - circular).abs().mean() == pytest.approx(0.01 * (2 / np.pi) ** 0.5, rel=0.05)
    angular_momentum = torch.linalg.cross(relative, bodies.velocities)[..., 2][planets]
    assert (angular_momentum > 0).float().mean() == pytest.approx(0.5, abs=0.03)
    assert bodies.targets.norm(dim=2).max() <= 2.0


def test_two_bodies_follow_kepler() -> None:
    """A light planet on a circle of radius r turns by t / r^1.5; the error of the integrator is of first order."""
    radius, mass = 0.6, 1.0
    speed = (mass / radius) ** 0.5
    final = nbody.advanced(
        np.array([[mass, 1e-9]]),
        np.array([[[0.0, 0.0, 0.0], [radius, 0.0, 0.0]]]),
        np.array([[[0.0, 0.0, 0.0], [0.0, speed, 0.0]]]),
    )[0][0, 1]
    rotated = TOTAL_TIME / radius**1.5
    assert final == pytest.approx([radius * np.cos(rotated), radius * np.sin(rotated), 0.0], abs=3e-4)
    assert final != pytest.approx([radius, speed * TOTAL_TIME, 0.0], abs=5e-3)  # no straight line


def test_momentum_is_kept(bodies: Tokens) -> None:
    """Forces are mutual: sum m dx = t sum m v, to the rounding of float32."""
    moved = (bodies.scalars * bodies.targets).sum(1)
    expected = TOTAL_TIME * (bodies.scalars * bodies.velocities).sum(1)
    assert (moved - expected).abs().max() < 1e-6


def test_energy_and_angular_momentum_are_kept() -> None:
    """Of systems without a close encounter: symplectic steps of 1/60 of the shortest period or less."""
    masses, x, v = nbody._initial_state(300, np.random.default_rng(6))
    final_x, final_v = nbody.advanced(masses, x, v)
    m = masses[..., None]

    def energy(x: np.ndarray, v: np.ndarray) -> np.ndarray:
        i, j = np.triu_indices(4, 1)
        apart = np.linalg.norm(x[:, i] - x[:, j], axis=2)
        return 0.5 * (m * np.square(v)).sum((1, 2)) - (masses[:, i] * masses[:, j] / apart).sum(1)

    change = np.abs(energy(final_x, final_v) / energy(x, v) - 1)
    assert np.median(change) < 1e-3
    assert (change < 0.02).mean() > 0.95
    turning = [(m * np.cross(*pair)).sum(1) for pair in ((x, v), (final_x, final_v))]
    # The scheme keeps m x x v exactly: the kick is along the distances, the drift along v.
    assert turning[1] == pytest.approx(turning[0], abs=1e-9)


def test_encounters_are_rejected_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nbody, "MAX_DISPLACEMENT", 0.25)
    calm = simulate_bodies(150, seed=3)
    assert len(calm) == 150
    assert 0.2 < calm.targets.norm(dim=2).max() <= 0.25


def test_the_same_seed_gives_the_same_systems() -> None:
    first, again, other = (simulate_bodies(70, seed=seed) for seed in ([1, 5], [1, 5], [1, 6]))
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.targets, other.targets)


def test_rotations_between_two_angles() -> None:
    drawn = rotations_between(6000, low_deg=90, high_deg=180, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(drawn @ drawn.mT, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(torch.linalg.det(drawn), torch.ones(6000, dtype=torch.float64))
    angles = angles_deg(drawn)
    assert 90 <= angles.min() < 91
    assert 179 < angles.max() <= 180
    assert angles.mean().item() == pytest.approx(135, abs=1.5)
    small = rotations_between(6000, low_deg=0, high_deg=10, generator=torch.Generator().manual_seed(0))
    axes = torch.stack(
        [small[:, 2, 1] - small[:, 1, 2], small[:, 0, 2] - small[:, 2, 0], small[:, 1, 0] - small[:, 0, 1]]
    )
    axes = axes / axes.norm(dim=0)
    assert axes.mean(1).abs().max() < 0.04
    assert torch.allclose(axes.square().mean(1), torch.full((3,), 1 / 3, dtype=torch.float64), atol=0.02)
    assert angles_deg(small).max() <= 10


def splits_of(*overrides: str, case: str = "limited", seed: int = 5) -> Splits:
    sizes = ["n_train=90", "n_validation=40", "n_test=300", "models=[transformer]"]
    return load(study_options(TASK, overrides=[*sizes, *overrides]), case, seed)


def normals(bodies: Tokens) -> torch.Tensor:
    """Of the orbital plane: in its own frame it is the z axis."""
    return torch.linalg.svd(bodies.positions - bodies.positions.mean(1, keepdim=True)).Vh[:, 2]


def test_splits_hold_the_orientations_they_promise() -> None:
    splits = splits_of()
    near, out = splits.tests["in"], splits.tests["out"]
    assert [len(part) for part in (splits.train, splits.validation, near)] == [90, 40, 300]
    for part in (splits.train, near):
        tilt = torch.rad2deg(normals(part)[:, 2].abs().clamp(max=1).acos())
        assert 0 <= tilt.min() < tilt.max() < 10.1
    assert torch.rad2deg(normals(out)[:, 2].abs().clamp(max=1).acos()).max() > 80
    # the same systems in both test sets: distances and masses agree, coordinates do not
    assert torch.equal(near.scalars, out.scalars)
    assert torch.allclose(
        torch.cdist(near.positions, near.positions), torch.cdist(out.positions, out.positions), atol=2e-5
    )
    assert (near.positions - out.positions).abs().mean() > 0.1
    other = splits_of(seed=6)
    assert torch.equal(other.tests["in"].positions, near.positions)
    assert not torch.equal(other.train.scalars, splits.train.scalars)
    assert not torch.isin(splits.validation.scalars[:, 0], splits.train.scalars[:, 0]).any()
    haar = splits_of(case="haar")
    assert normals(haar.train)[:, 2].abs().mean().item() == pytest.approx(0.5, abs=0.1)  # uniform on the sphere


def test_absolute_positions_and_predicted_positions_are_the_same_systems() -> None:
    plain, absolute, final = splits_of(), splits_of("positions=absolute"), splits_of("predicted=positions")
    centres = absolute.tests["in"].positions.mean(1)
    assert centres.std().item() == pytest.approx(20.0, rel=0.1)
    far = absolute.tests["far"].positions - absolute.tests["in"].positions
    assert torch.allclose(far, torch.tensor([200.0, 0.0, 0.0]).expand_as(far), atol=1e-4)
    for name in ("scalars", "velocities", "targets"):
        assert torch.equal(getattr(absolute.tests["in"], name), getattr(plain.tests["in"], name))
    assert torch.equal(final.train.targets, plain.train.positions + plain.train.targets)
    with pytest.raises(InputError, match="predicted=positions is for the transformer"):
        study_options(TASK, models=["egnn"], overrides=["predicted=positions"])


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="number of systems must be >= 1, got 0"):
        simulate_bodies(0, seed=0)
    with pytest.raises(InputError, match="case 'har' is unknown; did you mean haar"):
        study_options(TASK, overrides=["cases=[har]"])
