"""Future positions: parts that share no moment, samples, baselines, and where the trajectories come from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.io import read as read_ase

from remul_md import RemulCalculator
from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.potentials.potential import load_potential
from remul_md.studies.lab import Job, run_job, study_options
from remul_md.studies.tasks import md17
from remul_md.studies.tasks.md17 import (
    SHARES,
    TASK,
    Md17Options,
    baselines,
    bonds,
    load,
    mean_geometry,
    prepare,
    samples,
    starts_in_block,
)
from remul_md.studies.trajectories import Trajectory, read_heavy_atoms, sha256_of, trajectory_file
from remul_md.symmetry.rotations import random_rotations

SMALL = ["cases=[ethanol]", "replica_ps=0.4", "horizon_steps=50", "n_replicas=2", "n_train=8", "n_validation=5"]
SMALL += ["n_test=7", "compile_forces=false"]


def small_options(*further: str) -> Md17Options:
    return study_options(TASK, overrides=[*SMALL, *further])


def made_up(options: Md17Options) -> Trajectory:
    """Ethanol's heavy atoms on straight lines, each replica of its own velocity."""
    rng = np.random.default_rng(7)
    start = np.array([[0.0, 0.0, 0.0], [1.5, 0.0, 0.0], [2.0, 1.4, 0.0]])
    velocities = 0.01 * rng.normal(size=(options.n_replicas, 1, 3, 3)) * np.ones((1, options.n_frames, 1, 1))
    times = 5.0 * np.arange(options.n_frames)[None, :, None, None]
    positions = start + 4.0 + times * velocities
    return Trajectory(
        positions=positions.astype(np.float32),
        velocities=velocities.astype(np.float32),
        numbers=np.array([6, 6, 8]),
        facts={},
    )


@pytest.mark.parametrize(("n_frames", "horizon"), [(1001, 60), (101, 7), (202, 21)])
def test_no_way_of_one_part_meets_that_of_another(n_frames: int, horizon: int) -> None:
    """Every moment from input to target; and a horizon lies between the last of one part and the first of the next."""
    ways = {
        part: [set(range(s, s + horizon + 1)) for s in starts_in_block(part, n_frames=n_frames, horizon=horizon)]
        for part in SHARES
    }
    moments = {part: set().union(*each) for part, each in ways.items()}
    assert all(ways.values())
    assert max(moments["test"]) < n_frames
    assert max(moments["train"]) + horizon < min(moments["validation"])
    assert max(moments["validation"]) + horizon < min(moments["test"])
    assert len(moments["train"]) == pytest.approx(2 * len(moments["test"]), abs=2)


def test_samples_are_drawn_within_their_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = small_options()
    trajectory = made_up(options)
    monkeypatch.setattr(md17, "read_heavy_atoms", lambda *_: trajectory)
    drawn: list[list[Any]] = []

    def noted(trajectory: Trajectory, starts: list[Any], *, horizon: int) -> Any:
        drawn.append(starts)
        return samples(trajectory, starts, horizon=horizon)

    monkeypatch.setattr(md17, "samples", noted)
    splits = load(options, "ethanol", tmp_path)
    assert [len(part) for part in (splits.train, splits.validation, splits.tests["test"])] == [8, 5, 7]
    for part, starts in zip(SHARES, drawn, strict=True):
        possible = set(options.starts_of(part).tolist())
        assert [len(each) for each in starts] in ([4, 4], [3, 2], [4, 3])
        for each in starts:
            assert set(each.tolist()) <= possible
            assert len(set(each.tolist())) == len(each)
    # On a straight line the target is the velocity times the horizon of 25 fs.
    test = splits.tests["test"]
    assert torch.allclose(test.targets, 0.25 * test.velocities, atol=1e-5)
    assert test.positions.mean(1).abs().max() < 1e-6


def test_a_trajectory_of_other_options_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(md17, "read_heavy_atoms", lambda *_: made_up(small_options()))
    for override in ("replica_ps=0.5", "n_replicas=3"):
        with pytest.raises(InputError, match="2 replicas of 81 frames, and the options ask for"):
            load(small_options(override), "ethanol", tmp_path)


def test_a_mixed_split_shares_moments_but_no_sample() -> None:
    options = small_options("split=mixed", "n_train=60", "n_validation=30", "n_test=30")
    starts = {part: options.starts_of(part) for part in SHARES}
    assert sorted(np.concatenate([*starts.values()]).tolist()) == [*range(options.n_frames - options.horizon)]
    assert starts["train"].min() < starts["test"].max()
    assert starts["test"].min() < starts["train"].max()


def test_atoms_that_are_bonded_are_neighbours() -> None:
    """Carbon 0, carbon 1, oxygen: a chain, whose ends are two bonds apart."""
    frames = read_frames("rmd17/ethanol/test-01", with_labels=False)
    heavy = frames.frame_positions(0)[frames.frame_numbers(0) > 1]
    found = {tuple(pair) for pair in bonds(heavy).tolist()}
    ends = [atom for atom in range(3) if sum(atom in pair for pair in found) == 1]
    assert len(found) == 2
    options = small_options()
    tokens = samples(
        replace(made_up(options), positions=np.broadcast_to(heavy, (2, options.n_frames, 3, 3)).astype(np.float32)),
        [np.array([1, 4]), np.array([2])],
        horizon=5,
    )
    one, two = tokens.pairs[2].unbind(-1)
    assert one.sum() == 4
    assert [tuple(pair) for pair in two.nonzero().tolist()] == [(ends[0], ends[1]), (ends[1], ends[0])]


def test_baselines_of_a_rigid_molecule() -> None:
    """Going to the mean geometry is wrong where the molecule was rotated, and exact where that is superposed."""
    options = small_options()
    tokens = samples(made_up(options), [np.arange(4), np.arange(3)], horizon=3)
    shape = tokens.positions[:1].expand(7, -1, -1)
    rotations = random_rotations(7, generator=torch.Generator().manual_seed(3)).float()
    rigid = replace(tokens, positions=torch.einsum("bij,bnj->bni", rotations, shape), targets=torch.zeros(7, 3, 3))
    found = baselines(rigid, train=rigid)
    assert found["no motion"] == 0.0
    assert found["mean geometry, superposed on the input"] < 1e-10
    assert found["mean geometry"] > 0.1
    moved = replace(rigid, targets=torch.full((7, 3, 3), 0.2))
    assert baselines(moved, train=moved)["no motion"] == pytest.approx(0.04)
    mean = mean_geometry(rigid.positions.double().numpy())
    assert np.allclose(np.linalg.norm(mean, axis=1), shape[0].norm(dim=1).numpy(), atol=1e-5)


@pytest.mark.slow
def test_a_study_runs_its_own_dynamics_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps of ethanol; a job then reads them, and what it was made from stands in the result."""
    monkeypatch.setattr(md17, "FRAME_STEPS", 2)
    options = small_options("replica_ps=0.011", "horizon_steps=2", "n_train=2", "n_validation=2", "n_test=2")
    options = options.model_copy(update={"n_steps": 10, "batch_size": 2, "n_draws": 2, "gnn_width": 6})
    prepare(options, tmp_path, RemulCalculator)
    trajectory = read_heavy_atoms(tmp_path, "ethanol")
    assert trajectory.positions.shape == trajectory.velocities.shape == (2, 12, 3, 3)
    frame = read_ase(tmp_path / "trajectory-ethanol-1.traj", index=3)
    heavy = frame.numbers > 1
    assert np.allclose(trajectory.positions[1, 3], frame.positions[heavy], atol=1e-5)
    assert np.abs(frame.get_angular_momentum()).max() < 1e-3 * np.abs(frame.get_momenta()).sum()
    exact = RemulCalculator("ethanol", symmetry="exact", forces="conservative", device="cpu")
    assert exact.get_forces(frame) == pytest.approx(frame.get_forces(), abs=1e-4)
    ahead = (trajectory.positions[:, 2] - trajectory.positions[:, 0]) / 2.0  # central difference over 2 fs
    assert np.abs(ahead - trajectory.velocities[:, 1]).max() < 0.05 * np.abs(trajectory.velocities).max()
    written = trajectory_file(tmp_path, "ethanol").stat().st_mtime_ns
    prepare(options, tmp_path, RemulCalculator)
    assert trajectory_file(tmp_path, "ethanol").stat().st_mtime_ns == written
    job = Job(case="ethanol", model="gnn", method="remul-1", seed=0, budgets=("steps",), n_steps=10)
    found = run_job(TASK, options, job, str(tmp_path))
    assert found["made_from"] == trajectory.facts
    assert found["made_from"]["potential_sha256"] == load_potential("ethanol").sha256
    arrays = {"positions": trajectory.positions, "velocities": trajectory.velocities}
    assert found["made_from"]["trajectory_sha256"] == sha256_of(**arrays)
    assert set(found["baselines"]) == {"no motion", "mean geometry", "mean geometry, superposed on the input"}


def test_a_changed_trajectory_is_refused(tmp_path: Path) -> None:
    trajectory = made_up(small_options())
    right = sha256_of(positions=trajectory.positions, velocities=trajectory.velocities)
    for shift, whole in ((0.0, True), (1e-3, False)):
        np.savez(
            trajectory_file(tmp_path, "ethanol"),
            positions=(trajectory.positions + shift).astype(np.float32),
            velocities=trajectory.velocities,
            numbers=trajectory.numbers,
            facts=np.array(json.dumps({"trajectory_sha256": right})),
        )
        if whole:
            assert read_heavy_atoms(tmp_path, "ethanol").numbers.tolist() == [6, 6, 8]
        else:
            with pytest.raises(InputError, match="not those that were written"):
                read_heavy_atoms(tmp_path, "ethanol")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("n_test=90", "n_test 90 is more than the"),
        ("horizon_steps=55", "multiple of 10, got 55"),
        ("replica_ps=0.0001", "shorter than one step"),
        ("cases=[benzine]", "case 'benzine' is unknown; did you mean"),
    ],
)
def test_options_that_cannot_be_are_refused(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        small_options(override)
