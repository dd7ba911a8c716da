"""The commands that make potentials and labels out of potentials; heavy imports wait until they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remul_md.errors import InputError

if TYPE_CHECKING:
    from remul_md.potential import Provenance
    from remul_md.shipped import ShippedPotential


def committee(
    output: Annotated[Path, typer.Argument(metavar="OUT.pt", help="The committee, one file.")],
    members: Annotated[list[str], typer.Argument(help="Potentials of one architecture, at least two.")],
) -> None:
    """Make one potential of several: their mean, with their scatter as error bar (forces_std)."""
    from remul_md.committee import make_committee

    if output.suffix != ".pt":
        raise InputError(f"{output}: the committee comes first and ends in .pt; its members follow")
    if str(output) in members:
        raise InputError(f"{output}: is a member too; the committee, which comes first, needs a name of its own")
    made = make_committee(members)
    made.save(output)
    typer.echo(f"{output}: {made.n_members} members, {made.provenance.trained_forces} forces")


def label(
    potential: Annotated[str, typer.Argument(help="The teacher: a *.pt file, or the name of a shipped potential.")],
    frames: Annotated[str, typer.Argument(help="Geometries: a trajectory (.traj), any data file, or a name.")],
    output: Annotated[Path, typer.Argument(help="Training data: .extxyz, .xyz or .npz.")],
    max_std: Annotated[
        float | None, typer.Option(help="Of a committee: leave out frames with an atom less certain, meV/A.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every n-th frame; those of a trajectory are alike.")] = 1,
    forces: Annotated[str, typer.Option(help="auto, conservative or direct.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    n_threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
) -> None:
    """Label geometries with a potential; `remul-md train --set data.source=OUTPUT` then trains a student on them."""
    import numpy as np
    import torch

    from remul_md.datasets import read_frames
    from remul_md.datasets.writers import check_written_format, write_frames
    from remul_md.labelling import label_frames
    from remul_md.potential import load_potential, resolve_device

    check_written_format(output)
    torch.set_num_threads(n_threads)
    teacher = load_potential(potential, device=resolve_device(device), dtype=dtype)  # type: ignore[arg-type]
    read = read_frames(frames)
    labelled = label_frames(
        teacher,
        read.select(np.arange(0, len(read), every)),
        forces=forces,  # type: ignore[arg-type]
        max_std_meV_per_A=max_std,
        progress=True,
    )
    further = {} if labelled.forces_std is None else {"forces_std_eV_per_A": labelled.forces_std}
    provenance = {**labelled.provenance, "potential": Path(potential).name, "every": every}
    write_frames(labelled.frames, output, provenance=provenance, per_frame=further)
    left_out = "" if max_std is None else f", {labelled.n_left_out} left out as too uncertain"
    typer.echo(f"{output}: {len(labelled.frames)} frames{left_out}")


def training_line(made: Provenance) -> str:
    """What `remul-md train` says in the end: the error on the validation frames, and what it took."""
    metrics, before = made.metrics, (made.total_seconds - made.seconds) / 60
    return (
        f"validation force MAE {metrics['validation_force_mae_meV_per_A']:.1f} meV/A in turned poses "
        f"(step {metrics['best_step']} of {metrics['last_step']}, {made.seconds / 60:.1f} min"
        f"{f'; pretrained on {made.pretraining}, {before:.1f} min' if made.pretraining else ''})"
    )


def shelf_lines(rows: Sequence[ShippedPotential]) -> list[str]:
    """The table of `remul-md potentials`, a line for each potential below two of headings."""
    cells: list[tuple[str, ...]] = [
        ("name", "molecule", "heads", "force MAE", "turned", "rot. spread", "trained", "latency", "size", "tested on"),
        ("", "", "", "meV/A", "meV/A", "meV/A", "min", "ms", "MB", ""),
    ]
    for row in rows:
        figures = (row.force_mae_stock, row.force_mae_turned, row.rotational_spread)
        measured = ["-" if value is None else f"{value:.2f}" for value in figures]
        heads = row.heads if row.n_members == 1 else f"{row.heads} x {row.n_members}"
        latency = "-" if row.latency_ms is None else f"{row.latency_ms:.1f}"
        size = (f"{row.training_minutes:.1f}", latency, f"{row.megabytes:.1f}", row.tested_on or "-")
        cells.append((row.name, row.molecule, heads, *measured, *size))
    if any(row.pretraining for row in rows):  # most shelves hold none
        told = ["pretrained on", "", *(row.pretraining or "-" for row in rows)]
        cells = [(*line, text) for line, text in zip(cells, told, strict=True)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
