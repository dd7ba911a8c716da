"""The commands that make potentials and labels out of potentials; heavy imports wait until they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remul_md.cli.config_flags import file_flags, flags_of, options_of
from remul_md.cli.options import DeviceOption, IgnoreCellOption, OverwriteOption, ThreadsOption
from remul_md.cli.printing import command_line
from remul_md.errors import InputError
from remul_md.files import changed_values, owned
from remul_md.labels.sampling_options import Sampling
from remul_md.outputs import check_existing, check_no_input

if TYPE_CHECKING:
    from remul_md.datasets.file_options import FileOptions
    from remul_md.labels.sources import LabelSource
    from remul_md.potentials.potential import ForcesChoice, Potential
    from remul_md.potentials.provenance import Provenance
    from remul_md.potentials.zoo import ShippedPotential
    from remul_md.structures.frames import Frames


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


@file_flags
def _label(
    potential: Annotated[
        str,
        typer.Argument(
            metavar="POTENTIAL|pbe|xtb|MODULE:FACTORY",
            help="The teacher: a *.pt file, a shipped name, a method, or what makes an ASE calculator.",
        ),
    ],
    frames: Annotated[str, typer.Argument(help="Geometries: a trajectory (.traj), any data file, or a name.")],
    output: Annotated[Path, typer.Argument(help="Training data: .extxyz, .xyz or .npz.")],
    max_std: Annotated[
        float | None, typer.Option(help="Of an ensemble: leave out frames with an atom less certain, meV/A.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every n-th frame; those of a trajectory are alike.")] = 1,
    forces: Annotated[str, typer.Option(help="auto, conservative or direct.")] = "auto",
    ignore_cell: IgnoreCellOption = False,
    device: DeviceOption = "auto",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    spin: Annotated[
        int | None,
        typer.Option(help="Of pbe: unpaired electrons, unrestricted; 0: a singlet whose electrons may part."),
    ] = None,
    field: Annotated[
        tuple[float, float, float] | None,
        typer.Option("--field-V-per-A", metavar="X Y Z", help="Of pbe and xtb: a uniform electric field."),
    ] = None,
    random_orientations: Annotated[
        int | None,
        typer.Option(metavar="SEED", min=0, help="Rotate each geometry at random first: in a field all occur."),
    ] = None,
    n_orientations: Annotated[
        int | None,
        typer.Option(metavar="K", min=1, help="With --random-orientations: all frames in these K orientations only."),
    ] = None,
    stretched_bonds: Annotated[
        int | None,
        typer.Option(metavar="SEED", min=0, help="Label the molecule with each kind of bond squeezed and stretched."),
    ] = None,
    n_threads: ThreadsOption = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Of methods: processes that label side by side.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it was stopped (or begin).")] = False,
    overwrite: OverwriteOption = False,
    **given: str | None,
) -> None:
    """Label geometries; `remul-md train --set data.source=OUTPUT` then trains a potential on them.

    Labels of a method are kept as they come: with --resume the same command goes on where it was stopped. A geometry
    that the method cannot do is left out and listed. Labels in FRAMES are not used.
    """
    import torch

    from remul_md.datasets.file_options import FileOptions
    from remul_md.datasets.read import recorded_options
    from remul_md.datasets.writers import check_written_format
    from remul_md.labels.sources import label_source, names_calculator
    from remul_md.potentials.potential import load_potential, resolve_device

    check_written_format(output)
    options = FileOptions(**given)
    torch.set_num_threads(n_threads)
    if names_calculator(potential):
        others = {"--max-std": max_std is not None, "--forces": forces != "auto", "--dtype": dtype != "float32"}
        if any(others.values()):
            wrong = next(name for name, is_given in others.items() if is_given)
            raise InputError(f"{wrong} is an option of potentials, {potential} takes none; leave it out")
    elif spin is not None or field is not None or jobs > 1:
        wrong = "--spin" if spin is not None else "--field-V-per-A" if field is not None else "--jobs"
        raise InputError(f"{wrong} is an option of methods, {potential} is a potential; leave it out")
    partial = output.with_name(f"{output.name}.part")
    if n_orientations is not None and random_orientations is None:
        raise InputError(f"--n-orientations {n_orientations} needs --random-orientations SEED, which draws them")
    further = {"random_orientations": random_orientations, "n_orientations": n_orientations}
    further["stretched_bonds"] = stretched_bonds
    chosen = {"every": every} | {name: value for name, value in further.items() if value is not None}
    check_no_input([output, partial], [potential, frames])
    with owned(output, also=[partial]):
        check_existing([path for path in (output, partial) if path.exists()], resume=resume, overwrite=overwrite)
        if overwrite:
            partial.unlink(missing_ok=True)
        if names_calculator(potential):
            source = label_source(potential, spin=spin, field_V_per_A=field)
            read = _geometries(frames, options, ignore_cell=ignore_cell, **chosen)
            said = _label_by_method(source, read, output, partial=partial, chosen=chosen, jobs=jobs, resume=resume)
        else:
            teacher = load_potential(potential, device=resolve_device(device), dtype=dtype)  # type: ignore[arg-type]
            made = teacher.provenance
            trained_on = str(made.data.get("name", ""))
            options = recorded_options(frames, options, record=made.file_options, trained_on=trained_on)
            said = _label_by_potential(
                teacher,
                _geometries(frames, options, ignore_cell=ignore_cell, **chosen),
                output,
                provenance={"potential": Path(potential).name, **chosen},
                forces=forces,  # type: ignore[arg-type]
                max_std=max_std,
                resume=resume,
            )
    typer.echo(f"{output}: {said}")


def _geometries(
    source: str,
    options: FileOptions,
    *,
    ignore_cell: bool,
    every: int,
    random_orientations: int | None = None,
    n_orientations: int | None = None,
    stretched_bonds: int | None = None,
) -> Frames:
    import numpy as np

    from remul_md.datasets import read_frames
    from remul_md.labels import stretched
    from remul_md.labels.field import in_random_orientations

    read = read_frames(source, **asdict(options), with_labels=options.about_labels)
    read = read.isolated() if ignore_cell else read
    read = read.select(np.arange(0, len(read), every))
    if stretched_bonds is not None:
        read = stretched.stretched_bonds(read, seed=stretched_bonds)
    if random_orientations is None:
        return read
    return in_random_orientations(read, seed=random_orientations, n_orientations=n_orientations)


def _label_by_method(
    source: LabelSource,
    frames: Frames,
    output: Path,
    *,
    partial: Path,
    chosen: Mapping[str, int],
    jobs: int,
    resume: bool,
) -> str:
    """Write labels of a method, or see that they are there; says what was done."""
    from remul_md.datasets.writers import write_frames
    from remul_md.labels.calculated import calculate_labels, calculation_record

    refused: Mapping[int, str] = {}
    if not _are_there(output, {**calculation_record(frames, source), **chosen}, resume=resume):
        made = calculate_labels(frames, source, partial=partial, jobs=jobs, progress=True)
        write_frames(made.frames, output, provenance={**made.provenance, **chosen}, per_frame=made.figures)
        refused = made.refused
    partial.unlink(missing_ok=True)
    notes = [
        f"\nnote: frame {index * chosen['every']} of {frames.name} has no label: {why}"
        for index, why in refused.items()
    ]
    return f"{len(frames) - len(refused)} frames labelled by {source.name}" + "".join(notes)


def _label_by_potential(
    teacher: Potential,
    frames: Frames,
    output: Path,
    *,
    provenance: Mapping[str, Any],
    forces: ForcesChoice,
    max_std: float | None,
    resume: bool,
) -> str:
    """Write labels of a potential, or see that they are there; says what was done."""
    from remul_md.datasets.writers import write_frames
    from remul_md.labels.label import label_frames, label_record

    record = label_record(teacher, frames, forces=forces, max_std_meV_per_A=max_std)
    if _are_there(output, {**record, **provenance}, resume=resume):
        return "holds these labels already"
    labelled = label_frames(teacher, frames, forces=forces, max_std_meV_per_A=max_std, progress=True)
    further = {} if labelled.forces_std is None else {"forces_std_eV_per_A": labelled.forces_std}
    write_frames(labelled.frames, output, provenance={**labelled.provenance, **provenance}, per_frame=further)
    left_out = "" if max_std is None else f", {labelled.n_left_out} left out as too uncertain"
    return f"{len(labelled.frames)} frames{left_out}"


def _are_there(output: Path, wanted: Mapping[str, Any], *, resume: bool) -> bool:
    """Whether a resumed command has nothing to do: its labels are written.

    Raises:
        InputError: the file holds other labels.
    """
    from remul_md.datasets.writers import written_provenance

    if not (resume and output.exists()):
        return False
    if changed := changed_values(written_provenance(output), wanted):
        raise InputError(
            f"{output}: holds other labels: {'; '.join(changed)}; replace it (--overwrite) or name another"
        )
    return True


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
