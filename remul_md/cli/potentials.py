"""The commands that make potentials out of potentials; heavy imports wait until they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remul_md.cli.config_flags import flags_of, options_of
from remul_md.cli.options import OverwriteOption
from remul_md.cli.printing import command_line
from remul_md.errors import InputError
from remul_md.files import owned
from remul_md.labels.sampling_options import Sampling
from remul_md.outputs import check_existing, check_no_input

if TYPE_CHECKING:
    from remul_md.potentials.potential import Potential
    from remul_md.potentials.provenance import Provenance
    from remul_md.potentials.zoo import ShippedPotential


def ensemble(
    output: Annotated[Path, typer.Argument(metavar="OUT.pt", help="The ensemble, one file.")],
    members: Annotated[list[str], typer.Argument(help="Potentials of one architecture, at least two.")],
    calibrate: Annotated[
        str | None,
        typer.Option(metavar="FRAMES", help="Labelled frames that no member saw: the error bar gets their size."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Make one potential of several: their mean, with their scatter as error bar (forces_std)."""
    from remul_md.potentials.ensemble import make_ensemble
    from remul_md.potentials.potential import find_potential

    if output.suffix != ".pt":
        raise InputError(f"{output}: the ensemble comes first and ends in .pt; its members follow")
    check_no_input([output], [find_potential(member) for member in members])
    with owned(output):
        check_existing([output] if output.exists() else [], resume=None, overwrite=overwrite)
        made = make_ensemble(members)
        said = f"{made.n_members} members, {made.provenance.trained_forces} forces"
        if calibrate is not None:
            made, told = _calibrated(made, calibrate)
            said += told
        made.save(output)
    typer.echo(f"{output}: {said}")


def _calibrated(ensemble: Potential, source: str) -> tuple[Potential, str]:
    """The ensemble with error bars of the size of its errors on labelled frames, and what to say of it."""
    from remul_md.analysis.calibration import calibration, force_errors_of, std_scale
    from remul_md.datasets import read_frames
    from remul_md.potentials.ensemble import with_std_scale

    frames = read_frames(source)
    head = ensemble.resolve_forces("auto")
    errors, stds = force_errors_of(ensemble, frames, head=head)
    assert stds is not None
    scale = std_scale(errors, stds)
    before = calibration(errors, stds)
    record = {"name": frames.name, "n_frames": len(frames), "content_sha256": frames.content_hash(), "head": head}
    told = f"; error bars times {scale:.2f}: {before.within_2_std:.0f} % of {errors.size:,} errors lay within two"
    return with_std_scale(ensemble, scale, record=record), told


@flags_of(Sampling, [option.name for option in fields(Sampling)])
def _distill(
    context: typer.Context,
    potential: Annotated[str, typer.Argument(help="With conservative forces: a *.pt file, or a shipped name.")],
    run_dir: Annotated[Path, typer.Option(help="Folder of dynamics, labels and training; may lie anywhere.")],
    output: Annotated[Path | None, typer.Option(help="Copy RUN_DIR/potential.pt, both heads, to this *.pt.")] = None,
    initial_structures: Annotated[
        str | None,
        typer.Option(help="Start the runs from frames of this data file or name; else all from one training frame."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="train.KEY=VALUE, such as train.n_steps=9000.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run (or begin one).")] = False,
    overwrite: OverwriteOption = False,
    **given: Any,
) -> None:
    """Add fast direct forces to a potential, taught by its conservative ones, which do not change."""
    from remul_md.datasets import read_frames
    from remul_md.files import replace_atomically
    from remul_md.potentials.potential import find_potential
    from remul_md.training.distill import distill_direct_head, head_config
    from remul_md.training.run_folder import POTENTIAL

    if output is not None and (output.suffix != ".pt" or not output.parent.is_dir()):
        raise InputError(f"{output}: the copy of the potential must end in .pt, and its folder must be there")
    written = run_dir / POTENTIAL
    if output is not None:
        if output.resolve().parent == run_dir.resolve() and output.name != POTENTIAL:
            raise InputError(
                f"{output}: lies in the folder of the run, whose files have names of their own; choose another"
            )
        check_no_input([output], [find_potential(potential), initial_structures])
        copied = written.is_file() and output.is_file() and written.read_bytes() == output.read_bytes()
        check_existing([output] if output.exists() and not copied else [], resume=None, overwrite=overwrite)
    config = head_config(set_ or [])
    sampling = options_of(Sampling, "sampling", given=given)
    # The calculator comes from above, as for the studies.
    made = distill_direct_head(
        potential,
        run_dir=run_dir,
        calculator=context.obj,
        sampling=sampling,
        initial_structures=None if initial_structures is None else read_frames(initial_structures, with_labels=False),
        config=config,
        resume=resume,
        overwrite=overwrite,
    )
    if output is not None:
        try:
            replace_atomically(output, written.read_bytes())
        except OSError as error:
            raise InputError(f"{output}: cannot be written ({error}); {written} holds the result") from error
        written = output
    for line in made.broken:
        typer.echo(f"note: {line}")
    typer.echo(
        f"{written}: direct forces taught on {made.n_frames} geometries; on {made.accuracy.n_frames} of "
        f"{made.n_held_out} held-out ones they differ from the conservative ones by"
    )
    for name, value in made.accuracy.rows():
        if name.startswith(("force MAE,", "rotational")):
            typer.echo(f"  {name:26}  {value}")
    typer.echo(f"against reference data: {command_line('evaluate', written, 'DATA', '--forces', 'direct')}")


def training_line(made: Provenance, *, direct: bool = False) -> str:
    """What `remul-md train` says in the end: the error on the validation frames, and what it took."""
    run, before = made.run_of("direct" if direct else "conservative"), made.pretraining_seconds / 60
    metrics = run["metrics"]
    return (
        f"validation force MAE {metrics['validation_force_mae_meV_per_A']:.1f} meV/A in rotated orientations "
        f"(step {metrics['best_step']} of {metrics['last_step']}, {run['seconds'] / 60:.1f} min"
        f"{f'; pretrained on {made.pretraining}, {before:.1f} min' if made.pretraining else ''})"
    )


def zoo_lines(rows: Sequence[ShippedPotential]) -> list[str]:
    """The table of `remul-md potentials`, a line for each potential below two of headings."""
    cells: list[tuple[str, ...]] = [
        *zip(
            *(
                ("name", ""), ("molecule", ""), ("heads", ""), ("force MAE", "meV/A"), ("rotated", "meV/A"),
                ("rot. spread", "meV/A"), ("trained", "min"), ("latency", "ms"), ("direct MAE", "meV/A"),
                ("latency", "ms"), ("size", "MB"), ("tested on", ""),
            ),
            strict=True,
        ),
    ]  # fmt: skip
    for row in rows:
        figures = (row.force_mae_original, row.force_mae_rotated, row.rotational_spread)
        heads = row.heads if row.n_members == 1 else f"{row.heads} x {row.n_members}"
        cells.append(
            (
                row.name,
                row.molecule,
                heads,
                *(_number(value, digits=2) for value in figures),
                f"{row.training_minutes:.1f}",
                _number(row.latency_ms, digits=1),
                _number(row.force_mae_direct, digits=2),
                _number(row.latency_direct_ms, digits=1),
                f"{row.megabytes:.1f}",
                row.tested_on or "-",
            )
        )
    if any(row.field_V_per_A for row in rows):
        fields = [" ".join(f"{component:g}" for component in row.field_V_per_A or ()) or "-" for row in rows]
        for told in (["rotated by", "", *(row.group for row in rows)], ["in a field", "V/A", *fields]):
            cells = [(*line, text) for line, text in zip(cells, told, strict=True)]
    if any(row.pretraining for row in rows):  # most packages hold none
        told = ["pretrained on", "", *(row.pretraining or "-" for row in rows)]
        cells = [(*line, text) for line, text in zip(cells, told, strict=True)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _number(value: float | None, *, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
