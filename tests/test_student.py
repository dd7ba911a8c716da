"""The benchmark of students in short form: who is taught by what, runs that are kept, labels that are left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import student

from remul_md.datasets import read_frames
from remul_md.labels.label import label_frames
from remul_md.potentials.potential import load_potential

pytestmark = pytest.mark.slow

TINY = ["model.kind=painn", "model.width=8", "model.n_layers=1", "model.n_radial=5", "model.cutoff=4.0"]
SHORT = ["train.warmup_steps=2", "train.batch_size=3", "train.compile=false", "train.monitor_per_decade=0"]


def arguments(folder: Path, *further: str) -> list[str]:
    chosen = [part for setting in (*TINY, *SHORT, "train.device=cpu") for part in ("--set", setting)]
    places = ["--run-dir", str(folder / "runs"), "--json", str(folder / "student.json")]
    steps = ["--n-steps", "11", "--student-steps", "13", "--fine-steps", "5"]
    sizes = ["--members", "2", "--n-frames", "40", "--replicas", "4", "--equilibrate-ps", "0.001", "--n-test", "6"]
    sizes += ["--frame-interval-fs", "1"]  # springs of random weights: the molecule must not fall apart
    return [*places, *steps, *sizes, *chosen, "--max-std", "1e6", *further]


def test_a_student_is_taught_by_the_ensemble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student.main(arguments(tmp_path))
    out = capsys.readouterr().out
    content = json.loads((tmp_path / "student.json").read_text())
    assert content["command"].startswith("python benchmarks/student.py --run-dir FOLDER --json student.json")
    rows = {row["name"]: row for row in content["runs"]}
    steps = {"member 0": 11, "member 1": 11, "ensemble": 22, "student": 35, "student, then reference frames": 40}
    assert {name: row["n_steps"] for name, row in rows.items()} == steps
    assert len({row["force_mae_rotated"] for row in rows.values()}) == 5
    for row in rows.values():
        assert f"| {row['name']} | {row['n_steps']} | {row['force_mae_original']:.2f} / " in out
    # The labels that the student saw are the ensemble's, and no member's.
    runs = tmp_path / "runs"
    taught = read_frames(runs / "sampled" / "ensemble.npz", allow_implausible=True)
    assert len(taught) == content["sampled"]["n_labelled"] == 30  # three of four runs, the last is held out
    gaps = []
    for seed in range(2):
        member = load_potential(runs / f"member-{seed}" / "potential.pt")
        gaps.append(label_frames(member, taught).frames.forces - taught.forces)
    np.testing.assert_allclose(gaps[0], -gaps[1], atol=2e-6)
    assert np.abs(gaps[0]).mean() > 1e-4
    before = {path: path.read_bytes() for path in runs.rglob("potential.pt")}
    assert len(before) == 4
    ensemble = load_potential(runs / "ensemble.pt")
    assert content["sampled"]["case"]["ensemble"] == rows["ensemble"]["sha256"] == ensemble.sha256 != ""
    student.main(arguments(tmp_path))
    assert all(path.read_bytes() == content_before for path, content_before in before.items())
    assert json.loads((tmp_path / "student.json").read_text())["runs"] == content["runs"]


def test_a_single_member_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        student.main(arguments(tmp_path, "--members", "1"))
    assert "--members must be at least 2, got 1" in capsys.readouterr().err
