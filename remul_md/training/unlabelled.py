"""Frames without labels beside the labelled ones: the equivariance loss |f(g x) - g f(x)| needs none.

Any geometry of a known composition serves, one's own dynamics for example. Which frames a step sees is a function of
its number, as it is for the labelled ones.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from remul_md.datasets import read_frames
from remul_md.datasets.splits import duplicate_labels
from remul_md.errors import InputError
from remul_md.potentials.domain import formula
from remul_md.structures.batch import Batch, BatchStore, concatenate
from remul_md.structures.frames import Frames, joined
from remul_md.structures.neighbors import build_batch
from remul_md.training.config import TrainConfig
from remul_md.training.data_config import DataConfig
from remul_md.training.schedule import Batches, shuffled

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class PartlyLabelled:
    """A batch of which only the first systems have labels.

    Args:
        systems: all of them, without labels: what the model sees.
        labelled: the first of them again, with labels.
    """

    systems: Batch
    labelled: Batch


def read_unlabelled(data: DataConfig, *, train: Frames, validation: Frames) -> Frames:
    """The geometries of `data.unlabelled`; labels in the file are not read.

    Those that stand among the validation frames are counted and named: their symmetry is then no longer held out.

    Args:
        data: says the file and its unit.
        train: training frames; their compositions are the known ones.
        validation: held-out frames.
    Raises:
        InputError: no such file, a damaged one, or a composition that no training frame has.
    """
    assert data.unlabelled is not None
    frames = read_frames(
        data.unlabelled,
        length_unit=data.unlabelled_length_unit,
        with_labels=False,
        allow_implausible=data.allow_implausible,
    )
    require_compositions(frames, train, option=f"data.unlabelled={data.unlabelled}")
    labels = duplicate_labels(joined([validation.without_labels(), frames], name=frames.name))
    n_shared = int((labels[len(validation) :] < len(validation)).sum())
    if n_shared:
        logger.warning(
            "data.unlabelled=%s: %d of its %d frames are validation frames; their labels are not used, "
            "but the symmetry measured on them is that of frames trained on",
            data.unlabelled, n_shared, len(frames),
        )  # fmt: skip
    return frames


def partly_labelled_batches(
    labelled: Batches[Batch], unlabelled: Frames, *, cutoff: float, device: torch.device, config: TrainConfig
) -> Batches[PartlyLabelled]:
    """The batch of a step as a function of its number: both kinds of frames, each in a seeded order of its own.

    Args:
        labelled: the training frames of a step with their labels.
        unlabelled: those beside them.
        cutoff: of the model, Angstrom.
        device: where the labelled ones lie.
        config: seed and `unlabelled_batch_size`.
    """
    store = BatchStore(build_batch(unlabelled, cutoff=cutoff).without_labels().to(device))
    beside = shuffled(store, config, batch_size=config.unlabelled_batch_size, beside=1)

    def batch_of(step: int) -> PartlyLabelled:
        known = labelled(step)
        return PartlyLabelled(systems=concatenate([known.without_labels(), beside(step)]), labelled=known)

    return batch_of


def require_compositions(frames: Frames, train: Frames, *, option: str) -> None:
    """Refuse further frames of compositions that no training frame has.

    Raises:
        InputError: it names `option` and the frame.
    """
    known = _compositions(train)
    for composition, index in _compositions(frames).items():
        if composition not in known:
            raise InputError(
                f"{option}: frame {index} is {_written(composition)}, the training frames are "
                f"{', '.join(map(_written, known))}; give frames of these compositions"
            )


def _compositions(frames: Frames) -> dict[tuple[tuple[str, int], ...], int]:
    """Atoms of each element, and the first frame with them."""
    found: dict[tuple[tuple[str, int], ...], int] = {}
    for index in range(len(frames)):
        found.setdefault(tuple(formula(frames.frame_numbers(index)).items()), index)
    return found


def _written(composition: tuple[tuple[str, int], ...]) -> str:
    return "".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in composition)
