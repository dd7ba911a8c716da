"""Labels in a uniform electric field: forces are derivatives, torques know the axis, files remember the field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from remul_md.datasets import read_frames, write_frames
from remul_md.errors import InputError
from remul_md.labels.field import in_random_orientations
from remul_md.labels.sources import label_source
from remul_md.structures.alignment import angle_swept
from remul_md.structures.frames import Frames, joined

Run = Callable[..., tuple[int, str, str]]
FIELD = (0.11, -0.23, 0.5)  # V/Angstrom
NEEDS = {"xtb": "tblite", "pbe": "pyscf"}


def tilted_water() -> Atoms:
    atoms = molecule("H2O")
    atoms.rattle(0.06, seed=3)
    atoms.rotate(40, (1, 2, 0.5), center=(0.3, 0.1, 0.2))
    return atoms


def labelled(method: str, atoms: Atoms, field: tuple[float, float, float] | None) -> Atoms:
    pytest.importorskip(NEEDS[method], reason=f"needs {NEEDS[method]}")
    atoms = atoms.copy()
    atoms.calc = label_source(method, field_V_per_A=field).make()
    return atoms


# The forces of PySCF leave out how the points of its grid move: 3e-5 here, the same without a field.
@pytest.mark.parametrize(("method", "tolerance"), [("xtb", 1e-6), pytest.param("pbe", 1e-4, marks=pytest.mark.slow)])
def test_forces_are_minus_the_derivatives_of_the_energy(method: str, tolerance: float) -> None:
    def exact(field: tuple[float, float, float] | None) -> Atoms:
        atoms = labelled(method, tilted_water(), field)
        if method == "xtb":
            atoms.calc.set(accuracy=1e-3)  # as usual its charges are good to 1e-5 eV/Angstrom
        return atoms

    forces, step = exact(FIELD).get_forces(), 4e-3
    assert np.abs(forces - exact(None).get_forces()).max() > 0.1
    # Along one direction that moves every atom along every axis: PBE takes seconds an energy.
    direction = np.random.default_rng(7).choice((-1.0, 1.0), size=(3, 3)) / 3.0
    energies = []
    for steps in (-2, -1, 1, 2):
        moved = exact(FIELD)
        moved.positions += steps * step * direction
        energies.append(moved.get_potential_energy())
    slope = np.dot((1, -8, 8, -1), energies) / (12 * step)
    assert np.abs(forces * direction).min() > 10 * tolerance  # each component counts
    assert -slope == pytest.approx((forces * direction).sum(), abs=tolerance)


@pytest.mark.parametrize(("method", "grid"), [("xtb", 1e-6), pytest.param("pbe", 2e-3, marks=pytest.mark.slow)])
def test_a_neutral_molecule_is_not_pushed_and_turns_about_no_axis_along_the_field(method: str, grid: float) -> None:
    atoms = labelled(method, tilted_water(), FIELD)
    forces = atoms.get_forces()
    assert np.abs(forces.sum(axis=0)).max() < grid
    torque = np.cross(atoms.positions - atoms.positions.mean(axis=0), forces).sum(axis=0)
    along = np.array(FIELD) / np.linalg.norm(FIELD)
    assert abs(torque @ along) < grid
    assert np.linalg.norm(torque) > 0.05
    free = labelled(method, tilted_water(), None)
    free_torque = np.cross(free.positions - free.positions.mean(axis=0), free.get_forces()).sum(axis=0)
    assert np.linalg.norm(free_torque) < grid


@pytest.mark.parametrize(("method", "accuracy"), [("xtb", 1e-8), pytest.param("pbe", 1e-7, marks=pytest.mark.slow)])
def test_the_energy_falls_as_the_dipole_says(method: str, accuracy: float) -> None:
    """To first order E(field) = E(0) - dipole . field, with the dipole from negative to positive charge: lithium
    hydride, whose lithium is positive, falls in energy where the field points from hydrogen to lithium.
    """
    atoms = Atoms("HLi", positions=[[0, 0, 0], [0, 0, 1.6]])
    along, against, none = (
        labelled(method, atoms, field).get_potential_energy() for field in ((0, 0, 0.01), (0, 0, -0.01), None)
    )
    dipole = (against - along) / 0.02  # e Angstrom
    assert 0.8 < dipole < 1.6  # experiment: 5.9 debye = 1.23 e Angstrom
    assert along < none < against
    across = labelled(method, atoms, (0.01, 0, 0)).get_potential_energy()
    assert none - 1e-3 < across < none + accuracy


def test_the_field_is_kept_with_the_labels(cli: Run, tmp_path: Path) -> None:
    pytest.importorskip("tblite", reason='needs tblite (pip install "remul-md[xtb]")')
    geometries = tmp_path / "water.extxyz"
    ase.io.write(geometries, [tilted_water(), molecule("H2O")])
    for name in ("labels.extxyz", "labels.npz"):
        output = tmp_path / name
        code, out, err = cli("label", "xtb", geometries, output, "--field-V-per-A", "0", "0", "0.5")
        assert code == 0, err
        assert "2 frames labelled by GFN2-xTB" in out
        frames = read_frames(output)
        assert frames.field_V_per_A is not None
        assert frames.field_V_per_A.tolist() == [[0, 0, 0.5]] * 2
        assert frames.energy is not None
        shown = cli("data", "show", output)[1]
        assert "(0 0 0.5) V/Angstrom" in shown
        expected = labelled("xtb", tilted_water(), (0, 0, 0.5)).get_potential_energy()
        assert frames.energy[0] == pytest.approx(expected, abs=1e-6)
        assert read_frames(output, with_labels=False).field_V_per_A is None
        write_frames(frames, tmp_path / f"again-{name}", provenance={})
        again = read_frames(tmp_path / f"again-{name}").field_V_per_A
        np.testing.assert_array_equal(again, frames.field_V_per_A)
    provenance = ase.io.read(tmp_path / "labels.extxyz").info["provenance"]
    assert "field_V_per_A" in str(provenance)


def test_a_potential_records_the_field(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from remul_md.training.config import load_config
    from remul_md.training.train import train_potential

    frames = read_frames("rmd17/ethanol/train-01").select(range(12))
    write_frames(replace(frames, field_V_per_A=np.tile(FIELD, (12, 1))), tmp_path / "labels.npz", provenance={})
    sizes = ["width=16", "n_layers=1", "n_heads=2"]
    overrides = ["data.n_train=8", "data.n_validation=2", "train.n_steps=1", "train.warmup_steps=0"]
    overrides += [f"data.source={tmp_path / 'labels.npz'}", *(f"model.{size}" for size in sizes)]
    made = train_potential(load_config(None, overrides=overrides), run_dir=tmp_path / "run", progress=False)
    assert "rotated about all axes" in caplog.text
    assert made.provenance.data["fields_V_per_A"] == [list(FIELD)]
    assert frames.distinct_fields == []


def test_each_geometry_is_labelled_in_an_orientation_of_its_own(cli: Run, tmp_path: Path) -> None:
    pytest.importorskip("tblite", reason='needs tblite (pip install "remul-md[xtb]")')
    given = read_frames("rmd17/ethanol/test-01")

    def labelled_as(*options: object) -> Frames:
        output = tmp_path / f"labels{'-'.join(map(str, options))}.npz"
        code, _, err = cli("label", "xtb", "rmd17/ethanol/test-01", output, "--every", "250", *options)
        assert code == 0, err
        return read_frames(output)

    seed = ("--random-orientations", 3)
    rotated, again, other = labelled_as(*seed), labelled_as(*seed, "--overwrite"), labelled_as(seed[0], 4)
    assert rotated.content_hash() == again.content_hash()
    as_they_stand, in_field = labelled_as(), labelled_as("--field-V-per-A", 0, 0, 0.5, *seed)
    # Without a field the energy does not know the orientation; in one it is that of the rotated geometry.
    assert rotated.energy == pytest.approx(as_they_stand.energy, abs=1e-5)
    np.testing.assert_array_equal(in_field.positions, rotated.positions)
    assert in_field.energy is not None
    atoms = labelled("xtb", in_field.atoms(2), (0, 0, 0.5))
    assert in_field.energy[2] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    rotations = []
    for index in range(len(rotated)):
        before, after = given.frame_positions(250 * index), rotated.frame_positions(index)
        np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=1e-12)
        centred = [places - places.mean(axis=0) for places in (before, after)]
        rotation = np.linalg.lstsq(*centred, rcond=None)[0]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-10)
        assert np.linalg.det(rotation) == pytest.approx(1.0)
        rotations.append(rotation)
    assert min(np.abs(a - b).max() for a, b in combinations(rotations, 2)) > 0.1
    assert np.abs(other.positions - rotated.positions).max() > 0.1


def test_a_crystal_has_no_orientation_of_its_own() -> None:
    frames = read_frames("rmd17/ethanol/train-01").select([5])
    boxed = replace(frames, cell=9.0 * np.eye(3)[None], pbc=np.ones((1, 3), dtype=bool))
    with pytest.raises(InputError, match="frame 0 is periodic"):
        in_random_orientations(boxed, seed=0)


def test_few_orientations_are_so_few() -> None:
    given = read_frames("rmd17/ethanol/train-01").select(range(0, 700, 100))
    rotated = in_random_orientations(given, seed=5, n_orientations=3)
    places = rotated.positions.reshape(7, 9, 3)
    distances = [np.linalg.norm(each[:, None] - each[None], axis=-1) for each in (given.frame_positions(4), places[4])]
    np.testing.assert_allclose(*distances, atol=1e-12)
    np.testing.assert_allclose(places.mean(axis=1), given.positions.reshape(7, 9, 3).mean(axis=1), atol=1e-12)
    swept = angle_swept(places)  # degrees from frame 0; the frames as given lie apart by tens of them
    assert angle_swept(given.positions.reshape(7, 9, 3))[[3, 6]].min() > 20.0
    np.testing.assert_allclose(swept[[0, 3, 6]], 0.0, atol=1e-6)
    np.testing.assert_allclose(swept[[1, 2]], swept[[4, 5]], atol=1e-6)
    assert min(swept[1], swept[2]) > 20.0
    with pytest.raises(InputError, match="got 0"):
        in_random_orientations(given, seed=5, n_orientations=0)


def test_few_orientations_have_to_be_drawn(cli: Run, tmp_path: Path) -> None:
    output = tmp_path / "labels.npz"
    code, _, err = cli("label", "xtb", "rmd17/ethanol/test-01", output, "--n-orientations", "4")
    assert code == 2
    assert "--random-orientations" in err
    assert not output.exists()


def test_labels_with_and_without_a_field_are_not_joined() -> None:
    frames = read_frames("rmd17/ethanol/train-01").select(range(3))
    in_field = replace(frames, field_V_per_A=np.tile([0.0, 0.0, 0.5], (3, 1)))
    assert in_field.content_hash() != frames.content_hash()
    assert in_field.without_labels().content_hash() == frames.without_labels().content_hash()
    with pytest.raises(InputError, match="has no field_V_per_A"):
        joined([in_field, frames], name="both")


def test_a_stopped_run_in_a_field_does_not_go_on_in_another(cli: Run, tmp_path: Path) -> None:
    pytest.importorskip("tblite", reason='needs tblite (pip install "remul-md[xtb]")')
    from remul_md.labels.calculated import calculate_labels
    from remul_md.structures.frames import frames_from_atoms

    frames, partial = frames_from_atoms([tilted_water()]), tmp_path / "labels.part"
    calculate_labels(frames, label_source("xtb", field_V_per_A=FIELD), partial=partial)
    calculate_labels(frames, label_source("xtb", field_V_per_A=FIELD), partial=partial)
    with pytest.raises(InputError, match="holds other labels: field_V_per_A was"):
        calculate_labels(frames, label_source("xtb", field_V_per_A=(0, 0, 0.1)), partial=partial)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("xtb", {"field_V_per_A": (0, 0)}, r"three components .*got \[0, 0\]"),
        ("xtb", {"field_V_per_A": (0, 0, float("nan"))}, "a field has three components"),
        ("xtb", {"field_V_per_A": (0, 0, 51.4)}, r"51\.4 V/Angstrom"),
        ("ase.calculators.emt:EMT", {"field_V_per_A": (0, 0, 0.5)}, "cannot be handed to ase.calculators.emt:EMT"),
        ("xtb", {"spin": 1}, "spin=1 cannot be handed to xtb"),
    ],
)
def test_conditions_that_cannot_be_met(method: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        label_source(method, **options)  # type: ignore[arg-type]


def test_a_potential_takes_no_field(cli: Run, tmp_path: Path) -> None:
    for option in (("--spin", "1"), ("--field-V-per-A", "0", "0", "0.5")):
        code, _, err = cli("label", "ethanol", "rmd17/ethanol/test-01", tmp_path / "labels.npz", *option)
        assert code == 2
        assert f"{option[0]} is an option of methods, ethanol is a potential" in err
