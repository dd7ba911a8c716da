"""Forces without the part that moves or turns a molecule as a whole.

A relaxed model has a net torque as far as it uses its raw directions. What is subtracted here is the acceleration of
the rigid body, so that the rest is untouched in the mass-weighted metric of the dynamics:

    F_i' = F_i - (m_i / M) F_net - m_i (alpha x r_i),    alpha = I^-1 tau,    r_i from the centre of mass.

Linear and angular momentum L are then conserved to rounding. The power that is taken away is v_cm . F_net + alpha . L:
nothing for a molecule at rest that does not turn, while with L != 0 energy is not conserved exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from remul_md.structures.batch import Batch, sums_of_systems

# Below this ratio of the smallest to the largest moment of inertia a molecule counts as linear.
LINEAR_RATIO = 1e-6


class RigidPart(NamedTuple):
    """What was taken off, and what is left."""

    forces: Tensor  # [A, 3], eV/Angstrom, float64
    net_force: Tensor  # [B, 3], eV/Angstrom
    net_torque: Tensor  # [B, 3], eV, about the centre of mass


def without_net_force_and_torque(
    forces: Tensor, positions: Tensor, masses: Tensor, *, system_index: Tensor, n_systems: int
) -> RigidPart:
    """Forces whose sum and whose torque about the centre of mass are zero in every system.

    Args:
        forces: [A, 3], eV/Angstrom.
        positions: [A, 3], Angstrom; not of periodic systems, which have no rotation.
        masses: [A], amu.
        system_index: [A].
        n_systems: B.
    """
    forces, positions, masses = forces.double(), positions.double(), masses.double().unsqueeze(1)

    def sums(values: Tensor) -> Tensor:
        return sums_of_systems(values, system_index, n_systems=n_systems)

    def of_atoms(values: Tensor) -> Tensor:
        return values.index_select(0, system_index)

    total_mass = sums(masses)
    levers = positions - of_atoms(sums(masses * positions) / total_mass)
    net_force = sums(forces)
    net_torque = sums(torch.linalg.cross(levers, forces))
    second = sums(masses.unsqueeze(2) * levers.unsqueeze(2) * levers.unsqueeze(1))
    trace = second.diagonal(dim1=1, dim2=2).sum(1)
    inertia = trace.view(-1, 1, 1) * torch.eye(3, dtype=second.dtype, device=second.device) - second
    moments, axes = torch.linalg.eigh(inertia)
    turns = moments > LINEAR_RATIO * moments[:, -1:]  # a linear molecule has no torque about its axis to remove
    along = torch.where(turns, (axes.mT @ net_torque.unsqueeze(2)).squeeze(2) / torch.where(turns, moments, 1.0), 0.0)
    angular_acceleration = (axes @ along.unsqueeze(2)).squeeze(2)
    rigid = of_atoms(net_force / total_mass) + torch.linalg.cross(of_atoms(angular_acceleration), levers)
    return RigidPart(forces=forces - masses * rigid, net_force=net_force, net_torque=net_torque)


def rigid_part_of(forces: Tensor, batch: Batch, masses: Tensor) -> RigidPart:
    """`without_net_force_and_torque` for a batch, on the CPU: a few flops, each of them a launch on another device."""
    return without_net_force_and_torque(
        forces.cpu(),
        batch.positions.cpu(),
        masses,
        system_index=batch.system_index.cpu(),
        n_systems=batch.n_systems,
    )
