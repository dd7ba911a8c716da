"""`remul-md improve`: read the options, run the rounds, and say what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from remul_md.cli.config_flags import flags_of
from remul_md.cli.options import IgnoreCellOption, OverwriteOption
from remul_md.cli.printing import command_line
from remul_md.errors import InputError
from remul_md.training.improve_config import ImproveOptions

FLAGS = (
    "temperature_K",
    "until_ps",
    "budget_labels",
    "labels_per_round",
    "n_replicas",
    "n_members",
    "uncertainty",
    "timestep_fs",
    "frame_interval_fs",
    "window_ps",
    "max_rounds",
    "jobs",
    "seed",
)


def _improve(
    context: typer.Context,
    potential: Annotated[
        str, typer.Argument(metavar="POTENTIAL|ENSEMBLE", help="A *.pt file, or the name of a shipped potential.")
    ],
    labels: Annotated[
        str, typer.Option(metavar="pbe|xtb|MODULE:FACTORY", help="The method of its data, which labels new geometries.")
    ],
    structure: Annotated[str, typer.Option(help="Where the runs start: a file, or a packaged molecule.")],
    run_dir: Annotated[Path, typer.Option(help="Folder of everything that is made; may lie anywhere.")],
    data: Annotated[
        str | None, typer.Option(help="Its training data, where they are a file: the potential knows the name alone.")
    ] = None,
    stretched: Annotated[bool, typer.Option(help="Label squeezed and stretched bonds first.")] = True,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Compile the forces of the runs: minutes once, then several times as fast."),
    ] = False,
    ignore_cell: IgnoreCellOption = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="train.KEY=VALUE, such as train.n_steps=500, or data.KEY=VALUE.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run (or begin one).")] = False,
    overwrite: OverwriteOption = False,
    **given: Any,
) -> None:
    """Run a potential hot, label what it does not know, train it on that; until all runs hold."""
    from remul_md.datasets.structure_source import read_structure
    from remul_md.labels.sources import label_source
    from remul_md.training.improve import improve_potential
    from remul_md.training.improve_report import PAGE, table_rows
    from remul_md.training.improve_state import POTENTIAL

    chosen = {name: value for name, value in given.items() if value is not None}
    options = ImproveOptions(**chosen, stretched=stretched, compile=compiled)
    if Path(structure).is_file() and Path(structure).resolve().parent == run_dir.resolve():
        raise InputError(f"{structure}: lies in the folder of the run; choose another --run-dir")
    made = improve_potential(
        potential,
        source=label_source(labels),
        atoms=read_structure(structure, ignore_cell=ignore_cell),
        run_dir=run_dir,
        calculator=context.obj,  # the calculator comes from above, as for the studies
        options=options,
        training=set_ or [],
        data=data,
        resume=resume,
        overwrite=overwrite,
    )
    for number, n_labels, _, _, held, *_ in table_rows(made.rows):
        typer.echo(f"round {number}: {n_labels} labels; {held}")
    typer.echo(f"{run_dir / POTENTIAL}: {made.ended}; {run_dir / PAGE} has the table")
    typer.echo(f"next: {command_line('md', run_dir / POTENTIAL, '--structure', structure, '--output', 'run.traj')}")


improve = flags_of(ImproveOptions, FLAGS)(_improve)
