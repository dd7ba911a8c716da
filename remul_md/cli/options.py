"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from remul_md.errors import InputError

DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
# Two threads cost a small molecule more than they give: a call is many small operations.
ThreadsOption = Annotated[int, typer.Option(help="CPU threads; small molecules are fastest with one.", min=1)]
SymmetryOption = Annotated[
    str | None, typer.Option(help="exact cuts the raw directions of a relaxed potential (default: as trained).")
]
AxisOption = Annotated[
    str | None,
    typer.Option(
        "--axis",
        metavar="x|y|z|X,Y,Z|none",
        help="Judge rotations about it only, as in a field; default: what the potential's labels allow.",
    ),
]
# What cost much and is there already is replaced only if this is said.
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
IgnoreCellOption = Annotated[
    bool, typer.Option("--ignore-cell", help="Take a molecule that a file puts into a box for an isolated one.")
]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")]


def chosen_axis(
    asked: str | None, recorded: tuple[float, float, float] | None = None
) -> tuple[float, float, float] | None:
    """The axis of `--axis`, else the recorded one; None for all rotations.

    Raises:
        InputError: no axis.
    """
    if asked is None or asked == "none":
        return recorded if asked is None else None
    if asked in ("x", "y", "z"):
        return 1.0 * (asked == "x"), 1.0 * (asked == "y"), 1.0 * (asked == "z")
    try:
        x, y, z = (float(component) for component in asked.split(","))
    except ValueError as error:
        raise InputError(f"--axis takes x, y, z, three numbers as in 0,0,1, or none; got {asked!r}") from error
    from remul_md.symmetry.rotations import unit_axis

    return unit_axis((x, y, z))
