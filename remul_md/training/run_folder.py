"""The folder of a training run: it holds one run, and says which."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from remul_md.errors import InputError
from remul_md.files import changed_values, read_json, read_text, replace_atomically
from remul_md.outputs import GENERATOR, Inputs, check_no_input, check_reports, make_way, write_figures
from remul_md.training.checkpoint import METRICS, SYMMETRY
from remul_md.training.config import RunConfig, dump_config, validated_config
from remul_md.training.fit import CHECKPOINT
from remul_md.training.pretrain import LABELS, PRETRAIN

CONFIG = "config.yaml"
ORIGIN = "origin.json"
POTENTIAL = "potential.pt"
SYMMETRY_PICTURE = "symmetry.png"
_BEGUN = (METRICS, CHECKPOINT, POTENTIAL, f"{PRETRAIN}/{LABELS}")
RUN_FILES = (CONFIG, ORIGIN, METRICS, SYMMETRY, SYMMETRY_PICTURE, CHECKPOINT, POTENTIAL, "tensorboard")
_DATA = ("data.source", "data.unlabelled")  # files: what they hold counts, not how they are spelt


def holds_run(run_dir: Path) -> bool:
    """Whether a training has begun in a folder: a config alone is a start that failed, over data for example."""
    return any((run_dir / name).exists() for name in _BEGUN)


def run_files(run_dir: Path) -> list[Path]:
    """What a training wrote into a folder, its stage of pretraining included."""
    names = (*RUN_FILES, *(f"{PRETRAIN}/{name}" for name in (*RUN_FILES, LABELS)))
    return [run_dir / name for name in names if (run_dir / name).exists()]


def prepare_run(
    run_dir: Path,
    config: RunConfig,
    *,
    resume: bool,
    overwrite: bool = False,
    init_from: str | Path | None = None,
    init_from_sha256: str = "",
) -> None:
    """Make the folder of a run and write its resolved config; no data is touched yet.

    Args:
        run_dir: the folder; this process owns it.
        config: of the run.
        resume: go on with the run that the folder holds.
        overwrite: remove the run that the folder holds.
        init_from: potential that the run starts from, an input as the data are.
        init_from_sha256: of it.
    Raises:
        InputError: the folder holds another run or an input that would be replaced, cannot be written, or a resumed
            run has another config.
    """
    written = run_dir / CONFIG
    inputs: Inputs = (init_from, config.data.source, config.data.unlabelled)
    begun = holds_run(run_dir)
    make_way(run_files(run_dir) if begun else [], resume=resume, overwrite=overwrite, inputs=inputs, option="--run-dir")
    check_no_input((run_dir / name for name in RUN_FILES), inputs)
    if begun and resume:
        _check_same_config(written, config)
        _check_same_origin(run_dir, init_from, init_from_sha256)
        return
    check_reports(run_dir / CONFIG, run_dir / ORIGIN, run_dir / SYMMETRY_PICTURE)  # a user's own are not replaced
    (run_dir / ORIGIN).unlink(missing_ok=True)  # of a start that failed
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        # Half a config would pass for another run, so it is renamed into place when it is whole.
        replace_atomically(written, f"# generator: {GENERATOR}\n{dump_config(config)}".encode())
    except OSError as error:
        raise InputError(f"{run_dir}: cannot be written ({error}); choose another --run-dir") from error
    if init_from is not None:
        record = {"init_from": str(init_from), "init_from_sha256": init_from_sha256}
        write_figures(run_dir / ORIGIN, record, hint="choose another --run-dir")


def origin_of_run(run_dir: Path, init_from: str | Path | None) -> str | Path | None:
    """The potential that a resumed run started from: what is asked for, else what the folder says."""
    if init_from is None and holds_run(run_dir) and (run_dir / ORIGIN).is_file():
        return str(read_json(run_dir / ORIGIN, hint="give a new --run-dir")["init_from"])
    return init_from


def _check_same_origin(run_dir: Path, init_from: str | Path | None, sha256: str) -> None:
    """Refuse to go on with a run from another potential than it started from.

    Raises:
        InputError: the folder names another one.
    """
    if not (run_dir / ORIGIN).is_file():
        return  # a checkpoint of a run that has none refuses one
    before = read_json(run_dir / ORIGIN, hint="give a new --run-dir")
    if changed := changed_values(before, {"init_from": str(init_from), "init_from_sha256": sha256}):
        raise InputError(f"{run_dir}: started from another potential: {'; '.join(changed)}; use a new --run-dir")


def _check_same_config(written: Path, config: RunConfig) -> None:
    """Compare what a resumed run would do with the config of the run.

    Raises:
        InputError: there is none, or it differs in more than the spelling of a file.
    """
    run_dir = written.parent
    if not written.is_file():
        raise InputError(f"{run_dir}: holds a run but no {CONFIG} of it; give a new --run-dir")
    # Options that came with a later version stand at their defaults in the older config.
    before = validated_config(yaml.safe_load(read_text(written)), origin=str(written))
    old, new = before.model_dump(mode="json"), config.model_dump(mode="json")
    trained = (run_dir / CHECKPOINT).is_file()  # its fingerprint knows the content of the data
    differences = {
        path: (then, now)
        for path, then, now in _differences(old, new)
        if not (path in _DATA and then and now and (trained or _same_content(then, now)))
    }
    if not differences:
        return
    lines = [f"{path} was {then!r}, now {now!r}" for path, (then, now) in differences.items()]
    if differences.keys() == {"train.n_steps"}:
        raise InputError(
            f"{run_dir}: a run is not extended, since the learning rate of its every step depends on the last one "
            f"({lines[0]}); train on in a new --run-dir with --init-from {run_dir / POTENTIAL}"
        )
    raise InputError(f"{run_dir}: was started with another config: {'; '.join(lines)}; use a new --run-dir")


def _differences(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [line for key in keys for line in _differences(old.get(key), new.get(key), f"{path}.{key}".strip("."))]
    return [] if old == new else [(path, old, new)]


def _same_content(one: str, other: str) -> bool:
    try:
        return _sha256(Path(one)) == _sha256(Path(other))
    except OSError:  # a name of a data set, or a file that is gone
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
