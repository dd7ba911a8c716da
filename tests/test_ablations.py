"""The benchmark of ablations in short form: equal time, runs that are kept, methods that cost what the recipe costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ablations
import pytest

pytestmark = pytest.mark.slow

TINY = ["model.kind=painn", "model.width=8", "model.n_layers=1", "model.n_radial=5", "model.cutoff=4.0"]
SHORT = ["train.warmup_steps=2", "train.batch_size=3", "train.compile=false", "train.monitor_per_decade=0"]
COSTS = {"recipe": 1.0, "batch 16": 2.4, "direct forces first": 1.5, "direct forces first: first stage": 0.5}


def arguments(folder: Path, *methods: str) -> list[str]:
    chosen = [part for setting in (*TINY, *SHORT) for part in ("--set", setting)]
    places = ["--run-dir", str(folder / "runs"), "--json", str(folder / "ablations.json")]
    return [*places, "--n-steps", "12", *chosen, "--methods", *methods]


@pytest.mark.parametrize(
    ("method", "is_free"),
    [
        ("recipe", True),
        ("learning rate 8e-3", True),
        ("energy weight 0", True),
        ("average of 100 steps", True),
        ("adamw", False),  # another optimiser computes something else
        ("batch 4", False),
        ("REMUL, beta 1", False),
        ("direct forces first", False),
    ],
)
def test_methods_that_change_numbers_cost_what_the_recipe_costs(method: str, is_free: bool) -> None:
    assert ablations.costs_as_the_recipe(method) is is_free


def test_methods_get_the_steps_of_equal_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    timed: list[list[str]] = []

    def known_seconds(configs: Mapping[str, Any], *, n_rounds: int) -> dict[str, float]:
        timed.append(list(configs))
        # On a machine twice as slow as it was the first time.
        return {name: COSTS[name] * len(timed) for name in configs}

    monkeypatch.setattr(ablations, "step_seconds", known_seconds)
    ablations.main(arguments(tmp_path, "learning rate 8e-3", "batch 16"))
    assert timed == [["recipe", "batch 16"]]
    kept = (tmp_path / "runs" / "batch-16-0" / "metrics.csv").stat().st_mtime_ns
    capsys.readouterr()
    ablations.main(arguments(tmp_path, "learning rate 8e-3", "batch 16", "direct forces first"))
    assert timed[1:] == [["recipe", "direct forces first", "direct forces first: first stage"]]
    assert (tmp_path / "runs" / "batch-16-0" / "metrics.csv").stat().st_mtime_ns == kept
    content = json.loads((tmp_path / "ablations.json").read_text())
    assert content["command"].startswith("python benchmarks/ablations.py --run-dir FOLDER --json ablations.json")
    rows = {row["method"]: row for row in content["runs"]}
    steps = {method: (row["n_first_steps"], row["n_steps"]) for method, row in rows.items()}
    assert steps == {
        "recipe": (0, 12),
        "learning rate 8e-3": (0, 12),
        "batch 16": (0, 5),
        "direct forces first": (8, 5),  # a third of 12 at 0.5, the rest at 1.5
    }
    assert len({row["force_mae_rotated"] for row in rows.values()}) == 4
    out = capsys.readouterr().out
    ratio = rows["batch 16"]["force_mae_rotated"] / rows["recipe"]["force_mae_rotated"]
    assert f"| batch 16 | 2.40 | 5 | 0.00 | {rows['batch 16']['force_mae_rotated']:.1f} | {ratio:.2f} |" in out
    assert "| direct forces first | 1.50 | 8 + 5 |" in out
