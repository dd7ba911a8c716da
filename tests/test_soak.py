"""A few random kills and races of `tests/soak.py`; two hundred and fifty of them: results/soak.json."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = {"train", "md", "replicas", "label", "distill", "study"}


@pytest.mark.slow
def test_what_is_killed_goes_on_and_nobody_shares_an_output(tmp_path: Path) -> None:
    """In a process of its own: this one may have threads, which a fork would lose."""
    command = [sys.executable, ROOT / "tests" / "soak.py", "--kills", "2", "--races", "1", "--seed", "5"]
    command += ["--only", "train", "--only", "label"]  # the others would only be run whole: a minute
    done = subprocess.run([*command, "--json", tmp_path / "soak.json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "soak.json").read_text())
    assert (found["kills"], found["races"], found["failures"]) == (2, 1, [])
    assert sum(command["kills_after_first_output"] for command in found["commands"].values()) >= 1


def test_the_committed_results_are_those_of_the_whole_soak() -> None:
    found = json.loads((ROOT / "results" / "soak.json").read_text())
    assert found["kills"] >= 200
    assert found["races"] >= 50
    assert found["failures"] == []
    assert found["commands"].keys() == COMMANDS
    for command in found["commands"].values():
        assert command["kills_after_first_output"] >= 10
        assert command["races"] >= 5
