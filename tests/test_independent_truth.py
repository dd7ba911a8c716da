"""The benchmark of independent truth in short form: frames, labels, error bars, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import independent_truth
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT
from potentials import ethanol_potential, untrained_potential
from scipy.stats import spearmanr

from remul_md.analysis.vibrations import vibrations
from remul_md.datasets import read_frames
from remul_md.dynamics import read_trajectory
from remul_md.potentials.ensemble import make_ensemble

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One potential with random weights, and an ensemble of it and another one."""
    found = tmp_path_factory.mktemp("potentials")
    ethanol_potential(found / "one.pt", trained_forces="conservative")
    frames = read_frames("rmd17/ethanol/train-01").select(range(0, 40, 8))
    untrained_potential(frames, trained_forces="conservative", seed=4).save(found / "other.pt")
    make_ensemble([found / "one.pt", found / "other.pt"]).save(found / "ensemble.pt")
    return found


def arguments(folder: Path, target: Path, *more: str) -> list[str]:
    places = ["--run-dir", str(target / "runs"), "--labels", str(target / "labels.npz")]
    places += ["--json", str(target / "truth.json"), "--plots", str(target / "plots")]
    short = ["--temperatures-K", "40", "90", "--frames", "4", "--interval-fs", "0.6", "--timestep-fs", "0.2"]
    short += ["--equilibrate-ps", "0.002", "--draws", "3", "--method", "ase.calculators.emt:EMT"]
    return [str(folder / "one.pt"), *places, *short, "--calculator", "dtype=float64", *more]


def test_frames_labels_and_error_bars(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = arguments(folder, tmp_path, "--ensemble", str(folder / "ensemble.pt"), "--no-vibrations")
    independent_truth.main(given)
    out = capsys.readouterr().out
    labelled = read_frames(tmp_path / "labels.npz", allow_implausible=True)
    assert len(labelled) == 8
    runs = [read_trajectory(tmp_path / "runs" / f"nvt-{kelvin}K.traj") for kelvin in (40, 90)]
    walked = np.concatenate([run.positions[1:] for run in runs])
    for index, before in enumerate(walked):
        atoms = labelled.atoms(index)
        distances = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (atoms.positions, before)]
        np.testing.assert_allclose(*distances, atol=1e-9)  # the frame of the run, but rotated
        assert np.abs(atoms.positions - (before - before.mean(axis=0))).max() > 0.1
        atoms.calc = EMT()
        np.testing.assert_allclose(labelled.forces[9 * index : 9 * index + 9], atoms.get_forces(), atol=1e-9)
    content = json.loads((tmp_path / "truth.json").read_text())
    assert content["command"].startswith("python benchmarks/independent_truth.py one.pt --run-dir FOLDER --labels lab")
    assert str(tmp_path) not in json.dumps(content)
    assert {row["n_frames"] for row in content["potential"].values()} == {4, 8}
    assert content["ensemble_members"] == 2
    assert set(content["error_bars"]) >= {"rotational", "ensemble", "ensemble_for_the_single_model"}
    for row in content["error_bars"].values():
        low, high = row["spearman_ci95"]
        assert -1.0 <= low <= row["spearman"] <= high <= 1.0
    assert f"| 40 K (4) | potential | {content['potential']['40 K']['force_mae']:.2f} |" in out
    assert (tmp_path / "plots" / "independent_truth_ethanol.png").stat().st_size > 10_000
    before = (tmp_path / "labels.npz").read_bytes()
    independent_truth.main(given)
    assert (tmp_path / "labels.npz").read_bytes() == before
    assert json.loads((tmp_path / "truth.json").read_text()) == content


def test_the_rank_correlation_is_over_frames() -> None:
    rng = np.random.default_rng(2)
    spreads = rng.uniform(0.5, 2.0, size=60)
    errors = spreads * np.exp(0.3 * rng.normal(size=60))
    found = independent_truth.followed(errors, spreads, seed=1)
    assert found["spearman"] == pytest.approx(spearmanr(errors, spreads).statistic)
    low, high = found["spearman_ci95"]
    assert 0.5 < low < found["spearman"] < high < 0.97
    assert independent_truth.rms(np.full((3, 5, 3), 2.0)).tolist() == [2.0, 2.0, 2.0]


def test_force_calls_of_the_reference_are_kept(tmp_path: Path) -> None:
    """A relaxation and Hessian that is begun again repeats no call, and one that stopped in the middle goes on."""
    calls: list[int] = []

    def make(*, limit: int) -> Any:
        def new() -> EMT:
            calls.append(1)
            if len(calls) > limit:
                raise KeyboardInterrupt
            return EMT()

        return new

    water = molecule("H2O")
    water.calc = independent_truth.KeptCalls(make(limit=9), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        vibrations(water, fmax_eV_per_A=1e-3)
    assert len(list(tmp_path.glob("*.npz"))) == 9
    calls.clear()
    water.calc = independent_truth.KeptCalls(make(limit=1000), tmp_path)
    found = vibrations(water, fmax_eV_per_A=1e-3)
    n_all = len(list(tmp_path.glob("*.npz")))
    assert len(calls) == n_all - 9
    plain = molecule("H2O")
    plain.calc = EMT()
    wanted = vibrations(plain, fmax_eV_per_A=1e-3).modes.vibrations_per_cm
    np.testing.assert_allclose(found.modes.vibrations_per_cm, wanted, rtol=1e-6)
    calls.clear()
    water.calc = independent_truth.KeptCalls(make(limit=0), tmp_path)
    vibrations(water, fmax_eV_per_A=1e-3)
    assert calls == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ensemble", "one.pt"], "one.pt is a single model; `remul-md ensemble` makes one of several"),
        (["--method", "no_such_module:Factory"], "no_such_module:Factory: ModuleNotFoundError"),
        (["--calculator", "forces=direct"], "is not KEY=VALUE with one of"),
    ],
)
def test_what_does_not_fit_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    chosen = [str(folder / part) if part == "one.pt" else part for part in options]
    with pytest.raises(SystemExit):
        independent_truth.main([*arguments(folder, tmp_path), *chosen])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "truth.json").exists()
