"""`remul-md md --n-inner`: both heads of one file, what the record says, resuming, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from messages import pattern
from potentials import ethanol_potential

from remul_md.datasets.structure_source import read_structure

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, small enough that ethanol stays together for some femtoseconds."""
    return ethanol_potential(tmp_path_factory.mktemp("potential") / "both.pt", trained_forces="both")


@pytest.fixture(scope="module")
def conservative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ethanol_potential(tmp_path_factory.mktemp("potential") / "conservative.pt", trained_forces="conservative")


def command(potential: Path | str, output: Path, *more: str) -> list[str]:
    options = ["--structure", "ethanol", "--temperature-K", "50", "--device", "cpu", "--dtype", "float64"]
    return ["md", str(potential), *options, "--output", str(output), *more]


@pytest.mark.slow
def test_both_heads_share_the_work(cli: Run, both: Path, tmp_path: Path) -> None:
    output = tmp_path / "run.traj"
    times = ["--timestep-fs", "0.1", "--length-ps", "0.01", "--equilibrate-ps", "0.001"]
    given = command(both, output, *times, "--n-inner", "4")
    code, out, err = cli(*given)
    assert code == 0, err
    assert "run.traj: 25 steps of 4 x 0.1 fs, 3 frames" in out
    assert "steps/s, plain ones and outer ones together" in out
    said = json.loads((tmp_path / "run.json").read_text())
    assert said["scheme"] == "reversible RESPA: 4 inner steps of 0.1 fs to one outer step"
    assert (said["provenance"]["forces"], said["provenance"]["fast_forces"]) == ("conservative", "direct")
    assert said["options"]["frame_interval_fs"] == pytest.approx(3.6)  # whole outer steps of 0.4 fs up to 3.75
    log = np.genfromtxt(tmp_path / "run.log.csv", delimiter=",", names=True)
    np.testing.assert_allclose(log["time_ps"], 0.0004 * np.arange(26))
    before = output.read_bytes()
    assert cli(*given, "--resume")[0] == 0
    assert output.read_bytes() == before
    plain = cli(*command(both, tmp_path / "plain.traj", *times))
    assert plain[0] == 0
    plain_said = json.loads((tmp_path / "plain.json").read_text())
    assert "fast_forces" not in plain_said["provenance"]
    assert "scheme" not in plain_said


@pytest.mark.parametrize(
    ("trained", "options", "message"),
    [
        ("both", ["--n-inner", "0"], "n_inner ... got 0"),
        ("both", ["--n-inner", "4", "--ensemble", "bussi"], "n_inner 4 ... 'nve', got 'bussi'"),
        (
            "both",
            ["--n-inner", "4", "--replicas", "2"],
            "--n-inner 4 ... --replicas 2",
        ),
        (
            "both",
            ["--n-inner", "4", "--frame-interval-fs", "3"],
            "3.0 ... 4 * timestep_fs",
        ),
        ("both", ["--n-inner", "4", "--forces", "direct"], "both ... direct ones were asked for"),
        ("conservative", ["--n-inner", "4"], "trained for conservative"),
    ],
)
def test_what_does_not_fit_is_refused(
    request: pytest.FixtureRequest, cli: Run, tmp_path: Path, trained: str, options: list[str], message: str
) -> None:
    code, _, err = cli(*command(request.getfixturevalue(trained), tmp_path / "run.traj", *options))
    assert code == 2
    assert err.startswith("error: ")
    assert re.search(pattern(message), err), err
    assert list(tmp_path.iterdir()) == []


def test_a_molecule_in_a_box_runs_and_is_judged_without_it(cli: Run, tmp_path: Path) -> None:
    atoms = read_structure("ethanol")
    atoms.set_cell([14.0, 14.0, 14.0])
    atoms.pbc = True
    ase.io.write(tmp_path / "box of mine.pdb", atoms, format="proteindatabank")
    options = ["--structure", tmp_path / "box of mine.pdb", "--output", tmp_path / "a run.traj", "--length-ps", "0.02"]
    code, _, err = cli("md", "ethanol", *options, "--equilibrate-ps", "0", "--device", "cpu")
    assert code == 2
    assert "--ignore-cell" in err
    code, out, err = cli("md", "ethanol", *options, "--equilibrate-ps", "0", "--device", "cpu", "--ignore-cell")
    assert code == 0, err
    suggested = next(line for line in out.splitlines() if "remul-md analyze" in line).split("remul-md ")[1]
    assert shlex.split(suggested)[:2] == ["analyze", str(tmp_path / "a run.traj")]
    frames = ase.io.read(str(tmp_path / "a run.traj"), index=":")
    for frame in frames:
        frame.set_cell([14.0, 14.0, 14.0])
        frame.pbc = True
    ase.io.write(tmp_path / "boxed.traj", frames)
    code, out, _ = cli("analyze", tmp_path / "boxed.traj", "--no-vibrations")
    assert code == 0
    assert re.search(r"molecule intact +- +not judged: an isolated molecule .*--ignore-cell", out), out
    code, out, _ = cli("analyze", tmp_path / "boxed.traj", "--no-vibrations", "--ignore-cell")
    assert re.search(r"molecule intact +yes", out), out
