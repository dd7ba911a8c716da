"""The commands `remul-md data ...`; heavy imports wait until they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from remul_md.cli.config_flags import file_flags

data_app = typer.Typer(
    help="Data sets: list the known ones, fetch one, look into a file.", no_args_is_help=True, rich_markup_mode=None
)


@data_app.command("list")
def data_list() -> None:
    """All registered data sets, and whether they are packaged, cached or to be fetched."""
    from remul_md.datasets import list_datasets

    for status in list_datasets():
        entry = status.entry
        typer.echo(f"{entry.name:28} {entry.molecule:16} {entry.n_frames:6} frames  {status.where:10} {entry.licence}")


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="A name of `remul-md data list`.")],
    cache_dir: Annotated[Path | None, typer.Option(help="Default: REMUL_MD_CACHE, else the user's cache.")] = None,
) -> None:
    """Download a data set, checked against its sha256."""
    from remul_md.datasets import fetch

    typer.echo(fetch(name, cache_dir=cache_dir))


@data_app.command("show")
@file_flags
def _show(
    source: Annotated[str, typer.Argument(metavar="FILE", help="A file or a registered name.")],
    **given: str | None,
) -> None:
    """What a data file holds, in eV and Angstrom."""
    from dataclasses import asdict

    from remul_md.datasets import describe, read_frames
    from remul_md.datasets.file_options import FileOptions

    frames = read_frames(source, **asdict(FileOptions(**given)))
    typer.echo(describe(frames))
