"""The study of rigid bodies: what a network is shown, which symmetry each has, and what is known without learning."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from remul_md.errors import InputError
from remul_md.studies.lab import Job, run_study, study_options
from remul_md.studies.models.faces import CORNERS, FaceGatr, FaceTransformer
from remul_md.studies.models.gatr import embed_plane, embed_point, join_table, product_table
from remul_md.studies.particles import Tokens, rotate_each, rotate_tokens
from remul_md.studies.rigid_bodies import GRAVITY, HORIZON_S, SceneOptions, Scenes, simulate_scenes
from remul_md.studies.tasks.rigidbodies import (
    CASES,
    FLIGHT,
    TASK,
    VERTICAL,
    baselines,
    flight,
    prepare,
    scene_file,
    tokens_of,
)
from remul_md.symmetry.rotations import random_rotations

pytest.importorskip("mujoco", reason="remul-md[rigid-bodies] is not installed")
TINY = ["n_steps=10", "batch_size=3", "width=12", "n_layers=1", "n_heads=2", "gatr_channels=2", "gatr_scalars=4"]
TINY += ["gatr_layers=1", "n_train=5", "n_validation=4", "n_test=6", "n_draws=2", "n_draw_systems=3"]
TINY += ["kinds=[tetrahedron, box]", "cases=[floor]"]
AXES: dict[str, tuple[float, float, float] | None] = {"every": None, "vertical": VERTICAL}


def some_scenes(world: str, n: int = 4) -> Scenes:
    options = SceneOptions(world=world, kinds=("tetrahedron", "box"))  # type: ignore[arg-type]
    return simulate_scenes(range(n), seed=3, options=options)


def double(tokens: Tokens) -> Tokens:
    return Tokens(**{field.name: getattr(tokens, field.name).double() for field in fields(tokens)})


def built(kind: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "transformer":
            return FaceTransformer(n_scalars=4, width=24, n_layers=2, n_heads=4).double()
        return FaceGatr(n_scalars=4, n_channels=4, n_scalar_channels=8, n_layers=2, n_heads=4).double()


def gap(model: nn.Module, tokens: Tokens, axis: tuple[float, float, float] | None) -> tuple[float, float]:
    """Largest difference between rotating before and after, and the size of the outputs."""
    n = len(tokens)
    rotations = random_rotations(n, generator=torch.Generator().manual_seed(1), axis=axis).view(1, n, 3, 3)
    expected = rotate_each(model(tokens), rotations)
    return (model(rotate_tokens(tokens, rotations)) - expected).abs().max().item(), expected.abs().mean().item()


@pytest.mark.parametrize("world", CASES)
def test_gatr_has_the_symmetry_of_its_world_and_the_transformer_none(world: str) -> None:
    tokens = double(tokens_of(some_scenes(world)))
    for name, axis in AXES.items():
        difference, size = gap(built("gatr"), tokens, axis)
        assert size > 1e-3
        exact = world == "free" or name == "vertical"
        assert difference < 1e-12 if exact else difference > 0.1 * size
        difference, size = gap(built("transformer"), tokens, axis)
        assert difference > 0.1 * size
    model = built("gatr")
    aside, above = (
        replace(tokens, positions=tokens.positions + torch.tensor(by)) for by in ([3.0, -2, 0], [0, 0, 1.5])
    )
    assert torch.allclose(model(aside), model(tokens), atol=1e-12)
    assert torch.allclose(model(above), model(tokens), atol=1e-12) == (world == "free")  # the floor is felt


@pytest.mark.parametrize("kind", ["transformer", "gatr"])
def test_faces_have_no_order_and_all_that_is_shown_is_used(kind: str) -> None:
    tokens, model = double(tokens_of(some_scenes("floor"))), built(kind)
    n_faces = tokens.positions.shape[1] // CORNERS
    order = torch.randperm(n_faces, generator=torch.Generator().manual_seed(2))
    corners = (CORNERS * order[:, None] + torch.arange(CORNERS)).flatten()

    def ordered(values: Tensor) -> Tensor:
        return values[:, corners]

    others = {name: ordered(getattr(tokens, name)) for name in ("scalars", "positions", "velocities", "targets")}
    assert torch.allclose(model(replace(tokens, **others)), ordered(model(tokens)), atol=1e-12)
    assert torch.allclose(model(tokens.select(slice(2, 3)))[0], model(tokens)[2], atol=1e-12)
    for name in ("scalars", "positions", "velocities"):
        changed = replace(tokens, **{name: 1.3 * getattr(tokens, name)})
        assert (model(changed) - model(tokens)).abs().mean() > 1e-5


def test_a_point_lies_in_the_planes_that_go_through_it() -> None:
    """Their join is 0, and two planes through it meet in a line whose join with it is 0."""
    generator = torch.Generator().manual_seed(0)
    point, away = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    normals = nn.functional.normalize(torch.randn(2, 3, generator=generator, dtype=torch.float64), dim=1)
    planes = embed_plane(normals, point)
    join, product = torch.tensor(join_table()), torch.tensor(product_table())
    of_plane = torch.einsum("ijk,i,pj->pk", join, embed_point(point), planes)
    assert of_plane.abs().max() < 1e-12
    assert torch.einsum("ijk,i,pj->pk", join, embed_point(away), planes).abs().amax(1).min() > 0.1
    line = torch.einsum("ijk,i,j->k", product, *planes)
    line[0] = 0.0  # grade 2 of the product
    assert torch.einsum("ijk,i,j->k", join, embed_point(point), line).abs().max() < 1e-12


def test_tokens_are_the_corners_of_faces() -> None:
    scenes = some_scenes("floor")
    tokens, faces = tokens_of(scenes), scenes.faces[1]
    assert tokens.positions.shape == (4, 3 * 16, 3)
    assert tokens.scalars[1, :, 0].tolist() == [1.0] * 48
    assert np.exp(tokens.scalars[1, [0, 47], 1].numpy()) == pytest.approx(scenes.masses[1])
    assert tokens.scalars[1, [0, 11, 12, 47], 2:].tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    corners = scenes.start[1][faces].reshape(-1, 3)
    moved = tokens.positions[1].numpy() - corners
    assert moved == pytest.approx(np.broadcast_to(moved[0], moved.shape), abs=1e-6)
    assert moved[0, 2] == 0.0  # heights are above the floor
    assert tokens.positions.mean(1)[:, :2].abs().max() < 1e-6
    assert tokens_of(some_scenes("free")).positions.mean(1).abs().max() < 1e-6
    assert tokens.velocities[1].numpy() == pytest.approx(HORIZON_S * scenes.velocities[1][faces].reshape(-1, 3))
    assert tokens.targets[1].numpy() == pytest.approx((scenes.later - scenes.start)[1][faces].reshape(-1, 3))


def test_bodies_that_meet_nothing_fly_as_the_baseline_says() -> None:
    scenes = some_scenes("free", n=12)
    tokens = tokens_of(scenes)
    error = (flight(tokens) - tokens.targets).abs().amax((1, 2)).numpy()
    alone = scenes.contact_steps == 0
    assert 0 < alone.sum() < 12
    assert error[alone].max() < 1e-3  # a contact may begin within the last step
    assert error[scenes.contact_steps > 20].min() > 1e-2
    found = baselines(tokens)
    assert found[FLIGHT] < 0.2 * found["no motion"]
    falling = replace(tokens, scalars=tokens.scalars + torch.eye(4)[0])
    assert (flight(falling) - flight(tokens))[..., 2] == pytest.approx(-0.5 * GRAVITY * HORIZON_S**2)


def test_methods_turn_about_what_a_case_allows() -> None:
    options = study_options(TASK)
    jobs = [
        Job(case=case, model="transformer", method="remul-1", seed=0, budgets=("steps",), n_steps=10) for case in CASES
    ]
    assert [options.train_config(job).axis for job in jobs] == [None, VERTICAL]
    with pytest.raises(InputError, match="cone"):
        study_options(TASK, overrides=["kinds=[cone]"])


@pytest.mark.slow
def test_a_small_study_from_scenes_to_figures(tmp_path: Path) -> None:
    options = study_options(TASK, methods=["augmentation"], seeds=[0], overrides=TINY)
    content = json.loads(run_study(TASK, options, run_dir=tmp_path / "study").read_text())
    transformer, gatr = content["runs"]
    assert [(run["model"], run["method"]) for run in content["runs"]] == [
        ("transformer", "augmentation"),
        ("gatr", "plain"),
    ]
    assert gatr["figures"]["percent"] < 1e-8 < 1e-3 < transformer["figures"]["percent"]
    assert gatr["baselines"] == transformer["baselines"]
    written = scene_file(tmp_path / "study", "floor", "train").stat().st_mtime_ns
    prepare(options, tmp_path / "study")
    assert scene_file(tmp_path / "study", "floor", "train").stat().st_mtime_ns == written
