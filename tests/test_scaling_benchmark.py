"""The benchmark of scaling at a tiny size: what is run, a resumption, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import scaling

pytest.importorskip("mujoco", reason="remul-md[rigid-bodies] is not installed")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size of its own, named so on the command line."""
    size = scaling.Size(
        options=("kinds=[tetrahedron]", "batch_size=2", "n_heads=2", "n_test=5"),
        transformers=((12, 1), (16, 1), (24, 1)),
        gatrs=((1, 4, 1), (2, 4, 1), (3, 4, 1)),
        budgets=(6e6, 1.2e7),
        n_scenes=7,
        uniques=(3, 7),
        unique_budget=1.2e7,
    )
    monkeypatch.setitem(scaling.SIZES, "tiny", size)


def test_larger_networks_see_less_and_runs_are_shared() -> None:
    size = scaling.SIZES["quick"]
    runs = scaling.planned(size, size.budgets)
    grid = [run for run in runs if run.method == "plain" and run.n_scenes == size.n_scenes]
    assert len(grid) == 2 * 5 * 4
    assert len({run.name for run in runs}) == len(runs) == len(grid) + 3 * len(size.uniques) - 2
    assert [run.budget for run in runs] == sorted(run.budget for run in runs)


@pytest.mark.slow
def test_a_small_grid_is_run_once_and_told(tiny: None, tmp_path: Path) -> None:
    folder, told, plot = tmp_path / "run", tmp_path / "scaling.json", tmp_path / "scaling.png"
    line = [str(folder), "--size", "tiny", "--draws", "2", "--json", str(told), "--plot", str(plot)]
    scaling.main([*line[:3], "--budgets", "6e6"])
    first = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert len(first) == 6 + 6  # a grid of one budget, and the sweep at the other
    scaling.main(line)
    assert all(path.stat().st_mtime_ns == when for path, when in first.items())
    content = json.loads(told.read_text())
    assert str(tmp_path) not in content["command"]
    rows = content["runs"]
    ran = [row for row in rows if row["model"] == "transformer" and row["n_scenes"] == 7 and row["method"] == "plain"]
    assert len(ran) == 6
    for row in rows:
        assert row["flops_a_token"] * row["n_tokens"] == pytest.approx(row["budget"], rel=0.05)
        assert row["n_tokens"] == row["n_steps"] * 2 * 4
        assert row["epochs"] == pytest.approx(row["n_steps"] * 2 / row["n_scenes"])
        assert row["test_mse"] > 0
    found = content["found"]["transformer"]
    assert found["n_runs"] == 6
    assert set(found["lowest_loss"]) == {"6e+06", "1.2e+07"}
    low, high = found["intervals"]["alpha"]
    assert 0.0 <= low <= high
    assert plot.stat().st_size > 10_000
    scaling.main([*line, "--finished", "--budgets", "6e6"])
    assert "held_out" not in json.loads(told.read_text())["found"]["transformer"]
