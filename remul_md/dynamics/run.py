"""`run_md`: molecular dynamics of `ase.Atoms` with any calculator, from equilibration to the last frame, resumable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remul_md.dynamics.checkpoint import load_checkpoint
from remul_md.dynamics.description import describe_run, resumed_description
from remul_md.dynamics.engine import Engine, SimulationStopped
from remul_md.dynamics.options import MDOptions
from remul_md.dynamics.recording import OutputFiles, Recorder, read_json, write_json
from remul_md.dynamics.start import check_structure, first_state, production_dof
from remul_md.errors import InputError
from remul_md.files import owned
from remul_md.outputs import make_way

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator


@dataclass(frozen=True, kw_only=True)
class MDResult:
    """A finished run: its files and what a table needs.

    Args:
        trajectory: ASE trajectory; frames with energy, forces, momenta, `info["time_ps"]`.
        log: CSV in float64, columns `remul_md.dynamics.recording.LOG_COLUMNS`.
        description: JSON with options, versions, provenance.
        h5md: the same trajectory as H5MD, if the output was asked so; its topology stands beside it.
        extxyz: the same as extended XYZ, to eight decimals, if the output was asked so.
        n_steps: production steps; with multiple time steps outer ones.
        n_frames: frames of the trajectory, the first one included.
        n_degrees_of_freedom: of production, which the temperatures count.
        mean_temperature_K: mean over the log of production.
        equilibration_steps: Langevin steps before production.
        wall_s: time that all steps took.
        steps_per_s: speed over all steps.
    """

    trajectory: Path
    log: Path
    description: Path
    h5md: Path | None
    extxyz: Path | None
    n_steps: int
    n_frames: int
    n_degrees_of_freedom: int
    mean_temperature_K: float
    equilibration_steps: int
    wall_s: float
    steps_per_s: float


def run_md(
    atoms: Atoms,
    options: MDOptions,
    *,
    output: str | Path,
    fast: Calculator | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    provenance: Mapping[str, Any] | None = None,
) -> MDResult:
    """Run dynamics and write `run.traj`, `run.log.csv` and `run.json` (for `output="run.traj"`).

    A resumed run equals an uninterrupted one bit for bit if the calculator's result depends on the positions only
    (neighbour lists that are kept from earlier steps can change the last bit).

    Args:
        atoms: structure with a calculator attached. Not modified; velocities it may have are used with
            `options.velocities="given"` only.
        options: what to run.
        output: `*.traj`, or `*.h5md` or `*.extxyz` to get a copy of the trajectory in that format at the end.
        fast: with `options.n_inner` the calculator of the inner steps, such as the direct head of the potential whose
            conservative forces `atoms.calc` gives; another object than `atoms.calc`.
        resume: go on with an interrupted run; begins anew if there is none; a finished one is returned as it is, or
            gone on with if `options.length_ps` is longer.
        overwrite: remove a run that is there, and begin.
        progress: show a progress bar on stderr.
        provenance: JSON-able facts that go into `run.json`, such as the potential and its hash; a resumed run must
            give the same ones.
    Raises:
        InputError: unusable structure; `fast` without `options.n_inner` or the other way round; output that exists
            already (without `resume` or `overwrite`), is being written by another process, cannot be written, or was
            made with other options; a calculator that refuses the structure.
        SimulationStopped: the molecule fell apart, or energy or forces are not finite.
    """
    files = OutputFiles.for_output(output)
    check_structure(atoms, options, fast=fast)
    with owned(files.trajectory, also=files.all()):
        make_way(files.existing(), resume=resume, overwrite=overwrite)
        return run_owned(
            atoms, options, files=files, fast=fast, resume=resume, progress=progress, provenance=provenance
        )


def run_owned(
    atoms: Atoms,
    options: MDOptions,
    *,
    files: OutputFiles,
    fast: Calculator | None = None,
    resume: bool,
    progress: bool,
    provenance: Mapping[str, Any] | None,
) -> MDResult:
    """`run_md` for files that this process owns, and that are not there unless `resume`."""
    description = describe_run(atoms, options, fast=fast, provenance=provenance)
    if resume and files.description.exists():
        description = resumed_description(read_json(files.description), description, path=files.description)
    system = atoms.copy()
    system.calc = atoms.calc
    if resume and files.checkpoint.exists() and files.description.exists():
        state = load_checkpoint(files.checkpoint)
        if description["finished"] and all(copy is None or copy.exists() for copy in (files.h5md, files.extxyz)):
            return _result(files, description)
    elif leftover := [path for path in files.existing() if path != files.description]:
        # Without a description nobody knows what made them; without a checkpoint nobody knows where they end.
        missing = files.checkpoint if files.description.exists() else files.description
        raise InputError(
            f"cannot resume: {str(leftover[0])!r} exists, but {str(missing)!r} does not; "
            "put it back, or choose another output name"
        )
    else:
        state = first_state(system, options, fast=fast)
    with Recorder(files) as recorder:
        if state.marks:
            recorder.cut_back(state.marks)
        engine = Engine(system, options, files=files, state=state, recorder=recorder, fast=fast)
        dof = production_dof(system, options)
        description = {**description, "status": "running", "stopped": None, "n_degrees_of_freedom": dof}
        write_json(files.description, description)
        try:
            engine.run(progress=progress)
        except SimulationStopped as stop:
            recorder.close()
            stopped = {name: getattr(stop, name) for name in ("reason", "cause", "phase", "step", "time_ps")}
            write_json(files.description, {**description, "status": "stopped", "stopped": stopped})
            raise
    if files.h5md is not None:
        from remul_md.dynamics.readers.h5md import export_h5md

        export_h5md(files.trajectory, files.h5md)
    if files.extxyz is not None:
        from remul_md.dynamics.readers.ase_files import export_extxyz

        export_extxyz(files.trajectory, files.extxyz)
    copied = {} if files.extxyz is None else {"extxyz": files.extxyz.name}
    description = {**description, **engine.summary(), **copied, "status": "finished", "finished": True}
    write_json(files.description, description)
    return _result(files, description)


def _result(files: OutputFiles, description: Mapping[str, Any]) -> MDResult:
    return MDResult(
        trajectory=files.trajectory,
        log=files.log,
        description=files.description,
        h5md=files.h5md,
        extxyz=files.extxyz,
        n_steps=MDOptions(**description["options"]).n_steps,
        **{
            key: description[key]
            for key in (
                "n_frames",
                "n_degrees_of_freedom",
                "mean_temperature_K",
                "equilibration_steps",
                "wall_s",
                "steps_per_s",
            )
        },
    )
