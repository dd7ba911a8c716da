"""What potentials are trained for: the gap between prediction and labels, and REMUL over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from remul_md.errors import InputError
from remul_md.models import ForceModel
from remul_md.structures.batch import Batch, Prediction, sums_of_systems
from remul_md.symmetry.measures import net_force_and_torque
from remul_md.symmetry.remul import ConsistencyTarget, one_forward_losses, remul_losses
from remul_md.symmetry.rotations import Group, random_rotations
from remul_md.symmetry.turns import POTENTIAL_TURN
from remul_md.training.config import TrainConfig
from remul_md.training.unlabelled import PartlyLabelled

TrainedForces = Literal["conservative", "direct", "both"]
ForceLoss = Literal["l2", "mse"]
# Keeps the gradient of a length finite at 0. A length below it pulls no more than its square does: at 1e-4, which is
# 0.1 meV/Angstrom, consistency would pull no more where converged potentials are.
FLOOR = 1e-6
# RMS force of a frame over that of the data, beyond which its losses count less, in proportion. No frame of a run at
# 500 K reaches it; a squeezed bond has twenty times the usual forces, and its error would drown all others.
LARGE_FORCES = 3.0
FirstOrientation = Literal["original", "random"]


@dataclass(frozen=True, kw_only=True)
class PotentialObjective:
    """REMUL for energies and forces; call it with (model, batch, generator).

    Args:
        forces: which head is trained.
        force_scale: RMS force component of the training data, eV/Angstrom; the unit of the loss.
        energy_weight: weight of the absolute energy error, in units of force_scale x 1 Angstrom.
        n_rotated: rotated orientations of each frame and step, K.
        original: whether the first orientation, that of the task's loss, takes part (alpha > 0).
        first_orientation: how it stands: as in the data, or drawn like the rotated ones, each step anew.
        group: where the orientations are drawn from.
        consistency_target: see `remul_losses`.
        axis: turn about this axis only; with `group` SO3.
        one_forward: None, or alpha/(alpha + beta): one orientation of each frame, original with this probability.
        force_loss: of the force error e of an atom in units of `force_scale`: |e| (l2) or mean squared component (mse).
        torque: whether the net torque of the conservative forces is a loss too.
        highest_energy: of the training data, less the references, eV: frames above it count the less the farther they
            are. None: all energies count alike.
        half_weight_eV: how far above it a frame counts half, eV.
    """

    forces: TrainedForces
    force_scale: float
    energy_weight: float
    n_rotated: int = 1
    original: bool = True
    first_orientation: FirstOrientation = "original"
    group: Group = "O3"
    consistency_target: ConsistencyTarget = "label"
    axis: tuple[float, float, float] | None = None
    one_forward: float | None = None
    force_loss: ForceLoss = "l2"
    torque: bool = False
    highest_energy: float | None = None
    half_weight_eV: float = 0.5

    def __call__(
        self, model: ForceModel, batch: Batch | PartlyLabelled, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The losses by name, dimensionless scalars with a graph, from one call of the model on all orientations.

        Frames without labels take part in the equivariance loss, which is the mean over all frames.

        Raises:
            InputError: frames without labels, but the consistency target is the label.
        """
        return self.losses(model, batch, self.draw(batch, generator))

    def draw(self, batch: Batch | PartlyLabelled, generator: torch.Generator) -> tuple[Tensor, ...]:
        """All that is random in a step, on the batch's device.

        Returns:
            Rotations, [K, B, 3, 3], a random first orientation before the rotated ones; with one forward also which
            systems are rotated, [B].
        """
        inputs, _ = self._seen(batch)
        device, n_systems, n_orientations = inputs.positions.device, inputs.n_systems, self.n_rotated + self._n_first
        drawn = random_rotations(
            n_orientations * n_systems,
            generator=generator,
            group=self.group,
            axis=self.axis,
        )
        rotations = drawn.view(n_orientations, n_systems, 3, 3).to(device, non_blocking=True)
        if self.one_forward is None:
            return (rotations,)
        rotated = torch.rand(n_systems, generator=generator, dtype=torch.float64) >= self.one_forward
        return rotations, rotated.to(device, non_blocking=True)

    def losses(self, model: ForceModel, batch: Batch | PartlyLabelled, drawn: Sequence[Tensor]) -> dict[str, Tensor]:
        """The losses by name from what `draw` gave; nothing in here is random."""
        inputs, known = self._seen(batch)
        rotations = drawn[0]
        torque: dict[str, Tensor] = {}

        def predict(orientations: Batch) -> Prediction:
            out = model(orientations, forces=self.forces, create_graph=True)
            if self.torque:
                torque["torque"] = self.net_torque(out, orientations).mean()
            return out

        terms: dict[str, Any] = {
            "predict": predict,
            "inputs": inputs,
            "targets": labels(known, forces=self.forces),
            "turn": POTENTIAL_TURN,
            "gap": self.gap,
        }
        if self.one_forward is None:
            found = remul_losses(
                **terms,
                rotations=rotations[self._n_first :],
                consistency_target=self.consistency_target,
                original=self.original,
                first_rotations=rotations[0] if self._n_first else None,
                n_labelled=None if known is inputs else known.n_systems,
            )
        else:
            found = one_forward_losses(**terms, rotations=rotations[0], rotated=drawn[1], probability=self.one_forward)
        return found | torque

    def _seen(self, batch: Batch | PartlyLabelled) -> tuple[Batch, Batch]:
        """The systems that go through the model, and those with labels; without rotated orientations no others are
        needed."""
        if not isinstance(batch, PartlyLabelled):
            return batch, batch
        return batch.systems if self.n_rotated else batch.labelled, batch.labelled

    @property
    def _n_first(self) -> int:
        return int(self.original and self.first_orientation == "random")

    def gap(self, prediction: Prediction, target: Prediction) -> Tensor:
        """Loss of each system, [B]: mean over atoms of `force_loss` plus the weighted absolute energy error.

        By default the length of the error vector, not its square: robust to the few frames with very large forces.
        Frames whose forces are more than `LARGE_FORCES` times as large as usual count less, and so do those above
        `highest_energy`.
        """
        assert prediction.energy is not None
        assert target.energy is not None
        total = self.energy_weight * (prediction.energy - target.energy).abs()
        weight = torch.ones_like(total)
        for predicted, wanted in (
            (prediction.forces, target.forces),
            (prediction.direct_forces, target.direct_forces),
        ):
            if predicted is None or wanted is None:
                continue
            n_systems = total.shape[0]
            of_atoms = self._of_atoms(predicted - wanted)
            total = total + mean_over_systems(of_atoms, target.system_index, n_systems=n_systems)
            mean_square = mean_over_systems(wanted.detach().square().mean(1), target.system_index, n_systems=n_systems)
            weight = (LARGE_FORCES * self.force_scale / (mean_square.sqrt() + FLOOR)).clamp(max=1.0)
        if self.highest_energy is not None:
            above = (target.energy.detach() - self.highest_energy).clamp(min=0.0)
            weight = weight * self.half_weight_eV / (self.half_weight_eV + above)
        return total * weight / self.force_scale

    def net_torque(self, prediction: Prediction, batch: Batch) -> Tensor:
        """Length of the net torque of conservative forces of each system, [B], in units of force_scale x 1 Angstrom.

        It is the slope of the energy when the system is rotated, so it is zero where the energy is invariant: the
        equivariance loss of an infinitesimal rotation, for which no second orientation is computed. About an axis its
        component alone. The length, not its square: its pull does not fade as the torque becomes small.

        Raises:
            InputError: systems with a cell, whose torque means nothing.
        """
        if batch.cell is not None:
            raise InputError(
                "train.torque_weight is for molecules: these systems have a cell, and no torque; set it to 0"
            )
        assert prediction.forces is not None
        _, torques = net_force_and_torque(prediction.forces, batch)
        if self.axis is not None:
            axis = torques.new_tensor(self.axis)
            torques = (torques @ (axis / axis.norm())).unsqueeze(1)
        scale = self.force_scale
        return (torques.square().sum(1) + (FLOOR * scale) ** 2).sqrt() / scale

    def without_equivariance(self) -> PotentialObjective:
        """The objective of the steps before `train.equivariance_from`: the first orientation and its labels, nothing
        else."""
        return replace(self, n_rotated=0, consistency_target="label", torque=False)

    def _of_atoms(self, errors: Tensor) -> Tensor:
        """`force_loss` of the error vectors [A, 3], times `force_scale`, [A], eV/Angstrom."""
        scale = self.force_scale
        if self.force_loss == "mse":
            return errors.square().mean(1) / scale
        return (errors.square().sum(1) + (FLOOR * scale) ** 2).sqrt()


def make_objective(
    config: TrainConfig, *, force_scale: float, highest_energy: float | None = None
) -> PotentialObjective:
    """The objective of a run; `force_scale` is the RMS force component of its training data, eV/Angstrom.

    `highest_energy`: see `PotentialObjective`.
    """
    return PotentialObjective(
        forces=config.forces,
        force_scale=force_scale,
        # Energies that no step can change would only be a constant in the loss.
        energy_weight=config.energy_weight if config.trained == "all" else 0.0,
        n_rotated=config.n_rotated if config.beta > 0 else 0,
        original=config.alpha > 0,
        first_orientation=config.first_orientation,
        group=config.group,
        consistency_target=config.consistency_target,
        axis=config.axis,
        one_forward=config.alpha / (config.alpha + config.beta) if config.estimator == "one-forward" else None,
        force_loss=config.force_loss,
        torque=config.torque_weight > 0,
        highest_energy=highest_energy,
        half_weight_eV=config.stretched_half_weight_eV,
    )


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
    sums, counts = (
        sums_of_systems(each, system_index, n_systems=n_systems) for each in (values, torch.ones_like(values))
    )
    return sums / counts
