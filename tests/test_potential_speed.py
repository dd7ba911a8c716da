"""The benchmark of error beside milliseconds: its front, and that every row has its error and a call."""

from __future__ import annotations

import json
from pathlib import Path

import potential_speed
import pytest

ROOT = Path(__file__).parents[1]


def test_the_front_is_what_nothing_beats() -> None:
    points = {"fast": (1.0, 9.0), "slow": (8.0, 2.0), "between": (3.0, 4.0), "beaten": (3.5, 4.0), "worst": (9.0, 9.0)}
    assert potential_speed.on_front(points) == {"fast", "slow", "between"}
    twins = {"one": (1.0, 2.0), "other": (1.0, 2.0)}
    assert potential_speed.on_front(twins) == {"one", "other"}


def test_errors_are_those_of_the_files() -> None:
    assert potential_speed.force_error("PaiNN") == pytest.approx(6.107, abs=1e-3)
    assert potential_speed.force_error("none, distances") == pytest.approx(18.97, abs=0.01)
    shipped = json.loads((ROOT / "data" / "potentials" / "ethanol.json").read_text())
    assert potential_speed.force_error("shipped, exact") == shipped["force_mae_exact"]
    assert all(potential_speed.force_error(name) > 0 for name in potential_speed.ROWS)


@pytest.mark.slow
def test_a_short_run_measures_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(potential_speed, "N_WARM", 1)
    paths = ["--json", str(tmp_path / "speed.json"), "--plot", str(tmp_path / "front.png")]
    names = ["PaiNN", "none, distances, direct", "shipped, exact"]
    monkeypatch.setattr("sys.argv", ["potential_speed", "--rows", *names, "--calls", "2", "--no-compile", *paths])
    potential_speed.main()
    content = json.loads((tmp_path / "speed.json").read_text())
    assert [row["name"] for row in content["rows"]] == names
    assert all(row["ms"]["eager"] > 0 for row in content["rows"])
    assert str(tmp_path) not in content["command"]
    assert (tmp_path / "front.png").stat().st_size > 10_000
