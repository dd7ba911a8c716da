"""Energies of isolated atoms: read from a file, out of a data set, or packaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from remul_md import read_frames
from remul_md.datasets.file_options import FileOptions
from remul_md.datasets.isolated_atoms import packaged_isolated_atoms, read_isolated_atoms, split_off_atoms
from remul_md.errors import InputError


def labelled(symbols: str, energy: float, *, spread: float = 1.1) -> Atoms:
    atoms = Atoms(symbols, positions=spread * np.arange(3 * len(Atoms(symbols))).reshape(-1, 3) / 3.0)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=0.1 + np.zeros((len(atoms), 3)))
    return atoms


def test_a_file_of_atoms_is_read_in_the_units_of_its_data(tmp_path: Path) -> None:
    write(tmp_path / "atoms.xyz", [labelled("O", -75.1), labelled("H", -0.5)])
    found = read_isolated_atoms(tmp_path / "atoms.xyz", options=FileOptions(energy_unit="Hartree"))
    assert found.energies_eV == pytest.approx({8: -75.1 * 27.211386, 1: -0.5 * 27.211386}, rel=1e-7)
    assert found.source == "atoms.xyz"
    with pytest.raises(InputError, match=r"no isolated atom of C\b"):
        found.require((1, 6, 8))


def test_atoms_among_the_frames_are_split_off(tmp_path: Path) -> None:
    frames = [labelled("OH2", -470.0), labelled("H", -13.5), labelled("OH2", -469.5), labelled("O", -2038.0)]
    write(tmp_path / "all.extxyz", frames)
    molecules, atoms = split_off_atoms(read_frames(tmp_path / "all.extxyz", allow_implausible=True))
    assert molecules.n_atoms.tolist() == [3, 3]
    assert molecules.energy is not None
    assert molecules.energy.tolist() == [-470.0, -469.5]
    assert atoms is not None
    assert atoms.energies_eV == {1: -13.5, 8: -2038.0}
    again, none = split_off_atoms(molecules)
    assert again is molecules
    assert none is None


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([("H", -13.5), ("H", -13.4)], "keep one frame of each element"),
        ([("H", -13.5), ("OH", -470.0)], "frame 1 has 2 atoms"),
    ],
)
def test_what_is_no_table_of_atoms_is_refused(tmp_path: Path, frames: list[tuple[str, float]], message: str) -> None:
    write(tmp_path / "atoms.xyz", [labelled(symbols, energy) for symbols, energy in frames])
    with pytest.raises(InputError, match=message):
        read_isolated_atoms(tmp_path / "atoms.xyz", options=FileOptions())


def test_single_atoms_alone_are_no_training_data(tmp_path: Path) -> None:
    write(tmp_path / "atoms.xyz", [labelled("H", -13.5), labelled("O", -2038.0)])
    with pytest.raises(InputError, match="single atoms only"):
        split_off_atoms(read_frames(tmp_path / "atoms.xyz", allow_implausible=True))


def test_the_packaged_atoms_bind_every_packaged_molecule(tmp_path: Path) -> None:
    """Atomisation energies of these molecules at PBE are 4 to 6 eV an atom; restricted atoms would give 1 to 2 more."""
    for molecule in ("ethanol", "benzene", "salicylic"):
        name = f"rmd17/{molecule}/train-01"
        atoms, frames = packaged_isolated_atoms(name), read_frames(name)
        assert atoms is not None
        assert frames.energy is not None
        numbers = frames.frame_numbers(0)
        total = sum(atoms.energies_eV[int(number)] for number in numbers)
        assert -5.6 < (frames.energy.mean() - total) / len(numbers) < -3.7
    assert packaged_isolated_atoms("ccsdt/ethanol/train") is None  # of another level of theory
    file = tmp_path / "rmd17"
    file.touch()
    assert packaged_isolated_atoms(str(file)) is None
