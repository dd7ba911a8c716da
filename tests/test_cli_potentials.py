"""`remul-md ensemble`, `label` and `potentials` on real, small inputs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from messages import pattern
from potentials import untrained_potential

from remul_md.analysis.calibration import COVERED, calibration, force_errors_of
from remul_md.datasets import read_frames
from remul_md.potentials.potential import load_potential, shipped_potentials

Run = Callable[..., tuple[int, str, str]]
SMALL = [
    *("model.width=16", "model.n_layers=1", "model.n_heads=2", "model.pair_width=12", "model.n_radial=6"),
    *("model.n_tensors=4", "model.cutoff=4.0", "train.batch_size=4", "train.warmup_steps=2", "train.n_steps=6"),
    *("train.device=cpu", "data.n_train=14", "data.n_validation=5", "train.monitor_per_decade=0"),
]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three untrained potentials for ethanol."""
    folder = tmp_path_factory.mktemp("members")
    frames = read_frames("rmd17/ethanol/train-01").select(range(60))
    paths = [folder / f"member_{seed}.pt" for seed in range(3)]
    for seed, path in enumerate(paths):
        untrained_potential(frames, seed=seed, energy_scale=0.02).save(path)
    return paths


def test_from_members_to_a_student(cli: Run, members: list[Path], tmp_path: Path) -> None:
    """The whole recipe: an ensemble, labels of it on a trajectory, a student trained on them."""
    ensemble, trajectory, labels = tmp_path / "ensemble.pt", tmp_path / "run.traj", tmp_path / "labels.extxyz"
    code, out, err = cli("ensemble", ensemble, *members)
    assert code == 0, err
    assert f"{ensemble}: 3 members, both forces" in out
    frames = read_frames("rmd17/ethanol/train-01").select(range(100, 148))
    ase.io.write(trajectory, [frames.atoms(index) for index in range(48)])
    code, out, err = cli("label", ensemble, trajectory, labels, "--every", "2", "--dtype", "float64")
    assert code == 0, err
    assert f"{labels}: 24 frames\n" in out
    labelled = read_frames(labels, require=("energy", "forces"))
    np.testing.assert_allclose(labelled.frame_positions(3), frames.frame_positions(6), atol=1e-8)
    note = ase.io.read(labels, index=5).info["provenance"]
    note = note if isinstance(note, dict) else json.loads(note)
    assert note["potential"] == "ensemble.pt"
    assert note["potential_sha256"] == load_potential(ensemble).sha256
    assert (note["every"], note["geometries"], note["max_std_meV_per_A"]) == (2, "run.traj", None)
    settings = [part for option in [f"data.source={labels}", *SMALL] for part in ("--set", option)]
    code, out, err = cli("train", "--run-dir", tmp_path / "student", *settings)
    assert code == 0, err
    assert load_potential(tmp_path / "student" / "potential.pt").provenance.data["name"] == "labels.extxyz"


@pytest.mark.slow
def test_a_student_learns_from_dynamics_of_the_ensemble(cli: Run, members: list[Path], tmp_path: Path) -> None:
    """As docs/ensembles.md says it: dynamics, labels without the uncertain ones, a student with both heads."""
    ensemble, trajectory = tmp_path / "C.pt", tmp_path / "hot.traj"
    assert cli("ensemble", ensemble, *members)[0] == 0
    # Random weights hold no molecule together: over before it has flown apart.
    short = ["--length-ps", "0.006", "--equilibrate-ps", "0", "--timestep-fs", "0.1", "--frame-interval-fs", "0.1"]
    hot = ["--ensemble", "langevin", "--temperature-K", "500", *short]
    code, _, err = cli("md", ensemble, "--structure", "ethanol", *hot, "--output", trajectory)
    assert code == 0, err
    assert cli("label", ensemble, trajectory, tmp_path / "all.npz")[0] == 0
    with np.load(tmp_path / "all.npz", allow_pickle=False) as arrays:
        stds = 1000.0 * arrays["forces_std_eV_per_A"]
    assert len(stds) == 61
    assert len(set(stds)) > 50
    limit = float(np.sort(stds)[40])
    code, out, err = cli("label", ensemble, trajectory, tmp_path / "labels.npz", "--max-std", f"{limit:.9f}")
    assert code == 0, err
    n_kept = int((stds <= float(f"{limit:.9f}")).sum())
    assert n_kept in (40, 41)
    assert f"labels.npz: {n_kept} frames, {61 - n_kept} left out as too uncertain" in out
    options = [f"data.source={tmp_path / 'labels.npz'}", *SMALL, "train.forces=both", "data.allow_implausible=true"]
    settings = [part for option in options for part in ("--set", option)]
    code, out, err = cli("train", "--run-dir", tmp_path / "STUDENT", *settings)
    assert code == 0, err
    student = load_potential(tmp_path / "STUDENT" / "potential.pt")
    assert student.provenance.trained_forces == "both"
    assert student.provenance.config["data"]["source"] == "labels.npz"
    assert len(student.provenance.data["split"]["train"]) == 14
    code, out, err = cli("evaluate", tmp_path / "STUDENT" / "potential.pt", tmp_path / "labels.npz", "--n-draws", "2")
    assert code == 0, err
    assert f"{n_kept} frames, conservative forces" in out


def test_a_limit_leaves_frames_out(cli: Run, members: list[Path], tmp_path: Path) -> None:
    ensemble = tmp_path / "ensemble.pt"
    assert cli("ensemble", ensemble, *members)[0] == 0
    code, _, err = cli("label", ensemble, "rmd17/ethanol/test-01", tmp_path / "all.npz", "--every", "20")
    assert code == 0, err
    with np.load(tmp_path / "all.npz", allow_pickle=False) as arrays:
        stds = 1000.0 * arrays["forces_std_eV_per_A"]
    assert len(stds) == 50
    limit = float(np.median(stds))
    arguments = [ensemble, "rmd17/ethanol/test-01", tmp_path / "some.npz", "--every", "20", "--max-std", f"{limit}"]
    code, out, err = cli("label", *arguments)
    assert code == 0, err
    assert "some.npz: 25 frames, 25 left out as too uncertain" in out


def test_evaluate_reports_the_error_bar_of_a_ensemble(cli: Run, members: list[Path], tmp_path: Path) -> None:
    ensemble, json_file = tmp_path / "ensemble.pt", tmp_path / "figures.json"
    assert cli("ensemble", ensemble, *members[:2])[0] == 0
    few = tmp_path / "few.extxyz"
    assert cli("label", members[2], "rmd17/ethanol/test-01", few, "--every", "200")[0] == 0
    code, out, err = cli("evaluate", ensemble, few, "--n-draws", "2", "--json", json_file)
    assert code == 0, err
    assert "RMS force error / RMS forces_std" in out
    figures = json.loads(json_file.read_text())
    assert figures["n_members"] == 2
    assert figures["forces_std"]["n_values"] == 5 * 27
    assert figures["potential_sha256"] == load_potential(ensemble).sha256


def test_mistakes_are_one_line(cli: Run, members: list[Path], tmp_path: Path) -> None:
    for arguments, message in (
        (("ensemble", tmp_path / "out.pt", members[0]), "at least 2 ... got 1"),
        (("ensemble", tmp_path / "out", *members), "ends in .pt"),
        (("ensemble", members[0], *members), "is read by this command"),
        (("label", members[0], "ethanol.traj", tmp_path / "out.db"), "ending '.db' cannot be written"),
        (("label", members[0], "rmd17/ethanol/test-01", tmp_path / "o.npz", "--max-std", "9"), "needs an ensemble"),
        (("label", members[0], "rmd17/aspirin/test-01", tmp_path / "o.npz"), "was never trained on"),
    ):
        code, out, err = cli(*arguments)
        assert code == 2, err
        assert re.search(pattern(message), " ".join(err.split())), err
        assert "Traceback" not in out + err
    assert not list(tmp_path.glob("o*"))


@pytest.mark.slow
def test_potentials_lists_the_zoo(cli: Run, tmp_path: Path) -> None:
    code, out, err = cli("potentials", "--json", tmp_path / "zoo.json")
    assert code == 0, err
    stored = json.loads(shipped_potentials()["ethanol"].with_suffix(".json").read_text())
    line = next(line for line in out.splitlines() if line.startswith("ethanol "))
    for figure in ("force_mae_original", "force_mae_rotated", "rotational_spread"):
        assert f" {stored[figure]:.2f} " in line
    (row,) = (row for row in json.loads((tmp_path / "zoo.json").read_text())["potentials"] if row["name"] == "ethanol")
    assert row["force_mae_original"] == stored["force_mae_original"]
    assert row["latency_ms"] > 0
    in_a_field = next(line for line in out.splitlines() if line.startswith("ethanol-field"))
    assert re.search(r"SO3 about \(0 0 1\) +0 0 0\.5$", in_a_field)
    assert re.search(r" O3 +-$", line)
    code, out, _ = cli("potentials", "--no-latency")
    assert code == 0
    assert "-" in next(line for line in out.splitlines() if line.startswith("ethanol ")).split()


def test_the_error_bars_of_an_ensemble_get_the_size_of_its_errors(
    cli: Run, members: list[Path], tmp_path: Path
) -> None:
    plain, calibrated = tmp_path / "plain.pt", tmp_path / "calibrated.pt"
    assert cli("ensemble", plain, *members)[0] == 0
    frames = "rmd17/ethanol/test-01"
    code, out, err = cli("ensemble", calibrated, *members, "--calibrate", frames)
    assert code == 0, err
    assert "error bars times" in out
    shares = []
    for file in (plain, calibrated):
        errors, stds = force_errors_of(load_potential(file), read_frames(frames))
        assert stds is not None
        shares.append(calibration(errors, stds).within_2_std)
    assert shares[0] < 50.0  # untrained members are alike, and wrong
    assert shares[1] == pytest.approx(100.0 * COVERED, abs=0.1)
    assert load_potential(calibrated).provenance.data["calibration"]["n_frames"] == 1000
    code, _, err = cli("ensemble", tmp_path / "none.pt", *members, "--calibrate", "rmd17/benzene/test-01")
    assert code == 2
    assert not (tmp_path / "none.pt").exists()
