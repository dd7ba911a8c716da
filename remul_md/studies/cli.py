"""`remul-md study ...`: run an experiment of the papers, or make its tables and plots from a file of results."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from remul_md.errors import InputError

study_app = typer.Typer(help="Experiments of the papers: run one, or draw its results.", no_args_is_help=True)
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted study (or begin one).")]
JobsOption = Annotated[int, typer.Option(help="Runs at a time, each in a process with one thread.", min=1)]


@study_app.command("nbody")
def nbody(
    run_dir: Annotated[Path, typer.Option(help="Folder of the study; one folder in it for each run.")],
    quick: Annotated[bool, typer.Option("--quick", help="Four arms, two seeds: 15 minutes on 2 cores.")] = False,
    paper: Annotated[bool, typer.Option("--paper", help="The paper's size; wants CUDA.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, such as seeds=[0,1].")] = None,
    jobs: JobsOption = 1,
    resume: ResumeOption = False,
) -> None:
    """Four bodies under gravity: train with few poses, test in others. Writes RUN_DIR/results.json."""
    from remul_md.studies.nbody.arms import nbody_config
    from remul_md.studies.nbody.report import markdown_table
    from remul_md.studies.nbody.run import run_study

    if quick and paper:
        raise InputError("--quick and --paper exclude each other; give one")
    config = nbody_config("quick" if quick else "paper" if paper else "default", overrides=set_ or [])
    command = shlex.join(["remul-md", *sys.argv[1:]])
    results = run_study(config, run_dir, n_jobs=jobs, resume=resume, command=command)
    typer.echo(markdown_table(results))
    typer.echo(f"wrote {results}; draw it with `remul-md study nbody-report {results} --plots FOLDER`")


@study_app.command("nbody-report")
def nbody_report(
    results: Annotated[Path, typer.Argument(help="results.json of `remul-md study nbody`.")],
    markdown: Annotated[Path | None, typer.Option(help="Write the table to this file.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Write the plots (PNG) into this folder.")] = None,
) -> None:
    """The table beside the published figures, and the plots, from a file of results."""
    from remul_md.studies.nbody.plots import write_plots
    from remul_md.studies.nbody.report import markdown_table
    from remul_md.studies.summary import write_text

    typer.echo(markdown_table(results))
    if markdown is not None:
        write_text(markdown, markdown_table(results))
        typer.echo(f"wrote {markdown}")
    if plots is not None:
        for path in write_plots(results, plots):
            typer.echo(f"wrote {path}")
