"""The command `remul-md analyze`: a run measured, judged, and shown."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remul_md._version import __version__
from remul_md.cli.options import AxisOption, DeviceOption, IgnoreCellOption, ThreadsOption, chosen_axis
from remul_md.cli.printing import print_table, verdict_line
from remul_md.errors import InputError
from remul_md.outputs import check_reports, write_figures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ase import Atoms

    from remul_md.analysis.trajectory import TrajectoryAnalysis
    from remul_md.calculators import RemulCalculator
    from remul_md.potentials.potential import Dtype


def analyze(
    trajectory: Annotated[Path, typer.Argument(help="run.traj, run.h5md, an extxyz file; others with --topology.")],
    potential: Annotated[
        str | None, typer.Option(help="Its forces are tested under random turns along the trajectory.")
    ] = None,
    topology: Annotated[Path | None, typer.Option(help="Elements for run.dcd, run.xtc ... such as run.pdb.")] = None,
    frame_interval_fs: Annotated[
        float | None, typer.Option(help="Time between two frames; wins over that of the file.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Write one PNG picture.")] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(help="JSON of `remul-md evaluate` for the report; default: what ships with the potential."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file: all that the report shows.")
    ] = None,
    n_rotation_frames: Annotated[int, typer.Option(help="Frames that are rotated at random.")] = 50,
    vibrations: Annotated[
        bool | None,
        typer.Option(
            "--vibrations/--no-vibrations",
            help="Vibrations at the nearest minimum, in report and JSON; up to 30 atoms unless asked for.",
        ),
    ] = None,
    axis: AxisOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the rotations.")] = 0,
    ignore_cell: IgnoreCellOption = False,
    device: DeviceOption = "auto",
    n_threads: ThreadsOption = 1,
) -> None:
    """Does the run conserve energy, do its forces turn with the molecule, does the molecule stay intact?"""
    from remul_md.dynamics.read import open_trajectory

    read = _inputs(trajectory, potential, topology, evaluation)
    check_reports(report, json_file, picture=picture, inputs=read)
    figures = None if evaluation is None else _read_evaluation(evaluation)
    training, calculator, record = None, None, None
    provenance: dict[str, Any] = {"trajectory": str(trajectory), **_made_by(trajectory)}
    reading: dict[str, Any] = {
        "topology": topology,
        "frame_interval_fs": frame_interval_fs,
        "ignore_cell": ignore_cell,
    }
    if vibrations and potential is None:
        raise InputError("--vibrations needs forces: name the potential (--potential)")
    if potential is not None:
        import torch

        from remul_md.analysis.report import PotentialRecord

        torch.set_num_threads(n_threads)
        calculator = run_calculator(trajectory, potential, device=device, n_threads=n_threads)
        known = calculator.potential
        run = known.provenance.run_of(calculator.head)  # of the forces that are tested
        record = PotentialRecord.of(known, forces=calculator.head)
        training = run["metrics"].get("history")
        split = run["data"].get("split") or {}
        provenance |= {
            "potential": potential,
            "potential sha256": known.sha256,
            "forces": calculator.head,
            "symmetry": known.symmetry,
            "training data": run["data"].get("name", ""),
            **({"training data sha256": split["data_hash"]} if "data_hash" in split else {}),
            **({"trained with the rotations": known.group} if known.provenance.axis is not None else {}),
            **({"electric field, V/Å": str(field)} if (field := known.provenance.fields_V_per_A) else {}),
            **({"pretrained on": known.provenance.pretraining} if known.provenance.pretraining else {}),
            "trained with": f"remul-md {run['package_version']}",
        }
    result, atoms = judged_run(
        trajectory, calculator, axis=axis, reading=reading, n_rotation_frames=n_rotation_frames, seed=seed
    )
    _print_analysis(result)
    if picture is not None:
        from remul_md.analysis.report import write_summary_png

        write_summary_png(result, picture, evaluation=figures, training=training)
    if report is not None or json_file is not None:
        from remul_md.analysis.report import collect_content, report_data, write_report

        exact = None
        if atoms is not None and calculator is not None and vibrations is not False:
            exact = atoms.copy()
            exact.calc = run_calculator(
                trajectory, calculator.potential, device=device, n_threads=n_threads, dtype="float64"
            )
        opened = open_trajectory(trajectory, **reading)
        provenance |= {
            "random turns": f"seed {seed}",
            "command": shlex.join(["remul-md", *sys.argv[1:]]),
            "version": __version__,
            "versions": _versions(),
        }
        compared = None
        if calculator is not None and record is not None:
            from remul_md.analysis.parity import known_parity

            compared = partial(
                known_parity,
                calculator.potential,
                forces=calculator.head,
                evaluation=record.figures if figures is None else figures,
            )
        content = collect_content(opened.blocks(), result, atoms=exact, any_size=bool(vibrations), parity=compared)
        shown: dict[str, Any] = {
            "evaluation": figures,
            "training": training,
            "provenance": provenance,
            "record": record,
        }
        if report is not None:
            write_report(result, report, content=content, **shown)
        if json_file is not None:
            write_figures(json_file, report_data(result, content=content, **shown))
    for written in (report, picture, json_file):
        if written is not None:
            typer.echo(f"wrote {written}")


def judged_run(
    trajectory: Path,
    calculator: Any,
    *,
    axis: str | None = None,
    reading: Mapping[str, Any] | None = None,
    n_rotation_frames: int = 50,
    seed: int = 0,
) -> tuple[TrajectoryAnalysis, Atoms | None]:
    """The analysis of a run, and its first frame with the calculator, if there is one.

    Args:
        trajectory: the run.
        calculator: any of ASE; of a potential its training data are held against the run. None: no forces are tested.
        axis: as `--axis`; default: what the record of the run or the potential says.
        reading: options of `open_trajectory`.
        n_rotation_frames, seed: as `analyze_trajectory`.
    """
    from remul_md.analysis.training_statistics import TrainingStatistics
    from remul_md.analysis.trajectory import analyze_trajectory
    from remul_md.dynamics.read import open_trajectory

    atoms, statistics = None, None
    recorded = run_record(trajectory).get("provenance", {}).get("axis")
    if calculator is not None:
        atoms = next(open_trajectory(trajectory, **(reading or {})).blocks()).atoms(0)
        atoms.calc = calculator
        known = getattr(calculator, "potential", None)
        if known is not None:
            atoms.info["charge"] = known.domain.charges[0]  # trajectories carry none
            recorded = known.provenance.axis if recorded is None else recorded
            if not atoms.pbc.any():
                statistics = TrainingStatistics.of(known.domain, numbers=atoms.numbers, positions=atoms.positions)
    analysis = analyze_trajectory(
        trajectory,
        atoms=atoms,
        **(reading or {}),
        n_rotation_frames=n_rotation_frames,
        seed=seed,
        axis=chosen_axis(axis, recorded),
        training_statistics=statistics,
    )
    return analysis, atoms


def run_calculator(
    trajectory: Path, potential: Any, *, device: str, n_threads: int, dtype: Dtype | None = None
) -> RemulCalculator:
    """The calculator that made the trajectory, where its record says how; else the potential as it is.

    Args:
        trajectory: its record lies beside it.
        potential: file, shipped name, or a loaded one.
        device, n_threads: as `RemulCalculator`.
        dtype: instead of that of the run.
    """
    from remul_md.calculators import RemulCalculator

    facts = run_record(trajectory).get("provenance", {})
    symmetrize = facts.get("symmetrize")
    return RemulCalculator(
        potential,
        device=device,
        dtype=dtype or facts.get("dtype", "float32"),
        forces=facts.get("forces", "auto"),
        symmetry=facts.get("symmetry"),
        symmetrize=int(symmetrize) if symmetrize and str(symmetrize).isdigit() else symmetrize,
        remove_net_torque=facts.get("remove_net_torque", False),
        allow_unseen=True,
        n_threads=n_threads,
    )


def run_record(trajectory: Path) -> dict[str, Any]:
    """What `remul-md md` wrote beside its trajectory; empty for the runs of others."""
    from remul_md.dynamics.recording import files_of, read_json

    files = files_of(trajectory)
    return {} if files is None or not files.description.exists() else read_json(files.description)


def _inputs(trajectory: Path, *others: str | Path | None) -> list[str | Path | None]:
    """What is read, and all that belongs to the run of the trajectory."""
    from remul_md.dynamics.recording import files_of

    own = files_of(trajectory)
    return [trajectory, *(own.all() if own is not None else ()), *others]


def _made_by(trajectory: Path) -> dict[str, Any]:
    """The run's own record in a few lines for the provenance."""
    record = run_record(trajectory)
    facts, options = record.get("provenance", {}), record.get("options", {})
    keys = ("ensemble", "temperature_K", "final_temperature_K", "timestep_fs", "length_ps", "equilibrate_ps", "seed")
    found = {
        "run": {key: options[key] for key in keys if options.get(key) is not None},
        "run started from": facts.get("structure"),
        "run with the potential sha256": facts.get("potential_sha256"),
        "run with versions": record.get("versions"),
    }
    return {key: value for key, value in found.items() if value}


def _versions() -> dict[str, str]:
    import platform

    import ase
    import numpy as np
    import torch

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "ase": ase.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
    }


def _print_analysis(result: TrajectoryAnalysis) -> None:
    from remul_md.analysis.verdicts import QUESTIONS

    rows = [(verdict.name, verdict_line(verdict)) for verdict in result.verdicts]
    judged = {verdict.name for verdict in result.verdicts}
    rows += [(name, f"{'-':9} not judged: {needed}") for name, needed in QUESTIONS.items() if name not in judged]
    print_table(f"{result.name}: {result.formula}, {len(result.time_ps)} frames, {result.time_ps[-1]:g} ps", rows)
    for note in result.notes:
        typer.echo(f"note: {note}")


def _read_evaluation(path: Path) -> dict[str, Any]:
    from remul_md.files import read_json

    hint = "give the file of `remul-md evaluate --json`"
    figures = read_json(path, hint=hint)
    if "force_mae_original" not in figures:
        raise InputError(f"{path}: holds no force_mae_original; {hint}")
    return figures
