"""The tasks whose labels are made for them: a molecule in a field, and labels without end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from remul_md.datasets import read_frames
from remul_md.studies.lab import run_study, study_options
from remul_md.studies.report import markdown_report
from remul_md.studies.tasks import field, freedom

pytest.importorskip("tblite", reason="remul-md[xtb] is not installed")
pytestmark = pytest.mark.slow
TINY = ["n_steps=10", "batch_size=3", "width=12", "n_layers=1", "n_heads=3", "n_draws=2", "n_test=6", "n_validation=4"]


def test_a_field_is_labelled_once_and_figures_are_taken_about_it(tmp_path: Path) -> None:
    options = study_options(
        field.TASK,
        models=["relaxed", "exact"],
        methods=["augmentation-axis", "augmentation"],
        seeds=[0],
        overrides=[*TINY, "n_train=9", "learning_rate=0.05"],
    )
    content = json.loads(run_study(field.TASK, options, run_dir=tmp_path / "study").read_text())
    about, every, exact = content["runs"]
    assert [run["method"] for run in (about, every, exact)] == ["augmentation", "augmentation-axis", "plain"]
    train, test = (read_frames(field.labels(tmp_path / "study", "0.5", part)) for part in ("train", "test"))
    assert (len(train), len(test)) == (13, 6)
    assert train.field_V_per_A is not None
    assert train.field_V_per_A[0].tolist() == [0.0, 0.0, 0.5]
    original = read_frames("rmd17/ethanol/train-01").select(range(13))
    assert np.abs(train.positions - original.positions).max() > 0.5  # in other orientations
    assert exact["figures"]["equivariance_percent"] < 1e-6
    assert exact["figures"]["direction_load"] == 1.0
    assert not [*(tmp_path / "study").glob("*partial*")]
    written = field.labels(tmp_path / "study", "0.5", "train").stat().st_mtime_ns
    run_study(field.TASK, options, run_dir=tmp_path / "study", resume=True)
    assert field.labels(tmp_path / "study", "0.5", "train").stat().st_mtime_ns == written


def test_more_frames_begin_with_the_fewer_and_are_tested_alike(tmp_path: Path) -> None:
    options = study_options(
        freedom.TASK, models=["exact"], methods=["plain"], seeds=[0], overrides=[*TINY, "cases=[200]"]
    )
    results = run_study(freedom.TASK, options, run_dir=tmp_path / "study")
    fewer = read_frames(freedom.labels(tmp_path / "study", "200"), allow_implausible=True)
    freedom.prepare(study_options(freedom.TASK, overrides=[*TINY, "cases=[200]", "n_validation=30"]), tmp_path)
    larger = read_frames(freedom.labels(tmp_path, "200"), allow_implausible=True)
    assert (len(fewer), len(larger)) == (204, 230)
    assert np.array_equal(larger.select(range(204)).positions, fewer.positions)
    (run,) = json.loads(results.read_text())["runs"]
    assert run["figures"]["equivariance_percent"] < 1e-6
    assert "### ethanol, GFN2-xTB, 200 training frames, equal steps" in markdown_report(results)
