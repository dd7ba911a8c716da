"""Systems at new positions: all pairs where nothing is searched, a fresh list where it must be."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from potentials import untrained_potential

from remul_md.structures.frames import frames_from_atoms
from remul_md.structures.moving_systems import MAX_ATOMS_ALL_PAIRS, MovingSystems
from remul_md.structures.neighbors import build_batch

CUTOFF = 3.0


def stretched(structures, *, seed):
    """The same structures blown up by 60 %, so that some pairs leave the cutoff."""
    rng = np.random.default_rng(seed)
    moved = [atoms.copy() for atoms in structures]
    for atoms in moved:
        atoms.positions *= 1.6
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    return moved


@pytest.mark.parametrize("forces", ["conservative", "direct"])
def test_pairs_beyond_the_cutoff_change_nothing(forces):
    structures = [molecule("CH3CH2OH"), molecule("CH3OH")]
    frames = frames_from_atoms(structures)
    potential = untrained_potential(frames, cutoff=CUTOFF).to(dtype="float64")
    systems = MovingSystems(frames, cutoff=CUTOFF, device=torch.device("cpu"))
    later = frames_from_atoms(stretched(structures, seed=3))
    searched = build_batch(later, cutoff=CUTOFF)
    fixed = systems.at(torch.from_numpy(later.positions))
    assert not systems.searches
    assert fixed.neighbor_index.shape == (15, 8) == systems.at(torch.from_numpy(frames.positions)).neighbor_index.shape
    assert int(searched.neighbor_mask.sum()) < int(fixed.neighbor_mask.sum())
    ours, theirs = potential.predict(fixed, forces=forces), potential.predict(searched, forces=forces)
    np.testing.assert_allclose(ours.energy, theirs.energy, atol=1e-10)
    name = "forces" if forces == "conservative" else "direct_forces"
    np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-10)


@pytest.mark.parametrize("kind", ["periodic", "large"])
def test_periodic_and_large_systems_are_searched_again(kind):
    atoms = bulk("Si", cubic=True) * (2, 2, 3)
    if kind == "large":
        atoms.pbc = False
        assert len(atoms) > MAX_ATOMS_ALL_PAIRS
    else:
        atoms = bulk("Si", cubic=True)
    frames = frames_from_atoms([atoms])
    systems = MovingSystems(frames, cutoff=CUTOFF, device=torch.device("cpu"))
    assert systems.searches
    atoms.rattle(0.3, seed=1)
    cell = atoms.cell.array * 1.1
    batch = systems.at(torch.from_numpy(atoms.positions), cell=torch.from_numpy(cell)[None])
    atoms.set_cell(cell)
    expected = build_batch(frames_from_atoms([atoms]), cutoff=CUTOFF)
    assert torch.equal(batch.neighbor_index, expected.neighbor_index)
    if kind == "periodic":
        assert torch.equal(batch.cell[0], torch.from_numpy(cell))
