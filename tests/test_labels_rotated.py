"""Torsions that no frame shows, made by rotating one side of a bond."""

from __future__ import annotations

import numpy as np
import pytest

from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.labels.rotated import unseen_torsions, with_torsion
from remul_md.labels.selection import is_plausible
from remul_md.potentials.domain import domain_of
from remul_md.structures.frames import joined
from remul_md.structures.topology import bond_lengths, dihedral_angles, side_of_bond, torsion_chains


@pytest.mark.parametrize("degrees", [-179.0, -75.0, 0.5, 45.0, 160.0])
def test_one_side_rotates_as_a_whole(degrees: float) -> None:
    frames = read_frames("rmd17/aspirin/train-01").select(range(3))
    domain, numbers = domain_of(frames), frames.frame_numbers(0)
    bonds = np.array(domain.bonds)
    chains, _ = torsion_chains(numbers, bonds)
    for chain in chains[::3]:
        before = frames.frame_positions(1)
        moved = with_torsion(before, bonds, chain=chain, degrees=degrees)
        assert dihedral_angles(moved, chain[None])[0] == pytest.approx(degrees, abs=1e-6)
        np.testing.assert_allclose(bond_lengths(moved, bonds), bond_lengths(before, bonds), atol=1e-12)
        still = np.flatnonzero((moved == before).all(axis=1))
        assert len(still) >= len(numbers) / 2
        side = side_of_bond(bonds, int(chain[1]), int(chain[2]))
        assert 0 < len(side) < len(numbers)


def test_what_is_not_seen_is_made_and_nothing_else() -> None:
    frames = read_frames("rmd17/salicylic/train-01").select(range(200))
    unseen = {
        (kind, number) for kind, seen in domain_of(frames).torsions.items() for number in set(range(6)) - set(seen)
    }
    made = unseen_torsions(frames, seed=3)
    assert made is not None
    assert made.energy is None
    assert 0 < len(made) <= len(unseen)
    numbers = frames.frame_numbers(0)
    bonds = np.array(domain_of(frames).bonds)
    chains, kinds = torsion_chains(numbers, bonds)
    for index in range(len(made)):
        at = made.frame_positions(index)
        assert is_plausible(numbers, at)
        bins = np.minimum(np.abs(dihedral_angles(at, chains)) // 30, 5).astype(int)
        assert {*zip(kinds, bins.tolist(), strict=True)} & unseen
    again = unseen_torsions(frames, seed=3)
    assert again is not None
    np.testing.assert_array_equal(again.positions, made.positions)
    with pytest.raises(InputError, match="has no energies"):
        unseen_torsions(made, seed=3)


def test_where_all_is_seen_there_is_nothing_to_make() -> None:
    frames = read_frames("rmd17/ethanol/train-01")
    assert unseen_torsions(frames, seed=0) is None
    few = unseen_torsions(frames.select(range(2)), seed=0)
    assert few is not None
    assert len(joined([few, few], name="both")) == 2 * len(few)
