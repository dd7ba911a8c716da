"""Which geometries get a label: far from what is known and from each other, in one piece."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.labels.selection import descriptors, is_plausible, select_new
from remul_md.structures.frames import Frames, frames_from_atoms
from remul_md.symmetry.rotations import random_rotations


@pytest.fixture(scope="module")
def frames() -> Frames:
    return read_frames("rmd17/ethanol/train-01").select(range(60)).without_labels()


def test_descriptors_know_no_orientation_and_no_order_of_equal_atoms(frames: Frames) -> None:
    import torch

    rotation = random_rotations(1, generator=torch.Generator().manual_seed(3))[0].numpy()
    order = np.array([1, 0, 2, 8, 7, 6, 5, 4, 3])
    positions = frames.positions.reshape(60, 9, 3)
    rotated = replace(frames, positions=(positions[:, order] @ rotation.T + 0.7).reshape(-1, 3))
    np.testing.assert_allclose(descriptors(rotated), descriptors(frames), atol=1e-12)
    assert descriptors(frames).shape == (60, 36)
    moved = frames.positions.copy()
    moved[0] += 0.05
    assert np.abs(descriptors(replace(frames, positions=moved))[0] - descriptors(frames)[0]).max() > 1e-3
    with pytest.raises(InputError, match="several compositions"):
        descriptors(frames_from_atoms([molecule("CH3OH"), molecule("H2O2")]))


def test_near_copies_of_known_frames_and_of_each_other_are_not_chosen(frames: Frames) -> None:
    all_of_them = descriptors(frames)
    known, others = all_of_them[:40], all_of_them[40:]
    rng = np.random.default_rng(0)
    noise = 1e-5 * rng.standard_normal((40, 36))
    candidates = np.concatenate([known + noise, others, others[:, :] + noise[:20]])
    chosen, near = select_new(candidates, known, n_frames=100)
    assert len(chosen) > 5
    assert (chosen >= 40).all()
    assert len(set((chosen - 40) % 20)) == len(chosen)
    picked = np.concatenate([known, candidates[chosen]])
    apart = np.sqrt(np.square(picked[:, None] - candidates[chosen][None]).mean(axis=2))
    apart[40 + np.arange(len(chosen)), np.arange(len(chosen))] = np.inf
    assert apart.min() > near > 0
    # The first is the farthest of all.
    distance = np.sqrt(np.square(candidates[:, None] - known[None]).mean(axis=2)).min(axis=1)
    assert chosen[0] == np.argmax(distance)
    few, _ = select_new(candidates, known, n_frames=3)
    assert few.tolist() == chosen[:3].tolist()
    assert len(select_new(known + noise, known, n_frames=5)[0]) == 0
    assert len(select_new(known[:0], known, n_frames=5)[0]) == 0


def test_pieces_and_atoms_in_one_another_are_no_geometries() -> None:
    water = molecule("H2O")
    numbers, whole = water.numbers, water.positions
    assert is_plausible(numbers, whole)
    for factor, plausible in ((1.7, True), (2.4, False), (0.6, True), (0.35, False)):
        moved = whole.copy()
        moved[1] = moved[0] + factor * (moved[1] - moved[0])
        assert is_plausible(numbers, moved) == plausible, factor
    broken = whole.copy()
    broken[2, 1] = np.nan
    assert not is_plausible(numbers, broken)
