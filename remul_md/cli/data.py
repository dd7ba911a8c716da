"""The commands `remul-md data ...`; heavy imports wait until they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
def data_show(
    source: Annotated[str, typer.Argument(metavar="FILE", help="A file or a registered name.")],
    energy_unit: Annotated[str | None, typer.Option(help="Where the file does not say it.")] = None,
    length_unit: Annotated[str | None, typer.Option(help="Where the file does not say it.")] = None,
    force_unit: Annotated[str | None, typer.Option(help="Default: energy unit per length unit.")] = None,
    energy_key: Annotated[str | None, typer.Option(help="Such as REF_energy, for extxyz.")] = None,
    forces_key: Annotated[str | None, typer.Option(help="Such as REF_forces, for extxyz.")] = None,
) -> None:
    """What a data file holds, in eV and Angstrom."""
    from remul_md.datasets import describe, read_frames

    frames = read_frames(
        source,
        energy_unit=energy_unit,
        length_unit=length_unit,
        force_unit=force_unit,
        energy_key=energy_key,
        forces_key=forces_key,
    )
    typer.echo(describe(frames))
