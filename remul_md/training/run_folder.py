"""The folder of a training run: it holds one run, and says which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from remul_md.errors import InputError
from remul_md.files import replace_atomically
from remul_md.training.checkpoint import METRICS
from remul_md.training.config import RunConfig, dump_config, validated_config
from remul_md.training.fit import CHECKPOINT
from remul_md.training.pretrain import LABELS, PRETRAIN

CONFIG = "config.yaml"
POTENTIAL = "potential.pt"


def prepare_run(run_dir: Path, config: RunConfig, *, resume: bool) -> None:
    """Make the folder of a run and write its resolved config; no data is touched yet.

    Raises:
        InputError: the folder holds another run, cannot be written, or a resumed run has another config.
    """
    written = run_dir / CONFIG
    # A config alone is a start that failed before training, over data for example: it does not block the folder.
    begun = [name for name in (METRICS, CHECKPOINT, POTENTIAL, f"{PRETRAIN}/{LABELS}") if (run_dir / name).exists()]
    if begun and not resume:
        raise InputError(f"{run_dir}: already holds a run; go on with --resume, or give a new --run-dir")
    if begun:
        if not written.is_file():
            raise InputError(f"{run_dir}: holds {begun[0]} but no {CONFIG} of the run; give a new --run-dir")
        # Options that came with a later version stand at their defaults in the older config.
        before = validated_config(yaml.safe_load(written.read_text()), origin=str(written))
        differences = _differences(before.model_dump(mode="json"), config.model_dump(mode="json"))
        if differences:
            raise InputError(
                f"{run_dir}: was started with another config: {'; '.join(differences)}; use a new --run-dir"
            )
        return
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        # Half a config would pass for another run, so it is renamed into place when it is whole.
        replace_atomically(written, dump_config(config).encode())
    except OSError as error:
        raise InputError(f"{run_dir}: cannot be written ({error}); choose another --run-dir") from error


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [line for key in keys for line in _differences(old.get(key), new.get(key), f"{path}.{key}".strip("."))]
    return [] if old == new else [f"{path} was {old!r}, now {new!r}"]
