"""The readers give eV and Angstrom, whatever the file: pinned published numbers, and two files of one set agree."""

import logging
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect

from remul_md import InputError
from remul_md.datasets import describe, read_frames, write_frames
from remul_md.structures.frames import joined

FORMATS = Path(__file__).parent / "data" / "formats"
KCAL_PER_MOL = 4184.0 / 6.02214076e23 / 1.602176634e-19  # eV, from the SI definitions, not from the package
BOHR = 0.529177210903  # Angstrom


def test_published_rmd17_frame_in_eV_and_angstrom() -> None:
    # first frame of rmd17_ethanol_train_01.npz as published, kcal/mol
    frames = read_frames("rmd17/ethanol/train-01")
    assert len(frames) == 1000
    assert frames.name == "rmd17/ethanol/train-01"
    assert frames.frame_numbers(0).tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1]
    assert frames.energy[0] == pytest.approx(-97079.92222178938 * KCAL_PER_MOL, abs=2e-4)
    assert frames.energy[0] == pytest.approx(-4209.7839, abs=2e-4)
    np.testing.assert_allclose(frames.positions[0], [-0.17406277, -0.48797864, 0.0185579], atol=1e-7)
    np.testing.assert_allclose(
        frames.forces[0],
        np.array([-17.64730699309182, -26.137516505005973, 40.70575377161765]) * KCAL_PER_MOL,
        atol=1e-6,
    )
    np.testing.assert_allclose(frames.forces[0], [-0.765260, -1.133430, 1.765169], atol=2e-6)
    assert not frames.pbc.any()
    assert frames.cell is None


def test_published_sgdml_frame_in_eV_and_angstrom() -> None:
    frames = read_frames(FORMATS / "ethanol_ccsdt_sgdml.npz")
    assert len(frames) == 7
    assert frames.energy.shape == (7,)
    assert frames.energy[1] == pytest.approx(-97089.07088252 * KCAL_PER_MOL, abs=2e-4)
    np.testing.assert_allclose(frames.positions[9], [0.00552057, 0.59149006, -0.00081382], atol=5e-9)
    np.testing.assert_allclose(
        frames.forces[9], np.array([-10.20301055, 33.65634891, -1.91316347]) * KCAL_PER_MOL, rtol=1e-7, atol=1e-9
    )


def test_extxyz_and_npz_of_the_same_frames_agree() -> None:
    npz = read_frames("rmd17/ethanol/train-01").select(range(12))
    xyz = read_frames(FORMATS / "ethanol_kcal.xyz", energy_unit="kcal/mol")
    order = [3, 4, 5, 6, 7, 8, 0, 1, 2]  # the extxyz puts hydrogen first
    assert len(xyz) == 12
    assert (xyz.atomic_numbers.reshape(12, 9) == npz.atomic_numbers.reshape(12, 9)[:, order]).all()
    np.testing.assert_allclose(xyz.energy, npz.energy, rtol=0, atol=1e-9)
    np.testing.assert_allclose(xyz.positions.reshape(12, 9, 3), npz.positions.reshape(12, 9, 3)[:, order], atol=5e-7)
    np.testing.assert_allclose(xyz.forces.reshape(12, 9, 3), npz.forces.reshape(12, 9, 3)[:, order], atol=1e-6)


def test_extxyz_is_eV_by_default_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="remul_md.datasets"):
        frames = read_frames(FORMATS / "aspirin_eV.xyz")
    assert frames.energy[0] == -17617.826906338443
    np.testing.assert_array_equal(frames.positions[0], [2.13746084, -1.09794747, -0.19298651])
    assert "energy eV, length Angstrom, force eV/Angstrom" in caplog.text


def test_periodic_extxyz_with_another_force_column() -> None:
    frames = read_frames(FORMATS / "carbon_periodic.xyz", require=("energy", "forces"))
    assert len(frames) == 10
    assert frames.pbc.all()
    # rows are the lattice vectors
    np.testing.assert_allclose(frames.cell[0, 2], [-0.37381, -0.001243, 6.457295])
    np.testing.assert_allclose(
        frames.forces[0], [1.84408021, 1.20057170, -0.34951743]
    )  # not frac_pos, the column before


@pytest.mark.parametrize(
    ("unit", "energy_eV"),
    [("eV", 1.0), ("kcal/mol", KCAL_PER_MOL), ("kJ/mol", 0.01036426966), ("Hartree", 27.211386246)],
)
@pytest.mark.parametrize(("length", "angstrom"), [("Angstrom", 1.0), ("Bohr", BOHR)])
def test_every_unit(tmp_path: Path, unit: str, energy_eV: float, length: str, angstrom: float) -> None:
    truth = read_frames(FORMATS / "carbon_periodic.xyz")
    structures = []
    for index in range(len(truth)):
        atoms = Atoms(
            truth.frame_numbers(index),
            positions=truth.frame_positions(index) / angstrom,
            cell=truth.cell[index] / angstrom,
            pbc=True,
        )
        atoms.info["REF_energy"] = truth.energy[index] / energy_eV
        atoms.arrays["REF_forces"] = truth.forces[4 * index : 4 * index + 4] / energy_eV * angstrom
        structures.append(atoms)
    ase.io.write(tmp_path / "other.xyz", structures, format="extxyz")
    frames = read_frames(
        tmp_path / "other.xyz",
        energy_unit=unit,
        length_unit=length,
        energy_key="REF_energy",
        forces_key="REF_forces",
    )
    np.testing.assert_allclose(frames.energy, truth.energy, rtol=3e-7)
    np.testing.assert_allclose(frames.positions, truth.positions, atol=1e-6)
    np.testing.assert_allclose(frames.cell, truth.cell, atol=1e-6)
    np.testing.assert_allclose(frames.forces, truth.forces, atol=1e-5)


def test_force_unit_may_differ_from_energy_unit(tmp_path: Path) -> None:
    source = FORMATS / "ethanol_ccsdt_sgdml.npz"
    truth = read_frames(source)
    np.savez(
        tmp_path / "mixed.npz",
        z=truth.frame_numbers(0),
        R=truth.positions.reshape(7, 9, 3),
        E=truth.energy / 27.211386246,
        F=truth.forces.reshape(7, 9, 3) / 27.211386246 * BOHR,
    )
    frames = read_frames(tmp_path / "mixed.npz", energy_unit="Hartree", force_unit="Hartree/Bohr")
    np.testing.assert_allclose(frames.energy, truth.energy, rtol=1e-7)
    np.testing.assert_allclose(frames.forces, truth.forces, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("as_bytes", [True, False])
def test_units_declared_in_an_sgdml_file(tmp_path: Path, as_bytes: bool, caplog: pytest.LogCaptureFixture) -> None:
    source = dict(np.load(FORMATS / "ethanol_ccsdt_sgdml.npz"))
    truth = read_frames(FORMATS / "ethanol_ccsdt_sgdml.npz")
    declared = ("kJ/mol", "Bohr")
    source |= {"R": source["R"] / BOHR, "E": source["E"] * 4.184, "F": source["F"] * 4.184 * BOHR}
    source |= {
        key: np.array(unit.encode() if as_bytes else unit)
        for key, unit in zip(("e_unit", "r_unit"), declared, strict=True)
    }
    np.savez(tmp_path / "declared.npz", **source)
    frames = read_frames(tmp_path / "declared.npz")
    np.testing.assert_allclose(frames.energy, truth.energy, rtol=1e-9)
    np.testing.assert_allclose(frames.positions, truth.positions, rtol=1e-6)
    np.testing.assert_allclose(frames.forces, truth.forces, rtol=1e-6)
    with caplog.at_level(logging.WARNING, logger="remul_md.datasets"):
        read_frames(tmp_path / "declared.npz", energy_unit="kcal/mol", allow_implausible=True)
    assert "declares e_unit = 'kJ/mol', read as 'kcal/mol'" in caplog.text


def test_other_arrays_of_an_npz_by_key(tmp_path: Path) -> None:
    source = dict(np.load(FORMATS / "ethanol_ccsdt_sgdml.npz"))
    np.savez(
        tmp_path / "two_levels.npz",
        nuclear_charges=source["z"], coords=source["R"], energies=source["E"][:, 0], forces=source["F"],
        old_energies=source["E"][:, 0] + 5.0, old_forces=source["F"] * 0.5,
    )  # fmt: skip
    frames = read_frames(tmp_path / "two_levels.npz", energy_key="old_energies", forces_key="old_forces")
    usual = read_frames(tmp_path / "two_levels.npz")
    np.testing.assert_allclose(frames.energy - usual.energy, 5.0 * KCAL_PER_MOL, rtol=1e-6)
    np.testing.assert_allclose(frames.forces, usual.forces * 0.5)


def test_ase_database_and_trajectory_keep_forces_on_constrained_atoms(tmp_path: Path) -> None:
    frames = read_frames(FORMATS / "aspirin_eV.xyz")
    database = connect(tmp_path / "aspirin.db")
    structures = []
    for index in range(len(frames)):
        atoms = frames.atoms(index)
        atoms.set_constraint(FixAtoms([0, 4]))  # ASE would report zero force on these
        atoms.calc = SinglePointCalculator(
            atoms, energy=frames.energy[index], forces=frames.forces[21 * index : 21 * index + 21]
        )
        database.write(atoms, data={"other_forces": 2.0 * frames.forces[21 * index : 21 * index + 21]}, level=1.5)
        structures.append(atoms)
    ase.io.write(tmp_path / "aspirin.traj", structures)
    for name in ("aspirin.db", "aspirin.traj"):
        again = read_frames(tmp_path / name)
        np.testing.assert_array_equal(again.positions, frames.positions)
        np.testing.assert_array_equal(again.energy, frames.energy)
        np.testing.assert_array_equal(again.forces, frames.forces)
    other = read_frames(tmp_path / "aspirin.db", energy_key="level", forces_key="other_forces")
    np.testing.assert_array_equal(other.energy, np.full(7, 1.5))
    np.testing.assert_array_equal(other.forces, 2.0 * frames.forces)


def test_mixed_sizes_in_one_file(tmp_path: Path) -> None:
    structures = [
        *ase.io.read(FORMATS / "aspirin_eV.xyz", index="0:2"),
        *ase.io.read(FORMATS / "magnesium_relaxation.extxyz", index="0:3"),
    ]
    ase.io.write(tmp_path / "mixed.xyz", structures, format="extxyz")
    frames = read_frames(tmp_path / "mixed.xyz")
    assert frames.n_atoms.tolist() == [21, 21, 16, 16, 16]
    assert frames.pbc.any(axis=1).tolist() == [False, False, True, True, True]
    np.testing.assert_allclose(frames.forces[42:58], structures[2].calc.results["forces"], atol=1e-8)
    text = describe(frames)
    assert "C9H8O4 (2)" in text
    assert "AlMg14Sb (3)" in text
    assert "16 to 21" in text


def test_unlabelled_structures_are_read_and_the_missing_labels_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = read_frames(FORMATS / "aspirin_eV.xyz")
    ase.io.write(tmp_path / "bare.xyz", [frames.atoms(index) for index in range(4)], format="extxyz")
    with caplog.at_level(logging.WARNING, logger="remul_md.datasets"):
        bare = read_frames(tmp_path / "bare.xyz")
    assert bare.energy is None
    assert bare.forces is None
    np.testing.assert_allclose(bare.positions, frames.positions[: 4 * 21], atol=1e-8)
    assert "no energy found" in caplog.text
    with pytest.raises(InputError, match=r"bare\.xyz: has no forces.*forces_key"):
        read_frames(tmp_path / "bare.xyz", require=["forces"])
    with pytest.raises(InputError, match=r"require=\['forces'\] .*with_labels=False"):
        read_frames(tmp_path / "bare.xyz", require=["forces"], with_labels=False)


@pytest.mark.parametrize("between", ["\n", "\n \n\t\n"])
def test_joined_files_with_blank_lines_between_are_read_to_the_end(tmp_path: Path, between: str) -> None:
    text = (FORMATS / "ethanol_kcal.xyz").read_text()
    (tmp_path / "joined.xyz").write_text(between + between.join([text] * 3) + between)
    frames = read_frames(tmp_path / "joined.xyz", energy_unit="kcal/mol")
    once = read_frames(FORMATS / "ethanol_kcal.xyz", energy_unit="kcal/mol")
    assert len(frames) == 36
    for part in range(3):
        assert frames.select(range(12 * part, 12 * part + 12)).content_hash() == once.content_hash()


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig"])
def test_letters_in_comments_do_no_harm(tmp_path: Path, encoding: str) -> None:
    text = (FORMATS / "aspirin_eV.xyz").read_text()
    (tmp_path / "named.xyz").write_bytes(text.replace("energy=", "unit=Å energy=").encode(encoding))
    once = read_frames(FORMATS / "aspirin_eV.xyz")
    assert read_frames(tmp_path / "named.xyz").content_hash() == once.content_hash()


def test_columns_without_a_name_are_left_out_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "plain.xyz").write_text("2\n\nH 0 0 0 0.1 -0.2\nF 0 0 0.92\n")
    frames = read_frames(tmp_path / "plain.xyz")
    assert frames.positions.tolist() == [[0, 0, 0], [0, 0, 0.92]]
    assert "up to 2 columns behind the positions are left out; name them in Properties" in caplog.text
    caplog.clear()
    (tmp_path / "plain.xyz").write_text("2\n\nH 0 0 0\nF 0 0 0.9")
    read_frames(tmp_path / "plain.xyz")
    assert "the last line has no end; if the file was cut off there, its last number is wrong" in caplog.text
    assert "are left out" not in caplog.text


def test_cell_vectors_behind_the_atoms_are_read(tmp_path: Path) -> None:
    frame = "2\n\nH 0 0 0\nF 0 0 0.92\nVEC1 4 0 0\nVEC2 0 5 0\nVEC3 0 1 6\n"
    (tmp_path / "cell.xyz").write_text(frame + "\n" + frame)
    frames = read_frames(tmp_path / "cell.xyz")
    assert frames.cell is not None
    assert frames.cell.tolist() == [[[4, 0, 0], [0, 5, 0], [0, 1, 6]]] * 2
    assert frames.pbc.all()


def test_float32_energies_of_large_size_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = dict(np.load(FORMATS / "ethanol_ccsdt_sgdml.npz"))
    source["E"] = source["E"].astype(np.float32)
    np.savez(tmp_path / "rounded.npz", **source)
    with caplog.at_level(logging.WARNING, logger="remul_md.datasets"):
        read_frames(tmp_path / "rounded.npz")
    assert "E is float32 and as large as 97089.1 kcal/mol" in caplog.text
    assert "rounded to about 0.008 kcal/mol" in caplog.text


def test_describe_measures_what_is_there() -> None:
    frames = read_frames(FORMATS / "ethanol_ccsdt_sgdml.npz")
    lines = dict(line.split("  ", 1) for line in describe(frames).splitlines())
    values = {key.strip(): value.strip() for key, value in lines.items()}
    assert values["frames"] == "7"
    assert values["formulas (frames)"] == "C2H6O (7)"
    assert values["elements"] == "C, H, O"
    assert values["copies of earlier frames"] == "1"
    assert values["content hash"] == frames.content_hash()
    assert float(values["RMS force component"].split()[0]) == pytest.approx(
        np.sqrt((frames.forces**2).mean()), abs=1e-4
    )
    distances = [frames.atoms(index).get_all_distances()[np.triu_indices(9, 1)].min() for index in range(7)]
    assert values["nearest pair"] == f"{min(distances):.4f} Angstrom, median {np.median(distances):.4f} (all frames)"


def test_charges_are_read_written_and_not_mixed(tmp_path: Path) -> None:
    """The networks read no charge: one molecule in two charges would contradict itself."""
    atoms = molecule("CH3OH")
    structures = []
    for charge in (1, 1):
        ion = atoms.copy()
        ion.info["charge"] = charge
        ion.calc = SinglePointCalculator(ion, energy=-3.0, forces=np.full((6, 3), 0.4))
        structures.append(ion)
    ase.io.write(tmp_path / "ions.extxyz", structures)
    ions = read_frames(tmp_path / "ions.extxyz")
    assert ions.charge.tolist() == [1, 1]
    assert ions.atoms(1).info["charge"] == 1
    write_frames(ions, tmp_path / "again.extxyz", provenance={})
    assert read_frames(tmp_path / "again.extxyz").charge.tolist() == [1, 1]
    with pytest.raises(InputError, match="one neutral molecule"):
        write_frames(ions, tmp_path / "again.npz", provenance={})
    neutral = read_frames("rmd17/ethanol/train-01").select([0, 1])
    assert neutral.charge is None
    both = joined([neutral, ions], name="both")
    assert both.charge.tolist() == [0, 0, 1, 1]
    structures[1].info["charge"] = 0
    ase.io.write(tmp_path / "mixed.extxyz", structures)
    with pytest.raises(InputError, match=r"frame 1 .*charge \+0, .* \+1"):
        read_frames(tmp_path / "mixed.extxyz")
