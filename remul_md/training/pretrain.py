"""Training on cheap labels first: geometries around the training frames of a run, labelled by GFN2-xTB for example.

A stage of its own in the folder `pretrain` of the run: the same trainer, other frames. Its potential is what the run on
the data then starts from.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from remul_md.errors import InputError
from remul_md.labels.sampling import sample_labels
from remul_md.labels.sources import LabelSource
from remul_md.potentials.potential import Potential
from remul_md.structures.frames import Frames
from remul_md.training.config import RunConfig
from remul_md.training.data_config import DataConfig
from remul_md.training.pretrain_config import PretrainConfig

logger = logging.getLogger(__name__)

PRETRAIN = "pretrain"
LABELS = "labels.npz"


def stage_config(config: RunConfig) -> RunConfig:
    """The config of the stage on cheap labels; as a file in its folder it trains on the labels beside it."""
    pretrain = config.pretrain
    data = DataConfig(
        source=LABELS,
        n_train=pretrain.n_labels - pretrain.n_validation,
        n_validation=pretrain.n_validation,
        split_seed=config.data.split_seed,
        allow_implausible=True,  # that check finds wrong units, and these are ours
    )
    return config.model_copy(
        update={"data": data, "pretrain": PretrainConfig(), "train": pretrain.stage_of(config.train)}
    )


def pretraining_labels(
    config: RunConfig, train: Frames, source: LabelSource, *, folder: Path, progress: bool = False
) -> tuple[Frames, dict[str, Any]]:
    """The labels of the stage, and what a potential says of them; kept in `folder`, resumable.

    Args:
        config: of the run.
        train: its training frames. No other frames are given here, so none can leak.
        source: the method.
        folder: of the stage; made.
        progress: show a bar.
    Raises:
        InputError: see `sample_labels`; the folder cannot be written.
    """
    options = config.pretrain
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error}); choose another --run-dir") from error
    logger.info("pretraining: %s labels by %s around %d training frames", options.n_labels, source.name, len(train))
    labels, made = sample_labels(
        train,
        source,
        n_labels=options.n_labels,
        temperature_K=options.temperature_K,
        seed=options.seed,
        path=folder / LABELS,
        progress=progress,
    )
    record = {key: made[key] for key in ("method", "calculator", "n_labels", "temperature_K", "seed", "n_walks")}
    record |= {
        "initial_structures_sha256": made["initial_structures_sha256"],
        "geometries_sha256": labels.without_labels().content_hash(),
        "labelling_seconds": made["seconds"],
    }
    return labels, record


def require_pretrained_around(potential: Potential, train: Frames, *, file: Path) -> None:
    """Refuse a finished stage that began from other frames than those of the run.

    Raises:
        InputError: other frames.
    """
    found = potential.provenance.data.get("pretraining", {}).get("initial_structures_sha256")
    if found != train.without_labels().content_hash():
        raise InputError(f"{file}: was pretrained around other training frames; use a new --run-dir")
