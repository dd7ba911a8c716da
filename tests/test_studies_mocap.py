"""Motion capture: the published samples, their baselines, and which joints are neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from remul_md.datasets.readers.npz import load_arrays
from remul_md.studies.lab import study_options
from remul_md.studies.learn import Splits
from remul_md.studies.tasks import mocap
from remul_md.studies.tasks.mocap import HORIZON, LENGTH, TASK, baselines, hops, load


@pytest.fixture(scope="module")
def splits() -> dict[str, Splits]:
    return {case: load(study_options(TASK), case, 0) for case in TASK.cases}


def test_the_runs_are_those_of_the_published_split(splits: dict[str, Splits]) -> None:
    """Standing still costs 89.8 on its test samples, a straight line 19.8; 200 / 240 / 240 samples."""
    run = splits["run"]
    assert [len(part) for part in (run.train, run.validation, run.tests["test"])] == [200, 240, 240]
    found = {name: LENGTH**2 * error for name, error in baselines(run.tests["test"]).items()}
    assert found["no motion"] == pytest.approx(89.80, abs=0.01)
    assert found["straight line"] == pytest.approx(19.80, abs=0.01)


def test_walks_are_split_by_trial(splits: dict[str, Splits]) -> None:
    walk = splits["walk"]
    assert [len(part) for part in (walk.train, walk.validation, walk.tests["test"])] == [200, 500, 500]
    found = {name: LENGTH**2 * error for name, error in baselines(walk.tests["test"]).items()}
    assert found["no motion"] == pytest.approx(12.4, rel=0.1)  # of all 20 trials
    assert found["straight line"] == pytest.approx(2.53, rel=0.15)
    lengths = np.diff(load_arrays(mocap._file("cmu35_walk.npz"))["offsets"])
    parts = mocap._walk_starts(lengths)
    trials = [trial for part in parts for trial, _ in part]
    assert sorted(trials) == [*range(20)]
    for part in parts:
        for trial, starts in part:
            assert len(set(starts.tolist())) == 100
            assert starts.max() + HORIZON < lengths[trial]


def test_fewer_samples_are_the_first_of_every_trial(splits: dict[str, Splits]) -> None:
    few = load(study_options(TASK, overrides=["n_train=15", "n_validation=12", "n_test=30"]), "run", 0)
    assert [len(part) for part in (few.train, few.validation, few.tests["test"])] == [15, 12, 30]
    assert torch.equal(few.tests["test"].targets[10:20], splits["run"].tests["test"].targets[80:90])


def test_samples_are_what_the_docstring_says(splits: dict[str, Splits]) -> None:
    arrays = load_arrays(mocap._file("cmu_run.npz"))
    split = load_arrays(mocap._file("cmu_run_split.npz"))
    trial, start = int(split["test_trials"][1]), int(split["test_starts"][1][7])
    frame = arrays["offsets"][trial] + start
    x = torch.from_numpy(arrays["positions"][frame]).float()
    sample = splits["run"].tests["test"].select(np.array([80 + 7]))
    assert torch.allclose(LENGTH * sample.positions[0], x - x.mean(0), atol=1e-4)
    later = torch.from_numpy(arrays["positions"][frame + 30]).float()
    assert torch.allclose(LENGTH * sample.targets[0], later - x, atol=1e-4)
    after = torch.from_numpy(arrays["positions"][frame + 1]).float()
    assert torch.allclose(LENGTH * sample.velocities[0], 30 * (after - x), atol=2e-3)
    assert sample.velocities.abs().mean() > 0.1  # of order one
    head, toes = (list(arrays["joint_names"]).index(name) for name in ("head", "ltoes"))
    assert (sample.positions[0, head] - sample.positions[0, toes]).argmax() == 1  # y is up


def test_bones_and_two_bones_are_the_published_edges(splits: dict[str, Splits]) -> None:
    """60 directed bones and 70 directed pairs two bones apart."""
    for case in TASK.cases:
        pairs = splits[case].train.pairs
        assert pairs.shape[1:] == (31, 31, 2)
        assert pairs[0].sum((0, 1)).tolist() == [60.0, 70.0]
        assert torch.equal(pairs[0], pairs[0].transpose(0, 1))
    chain = hops(np.array([[1, 0], [2, 1], [3, 2]]), 4)
    assert chain[0].tolist() == [[0, 0], [1, 0], [0, 1], [0, 0]]


def test_the_seed_decides_nothing_of_the_data(splits: dict[str, Splits]) -> None:
    again = load(study_options(TASK), "walk", 1)
    assert torch.equal(again.train.positions, splits["walk"].train.positions)
