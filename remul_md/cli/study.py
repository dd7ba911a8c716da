"""`remul-md study ...`: run an experiment of the papers, or make its tables and plots from a file of results."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from remul_md.cli.options import OverwriteOption
from remul_md.cli.printing import command_line
from remul_md.errors import InputError

study_app = typer.Typer(
    help="Experiments of the papers: run one, or draw its results.", no_args_is_help=True, rich_markup_mode=None
)
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted study (or begin one).")]
JobsOption = Annotated[int, typer.Option(help="Runs at a time, each in a process with one thread.", min=1)]


@study_app.command("nbody")
def nbody(
    run_dir: Annotated[Path, typer.Option(help="Folder of the study; one folder in it for each run.")],
    quick: Annotated[bool, typer.Option("--quick", help="Four methods, two seeds: 15 minutes on 2 cores.")] = False,
    paper: Annotated[bool, typer.Option("--paper", help="The paper's size; wants CUDA.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, such as seeds=[0,1].")] = None,
    jobs: JobsOption = 1,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Four bodies under gravity: train with few orientations, test in others. Writes RUN_DIR/results.json."""
    from remul_md.studies.nbody.methods import nbody_config
    from remul_md.studies.nbody.report import markdown_table
    from remul_md.studies.nbody.run import run_study

    if quick and paper:
        raise InputError("--quick and --paper exclude each other; give one")
    config = nbody_config("quick" if quick else "paper" if paper else "default", overrides=set_ or [])
    command = shlex.join(["remul-md", *sys.argv[1:]])
    results = run_study(config, run_dir, n_jobs=jobs, resume=resume, overwrite=overwrite, command=command)
    typer.echo(markdown_table(results))
    typer.echo(f"wrote {results}; draw it with `{_report_command('nbody-report', results)}`")


@study_app.command("force-field")
def force_field(
    context: typer.Context,
    run_dir: Annotated[Path, typer.Option(help="Folder of the study; one folder in it for each potential.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Ethanol, four methods, one seed: an hour on 2 cores.")
    ] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, such as methods=[remul-10].")] = None,
    jobs: JobsOption = 1,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Ways of training a potential on rMD17: accuracy, symmetry and dynamics. Writes RUN_DIR/results.json."""
    from remul_md.studies.forcefield.methods import forcefield_config
    from remul_md.studies.forcefield.report import markdown_report
    from remul_md.studies.forcefield.run import run_study

    config = forcefield_config("quick" if quick else "default", overrides=set_ or [])
    command = shlex.join(["remul-md", *sys.argv[1:]])
    # The calculator comes from above: no study imports it.
    results = run_study(
        config, run_dir, calculator=context.obj, n_jobs=jobs, resume=resume, overwrite=overwrite, command=command
    )
    typer.echo(markdown_report(results))
    typer.echo(f"wrote {results}; draw it with `{_report_command('force-field-report', results)}`")


ResultsArgument = Annotated[Path, typer.Argument(help="results.json of the study.")]
MarkdownOption = Annotated[Path | None, typer.Option(help="Write the tables to this file.")]
PlotsOption = Annotated[Path | None, typer.Option(help="Write the plots (PNG) into this folder.")]


@study_app.command("nbody-report")
def nbody_report(results: ResultsArgument, markdown: MarkdownOption = None, plots: PlotsOption = None) -> None:
    """The table beside the published figures, and the plots, from a file of results."""
    from remul_md.outputs import check_reports
    from remul_md.studies.nbody.plots import write_plots
    from remul_md.studies.nbody.report import markdown_table

    check_reports(markdown, inputs=(results,))
    _report(markdown_table(results), lambda folder: write_plots(results, folder), markdown=markdown, plots=plots)


@study_app.command("force-field-report")
def force_field_report(results: ResultsArgument, markdown: MarkdownOption = None, plots: PlotsOption = None) -> None:
    """The tables and plots from a file of results."""
    from remul_md.outputs import check_reports
    from remul_md.studies.forcefield.plots import write_plots
    from remul_md.studies.forcefield.report import markdown_report

    check_reports(markdown, inputs=(results,))
    _report(markdown_report(results), lambda folder: write_plots(results, folder), markdown=markdown, plots=plots)


def _report_command(command: str, results: Path) -> str:
    return command_line("study", command, results, "--plots", "FOLDER")


def _report(
    tables: str, write_plots: Callable[[Path], list[Path]], *, markdown: Path | None, plots: Path | None
) -> None:
    from remul_md.outputs import write_text

    typer.echo(tables)
    if markdown is not None:
        write_text(markdown, tables + "\n")
        typer.echo(f"wrote {markdown}")
    if plots is not None:
        for path in write_plots(plots):
            typer.echo(f"wrote {path}")
