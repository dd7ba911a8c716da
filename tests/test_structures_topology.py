from itertools import pairwise

import numpy as np
import pytest
from ase.build import molecule

from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.structures.topology import (
    bond_angles,
    bond_kinds,
    bond_lengths,
    bond_pairs,
    bonded_chains,
    dihedral_angles,
    matching_orders,
    weakest_link,
)


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


def test_chains_of_ethanol():
    atoms = molecule("CH3CH2OH")
    pairs = bond_pairs(atoms.numbers, atoms.positions)
    angles, dihedrals = bonded_chains(pairs, length=3), bonded_chains(pairs, length=4)
    assert len(bonded_chains(pairs, length=2)) == len(pairs)
    assert len(angles) == 13  # six at each carbon, one at the oxygen
    assert len(dihedrals) == 12  # nine about C-C, three about C-O
    bonds = {frozenset(pair) for pair in pairs.tolist()}
    for chain in [*angles.tolist(), *dihedrals.tolist()]:
        assert all(frozenset(step) in bonds for step in pairwise(chain))
        assert len(set(chain)) == len(chain)
        assert chain[0] < chain[-1]
    assert len({tuple(chain) for chain in dihedrals.tolist()}) == 12
    with pytest.raises(InputError, match="at least 2 atoms, got length 1"):
        bonded_chains(pairs, length=1)


def test_a_ring_of_three_has_no_dihedral():
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    assert len(bonded_chains(pairs, length=3)) == 3
    assert bonded_chains(pairs, length=4).shape == (0, 4)


def test_angles_and_dihedrals_are_those_of_ase():
    atoms = molecule("CH3CH2OH")
    frames = atoms.positions + np.random.default_rng(1).normal(scale=0.1, size=(5, 9, 3))
    pairs = bond_pairs(atoms.numbers, atoms.positions)
    angles, dihedrals = bonded_chains(pairs, length=3), bonded_chains(pairs, length=4)
    found, rotated = bond_angles(frames, angles), dihedral_angles(frames, dihedrals)
    assert found.shape == (5, 13)
    assert rotated.shape == (5, 12)
    for frame in range(5):
        moved = atoms.copy()
        moved.positions = frames[frame]
        np.testing.assert_allclose(found[frame], moved.get_angles(angles), atol=1e-8)
        gap = rotated[frame] - moved.get_dihedrals(dihedrals)
        np.testing.assert_allclose(np.cos(np.radians(gap)), 1.0, atol=1e-10)
    assert (rotated < 0).any()
    assert (rotated > 0).any()


def test_a_molecule_is_found_in_another_numbering():
    """Ethanol has 12 symmetries of its bond graph: six of CH3, two of CH2."""
    atoms = molecule("CH3CH2OH")
    pairs = bond_pairs(atoms.numbers, atoms.positions)
    shuffled = atoms[np.random.default_rng(3).permutation(9)]
    others = bond_pairs(shuffled.numbers, shuffled.positions)
    orders = list(matching_orders(shuffled.numbers, others, reference_numbers=atoms.numbers, reference_pairs=pairs))
    assert len({tuple(order) for order in orders}) == len(orders) == 12
    bonds = {tuple(pair) for pair in pairs.tolist()}
    for order in orders:
        np.testing.assert_array_equal(shuffled.numbers[order], atoms.numbers)
        place = np.argsort(order)  # of each shuffled atom, its number in the reference
        assert {tuple(sorted(place[pair].tolist())) for pair in others} == bonds
    same = matching_orders(atoms.numbers, pairs, reference_numbers=atoms.numbers, reference_pairs=pairs)
    np.testing.assert_array_equal(next(same), np.arange(9))
    assert sum(1 for _ in same) == 11


def test_isomers_match_in_no_order():
    ethanol, ether = molecule("CH3CH2OH"), molecule("CH3OCH3")
    first, second = (bond_pairs(atoms.numbers, atoms.positions) for atoms in (ethanol, ether))
    assert len(first) == len(second)
    assert not list(matching_orders(ether.numbers, second, reference_numbers=ethanol.numbers, reference_pairs=first))


def test_kinds_of_bonds_know_no_numbering():
    atoms = molecule("CH3CH2OH")
    expected = ["C(CHHH)-C(CHHO)", *["C(CHHH)-H(C)"] * 3, "C(CHHO)-H(C)", "C(CHHO)-H(C)", "C(CHHO)-O(CH)", "H(O)-O(CH)"]
    for order in (np.arange(9), np.arange(9)[::-1]):
        shuffled = atoms[order]
        pairs = bond_pairs(shuffled.numbers, shuffled.positions)
        assert sorted(bond_kinds(shuffled.numbers, pairs)) == expected


def test_the_weakest_link() -> None:
    """A hydrogen pulled off is found whatever its length; a cell of nothing but bonds has none; one atom has none."""
    ethanol = molecule("CH3CH2OH")
    link, length = weakest_link(ethanol.numbers, ethanol.positions)
    assert 0.9 < length < 1.15
    oxygen, hydrogen = 2, int(np.argmin(np.where(ethanol.numbers == 1, ethanol.get_distances(2, range(9)), np.inf)))
    direction = ethanol.positions[hydrogen] - ethanol.positions[oxygen]
    for stretched in (1.4, 2.0, 5.0):
        ethanol.positions[hydrogen] = ethanol.positions[oxygen] + stretched * direction
        link, length = weakest_link(ethanol.numbers, ethanol.positions)
        assert hydrogen in link
        assert length > 1.3
        assert length == pytest.approx(stretched * np.linalg.norm(direction) / (0.66 + 0.31), rel=0.4)
    assert weakest_link(np.array([1]), np.zeros((1, 3))) == ((0, 0), 0.0)


@pytest.mark.parametrize("name", ["ethanol", "malonaldehyde"])
def test_bonds_of_thermal_frames_are_not_stretched(name: str) -> None:
    """At 500 K no link reaches 1.3 times the sum of the radii, beyond which a bond counts as breaking."""
    frames = read_frames(f"rmd17/{name}/test-01")
    longest = [weakest_link(frames.frame_numbers(i), frames.frame_positions(i))[1] for i in range(len(frames))]
    assert 1.1 < max(longest) < 1.27
