"""The benchmark of few labels in short form: equal steps, finished runs are kept, no folder is written into results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import learning_curve
import pytest
from cheap_springs import reference_file

pytestmark = pytest.mark.slow

TINY = ["kind=painn", "width=8", "n_layers=1", "n_radial=5", "cutoff=4.0"]


def arguments(folder: Path, *further: str) -> list[str]:
    settings = [f"model.{option}" for option in TINY]
    settings += [f"data.source={folder / 'frames.xyz'}", "data.molecule=null", "data.n_validation=5"]
    settings += [
        "train.n_steps=11",
        "train.batch_size=3",
        "train.warmup_steps=2",
        "train.device=cpu",
        "train.compile=false",
    ]
    settings += ["train.monitor_per_decade=0", "pretrain.n_labels=40", "pretrain.temperature_K=600"]
    chosen = [part for setting in settings for part in ("--set", setting)]
    places = ["--run-dir", str(folder / "runs"), "--json", str(folder / "curve.json"), "--plots", str(folder / "plots")]
    options = ["--method", "cheap_springs:stiff_springs", "--share", "0.3", "--test", str(folder / "frames.xyz")]
    return [*places, *chosen, *options, "--n-test", "6", "--frames", "7", "9", *further]


def test_methods_have_the_same_steps_and_finished_runs_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference_file(tmp_path / "frames.xyz", n_frames=20)
    learning_curve.main(arguments(tmp_path))
    out = capsys.readouterr().out
    assert out.count(": training") == 4
    content = json.loads((tmp_path / "curve.json").read_text())
    assert "--run-dir FOLDER --json curve.json --plots FOLDER" in content["command"]
    rows = content["runs"]
    cases = [("scratch", 7), ("pretrained", 7), ("scratch", 9), ("pretrained", 9)]
    assert [(row["method"], row["n_train"]) for row in rows] == cases
    assert {row["n_steps"] for row in rows} == {11}
    told = "40 cheap_springs:stiff_springs labels"
    assert [row["pretraining"] for row in rows] == ["", told, "", told]
    assert rows[1]["labelling_seconds"] > 0.0 == rows[0]["labelling_seconds"]
    assert len({row["force_mae_rotated"] for row in rows}) == 4
    assert (tmp_path / "plots" / "learning_curve_frames.png").stat().st_size > 10_000
    for row in rows:
        line = f"| {row['n_train']} | 0 | {row['pretraining'] or 'from scratch'} | {row['force_mae_original']:.1f} / "
        assert line in out
    learning_curve.main(arguments(tmp_path))
    assert ": training" not in capsys.readouterr().out
    assert json.loads((tmp_path / "curve.json").read_text())["runs"] == rows
    with pytest.raises(SystemExit):
        learning_curve.main(arguments(tmp_path, "--set", "train.learning_rate=7e-4"))
    assert re.search(r"train.learning_rate was 0.00\d+, now 0.0007", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--share", "1"], "--share must lie between 0 and 1, got 1"),
        (["--set", "data.molecule=null", "--set", "data.source=a.xyz"], "--test is needed: a.xyz has no test frames"),
    ],
)
def test_what_cannot_be_run_is_refused(
    given: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        learning_curve.main(["--run-dir", str(tmp_path), *given])
    assert message in capsys.readouterr().err
