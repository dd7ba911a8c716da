"""The command that labels geometries, by a potential or a method; heavy imports wait until they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remul_md.cli.config_flags import file_flags
from remul_md.cli.options import DeviceOption, IgnoreCellOption, OverwriteOption, ThreadsOption
from remul_md.errors import InputError
from remul_md.files import changed_values, owned
from remul_md.outputs import check_existing, check_no_input

if TYPE_CHECKING:
    from remul_md.datasets.file_options import FileOptions
    from remul_md.labels.sources import LabelSource
    from remul_md.potentials.potential import ForcesChoice, Potential
    from remul_md.structures.frames import Frames


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
    differences: Annotated[
        bool,
        typer.Option(
            "--differences",
            help="With --stretched-bonds: add what a cheap method says that it changes to the labels of FRAMES; those "
            "near the frames are left out.",
        ),
    ] = False,
    near: Annotated[bool, typer.Option("--near", help="With --differences: keep those near the frames, too.")] = False,
    n_threads: ThreadsOption = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Of methods: processes that label side by side.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it was stopped (or begin).")] = False,
    overwrite: OverwriteOption = False,
    **given: str | None,
) -> None:
    """Label geometries; `remul-md train --set data.source=OUTPUT` then trains a potential on them.

    Labels of a method are kept as they come: with --resume the same command goes on where it was stopped. A geometry
    that the method cannot do is left out and listed. Labels in FRAMES are used by --differences alone.
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
    elif spin is not None or field is not None or jobs > 1 or differences:
        of_methods = {"--spin": spin is not None, "--field-V-per-A": field is not None, "--jobs": jobs > 1}
        wrong = next((name for name, is_given in of_methods.items() if is_given), "--differences")
        raise InputError(f"{wrong} is an option of methods, {potential} is a potential; leave it out")
    partial = output.with_name(f"{output.name}.part")
    if n_orientations is not None and random_orientations is None:
        raise InputError(f"--n-orientations {n_orientations} needs --random-orientations SEED, which draws them")
    if differences and (stretched_bonds is None or random_orientations is not None):
        raise InputError("--differences goes with --stretched-bonds SEED, and without --random-orientations")
    if near and not differences:
        raise InputError("--near goes with --differences, which leaves those near the frames out")
    further = {"random_orientations": random_orientations, "n_orientations": n_orientations}
    further["stretched_bonds"] = stretched_bonds
    chosen: dict[str, Any] = {"every": every} | {name: value for name, value in further.items() if value is not None}
    check_no_input([output, partial], [potential, frames])
    with owned(output, also=[partial]):
        check_existing([path for path in (output, partial) if path.exists()], resume=resume, overwrite=overwrite)
        if overwrite:
            partial.unlink(missing_ok=True)
        if names_calculator(potential):
            source = label_source(potential, spin=spin, field_V_per_A=field)
            read, starts, labelled = _geometries(
                frames, options, ignore_cell=ignore_cell, differences=differences, **chosen
            )
            said = _label_by_method(
                source,
                read,
                output,
                starts=starts if differences else None,
                far_from=labelled if differences and not near else None,
                partial=partial,
                chosen=chosen,
                jobs=jobs,
                resume=resume,
            )
        else:
            teacher = load_potential(potential, device=resolve_device(device), dtype=dtype)  # type: ignore[arg-type]
            made = teacher.provenance
            trained_on = str(made.data.get("name", ""))
            options = recorded_options(frames, options, record=made.file_options, trained_on=trained_on)
            said = _label_by_potential(
                teacher,
                _geometries(frames, options, ignore_cell=ignore_cell, **chosen)[0],
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
    differences: bool = False,
    random_orientations: int | None = None,
    n_orientations: int | None = None,
    stretched_bonds: int | None = None,
) -> tuple[Frames, Frames, Frames]:
    """The geometries to label, of each the frame that it was made from, and all frames."""
    import numpy as np

    from remul_md.datasets import read_frames
    from remul_md.labels import stretched
    from remul_md.labels.field import in_random_orientations

    read = read_frames(
        source,
        **asdict(options),
        with_labels=differences or options.about_labels,
        require=("energy", "forces") if differences else (),
    )
    read = read.isolated() if ignore_cell else read
    read = read.select(np.arange(0, len(read), every))
    starts = every_frame = read
    if stretched_bonds is not None:
        read, numbers = stretched.stretched_bonds(read, seed=stretched_bonds)
        starts = starts.select(numbers)
    if random_orientations is not None:
        read = in_random_orientations(read, seed=random_orientations, n_orientations=n_orientations)
    return read, starts, every_frame


def _label_by_method(
    source: LabelSource,
    frames: Frames,
    output: Path,
    *,
    starts: Frames | None,
    far_from: Frames | None,
    partial: Path,
    chosen: Mapping[str, int],
    jobs: int,
    resume: bool,
) -> str:
    """Write labels of a method, or differences added to labels; or see that they are there. Says what was done.

    Args:
        starts: for differences, of each geometry the labelled frame that it was made from.
        far_from: for differences, frames near which geometries are left out.
    """
    from remul_md.datasets.writers import write_frames, written_provenance
    from remul_md.labels.calculated import calculate_labels, calculation_record
    from remul_md.labels.differences import difference_labels, difference_record, far_labels

    refused: Mapping[int, str] = {}
    n_near = 0
    record = calculation_record(frames, source) if starts is None else difference_record(frames, starts, source)
    further: dict[str, Any] = {**chosen, **({} if starts is None else {"near_kept": far_from is None})}
    if not _are_there(output, {**record, **further}, resume=resume):
        if starts is None:
            made = calculate_labels(frames, source, partial=partial, jobs=jobs, progress=True)
        else:
            made = difference_labels(frames, starts, source, partial=partial, jobs=jobs, progress=True)
        if far_from is not None:
            made = far_labels(made, far_from)
        write_frames(made.frames, output, provenance={**made.provenance, **further}, per_frame=made.figures)
        refused, n_near = made.refused, made.provenance.get("near_left_out", 0)
    elif far_from is not None:
        n_near = written_provenance(output)["near_left_out"]
    partial.unlink(missing_ok=True)
    # Geometries that were made have numbers of their own.
    what, step = ("geometry", 1) if "stretched_bonds" in chosen else ("frame", chosen["every"])
    notes = [f"\nnote: {what} {index * step} of {frames.name} has no label: {why}" for index, why in refused.items()]
    left_out = f", {n_near} near the frames left out" if n_near else ""
    return f"{len(frames) - len(refused) - n_near} frames labelled by {source.name}{left_out}" + "".join(notes)


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
