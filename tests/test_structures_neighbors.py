"""Neighbour lists: backends agree pair for pair, periodic images are right, reverses reverse, bad input is named."""

import importlib.util
import re
import sys
from dataclasses import replace
from functools import cache

import ase.build
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import primitive_neighbor_list
from random_structures import pair_vectors

from remul_md import Frames, InputError
from remul_md.datasets import read_frames
from remul_md.structures.frames import frames_from_atoms
from remul_md.structures.neighbors import build_batch, neighbor_pairs

needs_torch_cluster = pytest.param(
    "torch_cluster",
    marks=[
        pytest.mark.torch_cluster,
        pytest.mark.skipif(
            importlib.util.find_spec("torch_cluster") is None,
            reason="torch-cluster is not built; `make torch-cluster` builds it",
        ),
    ],
)
OTHER_BACKENDS = ["dense", needs_torch_cluster]


@cache
def cluster(n_atoms: int = 70, *, seed: int = 1) -> np.ndarray:
    """Positions of atoms at least 0.8 Angstrom apart in a ball of 4 Angstrom: dozens of neighbours each."""
    generator, positions = np.random.default_rng(seed), np.zeros((0, 3))
    while len(positions) < n_atoms:
        candidate = generator.uniform(-4, 4, size=3)
        far = len(positions) == 0 or np.linalg.norm(positions - candidate, axis=1).min() > 0.8
        if np.linalg.norm(candidate) < 4 and far:
            positions = np.vstack([positions, candidate])
    return positions


def random_crystal(n_atoms: int, *, size: float, seed: int, pbc: tuple[bool, bool, bool] = (True, True, True)) -> Atoms:
    """Atoms in a skewed cell of about `size` Angstrom, some of them outside of it."""
    generator = np.random.default_rng(seed)
    cell = size * (np.eye(3) + 0.3 * generator.uniform(-1, 1, size=(3, 3)))
    scaled = generator.uniform(-1.2, 1.7, size=(n_atoms, 3))
    return Atoms(numbers=generator.integers(1, 9, n_atoms), scaled_positions=scaled, cell=cell, pbc=pbc)


def sorted_reference(atoms: Atoms, *, cutoff: float) -> list[tuple[int, ...]]:
    """ASE's own list, an implementation that shares nothing with ours."""
    i, j, shift = primitive_neighbor_list("ijS", atoms.pbc, atoms.cell.array, atoms.positions, cutoff)
    return sorted(zip(i.tolist(), j.tolist(), *shift.T.tolist(), strict=True))


def as_rows(pairs: tuple[np.ndarray, np.ndarray, np.ndarray]) -> list[tuple[int, ...]]:
    i, j, shift = pairs
    return list(zip(i.tolist(), j.tolist(), *shift.T.tolist(), strict=True))


@pytest.mark.parametrize("backend", OTHER_BACKENDS)
@pytest.mark.parametrize("cutoff", [1.2, 2.0, 3.7, 6.0, 50.0])
@pytest.mark.parametrize("molecule", ["ethanol", "aspirin", "naphthalene"])
def test_backends_agree_pair_for_pair_on_molecules(molecule: str, cutoff: float, backend: str) -> None:
    frames = read_frames(f"rmd17/{molecule}/test-01").select(range(0, 1000, 97))
    for index in range(len(frames)):
        positions = frames.frame_positions(index)
        reference = neighbor_pairs(positions, cutoff=cutoff, backend="vesin")
        other = neighbor_pairs(positions, cutoff=cutoff, backend=backend)
        for left, right in zip(reference, other, strict=True):
            np.testing.assert_array_equal(left, right)
            assert left.dtype == right.dtype == np.int64
    if cutoff == 50.0:
        assert len(reference[0]) == len(positions) * (len(positions) - 1)


@pytest.mark.parametrize("backend", ["vesin", *OTHER_BACKENDS])
def test_nothing_is_truncated(backend: str) -> None:
    positions = cluster()
    i, j, _ = neighbor_pairs(positions, cutoff=6.5, backend=backend)
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    expected = (distances < 6.5) & ~np.eye(70, dtype=bool)
    assert expected.sum(1).max() > 60  # torch_cluster alone would stop at 32
    np.testing.assert_array_equal(np.stack([i, j], axis=1), np.argwhere(expected))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("n_atoms", "size", "cutoff"),
    [(40, 9.0, 4.1), (7, 4.0, 5.3), (2, 2.3, 6.2), (1, 1.9, 4.4)],  # down to cells far smaller than the cutoff
)
def test_periodic_cells_against_ase(n_atoms: int, size: float, cutoff: float, seed: int) -> None:
    atoms = random_crystal(n_atoms, size=size, seed=seed)
    pairs = neighbor_pairs(atoms.positions, cutoff=cutoff, cell=atoms.cell.array, pbc=atoms.pbc)
    assert as_rows(pairs) == sorted_reference(atoms, cutoff=cutoff)
    i, j, shift = pairs
    assert np.linalg.norm(atoms.positions[j] + shift @ atoms.cell.array - atoms.positions[i], axis=1).max() < cutoff
    if n_atoms <= 2:
        assert (i == j).sum() > 10  # an atom neighbours its own images
    assert len({tuple(row) for row in as_rows(pairs)}) == len(i)


@pytest.mark.parametrize("pbc", [(True, True, False), (False, True, False), (True, False, True)])
def test_mixed_periodicity_against_ase(pbc: tuple[bool, bool, bool]) -> None:
    # vesin 0.3 took any list of flags for "all periodic", in silence
    atoms = random_crystal(11, size=5.0, seed=8, pbc=pbc)
    pairs = neighbor_pairs(atoms.positions, cutoff=5.6, cell=atoms.cell.array, pbc=atoms.pbc)
    assert as_rows(pairs) == sorted_reference(atoms, cutoff=5.6)
    assert not pairs[2][:, ~np.array(pbc)].any()
    assert pairs[2][:, np.array(pbc)].any()


def test_a_cell_without_periodicity_changes_nothing() -> None:
    positions = cluster(23)
    plain = neighbor_pairs(positions, cutoff=3.1)
    for cell in (np.eye(3) * 2.0, np.zeros((3, 3))):  # a molecule among periodic frames has a cell of zeros
        boxed = neighbor_pairs(positions, cutoff=3.1, cell=cell, pbc=np.zeros(3, dtype=bool))
        for left, right in zip(plain, boxed, strict=True):
            np.testing.assert_array_equal(left, right)


def crystals_and_molecules() -> Frames:
    ethanol = read_frames("rmd17/ethanol/test-01").atoms(5)
    ethanol.cell = np.eye(3) * 11.0
    return frames_from_atoms(
        [random_crystal(7, size=3.4, seed=2), ethanol, random_crystal(2, size=2.4, seed=3), ase.build.bulk("Cu")]
    )


@pytest.mark.parametrize("kind", ["molecules", "mixed"])
def test_reverse_index_is_an_involution_that_reverses(kind: str) -> None:
    frames = (
        crystals_and_molecules() if kind == "mixed" else read_frames("rmd17/aspirin/test-01").select([4, 9, 400, 77, 5])
    )
    batch = build_batch(frames, cutoff=4.3)
    n_atoms, n_columns = batch.neighbor_index.shape
    reverse, slots = batch.reverse_index.flatten(), torch.arange(n_atoms * n_columns)
    assert torch.equal(reverse[reverse], slots)
    mask = batch.neighbor_mask.flatten()
    assert torch.equal(reverse[~mask], slots[~mask])
    assert (reverse[mask] != slots[mask]).all()
    center, neighbor = slots // n_columns, batch.neighbor_index.flatten()
    assert torch.equal(center[reverse], neighbor)
    assert torch.equal(neighbor[reverse], center)
    vectors = pair_vectors(batch).reshape(-1, 3)
    torch.testing.assert_close(vectors[reverse][mask], -vectors[mask], rtol=0, atol=1e-12)
    # summing over the reverse is the adjoint of gathering neighbours
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(n_atoms * n_columns, generator=generator, dtype=torch.float64)
    per_atom = torch.randn(n_atoms, generator=generator, dtype=torch.float64)
    gathered = (values * per_atom[neighbor]).sum()
    summed = (values[reverse].view(n_atoms, n_columns).sum(1) * per_atom).sum()
    torch.testing.assert_close(gathered, summed)


def test_build_batch_holds_each_system_apart_and_pads() -> None:
    frames = crystals_and_molecules()
    batch = build_batch(frames, cutoff=4.3)
    assert batch.neighbor_shift is not None
    assert batch.n_systems == 4
    assert batch.system_index.tolist() == [0] * 7 + [1] * 9 + [2] * 2 + [3]
    largest = 0
    for system in range(4):
        atoms = frames.atoms(system)
        reference = sorted_reference(atoms, cutoff=4.3)
        first = int(frames.first_atom[system])
        rows = []
        for atom in range(first, first + len(atoms)):
            mask = batch.neighbor_mask[atom]
            n_neighbors = int(mask.sum())
            largest = max(largest, n_neighbors)
            assert mask[:n_neighbors].all()  # neighbours first, padding after
            assert (batch.neighbor_index[atom, n_neighbors:] == atom).all()
            assert not batch.neighbor_shift[atom, n_neighbors:].any()
            assert (batch.neighbor_index[atom, :n_neighbors].diff() >= 0).all()
            rows += [
                (atom - first, int(j) - first, *shift.tolist())
                for j, shift in zip(batch.neighbor_index[atom, mask], batch.neighbor_shift[atom, mask], strict=True)
            ]
        assert sorted(rows) == reference
    assert batch.neighbor_index.shape[1] == largest


@pytest.mark.parametrize("backend", OTHER_BACKENDS)
def test_build_batch_is_the_same_with_every_backend(backend: str) -> None:
    frames = read_frames("rmd17/salicylic/test-01").select([3, 8, 1, 500, 90])
    reference, other = (build_batch(frames, cutoff=3.3, backend=name) for name in ("vesin", backend))
    for field in ("positions", "neighbor_index", "neighbor_mask", "reverse_index", "system_index", "energy", "forces"):
        assert torch.equal(getattr(reference, field), getattr(other, field)), field
    assert reference.neighbor_shift is None
    assert other.neighbor_shift is None


def test_min_neighbors_fixes_the_shape() -> None:
    frames = read_frames("rmd17/ethanol/test-01").select([3])
    wide, narrow = (build_batch(frames, cutoff=2.0, min_neighbors=n) for n in (25, 2))
    width = narrow.neighbor_index.shape[1]
    assert 2 < width < 8
    assert wide.neighbor_index.shape == (9, 25)
    assert torch.equal(wide.neighbor_index[:, :width], narrow.neighbor_index)
    assert not wide.neighbor_mask[:, width:].any()


def test_lone_atoms_have_no_neighbours() -> None:
    frames = frames_from_atoms([Atoms("He"), Atoms("Ne2", positions=[[0, 0, 0], [0, 0, 30.0]])])
    batch = build_batch(frames, cutoff=5.0)
    assert batch.neighbor_index.tolist() == [[0], [1], [2]]
    assert not batch.neighbor_mask.any()


def refused(text: str):
    return pytest.raises(InputError, match=re.escape(text))


def test_bad_options_and_positions() -> None:
    positions = cluster(9).copy()
    with refused("neighbour backend 'kdtree' is unknown; choose one of vesin, dense, torch_cluster"):
        neighbor_pairs(positions, cutoff=3.0, backend="kdtree")  # type: ignore[arg-type]
    for cutoff in (0.0, -5.0, float("nan")):
        with refused(f"cutoff must be > 0 Angstrom, got {cutoff}; set model.cutoff in the config"):
            neighbor_pairs(positions, cutoff=cutoff)
    for bad in (np.nan, np.inf):
        broken = positions.copy()
        broken[6, 1] = bad
        with refused("position of atom 6 is not finite: ["):
            neighbor_pairs(broken, cutoff=3.0)


@pytest.mark.parametrize("backend", ["vesin", *OTHER_BACKENDS])
def test_coincident_atoms_are_named(backend: str) -> None:
    positions = cluster(9).copy()
    positions[7] = positions[4] + [0, 0, 2e-4]
    with refused("atoms 4 and 7 are 0.0002 Angstrom apart; two atoms at one place have no energy"):
        neighbor_pairs(positions, cutoff=3.0, backend=backend)
    positions[7] = positions[4]
    with refused("atoms 4 and 7 are 0 Angstrom apart"):
        neighbor_pairs(positions, cutoff=3.0, backend=backend)


def test_an_atom_on_the_image_of_another_is_named() -> None:
    cell = np.diag([4.0, 5.0, 6.0])
    positions = np.array([[0.5, 0.5, 0.5], [2.0, 2.0, 2.0], [4.5, 0.5, 6.5]])
    with refused("atoms 0 and 2 are 0 Angstrom apart"):
        neighbor_pairs(positions, cutoff=3.0, cell=cell, pbc=np.ones(3, dtype=bool))


@pytest.mark.parametrize("backend", OTHER_BACKENDS)
def test_backends_for_molecules_refuse_periodic_systems(backend: str) -> None:
    with refused("knows molecules only, pbc is [False  True False]; use backend 'vesin'"):
        neighbor_pairs(cluster(9), cutoff=3.0, cell=np.eye(3) * 9, pbc=np.array([False, True, False]), backend=backend)


def test_periodic_without_a_usable_cell() -> None:
    pbc = np.ones(3, dtype=bool)
    with refused("pbc is [ True  True  True] but there is no cell; give three lattice vectors or set pbc to False"):
        neighbor_pairs(cluster(9), cutoff=3.0, pbc=pbc)
    with refused("pbc is [ True  True  True] but the cell has no volume; give three lattice vectors"):
        neighbor_pairs(cluster(9), cutoff=3.0, cell=np.diag([9.0, 9.0, 0.0]), pbc=pbc)


def test_missing_torch_cluster_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_cluster", None)  # what `import` meets where it is not built
    with refused("needs the torch-cluster extension; build it with `make torch-cluster`"):
        neighbor_pairs(cluster(9), cutoff=3.0, backend="torch_cluster")


def test_build_batch_names_the_frame() -> None:
    frames = read_frames("rmd17/ethanol/test-01").select([3, 1, 8, 5])
    positions = frames.positions.copy()
    positions[2 * 9 + 4] = positions[2 * 9 + 1]
    with refused("rmd17/ethanol/test-01, frame 2: atoms 1 and 4 are 0 Angstrom apart"):
        build_batch(replace(frames, positions=positions), cutoff=4.0)
    with refused("atoms 1 and 4 are 0 Angstrom apart"):
        build_batch(replace(frames, positions=positions).select([2]), cutoff=4.0)
