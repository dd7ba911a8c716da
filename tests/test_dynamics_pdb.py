"""The topology beside an H5MD file, as other programs read it."""

from __future__ import annotations

import warnings
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from remul_md.datasets.structure_source import read_structure
from remul_md.dynamics.pdb import write_topology
from remul_md.structures.topology import bond_pairs

MDAnalysis = pytest.importorskip("MDAnalysis")


def universe(path: Path):
    with warnings.catch_warnings(action="ignore"):
        return MDAnalysis.Universe(str(path), to_guess=())


@pytest.mark.parametrize("name", ["ethanol", "aspirin"])
def test_names_are_unique_and_bonds_are_those_of_the_molecule(tmp_path: Path, name: str) -> None:
    atoms = read_structure(name)
    write_topology(atoms, tmp_path / "t.pdb")
    found = universe(tmp_path / "t.pdb")
    assert list(found.atoms.elements) == atoms.get_chemical_symbols()
    assert len(set(found.atoms.names)) == len(atoms)
    bonds = {tuple(sorted(pair)) for pair in found.bonds.indices.tolist()}
    assert bonds == {tuple(pair) for pair in bond_pairs(atoms.numbers, atoms.positions).tolist()}
    np.testing.assert_allclose(found.atoms.positions, atoms.positions, atol=6e-4)
    again = ase.io.read(tmp_path / "t.pdb")
    assert again.get_chemical_symbols() == atoms.get_chemical_symbols()
    assert not again.pbc.any()


def test_crystals_keep_their_box(tmp_path: Path) -> None:
    copper = bulk("Cu", cubic=True).repeat(2)
    write_topology(copper, tmp_path / "t.pdb")
    found = universe(tmp_path / "t.pdb")
    np.testing.assert_allclose(found.dimensions, [*copper.cell.lengths(), 90, 90, 90], atol=1e-2)
    assert set(found.atoms.elements) == {"Cu"}
    assert len(set(found.atoms.names)) == 32


def test_long_names_keep_to_their_columns(tmp_path: Path) -> None:
    chlorine = molecule("CCl4")
    many = Atoms("Cl" * 1200, positions=5.0 * np.indices((12, 10, 10)).reshape(3, -1).T)
    for atoms in (chlorine, many):
        write_topology(atoms, tmp_path / "t.pdb")
        lines = (tmp_path / "t.pdb").read_text().splitlines()
        assert {len(line) for line in lines} == {80}
        assert list(universe(tmp_path / "t.pdb").atoms.elements) == atoms.get_chemical_symbols()
