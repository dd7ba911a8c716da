"""A direct head for a potential, taught by its own conservative forces along its own dynamics.

Direct forces are the fast ones, and they overfit on the few frames that reference calculations pay for. The
conservative forces of a trained potential are what its direct ones should be, and they cost nothing: its dynamics gives
as many geometries as wanted. Nothing but the head is trained, so energies and conservative forces stay what they were.

Every stage leaves files in the folder of the run and is not repeated by a resumed one: dynamics, labels, training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from remul_md.analysis.accuracy import Accuracy, evaluate_potential
from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.files import changed_values, owned, read_json, write_json
from remul_md.labels.own_dynamics import DYNAMICS, HELD_OUT, LABELS, label_own_dynamics, start_positions
from remul_md.labels.sampling_options import Sampling
from remul_md.outputs import make_way
from remul_md.potentials.compilation import require_compiler
from remul_md.potentials.potential import Potential, find_potential, load_potential, resolve_device
from remul_md.potentials.provenance import Provenance
from remul_md.structures.frames import Frames
from remul_md.training.config import RunConfig, load_config
from remul_md.training.run_folder import holds_run, run_files
from remul_md.training.train import POTENTIAL, train_potential

RECORD = "distill.json"
MAX_VALIDATION, VALIDATION_SHARE = 500, 0.05  # frames of the other runs that choose the best weights
MAX_EVALUATED = 1000  # held-out frames, evenly spaced
# How a head is trained where nothing else is asked: every orientation is rotated, as for the shipped potentials. With a
# block of its own the head came to 10 meV/A in 2,500 steps at 1e-2 (docs/direct-forces.md); long trainings of whole
# models wanted about half of what was best in short ones.
TRAINING: dict[str, Any] = {
    "forces": "direct",
    "trained": "direct-head",
    "alpha": 0.0,
    "n_steps": 20_000,
    "batch_size": 16,
    "learning_rate": 6e-3,
    "validate_every": 1000,
    "checkpoint_every": 1000,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Distilled:
    """What `distill_direct_head` made.

    Args:
        potential: with both heads.
        accuracy: of its direct forces on held-out geometries, against its conservative ones.
        n_frames: geometries that it was taught on, those of validation included.
        n_held_out: geometries of the runs that were held out.
        broken: what went wrong in runs of which frames were left out, a line for each.
    """

    potential: Potential
    accuracy: Accuracy
    n_frames: int
    n_held_out: int
    broken: Sequence[str]


def head_config(overrides: Sequence[str] = ()) -> RunConfig:
    """The options by which a head is trained: `TRAINING`, then overrides such as `train.n_steps=5000`.

    Raises:
        InputError: another section than train, or options that do not train the direct head alone.
    """
    for override in overrides:
        if not override.startswith("train."):
            raise InputError(
                f"data and model are those of the potential: --set takes train.KEY=VALUE here, got {override!r}"
            )
    config = load_config(None, overrides=[*(f"train.{key}={value}" for key, value in TRAINING.items()), *overrides])
    if config.train.trained != "direct-head":
        raise InputError(
            f"train.trained={config.train.trained} changes energies too, which nothing here would hold in place; "
            "leave train.trained out, or use `remul-md train --init-from`"
        )
    return config


def distill_direct_head(
    file: str | Path,
    *,
    run_dir: str | Path,
    calculator: Callable[..., Any],
    sampling: Sampling | None = None,
    initial_structures: Frames | None = None,
    config: RunConfig | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Distilled:
    """Teach the direct head of a potential its conservative forces; the result is `run_dir/potential.pt`.

    Args:
        file: the potential, or the name of a shipped one.
        run_dir: folder of everything that is made.
        calculator: (potential, device=, forces=, compile=) to an ASE calculator with `copies`, such as
            `RemulCalculator`.
        sampling: which geometries; default `Sampling()`.
        initial_structures: frames that the runs start from, those of its training data for example; their labels are
            not looked at. Default: all runs start from the training reference frame.
        config: how the head is trained; default `head_config()`. With `train.compile` dynamics is compiled too.
        resume: go on with an interrupted run, or begin one if the folder holds none.
        overwrite: remove a run that the folder holds, and begin.
        progress: show bars.
    Raises:
        InputError: a potential without conservative forces, of several members or compositions, or with cells; starts
            that are not frames of its molecule; a folder that holds another run; too few geometries in which the
            molecule is whole; and what training refuses.
    """
    folder, sampling, config = Path(run_dir), sampling or Sampling(), config or head_config()
    file = find_potential(file)  # now: the folder of the run may get the name of a shipped potential
    teacher = load_potential(file, device=resolve_device(config.train.device))
    _check_teacher(teacher)
    if config.train.compile:
        require_compiler(teacher.device, option="train.compile=true")  # now, not after the dynamics
    positions = None
    if initial_structures is not None:
        positions = start_positions(
            initial_structures, teacher.domain, n_replicas=sampling.n_replicas, seed=sampling.seed
        )
    asked = {**asdict(sampling), **_told(initial_structures)}
    with owned(folder, folder=True):
        wanted = {"potential_sha256": teacher.sha256, "sampling": asked}
        sampled = _begun(folder, wanted, file=file, resume=resume, overwrite=overwrite)
        torch.set_num_threads(config.train.n_threads)
        if sampled is None:
            sampled = label_own_dynamics(
                teacher,
                calculator,
                run_dir=folder,
                sampling=sampling,
                positions=positions,
                compile=config.train.compile,
                progress=progress,
            )
            _write_record(folder, {**wanted, "sampled": sampled})
        n_validation = min(MAX_VALIDATION, max(1, round(VALIDATION_SHARE * sampled["n_frames"])))
        labels = {
            "source": str(folder / LABELS),
            "n_train": sampled["n_frames"] - n_validation,
            "n_validation": n_validation,
            "allow_implausible": True,  # their units are known
        }
        config = config.model_copy(update={"data": type(config.data).model_validate(labels)})
        trained = train_potential(config, run_dir=folder, init_from=file, resume=True, progress=progress)
        held_out = read_frames(folder / HELD_OUT, allow_implausible=True)
        chosen = np.unique(
            np.linspace(0, len(held_out) - 1, min(MAX_EVALUATED, len(held_out))).round().astype(np.int64)
        )
        on_device = trained.to(device=resolve_device(config.train.device))
        accuracy = evaluate_potential(on_device, held_out.select(chosen), forces="direct", progress=progress)
        potential = replace(trained, provenance=_with_sampling(trained, {**asked, **sampled}, accuracy))
        potential.save(folder / POTENTIAL)
        return Distilled(
            potential=load_potential(folder / POTENTIAL),
            accuracy=accuracy,
            n_frames=sampled["n_frames"],
            n_held_out=sampled["n_held_out"],
            broken=sampled["broken"],
        )


def _check_teacher(teacher: Potential) -> None:
    compositions, trained = teacher.domain.compositions, teacher.provenance.trained_forces
    if teacher.n_members > 1:
        raise InputError(
            f"this is an ensemble of {teacher.n_members}; train one model on its labels first "
            "(`remul-md label`, `remul-md train`), then distill that"
        )
    if trained == "direct":
        raise InputError("this potential was trained for direct forces only; give one with conservative forces")
    if teacher.domain.periodic or len(compositions) > 1:
        what = "has periodic cells" if teacher.domain.periodic else f"knows {len(compositions)} compositions"
        raise InputError(
            f"dynamics starts from one isolated reference molecule, but this potential {what}; label frames of your "
            "own with `remul-md label` and train on them with train.forces=direct train.trained=direct-head --init-from"
        )


def _told(initial_structures: Frames | None) -> dict[str, str | None]:
    """What the record of a run says about where its dynamics started; None where that was the reference frame."""
    if initial_structures is None:
        return {"initial_structures": None, "initial_structures_sha256": None}
    return {
        "initial_structures": initial_structures.name,
        "initial_structures_sha256": initial_structures.without_labels().content_hash(),
    }


def _begun(
    folder: Path, wanted: Mapping[str, Any], *, file: Path, resume: bool, overwrite: bool
) -> dict[str, Any] | None:
    """What an interrupted run has sampled; None if there is dynamics to be done. Writes the record of a new run."""
    existing = [name for name in (RECORD, LABELS, HELD_OUT, DYNAMICS) if (folder / name).exists()]
    trained = run_files(folder) if existing or holds_run(folder) else []
    make_way(
        [*(folder / name for name in existing), *trained],
        resume=resume,
        overwrite=overwrite,
        inputs=(file,),
        option="--run-dir",
    )
    if overwrite or not (existing or trained):
        _write_record(folder, wanted)
        return None
    if RECORD not in existing:
        raise InputError(f"{folder}: holds a run but no {RECORD}: another kind of run; give a new --run-dir")
    before = read_json(folder / RECORD, hint="give a new --run-dir")
    if before.get("potential_sha256") != wanted["potential_sha256"]:
        raise InputError(f"{folder}: was begun with another potential; give that one, or a new --run-dir")
    if changed := changed_values(before.get("sampling", {}), wanted["sampling"]):
        raise InputError(f"{folder}: was begun with other options: {'; '.join(changed)}; use a new --run-dir")
    return before.get("sampled")


def _write_record(folder: Path, content: Mapping[str, Any]) -> None:
    write_json(folder / RECORD, content, hint="choose another --run-dir")


def _with_sampling(trained: Potential, sampling: Mapping[str, Any], accuracy: Accuracy) -> Provenance:
    """The provenance of the trained potential with where its labels come from and how good its direct forces are."""
    head = trained.provenance.direct_head
    data = {**head["data"], "sampling": dict(sampling)}
    metrics = {
        **head["metrics"],
        "held_out_force_mae_original_meV_per_A": accuracy.force_mae_original,
        "held_out_force_mae_rotated_meV_per_A": accuracy.force_mae_rotated,
    }
    return replace(trained.provenance, direct_head={**head, "data": data, "metrics": metrics})
