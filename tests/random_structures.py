"""Structures that hypothesis draws: systems of unlike sizes, with and without cells and labels."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

from remul_md.structures.batch import Batch
from remul_md.structures.frames import Frames

SPACING = 1.4  # Angstrom between the places where atoms stand, give or take 0.2 in each direction
CUTOFF = 2.6


@st.composite
def drawn_frames(draw: st.DrawFn, *, labels: bool = True) -> Frames:
    """Two to five systems of different sizes, none of three atoms; with cells, some of them are periodic."""
    n_atoms = np.array(draw(st.lists(st.sampled_from([1, 2, 4, 5, 7, 9]), min_size=2, max_size=5, unique=True)))
    periodic = draw(st.one_of(st.none(), st.lists(st.booleans(), min_size=len(n_atoms), max_size=len(n_atoms))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    places = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3)
    blocks = [SPACING * places[rng.permutation(27)[:n]] + rng.uniform(-0.2, 0.2, (n, 3)) for n in n_atoms]
    total, n_frames = int(n_atoms.sum()), len(n_atoms)
    pbc = np.zeros((n_frames, 3), dtype=bool)
    cell = None
    if periodic is not None:
        pbc[np.array(periodic)] = True
        cell = 3 * SPACING * np.eye(3) + rng.uniform(-0.2, 0.2, (n_frames, 3, 3))
    return Frames(
        positions=np.concatenate(blocks),
        atomic_numbers=rng.choice([1, 6, 8], size=total),
        n_atoms=n_atoms,
        pbc=pbc,
        cell=cell,
        energy=rng.normal(size=n_frames) if labels else None,
        forces=rng.normal(size=(total, 3)) if labels else None,
        name="drawn",
    )


def pair_vectors(batch: Batch) -> torch.Tensor:
    """From each atom to its neighbours [A, K, 3], Angstrom, by the indices and shifts of the batch alone."""
    vectors = batch.positions[batch.neighbor_index] - batch.positions[:, None]
    if batch.neighbor_shift is not None:
        assert batch.cell is not None
        vectors = vectors + torch.einsum("aks,asc->akc", batch.neighbor_shift.double(), batch.cell[batch.system_index])
    return vectors
