"""Validation during training: force and energy errors in rotated orientations, the same orientations at every
validation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from remul_md.models import Forces
from remul_md.structures.batch import Batch
from remul_md.symmetry.rotations import Group, random_rotations, rotated_copies

VALIDATION_COLUMNS = ("validation_force_mae", "validation_energy_mae", "score")
MAX_ATOMS = 4096  # atoms in one pass, so that validation never needs more memory than training


class RotatedValidation:
    """Force MAE (meV/Angstrom) and energy MAE (meV) of validation frames in seeded rotated orientations.

    State lives here because the orientations are drawn once.

    Args:
        batch: validation frames with residual energies, on the model's device.
        forces: the trained head; with "both" the conservative one counts.
        n_orientations: orientations of each frame.
        group: where orientations are drawn from.
        axis: with SO3, turn about this axis only: what a run does not train, it is not chosen by.
        seed: seed of the orientations.
    """

    def __init__(
        self,
        batch: Batch,
        *,
        forces: Forces,
        n_orientations: int = 4,
        group: Group = "O3",
        axis: Sequence[float] | None = None,
        seed: int = 1,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        drawn = random_rotations(n_orientations * batch.n_systems, generator=generator, group=group, axis=axis)
        rotations = drawn.view(n_orientations, batch.n_systems, 3, 3).to(batch.positions.device)
        self._forces: Forces = "conservative" if forces == "both" else forces
        at_once = max(1, MAX_ATOMS // batch.n_atoms)
        self._batches = [rotated_copies(batch, part) for part in rotations.split(at_once)]

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
