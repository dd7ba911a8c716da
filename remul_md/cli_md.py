"""`remul-md md` after its options are read: run, and say what came out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms

    from remul_md.dynamics import MDOptions
    from remul_md.dynamics.replicas import Evaluate

Table = tuple[str, list[tuple[str, str]]]


def run_one(
    atoms: Atoms,
    options: MDOptions,
    *,
    potential: str,
    output: Path,
    resume: bool,
    provenance: Mapping[str, Any],
) -> tuple[Table | None, str]:
    """A run: its table with the command that judges it, or why it stopped."""
    from remul_md.dynamics import SimulationStopped, run_md

    try:
        result = run_md(atoms, options, output=output, resume=resume, provenance=provenance)
    except SimulationStopped as stop:
        return None, f"{stop}; the files hold the run up to there"
    title = f"{result.trajectory}: {result.n_steps} steps of {options.timestep_fs} fs, {result.n_frames} frames"
    return (
        title,
        [
            (
                "mean temperature",
                f"{result.mean_temperature_K:.0f} K ({result.n_degrees_of_freedom} degrees of freedom)",
            ),
            ("speed", f"{result.steps_per_s:.0f} steps/s"),
            *([("H5MD", str(result.h5md))] if result.h5md else []),
            ("next", f"remul-md analyze {result.trajectory} --potential {potential} --report report.html"),
        ],
    ), ""


def run_many(
    atoms: Atoms,
    options: MDOptions,
    *,
    n_replicas: int,
    evaluate: Evaluate,
    output: Path,
    resume: bool,
    provenance: Mapping[str, Any],
) -> tuple[Table, str]:
    """Replicas: a line for each, their speed together, and a word if one of them stopped."""
    from remul_md.dynamics import MDResult
    from remul_md.dynamics.replicas import run_replicas

    outcomes = run_replicas(
        atoms,
        options,
        n_replicas=n_replicas,
        output=output,
        evaluate=evaluate,
        resume=resume,
        provenance=provenance,
    )
    rows, speed, failure = [], 0.0, ""
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, MDResult):
            rows.append((outcome.trajectory.name, f"{outcome.mean_temperature_K:.0f} K, {outcome.n_frames} frames"))
            speed += outcome.steps_per_s
        else:
            rows.append((f"replica {number}", str(outcome)))
            failure = "not all of them ended well; their files hold the runs up to there"
    rows.append(("speed", f"{speed:.0f} steps/s, all replicas together"))
    return (f"{n_replicas} runs of {options.n_steps} steps of {options.timestep_fs} fs", rows), failure
