"""Frames refuse what does not fit together; cutting and repeating batches equals building them anew."""

from dataclasses import dataclass, field, fields, replace

import ase.build
import numpy as np
import pytest
import torch
from ase import Atoms
from messages import pattern

from remul_md import Batch, Frames, InputError
from remul_md.datasets import read_frames
from remul_md.structures.batch import BatchStore, Prediction, concatenate
from remul_md.structures.frames import concatenated_ranges, frames_from_atoms, joined
from remul_md.structures.neighbors import build_batch
from remul_md.structures.rows import Rows, row_fields
from remul_md.symmetry.rotations import random_rotations, rotate_batch


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
    for entry in fields(Batch):
        a, b = getattr(left, entry.name), getattr(right, entry.name)
        assert (a is None) == (b is None), entry.name
        assert a is None or (a.dtype == b.dtype and torch.equal(a, b)), entry.name


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"positions": np.zeros((29, 3))}, "mixed: n_atoms ... 30 ... 29 positions"),
        ({"positions": np.zeros((30, 2))}, "mixed: positions has shape (30, 2), expected (30, 3)"),
        ({"atomic_numbers": np.ones(31, dtype=int)}, "mixed: atomic_numbers has shape (31,), expected (30,)"),
        ({"pbc": np.zeros((5, 2), dtype=bool)}, "mixed: pbc has shape (5, 2), expected (5, 3)"),
        ({"cell": np.zeros((4, 3, 3))}, "mixed: cell has shape (4, 3, 3), expected (5, 3, 3)"),
        ({"energy": np.zeros((5, 1))}, "mixed: energy has shape (5, 1), expected (5,)"),
        ({"forces": np.zeros((5, 3))}, "mixed: forces has shape (5, 3), expected (30, 3)"),
        ({"n_atoms": np.array([5, 0, 9, 9, 7])}, "mixed: frame 1 has no atoms"),
        ({"n_atoms": np.array([], dtype=int)}, "mixed: holds no frame"),
        ({"atomic_numbers": np.full(30, 119)}, "mixed: atomic number 119"),
        ({"atomic_numbers": np.zeros(30, dtype=int)}, "mixed: atomic number 0"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict, text: str) -> None:
    with pytest.raises(InputError, match=pattern(text)):
        replace(mixed_frames(with_cell=True), **change)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("key", "place", "text"),
    [
        ("positions", (11, 2), "mixed: positions ... not finite ... atom row 11"),
        ("forces", (4, 0), "mixed: forces ... not finite ... atom row 4"),
        ("energy", (3,), "mixed: energy ... not finite ... frame 3"),
        ("cell", (2, 1, 0), "mixed: cell ... not finite ... frame 2"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(key: str, place: tuple[int, ...], text: str, bad: float) -> None:
    frames = mixed_frames(with_cell=True)
    values = getattr(frames, key).copy()
    values[place] = bad
    with pytest.raises(InputError, match=pattern(text)):
        replace(frames, **{key: values})


@pytest.mark.parametrize("with_cell", [True, False])
def test_joined_frames_are_those_of_the_parts(with_cell: bool) -> None:
    molecules, mixed = mixed_frames(with_cell=False).select([3, 1]), mixed_frames(with_cell=with_cell)
    both = joined([replace(molecules, trajectory_step=np.array([40, 2])), mixed], name="both")
    assert (both.name, both.trajectory_step) == ("both", None)
    assert both.n_atoms.tolist() == [9, 7, 5, 7, 2, 9, 7]
    for part, rows in ((molecules, range(2)), (mixed, range(2, 7))):
        cell = np.zeros((len(part), 3, 3)) if with_cell and part.cell is None else part.cell
        same = replace(part, cell=cell, name="both")
        assert both.select(rows).content_hash() == same.content_hash()
    bare = joined([molecules.without_labels(), mixed.without_labels()], name="both")
    assert bare.content_hash() == both.without_labels().content_hash()
    assert (bare.energy, bare.forces) == (None, None)


def test_labels_of_only_some_parts_are_refused() -> None:
    frames = mixed_frames(with_cell=False)
    with pytest.raises(InputError, match="other: has no energy"):
        joined([frames, replace(frames.without_labels(), name="other")], name="both")
    with pytest.raises(InputError, match="1 of 2 batches have energy"):
        concatenate([build_batch(part, cutoff=3.0) for part in (frames, frames.without_labels())])


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
    with pytest.raises(InputError, match="atoms: holds no frame"):
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


@pytest.mark.parametrize("with_cell", [True, False])
def test_concatenated_batches_equal_the_batch_of_the_joined_frames(with_cell: bool) -> None:
    frames, molecules = mixed_frames(with_cell=with_cell), mixed_frames(with_cell=False).select([3, 0])
    parts = [molecules, frames.select([2]), frames]
    batches = [build_batch(part, cutoff=3.0) for part in parts]
    assert len({batch.neighbor_index.shape[1] for batch in batches}) > 1  # they are padded to one width
    found = concatenate(batches)
    assert_equal_batches(found, build_batch(joined(parts, name="joined"), cutoff=3.0))
    bare = concatenate([batch.without_labels() for batch in batches])
    assert_equal_batches(bare, replace(found, energy=None, forces=None))


def test_more_slots_are_more_padding() -> None:
    frames = mixed_frames(with_cell=True)
    batch = build_batch(frames, cutoff=3.0)
    before = batch.neighbor_index.shape[1]
    assert_equal_batches(batch.widened(before + 4), build_batch(frames, cutoff=3.0, min_neighbors=before + 4))
    assert_equal_batches(batch.widened(before), batch)
    with pytest.raises(InputError, match=f"a batch of {before} slots an atom cannot have {before - 1}; give at least"):
        batch.widened(before - 1)


def test_labels_change_their_precision_and_positions_do_not() -> None:
    batch = build_batch(mixed_frames(with_cell=True), cutoff=3.0).labels_as(torch.float32)
    assert (batch.energy.dtype, batch.forces.dtype) == (torch.float32, torch.float32)
    assert (batch.positions.dtype, batch.cell.dtype) == (torch.float64, torch.float64)
    assert (
        build_batch(mixed_frames(with_cell=False), cutoff=3.0).without_labels().labels_as(torch.float32).energy is None
    )


def test_every_field_says_what_its_rows_are() -> None:
    for kind, others in ((Batch, set()), (Prediction, {"members", "std_scale"}), (Frames, {"name"})):
        assert {entry.name for entry in fields(kind)} - row_fields(kind).keys() == others


@dataclass(frozen=True, kw_only=True, eq=False)
class LargerBatch(Batch):
    """What a new field needs: to say what it is."""

    charge: torch.Tensor | None = field(default=None, metadata={"rows": Rows(per="system", label=True)})
    dipole: torch.Tensor | None = field(default=None, metadata={"rows": Rows(per="system", turns=True)})
    nearest: torch.Tensor | None = field(default=None, metadata={"rows": Rows(per="atom", index_of="atom")})
    order: torch.Tensor | None = field(default=None, metadata={"rows": Rows(per="pair")})


def larger(batch: Batch, *, charge: torch.Tensor) -> LargerBatch:
    """Every new field is a function of the others (of one system), so it is known after whatever was done."""
    values = {entry.name: getattr(batch, entry.name) for entry in fields(Batch)}
    dipole = torch.zeros(batch.n_systems, 3, dtype=torch.float64).index_add(0, batch.system_index, batch.forces)
    n_neighbors = batch.neighbor_mask.sum(1, keepdim=True)
    order = (n_neighbors - batch.neighbor_index.new_ones(batch.neighbor_mask.shape).cumsum(1)) * batch.neighbor_mask
    return LargerBatch(**values, charge=charge, dipole=dipole, nearest=batch.neighbor_index[:, 0], order=order)


def test_a_new_field_is_selected_repeated_joined_cast_moved_and_rotated() -> None:
    batch = build_batch(mixed_frames(with_cell=True), cutoff=3.0)
    charge = torch.tensor([-2.0, 0.5, 1.0, 3.0, 7.0], dtype=torch.float64)
    whole = larger(batch, charge=charge)

    def check(found: Batch, wanted: Batch, charge: torch.Tensor) -> None:
        wanted = larger(wanted, charge=charge)
        assert isinstance(found, LargerBatch)
        for entry in fields(LargerBatch):
            torch.testing.assert_close(getattr(found, entry.name), getattr(wanted, entry.name), rtol=0, atol=1e-13)

    chosen = [3, 0, 3, 2]
    check(BatchStore(whole).select(chosen), BatchStore(batch).select(chosen), charge[chosen])
    check(whole.repeated(3), batch.repeated(3), charge.repeat(3))
    check(whole.widened(29), batch.widened(29), charge)
    parts = [BatchStore(whole).select([4, 1]), whole.widened(29)]
    check(
        concatenate(parts),
        concatenate([BatchStore(batch).select([4, 1]), batch.widened(29)]),
        charge[[4, 1, *range(5)]],
    )
    rotations = random_rotations(5, generator=torch.Generator().manual_seed(8), group="O3")
    check(rotate_batch(whole, rotations), rotate_batch(batch, rotations), charge)
    assert whole.labels_as(torch.float32).charge.dtype == torch.float32
    assert whole.without_labels().charge is None
    assert whole.to("meta").order.device.type == "meta"


def test_to_moves_every_tensor() -> None:
    frames = mixed_frames(with_cell=True)
    batch = build_batch(replace(frames, field_V_per_A=np.ones((len(frames), 3))), cutoff=3.0).to("meta")
    assert {getattr(batch, entry.name).device.type for entry in fields(Batch)} == {"meta"}
    assert build_batch(read_frames("rmd17/ethanol/test-01").select([1]), cutoff=3.0).to("meta").cell is None
