"""Errors of an infinitesimal turn and of integrability: what the forces' Jacobian says at each geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from remul_md.potentials.potential import Potential
from remul_md.structures.batch import Batch, BatchStore
from remul_md.symmetry.measures import jacobian_asymmetry, jacobian_products, lie_derivative
from remul_md.symmetry.rotations import unit_axis

MAX_FRAMES = 100  # second derivatives of the forces cost several times a force call
MAX_ATOMS = 1024  # atoms in one pass, all copies together
N_PROBES = 4  # random directions of each frame


@dataclass(frozen=True, kw_only=True)
class LocalErrors:
    """Figures of `local_errors`.

    Args:
        n_frames: frames they were measured on.
        lie_derivative_eV_per_A: root mean square component over atoms and the three axes, or for the one that was
            asked for, eV/Angstrom per radian; None for frames with a cell, which would have to turn too.
        jacobian_asymmetry: |(J - J^T)/2| / |J| over all frames.
    """

    n_frames: int
    lie_derivative_eV_per_A: float | None
    jacobian_asymmetry: float


def local_errors(
    potential: Potential, store: BatchStore, *, forces: str, seed: int, axis: Sequence[float] | None = None
) -> LocalErrors:
    """Lie derivative and Jacobian asymmetry on at most MAX_FRAMES frames, evenly spread.

    Args:
        potential: on the device of the frames.
        store: the frames.
        forces: the head, conservative or direct.
        seed: of the random directions.
        axis: the Lie derivative is that of rotations about it only.
    """
    chosen = np.unique(np.linspace(0, len(store) - 1, min(MAX_FRAMES, len(store))).round().astype(np.int64))
    n_atoms = int(torch.bincount(store.batch.system_index).max())
    at_once = max(1, MAX_ATOMS // (n_atoms * max(3, N_PROBES)))
    # All directions before the first pass: torch draws few numbers in another order than many.
    whole = store.select(chosen)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(N_PROBES, whole.n_atoms, 3, generator=generator, dtype=torch.float64).to(potential.device)

    def forces_of(batch: Batch) -> Tensor:
        if forces == "direct":
            out = potential.model(batch, forces="direct").direct_forces
        else:
            out = potential.model(batch, forces="conservative", create_graph=True).forces
        assert out is not None
        return out

    lie, along, transposed = [], [], []
    first = 0
    for start in range(0, len(chosen), at_once):
        batch = store.select(chosen[start : start + at_once])
        if batch.cell is None:
            of_axes = lie_derivative(forces_of, batch)
            if axis is not None:  # a derivative: those about x, y and z add up
                of_axes = torch.einsum("k,kac->ac", of_axes.new_tensor(unit_axis(axis)), of_axes)
            lie.append(of_axes.flatten())
        copies = batch.repeated(N_PROBES)
        probes = drawn[:, first : first + batch.n_atoms].flatten(0, 1)
        first += batch.n_atoms
        _, one, other = jacobian_products(forces_of, copies, probes)
        along.append(one.flatten())
        transposed.append(other.flatten())
    return LocalErrors(
        n_frames=len(chosen),
        lie_derivative_eV_per_A=float(torch.cat(lie).square().mean().sqrt()) if lie else None,
        jacobian_asymmetry=jacobian_asymmetry(torch.cat(along), torch.cat(transposed)),
    )
