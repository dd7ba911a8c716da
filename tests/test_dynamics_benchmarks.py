"""The benchmarks of dynamics in short form: physics of their tables, runs that are kept, verdicts, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dynamics_methods
import multiple_time_steps
import pytest
import rotational_noise
from potentials import ethanol_potential

from remul_md.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights: no symmetry at all, direct forces that have nothing to do with the energy."""
    return ethanol_potential(tmp_path_factory.mktemp("potential") / "both.pt", trained_forces="both")


def arguments(potential: Path | str, folder: Path, *more: str) -> list[str]:
    places = ["--run-dir", str(folder / "runs"), "--json", str(folder / "result.json")]
    short = ["--temperature-K", "50", "--timestep-fs", "0.1", "--equilibrate-ps", "0.002", "--seeds", "4"]
    timing = ["--block-fs", "0.4", "--timing-rounds", "1", "--calculator", "dtype=float64"]
    return [str(potential), *places, *short, *timing, *more]


def test_multiple_time_steps(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = arguments(both, tmp_path, "--length-ps", "0.012", "--n-inner", "1", "5", "--plain-fs", "0.1", "0.2")
    multiple_time_steps.main(given)
    out = capsys.readouterr().out
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["command"].startswith("python benchmarks/multiple_time_steps.py both.pt --run-dir FOLDER --json r")
    methods = {row["method"]: row for row in content["methods"]}
    assert list(methods) == ["plain-0.1", "plain-0.2", "inner-1-of-0.1", "inner-5-of-0.1"]
    # One inner step is velocity Verlet with the accurate forces, at the price of both.
    same = methods["inner-1-of-0.1"]["drift_meV_per_atom_ps"]
    assert same == pytest.approx(methods["plain-0.1"]["drift_meV_per_atom_ps"], rel=1e-6)
    assert methods["inner-1-of-0.1"]["speed"] < 1.0 == methods["plain-0.1"]["speed"]
    assert methods["plain-0.2"]["fluctuation_meV_per_atom"] > 2.0 * methods["plain-0.1"]["fluctuation_meV_per_atom"]
    for row in content["methods"]:
        assert f"| {row['label']} | " in out
        assert f" {row['cpu_ms_per_fs']:.2f} | {row['speed']:.2f} |" in out
    assert content["verdict"] == multiple_time_steps.verdict(content["methods"])
    assert content["verdict"] in out
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*.traj")}
    assert len(before) == 5  # four methods and their start
    (tmp_path / "result.json").unlink()
    multiple_time_steps.main(given)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*.traj")} == before
    assert json.loads((tmp_path / "result.json").read_text()) == content
    with pytest.raises(SystemExit):
        multiple_time_steps.main([*given, "--length-ps", "0.02"])
    assert "frame_interval_fs was 0.6" in capsys.readouterr().err


def test_rotational_noise(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = [
        "--timestep-fs",
        "0.05",
        "--block-fs",
        "0.1",
        "--length-ps",
        "0.002",
        "--treatments",
        "plain",
        "octahedral",
        "both",
    ]
    rotational_noise.main(arguments(both, tmp_path, *chosen))
    out = capsys.readouterr().out
    content = json.loads((tmp_path / "result.json").read_text())
    methods = {row["method"]: row for row in content["methods"]}
    assert len(methods) == len(content["runs"]) == 12
    for head in ("conservative", "direct"):
        plain, averaged, both_ways = (methods[f"{head}-{name}-zero"] for name in chosen[-3:])
        assert averaged["net_torque_rms_eV"] < 0.5 * plain["net_torque_rms_eV"]
        assert both_ways["net_torque_rms_eV"] < 1e-10 < averaged["net_torque_rms_eV"]
        assert both_ways["angular_momentum_change"] < 1e-8 < plain["angular_momentum_change"]
        assert averaged["cost"] > plain["cost"]
        assert methods[f"{head}-plain-thermal"]["cost"] == plain["cost"]  # timed once, whatever the start
    # Without net torque a molecule that turns exchanges energy, one that does not keeps it.
    turning, resting = (
        abs(methods[f"conservative-both-{start}"]["drift_meV_per_atom_ps"]) for start in rotational_noise.ROTATIONS
    )
    assert turning > 3.0 * resting
    drifts = {
        name: abs(methods[f"{name}-plain-thermal"]["drift_meV_per_atom_ps"]) for name in ("conservative", "direct")
    }
    assert drifts["direct"] > 10.0 * drifts["conservative"]
    assert methods["conservative-plain-thermal"]["cost"] == 1.0
    line = f"| direct | 24 rotations | zero | {dynamics_methods.interval_text(methods['direct-octahedral-zero'])} | "
    assert line in out


def summary(n_inner: int | None, step_fs: float, conservation: str, cpu: float) -> dict[str, Any]:
    label = f"{n_inner} of {step_fs}"
    return {
        "n_inner": n_inner,
        "step_fs": step_fs,
        "conservation": conservation,
        "cpu_ms_per_fs": cpu,
        "label": label,
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [summary(None, 0.5, "conserves", 24.0), summary(4, 2.0, "conserves", 16.0), summary(8, 4.0, "drifts", 8.0)],
            "The fastest M within the bound, 4, has 1.50x the speed of .* those of 0.5 fs: gains at least 1.2x .*: rec",
        ),
        (
            [
                summary(None, 0.5, "conserves", 24.0),
                summary(None, 1.0, "conserves", 12.0),
                summary(4, 2.0, "conserves", 11.0),
                summary(16, 8.0, "undecided", 10.0),
            ],
            r"4, has 1.09x .* 1 fs \(and 2.18x that of plain steps of 0.5 fs\): gains less than 1.2x at drift within "
            r"\+-0.05 meV/atom/ps: not recommended. Not decided by runs of this length: 16 of 8.0",
        ),
        ([summary(None, 0.5, "conserves", 24.0), summary(4, 2.0, "drifts", 1.0)], "No M is shown to keep the drift"),
        ([summary(None, 0.5, "undecided", 24.0), summary(4, 2.0, "conserves", 1.0)], "No plain steps are shown to"),
    ],
)
def test_the_verdict_follows_from_the_rows(rows: list[dict[str, Any]], message: str) -> None:
    import re

    assert re.search(message, multiple_time_steps.verdict(rows))


def test_a_seed_that_fell_apart_counts_against_its_method() -> None:
    drift = {
        "slope_meV_per_atom_ps": 0.01,
        "ci95_meV_per_atom_ps": (0.0, 0.02),
        "fluctuation_meV_per_atom": 0.1,
        "intercept_eV_per_atom": 0.0,
        "start_ps": 0.0,
        "length_ps": 10.0,
        "n_samples": 1000,
    }
    figures = dict.fromkeys(("heating_K_per_ps", "temperature_K", "net_torque_rms_eV", "angular_momentum_change"), 2.0)
    whole = {"method": "a", "seed": 0, "stopped": None, "drift": drift, "fluctuation_meV_per_atom": 0.1, **figures}
    broken = {**whole, "seed": 1, "stopped": "the molecule fell apart", "drift": None}
    assert dynamics_methods.method_summary([whole, {**whole, "seed": 1}])["conservation"] == "conserves"
    found = dynamics_methods.method_summary([whole, broken])
    assert (found["conservation"], found["n_stopped"], found["drift_meV_per_atom_ps"]) == ("drifts", 1, 0.01)
    assert "1 of 2 fell apart" in dynamics_methods.interval_text(found)
    assert dynamics_methods.interval_text(dynamics_methods.method_summary([broken])) == "fell apart"


def test_options_of_the_calculator() -> None:
    assert dynamics_methods.calculator_options(["dtype=float64", "seed=3", "allow_unseen=true"]) == {
        "dtype": "float64",
        "seed": 3,
        "allow_unseen": True,
    }
    for given in ("dtpye=float64", "dtype", "forces=direct"):
        with pytest.raises(InputError, match=rf"--calculator '{given}' is not KEY=VALUE with one of allow_unseen"):
            dynamics_methods.calculator_options([given])


def test_a_potential_without_a_direct_head_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    potential = ethanol_potential(tmp_path / "conservative.pt", trained_forces="conservative")
    with pytest.raises(SystemExit):
        multiple_time_steps.main(arguments(potential, tmp_path))
    assert "this potential was trained for conservative forces" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [potential]
