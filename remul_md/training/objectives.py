"""What potentials are trained for: the gap between prediction and labels, and REMUL over it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from remul_md.models import ForceModel
from remul_md.structures import Batch, Prediction
from remul_md.symmetry.remul import Anchor, Turn, remul_losses
from remul_md.symmetry.rotations import Group, pose_batch, random_rotations, turn_prediction

TrainedForces = Literal["conservative", "direct", "both"]


@dataclass(frozen=True, kw_only=True)
class PotentialObjective:
    """REMUL for energies and forces; call it with (model, batch, generator).

    Args:
        forces: which head is trained.
        force_scale: RMS force component of the training data, eV/Angstrom; the unit of the loss.
        energy_weight: weight of the absolute energy error, in units of force_scale x 1 Angstrom.
        n_turned: turned poses of each frame and step, K.
        unturned: whether the unturned pose takes part (alpha > 0).
        group: where the poses are drawn from.
        anchor: see `remul_losses`.
    """

    forces: TrainedForces
    force_scale: float
    energy_weight: float
    n_turned: int = 1
    unturned: bool = True
    group: Group = "O3"
    anchor: Anchor = "label"

    def __call__(self, model: ForceModel, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses by name, dimensionless scalars with a graph."""
        drawn = random_rotations(self.n_turned * batch.n_systems, generator=generator, group=self.group)
        rotations = drawn.view(self.n_turned, batch.n_systems, 3, 3).to(batch.positions.device, non_blocking=True)
        return remul_losses(
            lambda poses: model(poses, forces=self.forces, create_graph=True),
            batch,
            labels(batch, forces=self.forces),
            turn=POTENTIAL_TURN,
            rotations=rotations,
            gap=self.gap,
            anchor=self.anchor,
            unturned=self.unturned,
        )

    def gap(self, prediction: Prediction, target: Prediction) -> Tensor:
        """Loss of each system, [B]: mean length of the force errors plus the weighted absolute energy error.

        The length of the error vector, not its square: robust to the few frames with very large forces.
        """
        assert prediction.energy is not None
        assert target.energy is not None
        total = self.energy_weight * (prediction.energy - target.energy).abs()
        for predicted, wanted in (
            (prediction.forces, target.forces),
            (prediction.direct_forces, target.direct_forces),
        ):
            if predicted is None or wanted is None:
                continue
            # The small constant keeps the gradient finite where an error is exactly zero.
            lengths = ((predicted - wanted).square().sum(1) + (1e-4 * self.force_scale) ** 2).sqrt()
            total = total + mean_over_systems(lengths, target.system_index, n_systems=total.shape[0])
        return total / self.force_scale


def labels(batch: Batch, *, forces: TrainedForces) -> Prediction:
    """The labels of a batch in the form of a prediction: each trained kind of forces gets the same label."""
    return Prediction(
        system_index=batch.system_index,
        energy=batch.energy,
        forces=batch.forces if forces in ("conservative", "both") else None,
        direct_forces=batch.forces if forces in ("direct", "both") else None,
    )


def mean_over_systems(values: Tensor, system_index: Tensor, *, n_systems: int) -> Tensor:
    """Mean of atomic values [A] within each system, [B]."""
    sums = values.new_zeros(n_systems).index_add(0, system_index, values)
    counts = values.new_zeros(n_systems).index_add(0, system_index, torch.ones_like(values))
    return sums / counts


def turned_labels(target: Prediction, rotations: Tensor) -> Prediction:
    """Copies of labels or predictions for each pose, turned: rotations [G, B, 3, 3], pose-major."""
    n_poses, n_systems = rotations.shape[:2]

    def tiled(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.repeat(n_poses, *[1] * (value.ndim - 1))

    copies = torch.arange(n_poses, device=target.system_index.device).repeat_interleave(len(target.system_index))
    repeated = replace(
        target,
        system_index=target.system_index.repeat(n_poses) + copies * n_systems,
        energy=tiled(target.energy),
        forces=tiled(target.forces),
        direct_forces=tiled(target.direct_forces),
        atomic_energies=None,
    )
    return turn_prediction(repeated, rotations.flatten(0, 1))


def first_pose(prediction: Prediction, n_systems: int) -> Prediction:
    """The first of several poses of a prediction."""
    assert prediction.energy is not None
    n_atoms = len(prediction.system_index) * n_systems // len(prediction.energy)

    def head(value: Tensor | None, rows: int) -> Tensor | None:
        return None if value is None else value[:rows]

    return Prediction(
        system_index=prediction.system_index[:n_atoms],
        energy=prediction.energy[:n_systems],
        forces=head(prediction.forces, n_atoms),
        direct_forces=head(prediction.direct_forces, n_atoms),
        atomic_energies=head(prediction.atomic_energies, n_atoms),
    )


POTENTIAL_TURN: Turn[Batch, Prediction] = Turn(inputs=pose_batch, outputs=turned_labels, first=first_pose)
