"""Curves along bonds: which are told to fall, and which bond was changed."""

from __future__ import annotations

import bond_curves
import difference_labels
import numpy as np
import pytest
from ase.build import molecule

from remul_md.labels.stretched import with_bond_length
from remul_md.structures.frames import frames_from_atoms
from remul_md.structures.topology import bond_pairs


def test_a_bond_that_only_rises_has_neither_well_nor_fall() -> None:
    r = np.arange(1.1, 2.5, 0.02)
    assert bond_curves.figures(r, 4.0 * (1 - np.exp(-2.0 * (r - 1.1))) ** 2) == {
        "well_eV": 0.0, "fall_eV": 0.0, "fall_at_A": pytest.approx(1.1),
    }  # fmt: skip


def test_a_dip_is_a_well_and_an_edge_that_falls_is_only_a_fall() -> None:
    """From a maximum at 1.5 Angstrom 0.4 eV down to a minimum at 2.0 and up again; or cut off on the way."""
    r = np.arange(1.1, 2.5001, 0.02)
    energies = np.where(r < 1.5, (r - 1.1) * 3.0, 1.0 + 0.2 * np.cos(2 * np.pi * (r - 1.5)))
    whole = bond_curves.figures(r, energies)
    assert whole["well_eV"] == pytest.approx(0.4, abs=0.01)
    assert whole["fall_eV"] == pytest.approx(0.4, abs=0.01)
    assert whole["fall_at_A"] == pytest.approx(2.0, abs=0.02)
    cut = r < 1.9
    part = bond_curves.figures(r[cut], energies[cut])
    assert part["well_eV"] == 0.0
    assert part["fall_eV"] == pytest.approx(0.2 * (1 - np.cos(2 * np.pi * 0.38)), abs=0.02)


def test_the_changed_bond_is_found_with_its_length() -> None:
    atoms = molecule("CH3CH2OH")
    bonds = bond_pairs(atoms.numbers, atoms.positions)
    changed = []
    for bond, length in ((2, 1.9), (0, 0.8)):
        moved = atoms.copy()
        moved.positions = with_bond_length(atoms.positions, bonds, bond=bond, length=length)
        changed.append(moved)
    lengths, shares = difference_labels.changed_lengths(frames_from_atoms(changed), frames_from_atoms([atoms, atoms]))
    assert lengths == pytest.approx([1.9, 0.8])
    before = [np.linalg.norm(np.diff(atoms.positions[bonds[bond]], axis=0)) for bond in (2, 0)]
    assert shares == pytest.approx([1.9 / before[0], 0.8 / before[1]])
