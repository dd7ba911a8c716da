"""One starting structure from a file, a molecule's name or a frame of a data set."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from remul_md.datasets import read_frames
from remul_md.datasets.structure_source import PACKAGED_MOLECULES, read_structure
from remul_md.errors import InputError


def test_a_molecule_is_its_frame_of_lowest_energy() -> None:
    frames = read_frames("rmd17/malonaldehyde/train-01")
    atoms = read_structure("malonaldehyde")
    assert frames.energy is not None
    np.testing.assert_array_equal(atoms.positions, frames.frame_positions(int(np.argsort(frames.energy)[0])))
    assert atoms.get_chemical_formula() == "C3H4O2"
    assert atoms.calc is None
    assert not atoms.pbc.any()


def test_every_packaged_molecule_is_there() -> None:
    assert len(PACKAGED_MOLECULES) == 7
    assert {"aspirin", "benzene", "ethanol", "toluene"} <= set(PACKAGED_MOLECULES)


@pytest.mark.parametrize("name", ["joined.xyz", "at@300K.xyz"])
def test_the_last_structure_of_a_file_is_that_behind_the_last_blank_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("1\n\nHe 0 0 0\n\n1\n\nNe 0 0 1\n\n")
    assert read_structure(tmp_path / name).get_chemical_formula() == "Ne"
    (tmp_path / "empty.xyz").write_text("\n")
    with pytest.raises(InputError, match=r"empty\.xyz: "):
        read_structure(tmp_path / "empty.xyz")


def test_frames_of_a_data_set() -> None:
    frames = read_frames("rmd17/ethanol/test-01")
    np.testing.assert_array_equal(read_structure("rmd17/ethanol/test-01:17").positions, frames.frame_positions(17))
    np.testing.assert_array_equal(read_structure("rmd17/ethanol/test-01").positions, frames.frame_positions(0))
    with pytest.raises(InputError, match=r"frame '1000' .*rmd17/ethanol/test-01 holds "):
        read_structure("rmd17/ethanol/test-01:1000")
    for number in ("-1", "last", "1.5"):
        with pytest.raises(InputError, match=f"frame '{number}' is not there; .* holds frames 0 to 999"):
            read_structure(f"rmd17/ethanol/test-01:{number}")


def test_the_last_structure_of_a_file_without_its_calculator(tmp_path: Path) -> None:
    structures = [molecule("CH3OH"), molecule("H2O2")]
    for index, atoms in enumerate(structures):
        atoms.calc = SinglePointCalculator(atoms, energy=-float(index), forces=np.ones((len(atoms), 3)))
    ase.io.write(tmp_path / "two.extxyz", structures)
    atoms = read_structure(tmp_path / "two.extxyz")
    assert atoms.get_chemical_formula() == "H2O2"
    assert atoms.calc is None
    np.testing.assert_allclose(atoms.positions, structures[1].positions, atol=1e-7)


def test_a_file_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ase.io.write("ethanol", molecule("H2O"), format="xyz")
    assert read_structure("ethanol").get_chemical_formula() == "H2O"


@pytest.mark.parametrize("name", ["etanol", "no/such/file.xyz", "ethanol:3"])
def test_an_unknown_structure_lists_the_molecules(name: str) -> None:
    message = rf"structure '{name}' is no file, no packaged molecule \(.*ethanol.*\) and no data set: "
    with pytest.raises(InputError, match=message):
        read_structure(name)


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.xyz").write_text("5\nno atoms follow\n")
    with pytest.raises(InputError, match=r"broken\.xyz: "):
        read_structure(tmp_path / "broken.xyz")
    (tmp_path / "empty.xyz").write_text("")
    with pytest.raises(InputError, match=r"empty\.xyz: "):
        read_structure(tmp_path / "empty.xyz")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        read_structure(tmp_path)


@pytest.mark.parametrize("name", ["box.pdb", "POSCAR", "box.xyz"])
def test_a_molecule_in_a_box_can_be_taken_out_of_it(tmp_path: Path, name: str) -> None:
    atoms = molecule("CH3CH2OH")
    atoms.set_cell([12.0, 13.0, 14.0])
    atoms.pbc = True
    atoms.center()
    form = {"box.pdb": "proteindatabank", "POSCAR": "vasp", "box.xyz": "extxyz"}[name]
    ase.io.write(tmp_path / name, atoms, format=form)
    assert read_structure(tmp_path / name).pbc.all()
    alone = read_structure(tmp_path / name, ignore_cell=True)
    assert not alone.pbc.any()
    assert alone.cell.rank == 0
    np.testing.assert_allclose(np.sort(alone.get_all_distances()), np.sort(atoms.get_all_distances()), atol=5e-3)
