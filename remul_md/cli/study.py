"""`remul-md study ...`: run an experiment of the papers, list them, or make tables and plots from a file of results."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from remul_md.cli.options import OverwriteOption
from remul_md.cli.printing import command_line, print_table
from remul_md.errors import InputError


class _Tasks(TyperGroup):
    """An unknown task is told the nearest one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        from remul_md.studies.options import check_names

        if args and not args[0].startswith("-"):
            check_names(args[:1], self.commands, kind="task")
        return super().resolve_command(ctx, args)


study_app = typer.Typer(
    cls=_Tasks,
    help="Experiments of the papers: run one, list them, or draw results.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
ListOption = Annotated[str | None, typer.Option(help="Names with commas between; default: those of the size.")]


def _names(given: str | None) -> list[str]:
    return [name for name in (given or "").replace(",", " ").split() if name]


def _command(task_name: str) -> Callable[..., None]:
    def run(
        context: typer.Context,
        run_dir: Annotated[Path, typer.Option(help="Folder of the study; one folder in it for each run.")],
        size: Annotated[str, typer.Option(help="quick, default or paper.")] = "default",
        methods: ListOption = None,
        models: ListOption = None,
        seeds: Annotated[str | None, typer.Option(help="Numbers with commas between.")] = None,
        set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, such as n_steps=2000.")] = None,
        jobs: Annotated[int, typer.Option(help="Runs at a time, each in a process with one thread.", min=1)] = 1,
        resume: Annotated[
            bool, typer.Option("--resume", help="Go on with an interrupted study, or extend it.")
        ] = False,
        overwrite: OverwriteOption = False,
    ) -> None:
        from remul_md.studies.lab import run_study, study_options
        from remul_md.studies.report import markdown_report
        from remul_md.studies.tasks import find_task

        try:
            numbers = [int(seed) for seed in _names(seeds)]
        except ValueError as error:
            raise InputError(
                f"--seeds takes whole numbers with commas between, such as 0,1,2; got {seeds!r}"
            ) from error
        task = find_task(task_name)
        options = study_options(
            task, size=size, methods=_names(methods), models=_names(models), seeds=numbers, overrides=set_ or []
        )
        results = run_study(
            task,
            options,
            run_dir=run_dir,
            n_jobs=jobs,
            resume=resume,
            overwrite=overwrite,
            calculator=context.obj,  # it comes from above: no study imports it
            command=shlex.join(["remul-md", *sys.argv[1:]]),
        )
        typer.echo(markdown_report(results))
        typer.echo(f"wrote {results}; draw it with `{command_line('study', 'report', results, '--plots', 'FOLDER')}`")

    return run


def _add_tasks() -> None:
    from remul_md.studies.tasks import TASKS

    for name, (_, asked) in TASKS.items():
        study_app.command(name, help=f"Run {asked}. Writes RUN_DIR/results.json.")(_command(name))


_add_tasks()


@study_app.command("list")
def list_tasks() -> None:
    """The tasks, with their sizes, cases, models and methods."""
    from remul_md.studies.tasks import TASKS, find_task

    for name, (_, asked) in TASKS.items():
        task = find_task(name)
        rows = [("sizes", task.sizes), ("cases", task.cases), ("models", task.models), ("methods", task.methods)]
        print_table(f"{name}: {asked}", [(kind, ", ".join(names)) for kind, names in rows])


@study_app.command("report")
def report(
    results: Annotated[list[Path], typer.Argument(help="results.json of a study, or of several.")],
    markdown: Annotated[Path | None, typer.Option(help="Write the tables to this file.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Write the plots (PNG) into this folder.")] = None,
) -> None:
    """The tables beside the published figures, and the plots, from a file of results."""
    from remul_md.outputs import check_reports, write_text
    from remul_md.studies.plots import write_beta_figure, write_plots
    from remul_md.studies.report import markdown_report

    check_reports(markdown, inputs=results)
    tables = "\n\n".join(markdown_report(each) for each in results)
    typer.echo(tables)
    if markdown is not None:
        write_text(markdown, tables + "\n")
        typer.echo(f"wrote {markdown}")
    if plots is not None:
        written = [path for each in results for path in write_plots(each, plots)]
        for path in [*written, *(write_beta_figure(results, plots) if len(results) > 1 else [])]:
            typer.echo(f"wrote {path}")
