"""Validation during training: force and energy errors in turned poses, the same poses at every validation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from remul_md.models import Forces
from remul_md.structures.batch import Batch
from remul_md.symmetry.rotations import Group, pose_batch, random_rotations

VALIDATION_COLUMNS = ("validation_force_mae", "validation_energy_mae", "score")
MAX_ATOMS = 4096  # atoms in one pass, so that validation never needs more memory than training


class TurnedValidation:
    """Force MAE (meV/Angstrom) and energy MAE (meV) of validation frames in seeded turned poses.

    State lives here because the poses are drawn once.

    Args:
        batch: validation frames with residual energies, on the model's device.
        forces: the trained head; with "both" the conservative one counts.
        n_poses: poses of each frame.
        group: where poses are drawn from.
        axis: with SO3, turn about this axis only: what a run does not train, it is not chosen by.
        seed: seed of the poses.
    """

    def __init__(
        self,
        batch: Batch,
        *,
        forces: Forces,
        n_poses: int = 4,
        group: Group = "O3",
        axis: Sequence[float] | None = None,
        seed: int = 1,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        drawn = random_rotations(n_poses * batch.n_systems, generator=generator, group=group, axis=axis)
        rotations = drawn.view(n_poses, batch.n_systems, 3, 3).to(batch.positions.device)
        self._forces: Forces = "conservative" if forces == "both" else forces
        at_once = max(1, MAX_ATOMS // batch.n_atoms)
        self._batches = [pose_batch(batch, part) for part in rotations.split(at_once)]

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """The figures of `VALIDATION_COLUMNS`; the score is the force MAE."""
        force_errors, energy_errors = [], []
        with torch.no_grad():
            for batch in self._batches:
                out = model(batch, forces=self._forces)
                predicted = out.forces if out.forces is not None else out.direct_forces
                force_errors.append((predicted - batch.forces).abs().flatten())
                energy_errors.append((out.energy - batch.energy).abs())
        force_mae = 1000.0 * torch.cat(force_errors).mean().item()
        energy_mae = 1000.0 * torch.cat(energy_errors).mean().item()
        return {"validation_force_mae": force_mae, "validation_energy_mae": energy_mae, "score": force_mae}
