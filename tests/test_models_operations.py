"""Displacements, sums and gathers on padded neighbours, and the envelope: each other's adjoint, and smooth."""

from __future__ import annotations

import pytest
import torch
from potentials import molecule_frames
from torch import Tensor

from remul_md.models.operations import (
    gather_neighbors,
    pair_displacements,
    reverse_pairs,
    smooth_envelope,
    sum_over_pairs,
    sum_over_systems,
)
from remul_md.structures.batch import Batch
from remul_md.structures.neighbors import build_batch

CUTOFF = 4.5


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Two systems of 7 and 5 atoms, in which not all atoms are neighbours."""
    return build_batch(molecule_frames(), cutoff=CUTOFF)


def test_gather_and_sum_have_derivatives_of_second_order(batch: Batch) -> None:
    values = torch.randn(batch.n_atoms, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def through_neighbors(x: Tensor) -> Tensor:
        return sum_over_pairs(gather_neighbors(x, batch).square(), batch)

    assert torch.autograd.gradgradcheck(through_neighbors, (values.requires_grad_(),))


def test_gather_and_sum_take_more_axes(batch: Batch) -> None:
    """Vector features [A, 3, E] as the same numbers in one axis."""
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(batch.n_atoms, 3, 4, dtype=torch.float64, generator=generator).requires_grad_()
    together, flat = gather_neighbors(values, batch), gather_neighbors(values.flatten(1), batch)
    assert torch.equal(together.flatten(2), flat)
    weight = torch.randn(together.shape, dtype=torch.float64, generator=generator)
    (one,) = torch.autograd.grad((together * weight).sum(), values)
    (other,) = torch.autograd.grad((flat * weight.flatten(2)).sum(), values)
    assert torch.equal(one, other)


def test_values_of_the_reverse_pairs_have_derivatives_of_second_order(batch: Batch) -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(*batch.neighbor_index.shape, 2, dtype=torch.float64, generator=generator)
    displacements = pair_displacements(batch, padding=CUTOFF)
    reverse = reverse_pairs(displacements, batch)
    assert torch.equal(reverse[batch.neighbor_mask], -displacements[batch.neighbor_mask])
    assert torch.equal(reverse_pairs(reverse_pairs(values, batch), batch), values)  # padding too: its adjoint is exact

    def through_reverse(x: Tensor) -> Tensor:
        return reverse_pairs(x.square(), batch) * x

    assert torch.autograd.gradgradcheck(through_reverse, (values.requires_grad_(),))


def test_displacements_reverse_under_the_reverse_index(batch: Batch) -> None:
    displacements = pair_displacements(batch, padding=CUTOFF)
    reverse = displacements.flatten(0, 1)[batch.reverse_index.flatten()].view_as(displacements)
    assert torch.equal(reverse[batch.neighbor_mask], -displacements[batch.neighbor_mask])


def test_envelope_vanishes_with_two_derivatives() -> None:
    r = torch.tensor([0.0, 2.0, CUTOFF], dtype=torch.float64, requires_grad=True)
    value = smooth_envelope(r, CUTOFF)
    (first,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), r)
    assert value[0] == 1
    assert 0 < value[1] < 1
    assert value[2].abs() < 1e-14
    assert first[2].abs() < 1e-14
    assert second[2].abs() < 1e-13


def test_sum_over_systems_sums_each_system(batch: Batch) -> None:
    values = torch.arange(12.0)
    assert sum_over_systems(values, batch).tolist() == [21.0, 45.0]


def test_envelope_is_smooth_in_single_precision_too() -> None:
    """Close to the cutoff it falls with the third power of what is left; absolute rounding would make steps of it."""
    r = torch.linspace(0.99 * CUTOFF, 0.9999 * CUTOFF, 200, dtype=torch.float64).float()
    exact, single = smooth_envelope(r.double(), CUTOFF), smooth_envelope(r, CUTOFF).double()
    assert exact.min() < 1.2e-11
    assert (single / exact - 1.0).abs().max() < 5e-3
    assert (single.diff() < 0).all()
