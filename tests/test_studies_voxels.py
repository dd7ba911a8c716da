"""Densities on a grid: exact rotations of the cube, interpolation, and networks whose broken symmetry is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from remul_md.errors import InputError
from remul_md.studies.lab import Job, run_job, study_options
from remul_md.studies.models.unet import UNet
from remul_md.studies.tasks.voxels import KNOWN, TASK, VoxelObjective, load
from remul_md.studies.voxels import (
    Grid,
    Molecules,
    cube_figures,
    cube_rotated,
    density,
    general_figures,
    interpolated,
    rotate_grids,
    rotate_molecules,
)
from remul_md.symmetry.rotations import fixed_rotations, random_rotations

GRID = Grid(n=12, spacing=0.6, width=0.5)


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def molecules() -> Molecules:
    positions = torch.randn(5, 4, 3, generator=drawn(), dtype=torch.float64)
    elements = torch.eye(2, dtype=torch.float64)[torch.tensor([0, 1, 1, 0])].expand(5, 4, 2)
    return Molecules(positions=0.6 * positions, elements=elements)


def test_a_density_is_a_sum_of_gaussians(molecules: Molecules) -> None:
    found = density(molecules, GRID)
    assert found.shape == (5, 2, 12, 12, 12)
    point = torch.tensor([-3.3 + 0.6 * k for k in (4, 7, 5)], dtype=torch.float64)
    squares = (molecules.positions[3] - point).square().sum(1)
    wanted = torch.exp(-squares[[0, 3]] / (2 * 0.5**2)).sum()
    assert found[3, 0, 4, 7, 5].item() == pytest.approx(wanted.item())


def test_rotations_of_the_cube_are_exact_and_those_of_the_atoms(molecules: Molecules) -> None:
    grids = density(molecules, GRID)
    for g in fixed_rotations("octahedral"):
        atoms = density(rotate_molecules(molecules, g.expand(1, 5, 3, 3)), GRID)
        assert torch.allclose(cube_rotated(grids, g), atoms, atol=1e-12)
        assert torch.equal(cube_rotated(cube_rotated(grids, g), g.mT), grids)
    each = fixed_rotations("octahedral")[3:8].unsqueeze(0)
    assert torch.equal(rotate_grids(grids, each)[4], cube_rotated(grids[4], each[0, 4]))


def test_interpolation_agrees_where_it_is_exact_and_comes_near_elsewhere(molecules: Molecules) -> None:
    grids = density(molecules, GRID)
    for g in fixed_rotations("octahedral")[[5, 11, 17]]:
        assert torch.allclose(interpolated(grids, g.expand(5, 3, 3), GRID), cube_rotated(grids, g), atol=1e-12)
    errors = []
    for finer in (GRID, Grid(n=24, spacing=0.6 * 11 / 23, width=0.5)):
        g = random_rotations(5, generator=drawn(2))
        wanted = density(rotate_molecules(molecules, g.unsqueeze(0)), finer)
        found = interpolated(density(molecules, finer), g, finer)
        errors.append(((found - wanted).square().mean() / wanted.square().mean()).sqrt().item())
    assert errors[0] < 0.25
    assert errors[1] < errors[0] / 3  # of second order in the spacing


def test_the_share_of_a_known_field_is_that_by_hand() -> None:
    """f = rho + c times the coordinate along x. Over the cube's rotations the coordinate has the mean 0, so the spread
    is c^2 times its square, and the rest is the noise."""
    along = GRID.points(torch.zeros(1, dtype=torch.float64)).view(-1, 1, 1).expand(12, 12, 12)
    clean = torch.rand(40, 1, 12, 12, 12, generator=drawn(), dtype=torch.float64)
    noisy = clean + 0.3 * torch.randn(clean.shape, generator=drawn(1), dtype=torch.float64)
    found = cube_figures(lambda grids: grids + 0.1 * along, noisy, clean, n_draws=12)
    spread = 0.01 * along.square().mean().item()
    assert found["spread"] == pytest.approx(spread, rel=0.05)
    assert found["twirled"] == pytest.approx(0.09, rel=0.05)
    assert found["percent"] == pytest.approx(100 * spread / (spread + 0.09), rel=0.05)
    exact = cube_figures(lambda grids: grids, noisy, clean, n_draws=3)
    assert exact["percent"] == pytest.approx(0, abs=1e-12)
    assert exact["equivariance_norm"] == 0


def test_all_rotations_have_a_floor_and_a_field_of_one_direction_stands_above_it(molecules: Molecules) -> None:
    """The noise of the outputs is no broken symmetry: a network that does nothing stands at the floor."""
    fine = Grid(n=16, spacing=0.45, width=0.5)
    idle = general_figures(lambda grids: grids, molecules, fine, noise=0.1, n_draws=30)
    assert idle["rotated"] == pytest.approx(0.01, rel=0.05)
    # Interpolation at the corners loses what noise is there; with no noise at all they would be equal.
    assert idle["general_spread"] == pytest.approx(idle["floor"], rel=0.25)
    wide = Grid(n=16, spacing=0.45, width=0.9)
    ball = density(Molecules(positions=torch.zeros(1, 1, 3).double(), elements=torch.ones(1, 1, 1).double()), wide)
    tilt = wide.points(ball).view(-1, 1, 1) * ball[0]
    still, tilted = (
        general_figures(model, molecules, wide, noise=0.01, n_draws=30)["general_spread"]
        for model in (lambda grids: grids, lambda grids: grids + tilt)
    )
    assert tilted - still == pytest.approx(tilt.square().mean().item(), rel=0.15)  # it points nowhere on average


def test_the_network_knows_translations_and_no_rotation(molecules: Molecules) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UNet(n_values=2, n_channels=4).double()
    grids = torch.zeros(1, 2, 24, 24, 24, dtype=torch.float64)
    grids[:, :, 8:12, 8:12, 8:12] = torch.rand(1, 2, 4, 4, 4, generator=drawn(), dtype=torch.float64)
    g = fixed_rotations("octahedral")[5]
    gap = model(cube_rotated(grids, g)) - cube_rotated(model(grids), g)
    assert gap.norm() > 0.05 * model(grids).norm()
    assert model(grids).shape == grids.shape


def a_job(method: str) -> Job:
    return Job(case="ethanol", model="unet", method=method, seed=1, budgets=("steps",), n_steps=10)


def test_labels_are_rotated_with_their_atoms_before_they_become_a_grid() -> None:
    overrides = ["n_train=6", "n_validation=2", "n_test=2", "noise=1e-9"]
    options = study_options(TASK, overrides=overrides)
    train = load(options, "ethanol")["train"]

    class Idle(nn.Module):
        def forward(self, noisy: Tensor) -> Tensor:
            seen.append(noisy)
            return noisy

    for method in KNOWN:
        seen: list[Tensor] = []
        losses = VoxelObjective(options, options.train_config(a_job(method)))(Idle(), train, drawn(2))
        assert all(loss < 1e-12 for loss in losses.values())
        plain = density(train, options.grid)
        assert len(seen[0]) == {"plain": 6, "augmentation": 6}.get(method, 12)
        same = torch.allclose(seen[0][:6], plain, atol=1e-6)
        assert same == (not method.startswith("augmentation"))
        assert not torch.allclose(seen[0][-6:], plain, atol=0.1) or method == "plain"


def test_a_molecule_must_fit_the_grid() -> None:
    with pytest.raises(InputError, match="give more n_points"):
        load(study_options(TASK, overrides=["n_points=12"]), "ethanol")
    with pytest.raises(InputError, match="multiple of 4"):
        study_options(TASK, overrides=["n_points=18"])


def test_a_run_has_its_figures(tmp_path: Path) -> None:
    small = ["n_train=5", "n_validation=3", "n_test=3", "n_watched=2", "n_channels=2", "batch_size=2", "n_steps=10"]
    found = run_job(TASK, study_options(TASK, overrides=small), a_job("remul-1"), str(tmp_path))
    shown = next(iter(TASK.tables.values()))
    assert shown.keys() <= found["figures"].keys()
    assert found["history"][-1]["step"] == found["learning"][-1]["step"] == 10
    assert found["zero_error"] > 0
