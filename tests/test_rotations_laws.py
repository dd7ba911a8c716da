"""Laws of rotations: they form groups, and turning twice is turning by the product."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_structures import CUTOFF, drawn_frames
from torch import Tensor

from remul_md import Batch, Frames, Prediction
from remul_md.structures.batch import BatchStore
from remul_md.structures.neighbors import build_batch
from remul_md.symmetry.rotations import (
    fixed_rotations,
    random_rotations,
    rotate_batch,
    rotate_prediction,
    rotated_copies,
    rotations_about,
)

SEEDS = st.integers(0, 2**32 - 1)
GROUPS = st.sampled_from(["SO3", "O3"])
IDENTITY = torch.eye(3, dtype=torch.float64)
# Any length that a float has: a direction is a direction, in whatever unit it was written.
AXES = st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3).filter(lambda axis: math.hypot(*axis) > 0.1)
LENGTHS = st.sampled_from([1.0, 1e-200, 1e-30, 1e30, 1e200, 5e307])


def drawn(n: int, seed: int, **options: Any) -> Tensor:
    return random_rotations(n, generator=torch.Generator().manual_seed(seed), **options)


def assert_orthogonal(rotations: Tensor, *, proper: bool) -> None:
    torch.testing.assert_close(rotations @ rotations.mT, IDENTITY.expand_as(rotations), rtol=0, atol=1e-13)
    determinants = torch.linalg.det(rotations)
    torch.testing.assert_close(
        determinants if proper else determinants.abs(), torch.ones_like(determinants), rtol=0, atol=1e-13
    )


@given(SEEDS, GROUPS)
def test_products_and_inverses_stay_in_the_group(seed: int, group: Any) -> None:
    g, h = drawn(8, seed, group=group).split(4)
    for element in (g, h, g @ h, g.mT):
        assert_orthogonal(element, proper=group == "SO3")
    torch.testing.assert_close(torch.linalg.det(g @ h), torch.linalg.det(g) * torch.linalg.det(h), rtol=0, atol=1e-12)
    torch.testing.assert_close(g @ g.mT @ h, h, rtol=0, atol=1e-13)


@given(AXES, LENGTHS, st.floats(-10.0, 10.0), st.floats(-10.0, 10.0))
def test_angles_about_one_axis_add_up(axis: list[float], length: float, first: float, second: float) -> None:
    axes = length * torch.tensor([axis, axis, axis], dtype=torch.float64)
    one, other, both = rotations_about(axes, torch.tensor([first, second, first + second], dtype=torch.float64))
    assert_orthogonal(one, proper=True)
    torch.testing.assert_close(one @ other, both, rtol=0, atol=1e-13)
    back = rotations_about(axes[:1], torch.tensor([-first], dtype=torch.float64))[0]
    torch.testing.assert_close(back, one.T, rtol=0, atol=1e-13)
    unit = torch.tensor(axis, dtype=torch.float64) / math.hypot(*axis)
    torch.testing.assert_close(one @ unit, unit, rtol=0, atol=1e-13)
    assert one.trace().item() == pytest.approx(1.0 + 2.0 * math.cos(first), abs=1e-12)


@given(SEEDS, AXES, LENGTHS)
def test_draws_about_an_axis_keep_to_it(seed: int, axis: list[float], length: float) -> None:
    unit = torch.tensor(axis, dtype=torch.float64) / math.hypot(*axis)
    about = drawn(7, seed, axis=[length * component for component in axis])
    torch.testing.assert_close(about @ unit, unit.expand(7, 3), rtol=0, atol=1e-13)
    assert_orthogonal(about, proper=True)


@pytest.mark.parametrize("name", ["tetrahedral", "octahedral", "icosahedral"])
@given(data=st.data())
def test_a_fixed_set_is_a_group(name: Any, data: st.DataObject) -> None:
    group = fixed_rotations(name)
    g, h = (group[data.draw(st.integers(0, len(group) - 1))] for _ in range(2))
    for element in (g @ h, g.T):
        assert int(((group - element).abs().amax((1, 2)) < 1e-12).sum()) == 1


def assert_close_batches(left: Batch, right: Batch) -> None:
    for entry in fields(Batch):
        a, b = getattr(left, entry.name), getattr(right, entry.name)
        assert (a is None) == (b is None), entry.name
        if a is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12, msg=entry.name)


@given(drawn_frames(), SEEDS, GROUPS)
def test_turning_twice_is_turning_by_the_product(frames: Frames, seed: int, group: Any) -> None:
    batch = build_batch(frames, cutoff=CUTOFF)
    g, h = drawn(2 * len(frames), seed, group=group).view(2, len(frames), 3, 3)
    rotated = rotate_batch(batch, g)
    assert_close_batches(rotate_batch(rotated, h), rotate_batch(batch, h @ g))
    assert_close_batches(rotate_batch(rotated, g.mT), batch)
    assert_close_batches(rotate_batch(batch, IDENTITY.expand(len(frames), 3, 3)), batch)
    for name in ("energy", "neighbor_index", "neighbor_mask", "neighbor_shift", "reverse_index", "pbc"):
        assert getattr(rotated, name) is getattr(batch, name)


@given(drawn_frames(), SEEDS, st.integers(1, 4))
def test_every_orientation_is_the_batch_rotated(frames: Frames, seed: int, n_orientations: int) -> None:
    batch = build_batch(frames, cutoff=CUTOFF)
    rotations = drawn(n_orientations * len(frames), seed, group="O3").view(n_orientations, len(frames), 3, 3)
    orientations = BatchStore(rotated_copies(batch, rotations))
    for orientation in range(n_orientations):
        systems = range(orientation * len(frames), (orientation + 1) * len(frames))
        assert_close_batches(orientations.select(systems), rotate_batch(batch, rotations[orientation]))


@given(drawn_frames(), SEEDS)
def test_neighbours_of_a_rotated_batch_are_those_of_the_rotated_frames(frames: Frames, seed: int) -> None:
    rotations = drawn(len(frames), seed, group="O3")
    rotated = rotate_batch(build_batch(frames, cutoff=CUTOFF), rotations)
    anew = build_batch(
        Frames(
            positions=rotated.positions.numpy(),
            atomic_numbers=frames.atomic_numbers,
            n_atoms=frames.n_atoms,
            pbc=frames.pbc,
            cell=None if rotated.cell is None else rotated.cell.numpy(),
            energy=frames.energy,
            forces=None if rotated.forces is None else rotated.forces.numpy(),
        ),
        cutoff=CUTOFF,
    )
    # a pair at the cutoff may fall on the other side of it after rounding: such a frame says nothing
    if torch.equal(anew.neighbor_mask, rotated.neighbor_mask):
        assert_close_batches(anew, rotated)


@given(drawn_frames(), SEEDS, GROUPS)
def test_predictions_turn_as_their_batch_does(frames: Frames, seed: int, group: Any) -> None:
    batch = build_batch(frames, cutoff=CUTOFF)
    g, h = drawn(2 * len(frames), seed, group=group).view(2, len(frames), 3, 3)
    member = Prediction(system_index=batch.system_index, energy=batch.energy, forces=batch.forces)
    ensemble = Prediction(system_index=batch.system_index, direct_forces=batch.forces, members=(member, member))
    rotated = rotate_prediction(ensemble, g)
    assert rotated.forces is None
    assert rotated.direct_forces is not None
    assert rotated.members is not None
    wanted = rotate_batch(batch, g).forces
    assert torch.equal(rotated.direct_forces, wanted)
    for part in rotated.members:
        assert torch.equal(part.forces, wanted)
        assert part.energy is batch.energy
    twice, product = rotate_prediction(rotated, h), rotate_prediction(ensemble, h @ g)
    torch.testing.assert_close(twice.direct_forces, product.direct_forces, rtol=0, atol=1e-12)
    torch.testing.assert_close(rotate_prediction(rotated, g.mT).direct_forces, batch.forces, rtol=0, atol=1e-12)
