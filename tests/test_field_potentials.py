"""A potential of labels in a field: what its file records, what it is judged by, and that it is not made exact.

The labels are those of fixed charges that feel the field and nothing else, so that raw directions carry all of them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from potentials import read_test_frames
from remul_md.calculators import RemulCalculator
from scipy.spatial.transform import Rotation

from remul_md.analysis.accuracy import evaluate_potential
from remul_md.datasets import read_frames, write_frames
from remul_md.errors import InputError
from remul_md.labels.field import in_random_orientations
from remul_md.potentials.potential import Potential, load_potential
from remul_md.potentials.provenance import Provenance
from remul_md.structures.frames import Frames, field_axis
from remul_md.training.config import load_config
from remul_md.training.train import train_potential

Run = Callable[..., tuple[int, str, str]]
FIELD = np.array([0.3, 0.0, -0.4])  # V/Angstrom
AXIS = (0.6, 0.0, -0.8)
CHARGES = {1: 0.25, 6: -0.3, 8: -0.9}  # ethanol is neutral


def charges_in_field(n: int, *, field: np.ndarray = FIELD) -> Frames:
    frames = in_random_orientations(read_frames("rmd17/ethanol/train-01").select(range(n)), seed=4)
    charges = np.array([CHARGES[number] for number in frames.atomic_numbers])
    assert charges[:9].sum() == pytest.approx(0.0)
    work = charges * (frames.positions @ field)
    return replace(
        frames,
        energy=-np.add.reduceat(work, frames.first_atom),
        forces=charges[:, None] * field,
        field_V_per_A=np.tile(field, (n, 1)),
    )


def trained(folder: Path, frames: Frames, *options: str, n_steps: int = 1) -> Potential:
    folder.mkdir()
    write_frames(frames, folder / "labels.npz", provenance={})
    sizes = ["model.width=16", "model.n_layers=1", "model.n_heads=2"]
    overrides = [f"data.source={folder / 'labels.npz'}", "data.n_train=40", "data.n_validation=8", *sizes]
    overrides += [f"train.n_steps={n_steps}", "train.warmup_steps=0", "data.allow_implausible=true"]
    config = load_config(None, overrides=[*overrides, *options])
    return train_potential(config, run_dir=folder / "run", progress=False)


pytestmark = pytest.mark.slow  # a short training stands behind nearly all of it


@pytest.fixture(scope="module")
def potential(tmp_path_factory: pytest.TempPathFactory) -> Potential:
    folder = tmp_path_factory.mktemp("field") / "about"
    options = (f"train.axis={list(AXIS)}", "train.alpha=0", "train.ema_decay=0.9", "train.monitor_per_decade=2")
    return trained(folder, charges_in_field(48), *options, n_steps=120)


def test_the_file_says_field_axis_group_and_load(potential: Potential) -> None:
    made = potential.provenance
    assert made.fields_V_per_A == [FIELD.tolist()]
    assert made.axis == pytest.approx(AXIS)
    assert potential.group == "O3 about (0.6 0 -0.8)"
    assert made.direction_load == made.metrics["direction_load"] > 1.5


def test_the_load_is_the_error_of_the_cut_potential_over_its_own(potential: Potential) -> None:
    split = potential.provenance.data["split"]
    frames = charges_in_field(48).select(split["validation"])
    errors = []
    for each in (potential.without_raw_directions(), potential):
        calculator = RemulCalculator(each)
        forces = [calculator.get_forces(frames.atoms(index)) for index in range(len(frames))]
        errors.append(np.abs(np.concatenate(forces) - frames.forces).mean())
    assert potential.provenance.direction_load == pytest.approx(errors[0] / errors[1], rel=1e-3)


def test_what_its_raw_directions_carry_is_not_made_exact(potential: Potential) -> None:
    with pytest.raises(InputError, match="raw directions carry") as refused:
        RemulCalculator(potential, symmetry="exact")
    assert f"{potential.provenance.direction_load:.1f} times" in str(refused.value)
    assert potential.with_symmetry("relaxed").symmetry == "relaxed"
    # At the bound it passes, and so does a potential whose training measured no load.
    for metrics in ({"direction_load": 1.5}, {}):
        known = replace(potential, provenance=replace(potential.provenance, metrics=metrics))
        assert RemulCalculator(known, symmetry="exact").parameters["group"] == "O3, built in"


def test_evaluate_rotates_and_mirrors_about_the_field_only(potential: Potential) -> None:
    frames = charges_in_field(20)
    about = evaluate_potential(potential, frames, axis=potential.provenance.axis, n_draws=4)
    everywhere = evaluate_potential(potential, frames, n_draws=4)
    assert about.axis == pytest.approx(AXIS)
    assert everywhere.axis is None
    assert about.force_mae_original == everywhere.force_mae_original
    assert about.direction_load == everywhere.direction_load > 1.5
    # Labels rotated about another axis are those of another field.
    assert about.force_mae_rotated < 1.2 * about.force_mae_original < 0.6 * everywhere.force_mae_rotated
    for name in ("rotational_error", "mirror_error", "net_torque_rms_eV", "lie_derivative"):
        assert getattr(about, name) < 0.5 * getattr(everywhere, name), name
    assert ("rotated, mirrored, net torque", "about (0.6 0 -0.8), as its labels allow") in about.rows()
    assert [row for row in everywhere.rows() if "as its labels" in row[1]] == []


def test_the_lie_derivative_is_that_of_a_rotation_about_the_axis(potential: Potential) -> None:
    """Against a small rotation: g^-1 f(g x) - f(x) over the angle."""
    frames, angle = charges_in_field(3), 1e-4
    double = potential.to(dtype="float64")
    calculator = RemulCalculator(double, dtype="float64")
    turn = Rotation.from_rotvec(angle * np.array(AXIS)).as_matrix()
    changes = []
    for index in range(3):
        atoms = frames.atoms(index)
        ahead, back = atoms.copy(), atoms.copy()
        ahead.positions, back.positions = atoms.positions @ turn.T, atoms.positions @ turn
        changes.append(calculator.get_forces(ahead) @ turn - calculator.get_forces(back) @ turn.T)
    expected = 1e3 * np.sqrt(np.mean(np.square(np.concatenate(changes) / (2 * angle))))
    found = evaluate_potential(double, frames, axis=(1.8, 0.0, -2.4), n_draws=2)
    assert found.lie_derivative == pytest.approx(expected, rel=1e-4)


def test_the_commands_take_the_axis_from_the_file(potential: Potential, cli: Run, tmp_path: Path) -> None:
    file, labels = tmp_path / "field.pt", tmp_path / "labels.npz"
    potential.save(file)
    write_frames(charges_in_field(6), labels, provenance={})
    code, out, err = cli("evaluate", file, labels, "--n-draws", "2", "--json", tmp_path / "figures.json")
    assert code == 0, err
    assert "about (0.6 0 -0.8)" in out
    assert json.loads((tmp_path / "figures.json").read_text())["axis"] == pytest.approx(AXIS)
    code, out, _ = cli("evaluate", file, labels, "--n-draws", "2", "--axis", "none")
    assert code == 0
    assert "as its labels allow" not in out
    for axis in ("w", "0,0", "0,0,0", "1,2,q"):
        code, _, err = cli("evaluate", file, labels, "--axis", axis)
        assert code == 2, axis
        assert "axis" in err
    code, _, err = cli("evaluate", file, labels, "--by-angle", tmp_path / "angles.json")
    assert code == 2
    assert "--by-angle rotates about all axes" in err
    code, _, err = cli("md", file, "--structure", "ethanol", "--output", tmp_path / "x.traj", "--symmetry", "exact")
    assert code == 2
    assert "raw directions carry" in err
    code, out, _ = cli("audit", file, "--structure", f"{labels}:0", "--only", "mirror")
    assert "about (0.6 0 -0.8)" in out
    run = tmp_path / "run.traj"
    short = ("--length-ps", "0.005", "--equilibrate-ps", "0", "--temperature-K", "1")
    code, _, err = cli("md", file, "--structure", f"{labels}:0", "--output", run, *short)
    assert code == 0, err
    facts = json.loads((tmp_path / "run.json").read_text())["provenance"]
    assert facts["field_V_per_A"] == FIELD.tolist()
    assert facts["axis"] == pytest.approx(AXIS)
    assert facts["group"] == "O3 about (0.6 0 -0.8)"
    told = tmp_path / "analysis.json"
    for options, expected in (((), AXIS), (("--axis", "y"), (0, 1, 0))):
        code, _, err = cli("analyze", run, "--potential", file, "--no-vibrations", "--json", told, *options)
        assert code == 0, err
        assert json.loads(told.read_text())["axis"] == pytest.approx(expected)


def test_one_member_or_head_that_is_carried_is_enough() -> None:
    low, high = {"metrics": {"direction_load": 1.1}}, {"metrics": {"direction_load": 3.0}}
    assert Provenance(trained_forces="both", **low, direct_head=high).direction_load == 3.0
    assert Provenance(trained_forces="direct", members=[low, high, {}]).direction_load == 3.0
    assert Provenance(trained_forces="direct").direction_load is None


def test_the_calculator_says_group_and_field(potential: Potential) -> None:
    parameters = RemulCalculator(potential).parameters
    assert parameters["group"] == "O3 about (0.6 0 -0.8)"
    assert parameters["field_V_per_A"] == FIELD.tolist()
    shipped = RemulCalculator("ethanol").parameters
    assert shipped["group"] == "O3"
    assert shipped["field_V_per_A"] is None
    in_a_field = RemulCalculator("ethanol-field").parameters
    assert in_a_field["group"] == "SO3 about (0 0 1)"
    assert in_a_field["field_V_per_A"] == [0.0, 0.0, 0.5]


def test_the_shipped_one_feels_its_field() -> None:
    """Rotations about z leave its energy as it is, others change it, and exact mode is refused."""
    with pytest.raises(InputError, match=r"symmetry='exact' would make the force error 8\.3 times as large"):
        RemulCalculator("ethanol-field", symmetry="exact")
    calculator = RemulCalculator("ethanol-field")
    test = read_test_frames("ethanol-field")
    changes: dict[str, list[float]] = {"z": [], "x": []}
    for index in range(0, 300, 60):
        atoms = test.atoms(index)
        here = calculator.get_potential_energy(atoms)
        for axis, found in changes.items():
            rotated = atoms.copy()
            rotated.rotate(70, axis, center="COM")
            found.append(abs(calculator.get_potential_energy(rotated) - here))
    assert max(changes["z"]) < 0.02
    assert max(changes["x"]) > 0.15  # eV; a dipole moment of 0.35 e A in 0.5 V/A


def test_a_network_that_is_told_the_field_needs_no_raw_directions(tmp_path: Path) -> None:
    """Labels of charges in a field: learned by the exact network that reads it; a calculator gives it the field."""
    frames = charges_in_field(48)
    options = ["model.symmetry=exact", "model.field_input=true", "train.beta=0", "train.ema_decay=0.5"]
    made = trained(tmp_path / "told", frames, *options, n_steps=80)
    assert frames.forces is not None
    score = made.provenance.metrics["validation_force_mae_meV_per_A"]
    assert score < 0.5e3 * np.abs(frames.forces).mean()
    atoms = frames.atoms(0)
    forces = RemulCalculator(made).get_forces(atoms)
    assert np.abs(forces - frames.forces[:9]).mean() < 0.5 * np.abs(frames.forces).mean()


def test_training_is_judged_about_the_field_whatever_it_rotates(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that rotates nothing names no axis: labels rotated about others would not be labels."""
    frames = charges_in_field(48)
    with caplog.at_level(logging.WARNING):
        plain = trained(tmp_path / "plain", frames, "train.beta=0", "train.first_orientation=original")
    assert not [record for record in caplog.records if "electric field" in record.message]
    assert plain.group == "none"
    assert plain.provenance.axis == pytest.approx(AXIS)
    labels = frames.select(plain.provenance.data["split"]["validation"])
    assert labels.forces is not None
    # After one step of this rate the network is about 0 everywhere: the error is that of the forces, rotated back.
    score = plain.provenance.metrics["validation_force_mae_meV_per_A"]
    assert score == pytest.approx(1e3 * np.abs(labels.forces).mean(), rel=0.3)
    with caplog.at_level(logging.WARNING):
        wrong = trained(tmp_path / "wrong", frames, "train.alpha=0")
    assert any("rotated about all axes" in record.message for record in caplog.records)
    assert wrong.group == "O3"
    assert wrong.provenance.axis == pytest.approx(AXIS)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        trained(tmp_path / "tilted", frames, "train.axis=[0, 0, 1]")
    assert any("rotated about (0 0 1)" in record.message for record in caplog.records)


def test_the_study_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    study = import_module("molecule_in_a_field")
    monkeypatch.setattr(study, "N_VALIDATION", 8)
    write_frames(charges_in_field(48, field=np.array([0.0, 0.0, 0.5])), tmp_path / "train.npz", provenance={})
    write_frames(charges_in_field(9, field=np.array([0.0, 0.0, 0.5])), tmp_path / "test.npz", provenance={})
    results, kept = tmp_path / "results.json", {"mae": 0.0}
    results.write_text(json.dumps({"rows": [], "field_blind_limit": kept}))
    small = ["model.width=16", "model.n_layers=1", "model.n_heads=2", "train.warmup_steps=0", "train.ema_decay=0.5"]
    sets = [part for each in (*small, "data.allow_implausible=true") for part in ("--set", each)]
    command = ["--run-dir", str(tmp_path), "--n-train", "40", "--n-steps", "80", "--json", str(results), *sets]
    study.main([*command, "--methods", "about_z"])
    (first,) = json.loads(results.read_text())["rows"]
    study.main([*command, "--methods", "about_z", "exact"])
    content = json.loads(results.read_text())
    assert content["field_blind_limit"] == kept
    again, exact = content["rows"]
    assert again == first  # the seconds of its training too: nothing was trained anew
    # A network that cannot break the symmetry knows no field: it is left with the whole of such forces.
    frames = charges_in_field(9, field=np.array([0.0, 0.0, 0.5]))
    assert exact["force_mae_original"] == pytest.approx(1e3 * np.abs(frames.forces).mean(), rel=0.5)
    assert exact["direction_load"] == 1.0
    assert first["force_mae_original"] < 0.7 * exact["force_mae_original"]
    assert "--run-dir FOLDER" in content["command"]
    assert str(tmp_path) not in results.read_text()


def test_one_potential_has_one_field(tmp_path: Path) -> None:
    some = charges_in_field(48)
    fields = np.tile(FIELD, (48, 1))
    fields[30] = 0.0
    with pytest.raises(InputError, match="those of 2 electric fields"):
        trained(tmp_path / "two", replace(some, field_V_per_A=fields))
    assert field_axis([[0.0, 0.0, 0.0]]) is None
    assert field_axis([]) is None


def test_a_run_without_field_keeps_to_its_axis(tmp_path: Path) -> None:
    frames = replace(charges_in_field(48), field_V_per_A=None)
    made = trained(tmp_path / "axis", frames, "train.axis=[0, 2, 0]", "train.group=SO3").provenance
    assert made.axis == (0.0, 2.0, 0.0)
    assert made.group == "SO3 about (0 2 0)"
    assert made.fields_V_per_A == []
    members = [{"config": {"train": {"axis": [0, 0, 1]}}, "data": {}}, {"config": {"train": {}}, "data": {}}]
    assert Provenance(trained_forces="both", members=members).axis is None
    assert load_potential("ethanol").provenance.axis is None
