"""Frames refuse what does not fit together; cutting and repeating batches equals building them anew."""

import re
from dataclasses import fields, replace

import ase.build
import numpy as np
import pytest
import torch
from ase import Atoms

from remul_md import Batch, Frames, InputError
from remul_md.datasets import read_frames
from remul_md.structures.batch import BatchStore
from remul_md.structures.frames import concatenated_ranges, frames_from_atoms, joined_geometries
from remul_md.structures.neighbors import build_batch


def mixed_frames(*, with_cell: bool) -> Frames:
    """Labelled frames of 5, 7, 2, 9 and 7 atoms; with cells, two of them are periodic."""
    generator = np.random.default_rng(4)
    n_atoms = np.array([5, 7, 2, 9, 7])
    total = int(n_atoms.sum())
    pbc = np.zeros((5, 3), dtype=bool)
    if with_cell:
        pbc[[1, 4]] = True
    return Frames(
        positions=generator.uniform(0, 4.0, size=(total, 3)),
        atomic_numbers=generator.integers(1, 9, size=total),
        n_atoms=n_atoms,
        pbc=pbc,
        cell=np.stack([np.diag([4.1, 4.4, 5.2]) + 0.2 * generator.normal(size=(3, 3)) for _ in n_atoms])
        if with_cell
        else None,
        energy=generator.normal(size=5),
        forces=generator.normal(size=(total, 3)),
        name="mixed",
    )


def assert_equal_batches(left: Batch, right: Batch) -> None:
    for field in fields(Batch):
        a, b = getattr(left, field.name), getattr(right, field.name)
        assert (a is None) == (b is None), field.name
        assert a is None or (a.dtype == b.dtype and torch.equal(a, b)), field.name


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"positions": np.zeros((29, 3))}, "mixed: n_atoms sums to 30, but there are 29 positions"),
        ({"positions": np.zeros((30, 2))}, "mixed: positions has shape (30, 2), expected (30, 3)"),
        ({"atomic_numbers": np.ones(31, dtype=int)}, "mixed: atomic_numbers has shape (31,), expected (30,)"),
        ({"pbc": np.zeros((5, 2), dtype=bool)}, "mixed: pbc has shape (5, 2), expected (5, 3)"),
        ({"cell": np.zeros((4, 3, 3))}, "mixed: cell has shape (4, 3, 3), expected (5, 3, 3)"),
        ({"energy": np.zeros((5, 1))}, "mixed: energy has shape (5, 1), expected (5,)"),
        ({"forces": np.zeros((5, 3))}, "mixed: forces has shape (5, 3), expected (30, 3)"),
        ({"n_atoms": np.array([5, 0, 9, 9, 7])}, "mixed: frame 1 has no atoms; remove empty frames"),
        ({"n_atoms": np.array([], dtype=int)}, "mixed: holds no frame; give a file with at least one structure"),
        ({"atomic_numbers": np.full(30, 119)}, "mixed: atomic number 119 is no element; numbers run from 1 to 118"),
        ({"atomic_numbers": np.zeros(30, dtype=int)}, "mixed: atomic number 0 is no element"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict, text: str) -> None:
    with pytest.raises(InputError, match=re.escape(text)):
        replace(mixed_frames(with_cell=True), **change)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("key", "place", "text"),
    [
        ("positions", (11, 2), "mixed: positions holds a value that is not finite (first at atom row 11)"),
        ("forces", (4, 0), "mixed: forces holds a value that is not finite (first at atom row 4)"),
        ("energy", (3,), "mixed: energy holds a value that is not finite (first at frame 3)"),
        ("cell", (2, 1, 0), "mixed: cell holds a value that is not finite (first at frame 2)"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(key: str, place: tuple[int, ...], text: str, bad: float) -> None:
    frames = mixed_frames(with_cell=True)
    values = getattr(frames, key).copy()
    values[place] = bad
    with pytest.raises(InputError, match=re.escape(text)):
        replace(frames, **{key: values})


@pytest.mark.parametrize("with_cell", [True, False])
def test_joined_geometries_are_those_of_the_parts_without_labels(with_cell: bool) -> None:
    molecules, mixed = mixed_frames(with_cell=False).select([3, 1]), mixed_frames(with_cell=with_cell)
    joined = joined_geometries([molecules, mixed], name="both")
    assert (joined.name, joined.energy, joined.forces) == ("both", None, None)
    assert joined.n_atoms.tolist() == [9, 7, 5, 7, 2, 9, 7]
    assert (joined.cell is None) == (not with_cell)
    found = build_batch(joined, cutoff=3.0)
    for part, rows in ((molecules, range(2)), (mixed, range(2, 7))):
        cut, alone = BatchStore(found).select(rows), build_batch(part, cutoff=3.0)
        for name in ("positions", "atomic_numbers", "pbc", "system_index"):
            assert torch.equal(getattr(cut, name), getattr(alone, name)), name
        assert cut.neighbor_mask.sum(1).tolist() == alone.neighbor_mask.sum(1).tolist()


@pytest.mark.parametrize("with_cell", [True, False])
def test_select_keeps_rows_together(with_cell: bool) -> None:
    frames = mixed_frames(with_cell=with_cell)
    chosen = frames.select([3, 0, 0, 2])
    assert chosen.n_atoms.tolist() == [9, 5, 5, 2]
    for new, old in enumerate([3, 0, 0, 2]):
        np.testing.assert_array_equal(chosen.frame_positions(new), frames.frame_positions(old))
        np.testing.assert_array_equal(chosen.frame_numbers(new), frames.frame_numbers(old))
        start, first = int(chosen.first_atom[new]), int(frames.first_atom[old])
        n_atoms = int(frames.n_atoms[old])
        np.testing.assert_array_equal(chosen.forces[start : start + n_atoms], frames.forces[first : first + n_atoms])
    np.testing.assert_array_equal(chosen.energy, frames.energy[[3, 0, 0, 2]])
    np.testing.assert_array_equal(chosen.pbc, frames.pbc[[3, 0, 0, 2]])
    assert (chosen.cell is None) == (not with_cell)
    if with_cell:
        np.testing.assert_array_equal(chosen.cell, frames.cell[[3, 0, 0, 2]])


def test_atoms_and_back() -> None:
    frames = mixed_frames(with_cell=True)
    again = frames_from_atoms([frames.atoms(index) for index in range(5)])
    for key in ("positions", "atomic_numbers", "n_atoms", "pbc", "cell"):
        np.testing.assert_array_equal(getattr(again, key), getattr(frames, key))
    assert again.energy is None
    with pytest.raises(InputError, match="atoms: holds no frame; give at least one structure"):
        frames_from_atoms([])
    with pytest.raises(InputError, match="atoms: frame 1 has no atoms"):
        frames_from_atoms([ase.build.molecule("H2O"), Atoms()])


def test_content_hash_sees_every_array_and_not_the_name() -> None:
    frames = mixed_frames(with_cell=True)
    hashes = {frames.content_hash(), replace(frames, name="other").content_hash()}
    assert len(hashes) == 1
    for key in ("positions", "atomic_numbers", "pbc", "cell", "energy", "forces"):
        values = getattr(frames, key).copy()
        values[-1] = ~values[-1] if key == "pbc" else values[-1] + 1
        hashes.add(replace(frames, **{key: values}).content_hash())
    hashes.add(replace(frames, n_atoms=frames.n_atoms[::-1]).content_hash())
    hashes.add(replace(frames, energy=None).content_hash())
    assert len(hashes) == 9
    # the same numbers in another role are other frames: two frames of three atoms, cells or forces
    numbers = np.arange(18.0)
    common = Frames(
        positions=numbers.reshape(6, 3),
        atomic_numbers=np.ones(6, int),
        n_atoms=np.array([3, 3]),
        pbc=np.zeros((2, 3), bool),
    )
    with_cell, with_forces = (
        replace(common, cell=numbers.reshape(2, 3, 3)),
        replace(common, forces=numbers.reshape(6, 3)),
    )
    assert with_cell.content_hash() != with_forces.content_hash()


def test_concatenated_ranges() -> None:
    assert concatenated_ranges(np.array([7, 0, 40]), np.array([2, 4, 3])).tolist() == [7, 8, 0, 1, 2, 3, 40, 41, 42]
    assert concatenated_ranges(np.array([], dtype=int), np.array([], dtype=int)).tolist() == []


@pytest.mark.parametrize("with_cell", [True, False])
@pytest.mark.parametrize("indices", [[4, 1, 1, 0], [2], [3, 2, 4, 0, 1]])
def test_a_cut_batch_equals_one_built_anew(indices: list[int], with_cell: bool) -> None:
    frames = mixed_frames(with_cell=with_cell)
    whole = build_batch(frames, cutoff=3.0)
    cut = BatchStore(whole).select(indices)
    # the store keeps the width of the widest frame and the shifts of the whole set
    anew = build_batch(frames.select(indices), cutoff=3.0, min_neighbors=whole.neighbor_index.shape[1])
    if anew.neighbor_shift is None and cut.neighbor_shift is not None:
        assert not cut.neighbor_shift.any()
        cut = replace(cut, neighbor_shift=None)
    assert_equal_batches(cut, anew)


def test_a_store_takes_arrays_and_tensors_of_indices() -> None:
    store = BatchStore(build_batch(mixed_frames(with_cell=True), cutoff=3.0))
    assert len(store) == 5
    reference = store.select([4, 0, 2])
    assert_equal_batches(reference, store.select(np.array([4, 0, 2])))
    assert_equal_batches(reference, store.select(torch.tensor([4, 0, 2])))


@pytest.mark.parametrize("with_cell", [True, False])
def test_repeated_equals_building_the_copies(with_cell: bool) -> None:
    frames = mixed_frames(with_cell=with_cell)
    batch = build_batch(frames, cutoff=3.0)
    copies = build_batch(frames.select([*range(5)] * 4), cutoff=3.0)
    assert_equal_batches(batch.repeated(4), copies)
    assert_equal_batches(batch.repeated(1), batch)
    assert batch.repeated(4).n_systems == 20
    assert batch.repeated(4).n_atoms == 120


def test_to_moves_every_tensor() -> None:
    batch = build_batch(mixed_frames(with_cell=True), cutoff=3.0).to("meta")
    assert {getattr(batch, field.name).device.type for field in fields(Batch)} == {"meta"}
    assert build_batch(read_frames("rmd17/ethanol/test-01").select([1]), cutoff=3.0).to("meta").cell is None
