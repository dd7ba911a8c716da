"""From a config to a potential: read, split, build, fit, save. One folder holds one run."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from remul_md.errors import InputError
from remul_md.files import owned
from remul_md.labels.sources import LabelSource, label_source
from remul_md.models import model_config
from remul_md.potentials.compilation import require_compiler
from remul_md.potentials.domain import domain_of
from remul_md.potentials.potential import Potential, load_potential, resolve_device
from remul_md.potentials.provenance import Provenance, source_commit
from remul_md.structures.batch import Batch
from remul_md.structures.frames import Frames
from remul_md.training.checkpoint import METRICS, SYMMETRY, read_metrics
from remul_md.training.config import RunConfig, model_section
from remul_md.training.fit import fit
from remul_md.training.monitor import MONITOR_COLUMNS, SymmetryMonitor, plot_symmetry
from remul_md.training.prepare import (
    LabelledData,
    PreparedTraining,
    check_origin,
    labelled_data,
    prepare_training,
    split_of,
)
from remul_md.training.pretrain import PRETRAIN, pretraining_labels, require_pretrained_around, stage_config
from remul_md.training.run_folder import POTENTIAL, SYMMETRY_PICTURE, origin_of_run, prepare_run
from remul_md.training.schedule import Batches
from remul_md.training.unlabelled import PartlyLabelled, partly_labelled_batches
from remul_md.training.validation import VALIDATION_COLUMNS, RotatedValidation, direction_load, judged_axis

logger = logging.getLogger(__name__)

FILES = ("source", "unlabelled", "stretched", "isolated_atoms")  # options of `data` that name files


def train_potential(
    config: RunConfig,
    *,
    run_dir: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    init_from: str | Path | None = None,
    progress: bool = True,
) -> Potential:
    """Train a potential and save it as `run_dir/potential.pt`.

    Args:
        config: all options.
        run_dir: folder of the run; may lie anywhere. Pretraining has its own in it, `pretrain`.
        resume: go on with an interrupted run, or begin one if the folder holds none.
        overwrite: remove a run that the folder holds, and begin.
        init_from: potential whose weights and reference energies the run starts from (fine-tuning). Where all of them
            are trained on, and after pretraining, `train.fine_tuning_learning_rate` counts.
        progress: show a bar.
    Returns:
        The saved potential: averaged weights of the best validation.
    Raises:
        InputError: anything about config, data or folder that the user can mend; another process trains in it.
    """
    folder, method = Path(run_dir), config.pretrain.method
    init_from = origin_of_run(folder, init_from) if resume else init_from
    if method is not None and init_from is not None:
        raise InputError(
            f"--init-from {init_from} and pretrain.method={method} exclude each other: both say what the weights start "
            "from; leave one out (RUN/pretrain/potential.pt of another run is a good --init-from)"
        )
    # What is missing for the labels is said before anything is read; where the labels were used already, nothing is.
    pretrained = resume and (folder / PRETRAIN / POTENTIAL).is_file()
    source = None if method is None or pretrained else label_source(method)
    origin = None if init_from is None else load_potential(init_from)
    if origin is not None:
        config = _with_model_of(origin, config)
    check_origin(config, origin)
    if config.train.compile:
        require_compiler(resolve_device(config.train.device), option="train.compile=true")
    with owned(folder, folder=True):
        sha256 = "" if origin is None else origin.sha256
        prepare_run(folder, config, resume=resume, overwrite=overwrite, init_from=init_from, init_from_sha256=sha256)
        torch.set_num_threads(config.train.n_threads)
        read = None
        if method is not None:
            read = frames, _ = labelled_data(config)
            with owned(folder / PRETRAIN, folder=True):
                origin = _pretrained(config, frames, source, folder=folder / PRETRAIN, progress=progress)
            logger.info("training on %d frames of %s", config.data.n_train, frames.name)
        return _train(config, folder, read=read, origin=origin, resume=resume, progress=progress)


def _pretrained(
    config: RunConfig, frames: Frames, source: LabelSource | None, *, folder: Path, progress: bool
) -> Potential:
    """The potential of the stage on cheap labels; one that is there already is taken."""
    train = frames.select(split_of(config, frames).train)
    file, stage = folder / POTENTIAL, stage_config(config)
    if source is None:
        potential = load_potential(file)
        require_pretrained_around(potential, train, file=file)
        return potential
    labels, record = pretraining_labels(config, train, source, folder=folder, progress=progress)
    prepare_run(folder, stage, resume=True)
    record["n_steps"] = stage.train.n_steps
    return _train(stage, folder, read=(labels, None), pretraining=record, resume=True, progress=progress)


def _train(
    config: RunConfig,
    folder: Path,
    *,
    read: LabelledData | None = None,
    origin: Potential | None = None,
    pretraining: dict[str, Any] | None = None,
    resume: bool,
    progress: bool,
) -> Potential:
    """One stage of a run: from frames, or what the config names, to `folder/potential.pt`."""
    options = config.train
    if options.fine_tunes(trained_weights=origin is not None):
        # At the rate of fresh weights what they know is lost (docs/beyond-the-data.md, acetylacetone).
        options = options.model_copy(update={"learning_rate": options.fine_tuning_learning_rate})
        logger.info("from trained weights: train.fine_tuning_learning_rate=%g counts", options.learning_rate)
    prepared = prepare_training(config, origin=origin, read=read)
    model, held_out, beside = prepared.model, prepared.validation, prepared.unlabelled
    batches: Batches[Batch | PartlyLabelled] = prepared.batches
    if beside is not None:
        device, cutoff = held_out.positions.device, model_config(model)[1]["cutoff"]
        batches = partly_labelled_batches(prepared.batches, beside, cutoff=cutoff, device=device, config=options)
    monitored = options.monitor_per_decade > 0
    axis = judged_axis(prepared.frames, options)
    result = fit(
        model,
        batches,
        objective=prepared.objective,
        validate=RotatedValidation(
            held_out,
            forces=options.forces,
            group="O3" if axis is None else "SO3",
            axis=axis,
        ),
        config=options,
        run_dir=folder,
        fingerprint=_fingerprint(config, prepared, "" if origin is None else origin.sha256),
        validation_columns=[name for name in VALIDATION_COLUMNS if name != "score"],
        monitor=SymmetryMonitor(held_out, forces=options.forces, config=options, axis=axis) if monitored else None,
        monitor_columns=MONITOR_COLUMNS,
        resume=resume,
        progress=progress,
        describe=_describe,
        early=prepared.objective.without_equivariance() if options.equivariance_from > 0 else None,
    )
    if resume and (folder / POTENTIAL).is_file():  # finished before; others may start from the bytes that stand there
        return load_potential(folder / POTENTIAL)
    if monitored:
        plot_symmetry(folder / SYMMETRY, folder / SYMMETRY_PICTURE)
    metrics = {
        "validation_force_mae_meV_per_A": result.best_score,
        "best_step": result.best_step,
        "last_step": result.last_step,
        "direction_load": direction_load(result.model, held_out, forces=options.forces),
        "force_scale_eV_per_A": prepared.objective.force_scale,
        "history": [row for row in read_metrics(folder / METRICS) if "validation_force_mae" in row],
    }
    if pretraining is not None:
        pretraining = {**pretraining, "training_seconds": result.seconds}
    elif origin is not None:  # fine-tuned weights keep the origin of their origin
        pretraining = origin.provenance.data.get("pretraining")
    provenance = Provenance(
        trained_forces=options.forces,
        config=_without_folders(config),
        data={"name": prepared.frames.name, "split": prepared.split.to_json()}
        | _record_of("unlabelled", beside)
        | _record_of("stretched", prepared.stretched)
        | ({} if prepared.isolated_atoms is None else {"isolated_atoms": prepared.isolated_atoms.to_json()})
        | ({"fields_V_per_A": fields} if (fields := prepared.frames.distinct_fields) else {})
        | ({} if pretraining is None else {"pretraining": pretraining}),
        metrics=metrics,
        commit=source_commit(),
        seconds=result.seconds,
        origin="" if origin is None else origin.sha256,
        earlier=[] if origin is None else origin.provenance.runs,
    )
    keeps = origin is not None and options.trained != "all" and options.forces == "direct"  # all but the direct head
    potential = Potential(
        model=result.model.cpu().eval().requires_grad_(False),
        reference_energies=prepared.reference_energies,
        domain=origin.domain if origin is not None and keeps else domain_of(prepared.frames),
        provenance=origin.provenance.with_direct_head(provenance) if origin is not None and keeps else provenance,
    )
    potential.save(folder / POTENTIAL)
    return load_potential(folder / POTENTIAL)


def _describe(row: Mapping[str, float]) -> str:
    return f"validation {row['validation_force_mae']:.1f} meV/A, {row['validation_energy_mae']:.1f} meV"


def _with_model_of(origin: Potential, config: RunConfig) -> RunConfig:
    """The config with the sizes of the potential that a run starts from; a size asked for must be that one."""
    if origin.n_members > 1:
        raise InputError(
            f"--init-from is an ensemble of {origin.n_members}, one model is trained at a time; give one of its members"
        )
    kind, options = model_config(origin.model)
    known = {**options, "kind": kind}
    for name in sorted(config.model.model_fields_set):
        asked = getattr(config.model, name)
        if name not in known or asked != known[name]:
            raise InputError(
                f"model.{name}={asked} was asked for, but the potential of --init-from has "
                f"{known.get(name, f'no such option (it is a {kind})')}; "
                "leave the model section out, or train from scratch"
            )
    trained = origin.provenance.trained_forces
    if trained not in (config.train.forces, "both") and config.train.trained == "all":
        logger.warning(
            "the %s head starts from random weights: --init-from was trained for %s forces",
            config.train.forces,
            trained,
        )
    return config.model_copy(update={"model": model_section(kind, options)})


def _without_folders(config: RunConfig) -> dict[str, Any]:
    """The options as they are recorded in a potential: a folder of this machine tells nothing elsewhere."""
    values: dict[str, Any] = config.model_dump(mode="json")
    for key in FILES:
        if values["data"][key] is not None and Path(values["data"][key]).is_file():
            values["data"][key] = Path(values["data"][key]).name
    return values


def _fingerprint(config: RunConfig, prepared: PreparedTraining, origin: str) -> str:
    # Without the defaults: an option that a later version adds does not make another run of this one. Data are what
    # they hold, which the split knows, not where they lie.
    options = config.model_dump(mode="json", exclude_defaults=True, exclude={"data": {"molecule", *FILES}})
    decisive: list[Any] = [options, prepared.split.to_json(), origin]
    decisive += [frames.content_hash() for frames in (prepared.unlabelled, prepared.stretched) if frames is not None]
    if prepared.isolated_atoms is not None:
        decisive.append(sorted(prepared.isolated_atoms.energies_eV.items()))
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _record_of(what: str, frames: Frames | None) -> dict[str, Any]:
    """Frames that took part beside those of the source, as a potential records them."""
    if frames is None:
        return {}
    return {what: {"name": frames.name, "n_frames": len(frames), "data_hash": frames.content_hash()}}
