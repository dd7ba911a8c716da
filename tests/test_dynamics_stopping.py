"""Runs that stop by themselves: where the members of an ensemble disagree, where the training data end, at a bond."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import read
from potentials import ethanol_potential, untrained_potential
from spring_molecule import spring_molecule

from remul_md import RemulCalculator
from remul_md.datasets import read_frames
from remul_md.dynamics import MDOptions, SimulationStopped, run_md
from remul_md.dynamics.replicas import run_replicas
from remul_md.dynamics.stopping import StopWhen, largest_uncertainty
from remul_md.errors import InputError
from remul_md.potentials.ensemble import make_ensemble

Run = Callable[..., tuple[int, str, str]]
SHORT: dict[str, Any] = {
    "ensemble": "langevin",
    "temperature_K": 700.0,
    "length_ps": 0.025,
    "equilibrate_ps": 0.0,
    "timestep_fs": 0.5,
    "frame_interval_fs": 1.0,
    "log_interval": 2,
    "seed": 5,
}


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two members with random weights that cover forty frames of ethanol, so that only a hot molecule is outside."""
    folder = tmp_path_factory.mktemp("ensemble")
    frames = read_frames("rmd17/ethanol/train-01").select(range(40))
    for seed in (1, 2):
        untrained_potential(frames, seed=seed, energy_scale=0.1).save(folder / f"{seed}.pt")
    make_ensemble([folder / "1.pt", folder / "2.pt"]).save(folder / "both.pt")
    return folder / "both.pt"


@pytest.fixture
def atoms(ensemble: Path) -> Any:
    structure = read_frames("rmd17/ethanol/train-01").atoms(0)
    structure.calc = RemulCalculator(ensemble, device="cpu", dtype="float64")
    return structure


def said(atoms: Any, path: Path) -> list[tuple[bool, float]]:
    """Of each frame of a run whether it is in the domain, and its uncertainty."""
    found, structure = [], atoms.copy()
    structure.calc = atoms.calc
    for frame in read(path, index=":"):
        structure.positions = frame.positions
        structure.get_forces()
        told = structure.calc.diagnostics
        found.append((told["in_domain"], largest_uncertainty(told["forces_std"])[1]))
    return found


@pytest.mark.parametrize(
    "text",
    ["", "domains", "uncertainty", "uncertainty=", "uncertainty=-1", "uncertainty=nan", "bond=1.5", "domain,domain"],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="stop_when"):
        MDOptions(stop_when=text)


def test_what_is_understood() -> None:
    assert MDOptions(stop_when=" domain , uncertainty=0.25,bond").stops == StopWhen(
        max_uncertainty=0.25, domain=True, bond=True
    )
    with pytest.raises(InputError, match="max_bond_stretch is None"):
        MDOptions(stop_when="domain,bond", max_bond_stretch=None)
    # Root mean square over the components of an atom.
    assert largest_uncertainty([[0.1, 0.1, 0.1], [0.3, 0.0, 0.0]]) == (1, pytest.approx(0.3 / 3**0.5))


@pytest.mark.parametrize("what", ["uncertainty=0.2", "domain"])
def test_a_calculator_that_does_not_tell_is_refused_before_anything_is_written(what: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"stop_when {what.split('=')[0]} needs a calculator"):
        run_md(spring_molecule(), MDOptions(**SHORT, stop_when=what), output=tmp_path / "run.traj", progress=False)
    assert not list(tmp_path.glob("run*"))


def test_a_single_potential_has_no_error_bar(tmp_path: Path) -> None:
    structure = read_frames("rmd17/ethanol/train-01").atoms(0)
    structure.calc = RemulCalculator(ethanol_potential(tmp_path / "one.pt", trained_forces="both"), device="cpu")
    with pytest.raises(InputError, match="ensemble"):
        run_md(structure, MDOptions(**SHORT, stop_when="uncertainty=1"), output=tmp_path / "run.traj", progress=False)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
def test_a_run_stops_at_the_first_row_that_is_outside_or_uncertain(atoms: Any, tmp_path: Path) -> None:
    free = MDOptions(**SHORT, max_bond_stretch=None)
    run_md(atoms, free, output=tmp_path / "free.traj", progress=False)
    told = said(atoms, tmp_path / "free.traj")
    outside = next(row for row, (inside, _) in enumerate(told) if not inside)
    assert 3 < outside < len(told) - 3
    with pytest.raises(SimulationStopped, match="left the training data: ") as stop:
        run_md(atoms, MDOptions(**SHORT, stop_when="domain"), output=tmp_path / "domain.traj", progress=False)
    assert (stop.value.cause, stop.value.step) == ("domain", 2 * outside)
    assert json.loads((tmp_path / "domain.json").read_text())["stopped"]["cause"] == "domain"
    kept = read(tmp_path / "domain.traj", index=":")  # what led there is kept
    assert len(kept) == outside + 1
    # A limit that the run passes somewhere on its way.
    values = [value for _, value in told]
    limit = 0.5 * (values[0] + max(values))
    first = next(row for row, value in enumerate(values) if value > limit)
    assert first > 0
    chosen = MDOptions(**SHORT, max_bond_stretch=None, stop_when=f"uncertainty={limit!r}")
    with pytest.raises(SimulationStopped, match="members disagree by") as stop:
        run_md(atoms, chosen, output=tmp_path / "std.traj", progress=False)
    assert (stop.value.cause, stop.value.step) == ("uncertainty", 2 * first)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_each_replica_stops_by_itself_where_it_would_alone(atoms: Any, tmp_path: Path) -> None:
    chosen = MDOptions(**SHORT, stop_when="domain,uncertainty=100", max_bond_stretch=None)
    silent, output = atoms.calc.copies(atoms, n_copies=2), tmp_path / "silent.traj"
    with pytest.raises(InputError, match="stop_when uncertainty needs"):  # copies that do not tell
        run_replicas(atoms, chosen, n_replicas=2, output=output, evaluate=silent, progress=False)
    evaluate = atoms.calc.copies(atoms, n_copies=3, diagnose=True)
    outcomes = run_replicas(
        atoms, chosen, n_replicas=3, output=tmp_path / "run.traj", evaluate=evaluate, progress=False
    )
    steps = []
    for replica in range(3):
        own = MDOptions(**{**SHORT, "seed": 5 + replica}, stop_when="domain", max_bond_stretch=None)
        with pytest.raises(SimulationStopped) as alone:
            run_md(atoms, own, output=tmp_path / f"alone-{replica}.traj", progress=False)
        outcome = outcomes[replica]
        assert isinstance(outcome, SimulationStopped)
        assert (outcome.cause, outcome.step) == ("domain", alone.value.step)
        steps.append(outcome.step)
    assert len(set(steps)) > 1


def test_copies_tell_of_each_copy_what_the_calculator_tells_of_one(atoms: Any) -> None:
    evaluate = atoms.calc.copies(atoms, n_copies=3, diagnose=True)
    positions = np.tile(atoms.positions, (3, 1, 1))
    positions[1, 8] += 3.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluate(positions)
        assert [copy["in_domain"] for copy in evaluate.diagnostics] == [True, False, True]
        for at, copy in zip(positions, evaluate.diagnostics, strict=True):
            atoms.positions = at
            atoms.get_forces()
            told = atoms.calc.diagnostics
            assert copy["outside_training"] == told["outside_training"]
            np.testing.assert_allclose(copy["forces_std"], told["forces_std"], rtol=0, atol=1e-9)
    assert atoms.calc.copies(atoms, n_copies=2).diagnostics is None


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_command(cli: Run, ensemble: Path, tmp_path: Path) -> None:
    short = ["--length-ps", "0.02", "--equilibrate-ps", "0", "--temperature-K", "700", "--ensemble", "langevin"]
    common = ["md", ensemble, "--structure", "ethanol", "--device", "cpu", *short, "--stop-when", "domain,bond"]
    code, _, err = cli(*common, "--output", tmp_path / "run.traj")
    assert code == 1
    assert "left the training data" in err
    code, out, _ = cli(*common, "--output", tmp_path / "two.traj", "--replicas", "2")
    assert code == 1
    assert out.count("left the training data") == 2
