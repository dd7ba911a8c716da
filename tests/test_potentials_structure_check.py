"""Every structure held against the training data: in any order of its atoms, alone and among others, at every call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule

from remul_md.datasets import read_frames
from remul_md.potentials.domain import DISTANCE_MARGIN, Domain, domain_of, trained_bond_ranges
from remul_md.potentials.structure_check import StructureCheck
from remul_md.structures.frames import Frames, joined
from remul_md.structures.topology import bond_pairs

NUMBERS = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])


@pytest.fixture(scope="module")
def ethanol() -> Frames:
    return read_frames("rmd17/ethanol/train-01")


@pytest.fixture(scope="module")
def domain(ethanol: Frames) -> Domain:
    return domain_of(ethanol)


def lengthened(positions: np.ndarray, domain: Domain, *, length: float) -> np.ndarray:
    """The reference frame with its C-C bond as long as that; what hangs on either carbon moves along."""
    moved = positions.copy()
    bonds = np.array(domain.bonds)
    first, second = next(bond for bond in bonds if (NUMBERS[bond] == 6).all())
    side, reached = {int(second)}, -1
    while len(side) != reached:
        reached = len(side)
        side |= {int(b) for bond in bonds for a, b in (bond, bond[::-1]) if a in side and {a, b} != {first, second}}
    axis = positions[second] - positions[first]
    moved[sorted(side)] += axis * (length / np.linalg.norm(axis) - 1.0)
    return moved


def test_the_training_frames_are_inside(ethanol: Frames, domain: Domain) -> None:
    check = StructureCheck(domain)
    np.testing.assert_array_equal(ethanol.frame_numbers(0), NUMBERS)
    for index in range(0, 1000, 7):
        assert check.outside(NUMBERS, ethanol.frame_positions(index)) == ()
    assert check.outside(NUMBERS, ethanol.positions.reshape(-1, 9, 3)) == ()


def test_another_numbering_of_the_molecule_is_inside(ethanol: Frames, domain: Domain) -> None:
    textbook = molecule("CH3CH2OH")
    assert not np.array_equal(textbook.numbers, NUMBERS) or not np.array_equal(
        bond_pairs(textbook.numbers, textbook.positions), domain.bonds
    )
    assert StructureCheck(domain).outside(textbook.numbers, textbook.positions) == ()
    check, frame = StructureCheck(domain), ethanol.frame_positions(5)
    assert check.outside(NUMBERS[::-1], frame[::-1]) == ()
    swapped = frame.copy()
    hydrogens = np.flatnonzero(NUMBERS == 1)
    swapped[hydrogens] = frame[np.roll(hydrogens, 1)]  # the same numbers, other hydrogens on each carbon
    assert check.outside(NUMBERS, swapped) == ()
    assert check.outside(NUMBERS, frame) == ()


@pytest.mark.parametrize("order", [np.arange(9), np.arange(9)[::-1], np.array([4, 1, 8, 0, 6, 2, 7, 3, 5])])
def test_each_structure_is_judged_in_any_order(ethanol: Frames, domain: Domain, order: np.ndarray) -> None:
    """What is said of a structure hangs on it alone: not on the numbering, not on what came before."""
    expected_check, check = StructureCheck(domain), StructureCheck(domain)
    rng = np.random.default_rng(8)
    told = 0
    for index in range(0, 1000, 9):
        strained = ethanol.frame_positions(index) + rng.normal(scale=0.12, size=(9, 3))
        expected = [
            line.split("; other neighbours")[0].rstrip(")") for line in expected_check.outside(NUMBERS, strained)
        ]
        found = check.outside(NUMBERS[order], strained[order])
        assert [line.split("; other neighbours")[0].rstrip(")") for line in found] == expected
        told += bool(expected)
        assert StructureCheck(domain).outside(NUMBERS[order], strained[order]) == found
    assert 20 < told < 112


def test_a_second_structure_is_looked_at_like_the_first(ethanol: Frames, domain: Domain) -> None:
    check, frame = StructureCheck(domain), ethanol.frame_positions(0)
    assert check.outside(NUMBERS, frame) == ()
    hydrogen = next(int(b) for a, b in domain.bonds if NUMBERS[a] == 6 and NUMBERS[b] == 1)
    torn = frame.copy()
    torn[hydrogen] += 3.0 * (torn[hydrogen] - torn.mean(0)) / np.linalg.norm(torn[hydrogen] - torn.mean(0))
    lines = check.outside(NUMBERS, torn)
    assert "missing 1 C-H" in lines[0]
    assert f"{hydrogen}" in lines[0].split("atoms")[1]
    assert check.outside(NUMBERS, frame) == ()
    apart = lengthened(np.array(domain.reference_positions), domain, length=10.0)
    assert "missing 1 C-C" in check.outside(NUMBERS, apart)[0]


def test_a_new_bond_is_named(domain: Domain) -> None:
    positions = np.array(domain.reference_positions)
    first, second = [int(b) for a, b in domain.bonds if NUMBERS[a] == 6 and NUMBERS[b] == 1][:2]
    positions[second] = positions[first] + [0.0, 0.0, 0.7]
    assert "new 1 H-H" in StructureCheck(domain).outside(NUMBERS, positions)[0]


@pytest.mark.parametrize("beyond", [False, True])
def test_a_bond_may_leave_its_own_range_by_the_margin(domain: Domain, beyond: bool) -> None:
    """The limit of a bond is that of its kind, not that of its elements, which may come from atoms far apart."""
    low, high = trained_bond_ranges(domain)["C(CHHH)-C(CHHO)"]
    excess = DISTANCE_MARGIN + (0.01 if beyond else -0.01)
    for length in (low - excess, high + excess):
        stretched = lengthened(np.array(domain.reference_positions), domain, length=length)
        lines = StructureCheck(domain).outside(NUMBERS, stretched)
        assert [line for line in lines if "C-C bond" in line] == (
            [f"a C-C bond leaves the trained {low:.2f} to {high:.2f} Angstrom by more than 0.15"] if beyond else []
        )


def test_how_far_is_told_in_steps(domain: Domain) -> None:
    """A run that stays outside says so a few times, since Python shows a repeated line once."""
    check = StructureCheck(domain)
    reference = np.array(domain.reference_positions)
    said = {
        line
        for length in np.linspace(0.6, 1.3, 200)
        for line in check.outside(NUMBERS, lengthened(reference, domain, length=length))
    }
    assert 2 < len(said) < 20
    assert all("C-C bond" in line or "distance" in line or "not those trained" in line for line in said)


def test_many_geometries_give_the_farthest(ethanol: Frames, domain: Domain) -> None:
    frames = ethanol.positions.reshape(-1, 9, 3)[:6].copy()
    check = StructureCheck(domain)
    for index, length in ((2, 1.15), (4, 1.0)):
        frames[index] = lengthened(np.array(domain.reference_positions), domain, length=length)
    lines = check.outside(NUMBERS, frames)
    assert lines == check.outside(NUMBERS, frames[4])  # the other is outside in the same ways, by less
    assert lines == ("a C-C bond leaves the trained 1.39 to 1.73 Angstrom by more than 0.3",)
    assert check.outside(NUMBERS, frames[2]) == (
        "a C-C bond leaves the trained 1.39 to 1.73 Angstrom by more than 0.15",
    )
    assert StructureCheck(domain).rows_outside(NUMBERS, torch.from_numpy(frames)) == lines
    assert StructureCheck(domain).rows_outside(NUMBERS, torch.from_numpy(frames[[0, 1, 3]])) == ()


def test_positions_that_are_not_finite_are_left_to_others(domain: Domain) -> None:
    positions = np.array(domain.reference_positions)
    positions[3, 1] = np.nan
    assert StructureCheck(domain).outside(NUMBERS, positions) == ()


def test_compositions_without_known_bonds_are_judged_by_distances(ethanol: Frames) -> None:
    """Of a potential of two molecules the bonds of one are known; the other is held against ranges of elements."""
    water = molecule("H2O")
    frames = Frames(
        positions=np.concatenate([water.positions, water.positions]),
        atomic_numbers=np.concatenate([water.numbers, water.numbers]),
        n_atoms=np.array([3, 3]),
        pbc=np.zeros((2, 3), dtype=bool),
        energy=np.zeros(2),
        forces=np.zeros((6, 3)),
    )
    both = domain_of(joined([ethanol.select(range(30)), frames], name="both"))
    assert both.compositions == [{"C": 2, "H": 6, "O": 1}, {"H": 2, "O": 1}]
    check = StructureCheck(both)
    assert check.outside(water.numbers, water.positions) == ()
    broken = water.positions.copy()
    broken[1] += [0.0, 20.0, 0.0]
    assert [line[:15] for line in check.outside(water.numbers, broken)] == ["a H-H distance ", "a H-O distance "]
    alone = StructureCheck(replace(both, distance_ranges={}))
    assert alone.outside(water.numbers, broken) == ()
    assert check.outside(NUMBERS, ethanol.frame_positions(2)) == ()


def test_a_molecule_that_creeps_outside_is_noticed_as_soon_as_one_that_jumps(domain: Domain) -> None:
    """Small moves are judged by how far they can have led; that must never hide a structure that is outside."""
    check, reference = StructureCheck(domain), np.array(domain.reference_positions)
    rng = np.random.default_rng(5)
    found = []
    for length in np.linspace(1.5, 2.2, 300):
        positions = lengthened(reference, domain, length=length) + rng.normal(scale=0.002, size=(9, 3))
        found.append(check.outside(NUMBERS, positions))
        assert found[-1] == StructureCheck(domain).outside(NUMBERS, positions)
    assert found[0] == ()
    assert found[-1] != ()


def test_molecules_of_other_sizes_may_come_in_turns(domain: Domain) -> None:
    check, methanol = StructureCheck(domain), molecule("CH3OH")
    reference, torn = np.array(domain.reference_positions), np.array(domain.reference_positions)
    torn[8] += 3.0
    for _ in range(2):
        assert check.outside(NUMBERS, reference) == ()
        assert check.rows_outside(methanol.numbers, torch.from_numpy(methanol.positions[None])) == ()
        assert check.outside(methanol.numbers, methanol.positions) == ()
        assert check.outside(NUMBERS, torn) != ()
