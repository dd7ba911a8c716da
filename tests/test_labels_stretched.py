"""Geometries with one bond stretched or squeezed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from remul_md import read_frames
from remul_md.errors import InputError
from remul_md.labels.stretched import SQUEEZED, STRETCHED_IN_RING, stretched_bonds, with_bond_length
from remul_md.structures.frames import Frames, frames_from_atoms
from remul_md.structures.topology import bond_kinds, bond_lengths, bond_pairs

Run = Callable[..., tuple[int, str, str]]


def longest_change(frames: Frames, made: Frames, index: int) -> tuple[int, float]:
    """The bond of a made geometry that is farthest from its usual length, and its length, Angstrom."""
    numbers = frames.frame_numbers(0)
    positions = frames.positions.reshape(len(frames), len(numbers), 3)
    bonds = bond_pairs(numbers, positions[0])
    usual = bond_lengths(positions, bonds).mean(axis=0)
    lengths = bond_lengths(made.frame_positions(index), bonds)
    bond = int(np.argmax(np.abs(np.log(lengths / usual))))
    return bond, float(lengths[bond])


def test_every_kind_of_bond_of_ethanol_is_squeezed_and_stretched() -> None:
    frames = read_frames("rmd17/ethanol/train-01").select(range(40))
    made, starts = stretched_bonds(frames, n_stretched=4, seed=3)
    numbers = frames.frame_numbers(0)
    bonds = bond_pairs(numbers, frames.frame_positions(0))
    kinds = bond_kinds(numbers, bonds)
    assert len(set(kinds)) == 5
    assert len(made) == 5 * (len(SQUEEZED) + 4)
    assert made.energy is None
    found = [longest_change(frames, made, index) for index in range(len(made))]
    assert set(Counter(kinds[bond] for bond, _ in found).values()) == {7}
    for index, start in enumerate(starts):  # made from that frame: its other bonds are as they were
        changes = bond_lengths(made.frame_positions(index), bonds) - bond_lengths(frames.frame_positions(start), bonds)
        assert np.flatnonzero(np.abs(changes) > 1e-9).tolist() == [found[index][0]]
    hydroxyl = sorted(length for bond, length in found if kinds[bond] == "H(O)-O(CH)")
    assert hydroxyl[0] == pytest.approx(0.7 * 0.97, abs=0.02)
    assert hydroxyl[-1] == pytest.approx(3.0, abs=1e-9)
    ratios = np.diff(np.log(hydroxyl[len(SQUEEZED) :]))
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-6)


def test_only_that_bond_changes_and_the_smaller_side_moves() -> None:
    atoms = molecule("CH3CH2OH")
    numbers, start = atoms.numbers, atoms.positions
    bonds = bond_pairs(numbers, start)
    carbons = next(index for index, (a, b) in enumerate(bonds) if numbers[a] == numbers[b] == 6)
    moved = with_bond_length(start, bonds, bond=carbons, length=2.75)
    lengths, before = bond_lengths(moved, bonds), bond_lengths(start, bonds)
    assert lengths[carbons] == pytest.approx(2.75, abs=1e-12)
    np.testing.assert_allclose(np.delete(lengths, carbons), np.delete(before, carbons), rtol=0, atol=1e-12)
    still = np.abs(moved - start).max(axis=1) == 0
    assert still.sum() == 5  # O, its H, the C it is bonded to, and two H of that; the methyl group moved


def test_atoms_of_a_ring_move_with_what_hangs_on_them() -> None:
    atoms = molecule("C6H6")
    frames = frames_from_atoms([atoms])
    made, _ = stretched_bonds(frames, n_stretched=2, seed=0)
    bonds = bond_pairs(atoms.numbers, atoms.positions)
    n_ring = 0
    for index in range(len(made)):
        bond, length = longest_change(frames, made, index)
        lengths = bond_lengths(made.frame_positions(index), bonds)
        hydrogens = [b for b, (i, j) in enumerate(bonds) if 1 in (atoms.numbers[i], atoms.numbers[j]) and b != bond]
        np.testing.assert_allclose(lengths[hydrogens], bond_lengths(atoms.positions, bonds)[hydrogens], atol=1e-12)
        if atoms.numbers[bonds[bond]].tolist() == [6, 6]:
            n_ring += 1
            assert length < 1.4 * max(STRETCHED_IN_RING)
    assert n_ring == len(SQUEEZED) + len(STRETCHED_IN_RING)


def test_the_same_seed_gives_the_same_geometries() -> None:
    frames = read_frames("rmd17/ethanol/train-01").select(range(10))
    one, same, other = (stretched_bonds(frames, n_stretched=3, seed=seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(one.positions, same.positions)
    assert not np.array_equal(one.positions, other.positions)


def test_the_command_labels_them_and_says_so(cli: Run, tmp_path: Path) -> None:
    """With GFN2-xTB; energies rise from the usual length both ways."""
    pytest.importorskip("tblite")
    output = tmp_path / "stretched.npz"
    command = ("label", "xtb", "rmd17/ethanol/train-01", output, "--every", "50", "--stretched-bonds", "4")
    code, _, err = cli(*command)
    assert code == 0, err
    made = read_frames(output)
    source = read_frames("rmd17/ethanol/train-01").select(range(0, 1000, 50))
    assert np.array_equal(made.positions, stretched_bonds(source, seed=4)[0].positions)
    assert made.energy is not None
    with np.load(output) as arrays:
        assert json.loads(str(arrays["provenance"]))["stretched_bonds"] == 4
    kinds = len(made) // 5
    assert len(made) == 5 * kinds
    assert made.energy[:5].mean() > made.energy[10:15].mean() + 1.0  # the shortest, and nearly the usual length
    assert made.energy[-5:].mean() > made.energy[10:15].mean() + 2.0
    before = output.stat()
    code, out, _ = cli(*command, "--resume")
    assert code == 0
    assert "50 frames labelled" in out
    assert output.stat() == before  # there was nothing to do
    code, _, err = cli(*command[:-1], "5", "--resume")
    assert code == 2
    assert "stretched_bonds" in err


def test_what_cannot_be_stretched_is_refused() -> None:
    frames = read_frames("rmd17/ethanol/train-01").select(range(3))
    with pytest.raises(InputError, match="n_stretched must be >= 1, got 0"):
        stretched_bonds(frames, n_stretched=0, seed=0)
    with pytest.raises(InputError, match="has no bonds"):
        stretched_bonds(frames_from_atoms([Atoms("H2", positions=[[0, 0, 0], [0, 0, 3.0]])]), seed=0)
    with pytest.raises(InputError, match="differ in their atoms"):
        stretched_bonds(frames_from_atoms([molecule("H2O"), molecule("CH4")]), seed=0)
