"""Validation during training: errors of rotated frames, rotated back; the same rotations at every validation."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from remul_md.models import Forces, without_raw_directions
from remul_md.potentials.provenance import axis_in_words
from remul_md.structures.batch import Batch, Head, Prediction
from remul_md.structures.frames import Frames, field_axis
from remul_md.symmetry.evaluate import rotated_back
from remul_md.symmetry.rotations import Group, random_rotations
from remul_md.symmetry.turns import POTENTIAL_TURN
from remul_md.training.config import TrainConfig

logger = logging.getLogger(__name__)

VALIDATION_COLUMNS = ("validation_force_mae", "validation_energy_mae", "score")


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
        self._batch, self._rotations = batch, rotations

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """The figures of `VALIDATION_COLUMNS`; the score is the force MAE."""

        labels = self._batch
        assert labels.forces is not None
        assert labels.energy is not None

        def predict(batch: Batch) -> Prediction:
            out: Prediction = model(batch, forces=self._forces)
            return out

        with torch.no_grad():
            back = rotated_back(predict, labels, turn=POTENTIAL_TURN, rotations=self._rotations)
        head: Head = "conservative" if self._forces == "conservative" else "direct"
        forces_KA3 = torch.stack([out.of_head(head) for out in back])
        energy_KB = torch.stack([out.energy for out in back if out.energy is not None])
        force_mae = 1000.0 * (forces_KA3 - labels.forces).abs().mean().item()
        energy_mae = 1000.0 * (energy_KB - labels.energy).abs().mean().item()
        return {"validation_force_mae": force_mae, "validation_energy_mae": energy_mae, "score": force_mae}


def direction_load(model: nn.Module, batch: Batch, *, forces: Forces) -> float:
    """Force error of the frames as they stand with the raw directions cut, over that of the model as it is; 1 if exact.

    Args:
        model: trained.
        batch: validation frames, on its device.
        forces: the trained head; with "both" the conservative one counts.
    """
    exact = without_raw_directions(model)
    head: Head = "direct" if forces == "direct" else "conservative"
    if exact is model or batch.forces is None:
        return 1.0
    with torch.no_grad():
        errors = [(each(batch, forces=head).of_head(head) - batch.forces).abs().mean() for each in (exact, model)]
    return float(errors[0] / errors[1])


def judged_axis(frames: Frames, options: TrainConfig) -> tuple[float, float, float] | None:
    """What validation and monitor rotate about: the field of the labels, whose other rotations are no symmetry, else
    the axis of the run; None for all rotations. A run that trains other rotations is warned of.

    Raises:
        InputError: labels of several fields.
    """
    of_field = field_axis(frames.distinct_fields)
    if of_field is None:
        return options.axis
    about, rotated = options.axis, options.beta > 0 or options.first_orientation == "random"
    if rotated and (about is None or np.linalg.norm(np.cross(about, of_field)) > 1e-6 * np.linalg.norm(about)):
        logger.warning(
            "the labels are those of an electric field along %s, but frames are rotated about %s, which changes their "
            "energy; `--set train.axis=[%s]` keeps to rotations about the field",
            axis_in_words(of_field),
            "all axes" if about is None else axis_in_words(about),
            ", ".join(f"{component:g}" for component in of_field),
        )
    return of_field
