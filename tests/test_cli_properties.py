"""The commands over the analysis functions: what they print and write, and that mistakes are one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from analysis_runs import ethanol_run
from potentials import untrained_potential

from remul_md.datasets import read_frames

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def potential(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("potential") / "gentle.pt"
    frames = read_frames("rmd17/ethanol/train-01")
    untrained_potential(frames, trained_forces="conservative", energy_scale=0.1).save(path)
    return path


def test_vibrations(cli: Run, potential: Path, tmp_path: Path) -> None:
    code, out, err = cli("vibrations", potential, "ethanol", "--max-steps", "2", "--json", tmp_path / "v.json")
    assert code == 0, err
    assert "NOT relaxed in 2 steps" in out
    figures = json.loads((tmp_path / "v.json").read_text())
    assert len(figures["vibrations_per_cm"]) == 21
    assert len(figures["rotations_per_cm"]) == 3
    assert "translations cost nothing: yes" in out
    code, _, err = cli("vibrations", potential, "ethanol", "--fmax", "0")
    assert (code, "fmax_eV_per_A must be > 0" in err) == (2, True)


def test_any_calculator_vibrates(cli: Run, tmp_path: Path) -> None:
    from ase.build import molecule
    from ase.io import write

    write(tmp_path / "n2.xyz", molecule("N2"))
    code, out, err = cli("vibrations", "ase.calculators.emt:EMT", tmp_path / "n2.xyz")
    assert code == 0, err
    assert "vibrations, 1/cm:    123" in out  # 1230 to 1239
    assert "rotations cost nothing: yes" in out
    code, _, err = cli("vibrations", "ase.calculators.emt:EMT", tmp_path / "n2.xyz", "--forces", "direct")
    assert (code, "--forces is an option" in err) == (2, True)


def test_compare(cli: Run, tmp_path: Path) -> None:
    code, out, err = cli(
        *("compare", "rmd17/ethanol/test-01", "rmd17/ethanol/train-01"),
        *("--json", tmp_path / "c.json", "--picture", tmp_path / "c.png"),
    )
    assert code == 0, err
    assert "structure as in the reference: yes" in out
    figures = json.loads((tmp_path / "c.json").read_text())
    (found,) = figures["comparisons"]
    assert 0.0 < found["h_r_mae"] < 0.1
    assert found["distributions"]["bond C-O"]["trajectory"]["n_values"] == 1000
    assert (tmp_path / "c.png").stat().st_size > 20000
    code, _, err = cli("compare", "rmd17/ethanol/test-01", "rmd17/aspirin/test-01")
    assert (code, "give the same molecule" in err) == (2, True)


@pytest.mark.slow
def test_compare_potentials_side_by_side(cli: Run, tmp_path: Path) -> None:
    """Each is run once from one structure, the same command again goes on with what is there."""
    words = ("compare", "ethanol@direct", "ethanol@exact", "rmd17/ethanol/test-01", "--structure", "ethanol")
    words += ("--report", tmp_path / "page.html", "--json", tmp_path / "page.json", "--n-rotation-frames", "2")
    words += ("--length-ps", "0.02", "--equilibrate-ps", "0", "--seed", "3")
    code, _, err = cli(*words)
    assert code == 0, err
    written = json.loads((tmp_path / "page.json").read_text())
    errors = {name: run["rotational_error"] for name, run in written["runs"].items()}
    assert errors["ethanol@exact"] < 0.01 < 0.1 < errors["ethanol@direct"]
    known = {name: run["force_error_meV_per_A"] for name, run in written["runs"].items()}
    assert known["ethanol@exact"] < 5.0 < known["ethanol@direct"]
    assert min(run["call_ms"] for run in written["runs"].values()) > 0.1
    assert [each["reference"] for each in written["comparisons"]] == ["rmd17/ethanol/test-01"] * 2
    runs = sorted((tmp_path / "page-runs").glob("*.traj"))
    assert len(runs) == 2
    before = [run.stat().st_mtime_ns for run in runs]
    assert cli(*words)[0] == 0
    assert [run.stat().st_mtime_ns for run in runs] == before


def test_compare_refuses_before_it_runs(cli: Run, tmp_path: Path) -> None:
    for wrong, told in {
        ("compare", "ethanol", "ethanol@exact"): "--report",
        ("compare", "ethanol", "ethanol@exact", "--report", tmp_path / "new.html"): "--structure",
        ("compare", "ethanol", "ethanol@upright", "--report", tmp_path / "new.html"): "no mode",
        ("compare", "ethanol"): "two or more",
    }.items():
        code, _, err = cli(*wrong)
        assert (code, told in err) == (2, True), err
    assert not (tmp_path / "new.html").exists()


def test_spectrum(cli: Run, tmp_path: Path) -> None:
    run = ethanol_run(tmp_path, tilted=False, length_ps=0.1, equilibrate_ps=0.0)
    code, out, err = cli("spectrum", run, "--json", tmp_path / "s.json", "--picture", tmp_path / "s.png")
    assert code == 0, err
    assert "note: Frames end at 3336 1/cm" in out
    assert "degrees of freedom" in out
    figures = json.loads((tmp_path / "s.json").read_text())
    assert len(figures["density"]) == 11
    assert (tmp_path / "s.png").stat().st_size > 10000


def test_timestep_scan(cli: Run, potential: Path, tmp_path: Path) -> None:
    command = ("timestep-scan", potential, "--structure", "ethanol", "--length-ps", "0.02")
    code, out, err = cli(*command, "--timesteps-fs", "0.5,1", "--json", tmp_path / "t.json")
    assert code == 0, err
    assert "energy error of second order" in out
    figures = json.loads((tmp_path / "t.json").read_text())
    assert [run["timestep_fs"] for run in figures["runs"]] == [0.5, 1.0]
    assert figures["ci95"] is None
    code, _, err = cli(*command, "--timesteps-fs", "0.5,one")
    assert (code, "'0.5,one'" in err) == (2, True)
