"""How a potential turns: batches of structures in, predictions out."""

from __future__ import annotations

from torch import Tensor

from remul_md.structures.batch import Batch, Prediction, repeat_rows
from remul_md.structures.rows import row_fields
from remul_md.symmetry.remul import Turn
from remul_md.symmetry.rotations import rotate_prediction, rotated_copies


def rotated_labels(target: Prediction, rotations: Tensor) -> Prediction:
    """Copies of labels or predictions for each orientation, rotated: rotations [G, B, 3, 3], orientation-major."""
    repeated = repeat_rows(target, rotations.shape[0], sizes={"system": rotations.shape[1]})
    return rotate_prediction(repeated, rotations.flatten(0, 1))


def first_orientation(prediction: Prediction, n_systems: int) -> Prediction:
    """The first of several orientations of a prediction."""
    assert prediction.energy is not None
    n_atoms = len(prediction.system_index) * n_systems // len(prediction.energy)
    return _leading(prediction, n_systems=n_systems, n_atoms=n_atoms)


def labelled_part(prediction: Prediction, target: Prediction) -> Prediction:
    """The part of a prediction that belongs to its first systems, those of `target`."""
    assert target.energy is not None
    return _leading(prediction, n_systems=len(target.energy), n_atoms=len(target.system_index))


def _leading(prediction: Prediction, *, n_systems: int, n_atoms: int) -> Prediction:
    n_rows = {"atom": n_atoms, "system": n_systems}
    heads = {
        name: value[: n_rows[rows.per]]
        for name, rows in row_fields(Prediction).items()
        if (value := getattr(prediction, name)) is not None
    }
    return Prediction(**heads)


POTENTIAL_TURN: Turn[Batch, Prediction] = Turn(
    inputs=rotated_copies, outputs=rotated_labels, first=first_orientation, labelled=labelled_part
)
