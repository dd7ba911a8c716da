"""`remul-md md`: read the options, run, and say what came out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remul_md.cli.config_flags import flags_of, options_of
from remul_md.cli.options import DeviceOption, IgnoreCellOption, OverwriteOption, SymmetryOption, ThreadsOption
from remul_md.cli.printing import command_line, fail, print_table
from remul_md.dynamics.options import MDOptions
from remul_md.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from remul_md.calculators import RemulCalculator
    from remul_md.dynamics.replicas import Evaluate
    from remul_md.potentials.potential import Potential

Table = tuple[str, list[tuple[str, str]]]
PotentialArgument = Annotated[str, typer.Argument(help="A *.pt file, or the name of a shipped potential.")]


# The commonest options of a run; the others are for --set and the file.
FLAGS: tuple[str, ...] = (
    "ensemble",
    "temperature_K",
    "final_temperature_K",
    "rotation",
    "timestep_fs",
    "n_inner",
    "length_ps",
    "equilibrate_ps",
    "friction_per_ps",
    "thermostat_time_fs",
    "frame_interval_fs",
    "stop_when",
    "seed",
)


def _md(
    potential: PotentialArgument,
    structure: Annotated[str, typer.Option(help="A file, a packaged molecule, or rmd17/ethanol/test-01:17.")],
    output: Annotated[Path, typer.Option(help="run.traj, run.h5md or run.extxyz; the log and run.json go beside it.")],
    config: Annotated[Path | None, typer.Option(help="YAML file with a section md.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="md.KEY=VALUE, such as md.log_interval=10.")] = None,
    forces: Annotated[str, typer.Option(help="auto, conservative or direct.")] = "auto",
    symmetry: SymmetryOption = None,
    symmetrize: Annotated[
        str | None, typer.Option(help="tetrahedral, octahedral, icosahedral or a number of rotations.")
    ] = None,
    remove_net_torque: Annotated[
        bool, typer.Option("--remove-net-torque", help="Take net force and torque off the forces.")
    ] = False,
    replicas: Annotated[int, typer.Option(help="Runs side by side with the seeds seed, seed + 1, ...", min=1)] = 1,
    ignore_cell: IgnoreCellOption = False,
    device: DeviceOption = "auto",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    n_threads: ThreadsOption = 1,
    allow_unseen: Annotated[bool, typer.Option("--allow-unseen", help="Accept an untrained composition.")] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the forces: minutes once, then several times as fast.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run (or begin one).")] = False,
    overwrite: OverwriteOption = False,
    **given: Any,
) -> None:
    """Molecular dynamics with a potential: Langevin equilibration, then production in the asked ensemble."""
    from remul_md.calculators import RemulCalculator
    from remul_md.datasets.structure_source import read_structure
    from remul_md.dynamics.recording import OutputFiles
    from remul_md.dynamics.replicas import replica_output
    from remul_md.outputs import check_no_input

    options = options_of(MDOptions, "md", file=config, overrides=set_ or [], given=given)
    n_inner = options.n_inner
    if n_inner is not None and replicas > 1:
        raise InputError(f"--n-inner {n_inner} does not go with --replicas {replicas}; run them one by one")
    outputs = [replica_output(output, number) for number in range(replicas)] if replicas > 1 else [output]
    written = [path for each in outputs for path in OutputFiles.for_output(each).all()]
    check_no_input(written, (potential, structure, config))
    rotations = int(symmetrize) if symmetrize and symmetrize.lstrip("-").isdigit() else symmetrize
    chosen: dict[str, Any] = {
        "device": device,
        "symmetry": symmetry,
        "seed": options.seed,
        "remove_net_torque": remove_net_torque,
        "allow_unseen": allow_unseen,
        "compile": compiled,
        "dtype": dtype,
        "n_threads": n_threads,
    }
    served: dict[str, Any] = {"forces": forces, "symmetrize": rotations}
    calculator = RemulCalculator(potential, **served, **chosen)
    fast = None if n_inner is None else _fast_calculator(calculator, **chosen)
    atoms = read_structure(structure, ignore_cell=ignore_cell)
    atoms.calc = calculator
    provenance = {
        "potential": str(potential),
        "potential_sha256": calculator.potential.sha256,
        "forces": calculator.head,
        "symmetrize": symmetrize,
        "dtype": dtype,
        "device": str(calculator.potential.device),
        "structure": structure,
        # Only where they are on: runs made before the options existed go on.
        **({"symmetry": symmetry} if symmetry is not None else {}),
        **taught(calculator.potential),
        **({"remove_net_torque": True} if remove_net_torque else {}),
        **({"fast_forces": fast.head} if fast is not None else {}),
        **({"compiled": True} if compiled else {}),
    }
    table: Table | None
    kept: dict[str, Any] = {"output": output, "resume": resume, "overwrite": overwrite, "provenance": provenance}
    if replicas > 1:
        evaluate = calculator.copies(atoms, n_copies=replicas, diagnose=options.stop_when is not None)
        table, failure = _run_many(atoms, options, n_replicas=replicas, evaluate=evaluate, **kept)
    else:
        table, failure = _run_one(atoms, options, potential=potential, fast=fast, **kept)
    if table is not None:
        print_table(*table)
    if failure:
        fail(failure, code=1)


md = flags_of(MDOptions, FLAGS)(_md)


def taught(potential: Potential) -> dict[str, Any]:
    """Of a potential of a field or about an axis: both, and the rotations that it knows; `analyze` judges by them."""
    made = potential.provenance
    if made.axis is None:
        return {}
    fields = {"field_V_per_A": made.fields_V_per_A[0]} if made.fields_V_per_A else {}
    return {**fields, "axis": list(made.axis), "group": potential.group}


def _fast_calculator(accurate: RemulCalculator, **options: Any) -> RemulCalculator:
    """The direct head of the same potential, not symmetrised: what the inner steps get wrong is put right."""
    from remul_md.calculators import RemulCalculator

    trained = accurate.potential.provenance.trained_forces
    if accurate.head != "conservative" or trained != "both":
        raise InputError(
            f"--n-inner needs conservative forces and a direct head beside them; this potential was trained for "
            f"{trained} forces, and {accurate.head} ones were asked for (`remul-md distill` adds a direct head)"
        )
    return RemulCalculator(accurate.potential, forces="direct", **options)


def _run_one(
    atoms: Atoms,
    options: MDOptions,
    *,
    potential: str,
    fast: RemulCalculator | None,
    output: Path,
    resume: bool,
    overwrite: bool,
    provenance: Mapping[str, Any],
) -> tuple[Table | None, str]:
    """A run: its table with the command that judges it, or why it stopped."""
    from remul_md.dynamics import SimulationStopped, run_md

    try:
        result = run_md(
            atoms, options, output=output, fast=fast, resume=resume, overwrite=overwrite, provenance=provenance
        )
    except SimulationStopped as stop:
        return None, f"{stop}; the files hold the run up to there"
    inner = "" if options.n_inner is None else f"{options.n_inner} x "
    title = f"{result.trajectory}: {result.n_steps} steps of {inner}{options.timestep_fs} fs, {result.n_frames} frames"
    # Both kinds of steps take different times, so one speed for all of them is told with its kind.
    mixed = inner and result.equilibration_steps
    return (
        title,
        [
            (
                "mean temperature",
                f"{result.mean_temperature_K:.0f} K ({result.n_degrees_of_freedom} degrees of freedom)",
            ),
            (
                "speed",
                f"{result.steps_per_s:.0f} steps/s" + (", plain ones and outer ones together" if mixed else ""),
            ),
            *([("H5MD", str(result.h5md))] if result.h5md else []),
            *([("extxyz", str(result.extxyz))] if result.extxyz else []),
            (
                "next",
                command_line("analyze", result.trajectory, "--potential", potential, "--report", "report.html"),
            ),
        ],
    ), ""


def _run_many(
    atoms: Atoms,
    options: MDOptions,
    *,
    n_replicas: int,
    evaluate: Evaluate,
    output: Path,
    resume: bool,
    overwrite: bool,
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
        overwrite=overwrite,
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
