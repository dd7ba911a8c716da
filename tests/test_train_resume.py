"""A training run that is really killed, twice, ends with the bits of one that was not: two threads, aspirin."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from remul_md.training.checkpoint import read_checkpoint, read_metrics
from remul_md.training.config import validated_config
from remul_md.training.schedule import monitored_steps

pytestmark = pytest.mark.slow

PROGRAM = """
import json, sys
from remul_md.training.config import validated_config
from remul_md.training.train import train_potential
config = validated_config(json.loads({config!r}), origin="test")
train_potential(config, run_dir={folder!r}, resume={resume}, progress=False)
"""
# 7 divides neither the steps nor the other intervals, so a kill always finds rows that are ahead of the checkpoint.
CONFIG = {
    "data": {"molecule": "aspirin", "n_train": 23, "n_validation": 4},
    "model": {"width": 16, "n_layers": 2, "n_heads": 4, "pair_width": 12, "n_radial": 6, "n_tensors": 5},
    "train": {
        "n_steps": 45,
        "batch_size": 3,
        "warmup_steps": 5,
        "validate_every": 16,
        "checkpoint_every": 7,
        "log_every": 3,
        "weighting": "gradual",  # remembers weights and initial losses
        "monitor_share": 1.0,
        "n_threads": 2,
        "device": "cpu",
    },
}


def start(folder: Path, *, resume: bool) -> subprocess.Popen[str]:
    program = PROGRAM.format(config=json.dumps(CONFIG), folder=str(folder), resume=resume)
    # Threads that spin while they wait for each other take six times as long where another process has the core.
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors


def kill_when(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """SIGKILL, which no process can answer, as soon as `reached`."""
    deadline = time.monotonic() + 500.0
    while time.monotonic() < deadline and process.poll() is None:
        if reached():
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL, f"not killed in time: {process.returncode}, {errors}"


def last_logged_step(folder: Path) -> int:
    path = folder / "metrics.csv"
    lines = path.read_text().splitlines() if path.is_file() else []
    return int(lines[-1].split(",")[0]) if len(lines) > 1 else 0


def rows_without_seconds(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def tensors_of(value: Any, path: str = "") -> dict[str, Tensor]:
    """Every tensor of a checkpoint by its path."""
    if isinstance(value, Tensor):
        return {path: value}
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {name: tensor for key, part in parts for name, tensor in tensors_of(part, f"{path}/{key}").items()}


def assert_same_run(one: Path, other: Path) -> None:
    for name in ("checkpoint.pt", "potential.pt"):
        left, right = (read_checkpoint(folder / name) for folder in (one, other))
        bits = tensors_of(left), tensors_of(right)
        assert list(bits[0]) == list(bits[1])
        assert len(bits[0]) > 20
        for key, tensor in bits[0].items():
            assert torch.equal(tensor, bits[1][key]), (name, key)
        for key in ("step", "best_score", "best_step", "n_worse", "fingerprint"):
            assert left.get(key) == right.get(key)
    assert rows_without_seconds(one) == rows_without_seconds(other)
    assert (one / "symmetry.csv").read_text() == (other / "symmetry.csv").read_text()


def test_a_training_killed_twice_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(whole, resume=False))
    kill_when(start(killed, resume=False), lambda: (killed / "checkpoint.pt").is_file())
    first = read_checkpoint(killed / "checkpoint.pt")["step"]
    kill_when(start(killed, resume=True), lambda: last_logged_step(killed) > first + 7)
    second = read_checkpoint(killed / "checkpoint.pt")["step"]
    assert 7 <= first < second < 45  # both kills came in the middle
    assert not (killed / "potential.pt").exists()
    finish(start(killed, resume=True))
    assert_same_run(whole, killed)
    rows = rows_without_seconds(killed)
    assert [int(row["step"]) for row in rows] == [
        step for step in range(1, 46) if step % 3 == 0 or step % 7 == 0 or step % 16 == 0
    ]
    assert validated_config(CONFIG, origin="test").train.n_steps == int(rows[-1]["step"])
    symmetry = read_metrics(whole / "symmetry.csv")
    assert [row["step"] for row in symmetry] == sorted(monitored_steps(validated_config(CONFIG, origin="test").train))
    assert len(symmetry) > 5
    assert rows[0]["alpha"] != rows[-1]["alpha"]
    weights = read_checkpoint(whole / "checkpoint.pt")
    moved = [name for name in weights["model"] if not torch.equal(weights["model"][name], weights["average"][name])]
    assert len(moved) > 10  # the runs did train
