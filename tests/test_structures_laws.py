"""Laws of batches, frames, topology and alignment, on drawn structures: what is undone is as it was."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from potentials import SMALL, random_model
from random_structures import CUTOFF, drawn_frames

from remul_md import Batch, Frames
from remul_md.structures.alignment import angle_swept, superposition_rotations
from remul_md.structures.batch import BatchStore, concatenate
from remul_md.structures.frames import joined
from remul_md.structures.neighbors import build_batch
from remul_md.structures.topology import bond_angles, bond_lengths, bond_pairs, bonded_chains, dihedral_angles
from remul_md.symmetry.rotations import random_rotations, rotations_about

SEEDS = st.integers(0, 2**32 - 1)


def assert_equal_batches(left: Batch, right: Batch) -> None:
    for entry in fields(Batch):
        a, b = getattr(left, entry.name), getattr(right, entry.name)
        assert (a is None) == (b is None), entry.name
        assert a is None or (a.dtype == b.dtype and torch.equal(a, b)), entry.name


def assert_sound(batch: Batch) -> None:
    """Every pair stands twice, once from each end, and padding points to itself."""
    n_atoms, n_slots = batch.neighbor_index.shape
    mask, own = batch.neighbor_mask.flatten(), torch.arange(n_atoms * n_slots)
    back = batch.reverse_index.flatten()
    assert torch.equal(back[back], own)
    assert torch.equal(back[~mask], own[~mask])
    rows = own // n_slots
    assert torch.equal(batch.neighbor_index.flatten(), rows[back])
    assert torch.equal(mask[back], mask)
    assert torch.equal(batch.system_index[rows], batch.system_index[batch.neighbor_index.flatten()])
    assert (batch.system_index.diff() >= 0).all()
    if batch.neighbor_shift is not None:
        shifts = batch.neighbor_shift.flatten(0, 1)
        assert torch.equal(shifts[back], -shifts)


@given(drawn_frames(), st.data())
def test_systems_in_another_order_and_back(frames: Frames, data: st.DataObject) -> None:
    batch = build_batch(frames, cutoff=CUTOFF)
    order = data.draw(st.permutations(range(len(frames))))
    store = BatchStore(BatchStore(batch).select(order))
    assert_sound(store.batch)
    assert_equal_batches(store.select(np.argsort(order)), batch)


@given(drawn_frames(), st.data())
def test_pieces_joined_are_the_whole(frames: Frames, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(frames) - 1), min_size=1, max_size=6))
    store = BatchStore(build_batch(frames, cutoff=CUTOFF))
    whole = store.select(chosen)
    assert_equal_batches(concatenate([store.select([index]) for index in chosen]), whole)
    # neighbours searched in each piece alone: rows as narrow as that piece needs, then as wide as the widest
    anew = concatenate([build_batch(frames.select([index]), cutoff=CUTOFF) for index in chosen])
    assert_sound(anew)
    assert_equal_batches(anew, build_batch(frames.select(chosen), cutoff=CUTOFF))
    assert joined([frames.select([index]) for index in chosen], name="drawn").content_hash() == (
        frames.select(chosen).content_hash()
    )


@given(drawn_frames(), st.integers(1, 5), st.data())
def test_each_copy_is_the_original(frames: Frames, n_copies: int, data: st.DataObject) -> None:
    batch = build_batch(frames, cutoff=CUTOFF)
    copies = batch.repeated(n_copies)
    assert_sound(copies)
    assert_equal_batches(copies, concatenate([batch] * n_copies))
    copy, n_systems = data.draw(st.integers(0, n_copies - 1)), len(frames)
    assert_equal_batches(BatchStore(copies).select(range(copy * n_systems, (copy + 1) * n_systems)), batch)


@given(drawn_frames(), st.integers(1, 6))
def test_wider_rows_hold_the_same_pairs(frames: Frames, more: int) -> None:
    batch = build_batch(frames, cutoff=CUTOFF)
    n_slots = batch.neighbor_index.shape[1]
    wide = batch.widened(n_slots + more)
    assert_sound(wide)
    assert_equal_batches(wide, build_batch(frames, cutoff=CUTOFF, min_neighbors=n_slots + more))
    assert_equal_batches(batch.widened(n_slots + 1).widened(n_slots + 1 + more), batch.widened(n_slots + 1 + more))


@pytest.mark.parametrize("kind", sorted(SMALL))
@settings(max_examples=20)
@given(frames=drawn_frames(), more=st.integers(1, 6))
def test_padding_changes_no_output(kind: str, frames: Frames, more: int) -> None:
    model = random_model(kind=kind, cutoff=CUTOFF).double()
    batch = build_batch(frames, cutoff=CUTOFF)
    wide = batch.widened(batch.neighbor_index.shape[1] + more)
    found, wanted = model(wide, forces="both"), model(batch, forces="both")
    for name in ("energy", "atomic_energies", "forces", "direct_forces"):
        size = getattr(wanted, name).abs().max().item()
        torch.testing.assert_close(
            getattr(found, name), getattr(wanted, name), rtol=0, atol=1e-12 * (1.0 + size), msg=name
        )


def shuffled(frames: Frames, index: int, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return frames.frame_numbers(index)[order], frames.frame_positions(index)[order]


def chains_of(pairs: np.ndarray, *, length: int, names: np.ndarray) -> set[tuple[int, ...]]:
    """Chains by the names of their atoms, whichever end comes first."""
    named = names[bonded_chains(pairs, length=length)]
    return {min(tuple(chain), tuple(chain[::-1])) for chain in named.tolist()}


@given(drawn_frames(), SEEDS)
def test_bonds_and_chains_do_not_depend_on_the_order_of_the_atoms(frames: Frames, seed: int) -> None:
    index = int(np.argmax(frames.n_atoms))
    order = np.random.default_rng(seed).permutation(int(frames.n_atoms[index]))
    numbers, positions = frames.frame_numbers(index), frames.frame_positions(index)
    bonds, other = bond_pairs(numbers, positions), bond_pairs(*shuffled(frames, index, order))
    assert {tuple(sorted(pair)) for pair in order[other].tolist()} == {tuple(pair) for pair in bonds.tolist()}
    for length in (3, 4):
        assert chains_of(other, length=length, names=order) == chains_of(
            bonds, length=length, names=np.arange(len(order))
        )


@given(drawn_frames(), SEEDS)
def test_lengths_angles_and_dihedrals_turn_with_nothing(frames: Frames, seed: int) -> None:
    index = int(np.argmax(frames.n_atoms))
    positions = frames.frame_positions(index)
    bonds = bond_pairs(frames.frame_numbers(index), positions)
    rotation = random_rotations(1, generator=torch.Generator().manual_seed(seed), group="O3")[0].numpy()
    moved = positions @ rotation.T + [3.0, -7.0, 0.5]
    np.testing.assert_allclose(bond_lengths(moved, bonds), bond_lengths(positions, bonds), atol=1e-12)
    bends, twists = bonded_chains(bonds, length=3), bonded_chains(bonds, length=4)
    np.testing.assert_allclose(bond_angles(moved, bends), bond_angles(positions, bends), atol=1e-6)
    np.testing.assert_allclose(bond_angles(positions, bends[:, ::-1]), bond_angles(positions, bends), atol=1e-9)
    # near a straight angle a dihedral is noise: those are left out
    steep = [np.abs(90.0 - bond_angles(positions, twists[:, part])) < 85.0 for part in (slice(0, 3), slice(1, 4))]
    twists = twists[np.logical_and(*steep)]
    before, sign = dihedral_angles(positions, twists), np.sign(np.linalg.det(rotation))
    for after in (sign * dihedral_angles(moved, twists), dihedral_angles(positions, twists[:, ::-1])):
        np.testing.assert_allclose((after - before + 180.0) % 360.0 - 180.0, 0.0, atol=1e-8)


def cloud(seed: int, *, n_atoms: int) -> np.ndarray:
    """Four atoms or more that lie neither on a line nor in a plane, whatever the seed."""
    corners = np.array([[0.0, 0.0, 0.0], [1.5, 0.0, 0.0], [0.0, 2.1, 0.0], [0.0, 0.0, 3.2]])
    rng = np.random.default_rng(seed)
    return np.concatenate([corners, rng.uniform(0.0, 2.0, (n_atoms - 4, 3))]) + rng.uniform(-0.2, 0.2, (n_atoms, 3))


@given(seed=SEEDS, n_atoms=st.integers(4, 9), turns=st.integers(1, 4))
def test_the_rotation_that_was_made_is_found(seed: int, n_atoms: int, turns: int) -> None:
    reference = cloud(seed, n_atoms=n_atoms)
    made = random_rotations(turns, generator=torch.Generator().manual_seed(seed)).numpy()
    frames = np.einsum("tij,aj->tai", made, reference) + np.arange(turns)[:, None, None]
    masses = np.random.default_rng(seed).uniform(1.0, 20.0, n_atoms)
    for weights in (None, masses, 1e3 * masses):
        np.testing.assert_allclose(superposition_rotations(frames, reference, masses=weights), made, atol=1e-7)
    swept = angle_swept(frames, reference=reference)
    np.testing.assert_allclose(swept, [angle_swept(reference[None], reference=frame)[0] for frame in frames], atol=1e-6)
    assert ((swept >= 0.0) & (swept <= 180.0)).all()


@given(seed=SEEDS, n_atoms=st.integers(4, 9))
def test_alignment_is_proper_the_best_and_blind_to_names(seed: int, n_atoms: int) -> None:
    rng = np.random.default_rng(seed)
    reference = cloud(seed, n_atoms=n_atoms)
    frames = np.stack([-reference, reference + rng.normal(scale=0.3, size=reference.shape)])  # a mirror image first
    found = superposition_rotations(frames, reference)
    np.testing.assert_allclose(found @ found.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (2, 3, 3)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(found), 1.0, atol=1e-12)

    def misfit(turns: np.ndarray) -> np.ndarray:
        centred = reference - reference.mean(0)
        return np.square(frames - frames.mean(1, keepdims=True) - np.einsum("tij,aj->tai", turns, centred)).sum((1, 2))

    generator = torch.Generator().manual_seed(seed)
    axes = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    near = rotations_about(axes, torch.tensor([0.08, 0.02], dtype=torch.float64)).numpy()
    far = random_rotations(2, generator=generator).numpy()
    for other in (near @ found, far):
        assert (misfit(found) <= misfit(other) + 1e-9).all()
    order = rng.permutation(n_atoms)
    again = superposition_rotations(frames[:, order], reference[order])
    np.testing.assert_allclose(misfit(again), misfit(found), atol=1e-9)


@given(drawn_frames(labels=False))
def test_labels_are_no_part_of_a_geometry(frames: Frames) -> None:
    labelled = replace(frames, energy=np.zeros(len(frames)), forces=np.ones((len(frames.positions), 3)))
    assert labelled.without_labels().content_hash() == frames.content_hash()
    assert_equal_batches(build_batch(labelled, cutoff=CUTOFF).without_labels(), build_batch(frames, cutoff=CUTOFF))
