"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
# Two threads cost a small molecule more than they give: a call is many small operations.
ThreadsOption = Annotated[int, typer.Option(help="CPU threads; small molecules are fastest with one.", min=1)]
SymmetryOption = Annotated[
    str | None, typer.Option(help="exact cuts the raw directions of a relaxed potential (default: as trained).")
]
# What cost much and is there already is replaced only if this is said.
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
IgnoreCellOption = Annotated[
    bool, typer.Option("--ignore-cell", help="Take a molecule that a file puts into a box for an isolated one.")
]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")]
