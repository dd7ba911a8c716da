import numpy as np
import pytest
from ase.build import molecule

from remul_md.bonds import bond_lengths, bond_pairs
from remul_md.errors import InputError


def test_ethanol_has_its_eight_bonds_and_no_others():
    atoms = molecule("CH3CH2OH")
    pairs = bond_pairs(atoms.numbers, atoms.positions)
    degree = np.bincount(pairs.ravel(), minlength=len(atoms))
    assert len(pairs) == 8
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert {(symbol, int(n)) for symbol, n in zip(atoms.get_chemical_symbols(), degree, strict=True)} == {
        ("C", 4),
        ("O", 2),
        ("H", 1),
    }


def test_a_thermally_stretched_bond_stays_and_the_scale_decides():
    positions = np.array([[0.0, 0.0, 0.0], [1.30, 0.0, 0.0]])  # C-H, covalent radii 0.76 + 0.31
    assert len(bond_pairs(np.array([6, 1]), positions)) == 1
    assert len(bond_pairs(np.array([6, 1]), positions, scale=1.2)) == 0


def test_lengths_of_many_frames():
    frames = np.random.default_rng(0).normal(size=(4, 5, 3))
    pairs = np.array([[0, 4], [1, 2]])
    lengths = bond_lengths(frames, pairs)
    assert lengths.shape == (4, 2)
    assert lengths[3, 0] == pytest.approx(np.linalg.norm(frames[3, 0] - frames[3, 4]))


def test_scale_must_be_positive():
    with pytest.raises(InputError, match="scale must be > 0, got -1"):
        bond_pairs(np.array([6, 1]), np.zeros((2, 3)), scale=-1.0)
