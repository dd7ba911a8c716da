"""What the MD17 task costs without learning: pairs of frames a horizon apart, errors of means along a trajectory."""

from __future__ import annotations

import json
from pathlib import Path

import md17_baselines
import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_pairs_are_those_of_a_slow_search() -> None:
    steps = np.unique(np.random.default_rng(3).integers(0, 500, size=70))
    found = set(zip(*(each.tolist() for each in md17_baselines.pairs_apart(steps, 90, within=7)), strict=True))
    rows = range(len(steps))
    assert found == {(i, j) for i in rows for j in rows if 83 <= steps[j] - steps[i] <= 97}
    assert len(found) > 20


def test_the_error_of_a_mean_knows_that_neighbours_resemble_each_other() -> None:
    """Values in runs of 50: the standard error is that of so many fewer values, and independent ones have theirs."""
    rng = np.random.default_rng(5)
    slow, steps = np.repeat(rng.normal(size=200), 50), np.arange(10_000)
    mixed = rng.permutation(10_000)
    mean, error = md17_baselines.mean_and_error(slow[mixed], steps[mixed])
    assert mean == pytest.approx(slow.mean())
    assert error == pytest.approx(1.0 / np.sqrt(200), rel=0.5)
    assert md17_baselines.mean_and_error(rng.normal(size=10_000), steps)[1] == pytest.approx(0.01, rel=0.5)


def test_salicylic_acid_on_md17(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stiff molecule hardly moves, its mean geometry is near, and frames soon after each other are nearer."""
    path = tmp_path / "found.json"
    monkeypatch.setattr("sys.argv", ["md17_baselines", "--molecules", "salicylic", "--json", str(path)])
    md17_baselines.main()
    content = json.loads(path.read_text())
    (row,) = content["rows"]
    assert str(tmp_path) not in content["command"]
    assert (row["n_heavy"], row["n_pairs"]) == (10, 2530)
    assert row["mean_superposed"][0] < row["mean_geometry"][0] < row["no_motion"][0] < 0.02
    committed = json.loads((BENCHMARKS.parent / "results" / "md17_baselines.json").read_text())["rows"]
    kept = next(each for each in committed if each["molecule"] == "salicylic")
    assert row["no_motion"] == pytest.approx(kept["no_motion"])
    assert 0 < row["no_motion_100"] < row["no_motion"][0]
