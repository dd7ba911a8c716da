"""The check of a CUDA device, rehearsed on the CPU with small sizes: every part finds something, failures are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from potentials import ethanol_potential

from remul_md.models import MODELS

# It compiles: seconds of CPU time for each case, minutes where others have the cores.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "cuda_check.py"
# The smallest graph that there is to compile; the transformer is compiled by tests of its own.
TINY = {"kind": "painn", "width": 8, "n_layers": 1, "n_radial": 3}
Check = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """The script as a user runs it, with a cache of its own; it writes check.json."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        # The files beside a script are found by themselves, but not where PYTHONSAFEPATH is set.
        places = [str(SCRIPT.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "REMUL_MD_CACHE": str(tmp_path), "PYTHONPATH": os.pathsep.join(places)}
        command = [sys.executable, str(SCRIPT), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def found(tmp_path: Path) -> dict[str, Any]:
    content = json.loads((tmp_path / "check.json").read_text())
    assert content["device"] == {**content["device"], "type": "cpu", "torch": torch.__version__, "cuda": None}
    assert content["command"].startswith("python benchmarks/cuda_check.py --device=cpu --json check.json ")
    for name, part in content["parts"].items():
        assert part["seconds"] > 0.0, name
        assert str(tmp_path) not in json.dumps([row for row in part["rows"] if "error" not in row])
    return content


def arguments(tmp_path: Path, *more: str) -> list[str]:
    return ["--device=cpu", "--json", str(tmp_path / "check.json"), *more]


def test_all_parts_but_dynamics(check: Check, tmp_path: Path) -> None:
    potential = ethanol_potential(tmp_path / "tiny.pt", trained_forces="direct", **TINY)
    model = [f"--set=model.{key}={value}" for key, value in TINY.items()]
    parts = ["--parts", "tests", "agreement", "calls", "training"]
    sizes = ["--calls=3", "--train-steps=6", "--tests", "tests/test_models.py", "--set=data.n_validation=3"]
    # One compiled call, of forces without a derivative, and no compiled training, which tests/test_compiled.py has:
    # minutes of compiling less.
    sizes += ["--symmetries", "exact", "--compile", "calls"]
    chosen = [*parts, *sizes, *model, "--molecules", f"ethanol={potential}", "--budget-seconds=850"]
    done = check(*arguments(tmp_path, *chosen))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {name: part["rows"] for name, part in found(tmp_path)["parts"].items()}
    (counts,) = rows["tests"]
    assert counts["failed"] == 0
    assert counts["passed"] + counts["skipped"] == len(MODELS)  # the contract of every model has one such test
    assert [row["dtype"] for row in rows["agreement"]] == ["float64", "float32"]
    for row in rows["agreement"]:
        assert row["rms_force_eV_per_A"] > 0.0
        assert row["largest_force_difference_eV_per_A"] == row["largest_energy_difference_eV"] == 0.0  # CPU and CPU
    assert rows["agreement"][1]["cpu_against_float64_eV_per_A"] > 0.0
    cases = [(row["forces"], row["symmetry"], row["compiled"]) for row in rows["calls"]]
    assert cases == [("direct", "exact", way) for way in (False, True)]
    assert all(row["median_ms"] > 0.0 for row in rows["calls"])
    (row,) = rows["training"]
    assert not row["compiled"]
    assert all(row[name] > 0.0 for name in ("steps_per_s", "seconds", "validation_force_mae_meV_per_A"))


def test_dynamics_is_measured_although_another_part_fails(check: Check, tmp_path: Path) -> None:
    chosen = ["--parts", "training", "dynamics", "--copies", "3", "--set=train.betta=1", "--budget-seconds=400"]
    done = check(*arguments(tmp_path, *chosen))
    assert done.returncode == 1, done.stdout + done.stderr
    parts = found(tmp_path)["parts"]
    assert parts["training"]["status"] == "incomplete"
    for row in parts["training"]["rows"]:
        assert "InputError: demo-ethanol: unknown key train.betta; did you mean train.beta?" in row["error"]
    assert parts["dynamics"]["status"] == "complete"
    rows = parts["dynamics"]["rows"]
    assert [(row["copies"], row["way"]) for row in rows] == [(3, "torch-sim"), (3, "replicas")]
    for row in rows:
        assert row["ns_per_day"] == pytest.approx(row["copies"] * row["ns_per_day_of_each"])
        # 0.5 fs a step.
        assert row["ns_per_day_of_each"] * row["ms_per_step"] == pytest.approx(0.5e-6 * 86400e3)
        assert row["steps"] > 0


def test_what_takes_too_long_is_ended_and_told(check: Check, tmp_path: Path) -> None:
    done = check(*arguments(tmp_path, "--parts", "calls", "agreement", "--budget-seconds=2"))
    assert done.returncode == 1
    parts = found(tmp_path)["parts"]
    assert [part["status"] for part in parts.values()] == ["out of time", "out of time"]
    assert parts["calls"]["error"].startswith("ended after ")
    assert parts["calls"]["seconds"] < 10.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so_and_does_nothing(check: Check, tmp_path: Path) -> None:
    for given, message in (([], "sees no CUDA device: docs/cuda-runs.md"), (["--device=cuda"], "sees no CUDA device")):
        done = check("--json", str(tmp_path / "check.json"), *given)
        assert done.returncode == 2
        assert done.stdout == ""
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "check.json").exists()
