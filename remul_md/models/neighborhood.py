"""What every model on padded neighbours needs: displacements, and sums and gathers that are each other's adjoint.

The neighbour list is symmetric and `reverse_index` says where the opposite pair stands, so the backward of a gather
is again a gather (and a sum over K): no scatter, hence the same bits on any number of threads, and derivatives of
any order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from remul_md.structures import Batch


def pair_displacements(batch: Batch, *, padding: float) -> Tensor:
    """Position of the neighbour minus position of the atom, [A, K, 3], Angstrom, float64.

    Args:
        batch: systems; positions in float64, so that a molecule far from the origin loses nothing.
        padding: distance at which padded slots are put (along x), Angstrom: the cutoff, where envelopes vanish.
    """
    n_rows, n_slots = batch.neighbor_index.shape
    neighbors = batch.positions.index_select(0, batch.neighbor_index.flatten()).view(n_rows, n_slots, 3)
    displacements = neighbors - batch.positions.unsqueeze(1)
    if batch.neighbor_shift is not None and batch.cell is not None:
        cell = batch.cell.index_select(0, batch.system_index)
        displacements = displacements + torch.einsum("aks,asc->akc", batch.neighbor_shift.to(cell.dtype), cell)
    place = displacements.new_tensor([padding, 0.0, 0.0])
    return torch.where(batch.neighbor_mask.unsqueeze(-1), displacements, place)


def gather_neighbors(values: Tensor, batch: Batch) -> Tensor:
    """Values of the neighbours, [A, F] -> [A, K, F]."""
    return _Gather.apply(values, batch.neighbor_index, batch.reverse_index)


def sum_over_pairs(values: Tensor, batch: Batch) -> Tensor:
    """Sum over the neighbours of value(i, j) minus value(j, i), [A, K, F] -> [A, F].

    With the energy gradient by the displacements as value this is the force; with a pair force, Newton's third law.
    """
    return values.sum(1) - _Collect.apply(values, batch.neighbor_index, batch.reverse_index)


def sum_over_systems(values: Tensor, batch: Batch) -> Tensor:
    """Sum of atomic values of each system, [A] -> [B]."""
    return values.new_zeros(batch.n_systems).index_add(0, batch.system_index, values)


class _Gather(torch.autograd.Function):
    """y[i, k] = x[neighbor_index[i, k]]; its adjoint is `_Collect`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, neighbor_index: Tensor, reverse_index: Tensor) -> Tensor:
        ctx.save_for_backward(neighbor_index, reverse_index)
        return x.index_select(0, neighbor_index.flatten()).view(*neighbor_index.shape, *x.shape[1:])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None, None]:
        return _Collect.apply(grad_outputs[0], *ctx.saved_tensors), None, None


class _Collect(torch.autograd.Function):
    """y[j] = sum over pairs i->j of x[i, k], read through the reverse pairs; its adjoint is `_Gather`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, neighbor_index: Tensor, reverse_index: Tensor) -> Tensor:
        ctx.save_for_backward(neighbor_index, reverse_index)
        reversed_pairs = x.flatten(0, 1).index_select(0, reverse_index.flatten())
        return reversed_pairs.view(*neighbor_index.shape, *x.shape[2:]).sum(1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None, None]:
        return _Gather.apply(grad_outputs[0], *ctx.saved_tensors), None, None
