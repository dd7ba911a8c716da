"""The commands `remul-md vibrations`, `compare`, `spectrum` and `timestep-scan`; heavy imports wait until needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remul_md.cli.config_flags import file_flags
from remul_md.cli.options import IgnoreCellOption, JsonOption, ThreadsOption
from remul_md.cli.printing import verdict_line, write_figures
from remul_md.errors import InputError
from remul_md.outputs import check_reports

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ase import Atoms

    from remul_md.analysis.verdicts import Verdict

TargetArgument = Annotated[
    str, typer.Argument(metavar="POTENTIAL|MODULE:FACTORY", help="A potential, or what makes an ASE calculator.")
]
StructureHelp = "A file, a packaged molecule such as ethanol, or rmd17/ethanol/test-01:17."
ForcesOption = Annotated[str | None, typer.Option(help="Of a potential: auto, conservative or direct.")]
DeviceOption = Annotated[str | None, typer.Option(help="Of a potential: auto, cpu, cuda or cuda:N.")]


def vibrations(
    potential: TargetArgument,
    structure: Annotated[str, typer.Argument(help=StructureHelp)],
    json_file: JsonOption = None,
    fmax: Annotated[float, typer.Option(help="Relax until no force is larger, eV/Angstrom.")] = 1e-4,
    max_steps: Annotated[int, typer.Option(help="Of the relaxation; 0 takes the geometry as it is.")] = 500,
    forces: ForcesOption = None,
    device: DeviceOption = None,
    ignore_cell: IgnoreCellOption = False,
    n_threads: ThreadsOption = 1,
) -> None:
    """Relax a molecule and compute its vibrations in 1/cm; rotations and translations near zero are a check."""
    from remul_md.analysis.vibrations import vibrations as compute

    check_reports(json_file, inputs=(potential, structure))
    options = {"forces": forces, "device": device}
    atoms = _structure_with(potential, structure, options=options, n_threads=n_threads, ignore_cell=ignore_cell)
    found = compute(atoms, fmax_eV_per_A=fmax, max_steps=max_steps)
    typer.echo(
        f"\n{potential} on {structure}: {found.atoms.get_chemical_formula()}, energy {found.energy:.4f} eV, "
        f"{'relaxed' if found.relaxed else 'NOT relaxed'} in {found.n_steps} steps "
        f"(largest force {found.max_force:.2g} eV/Angstrom)"
    )
    modes = found.modes
    for name, values in (
        ("translations, 1/cm:", modes.translations_per_cm),
        ("rotations, 1/cm:", modes.rotations_per_cm),
        ("vibrations, 1/cm:", modes.vibrations_per_cm),
    ):
        typer.echo(f"  {name:20} {' '.join(f'{value:.1f}' for value in values)}")
    typer.echo(f"  zero-point energy    {modes.zero_point_energy:.4f} eV (harmonic)")
    _print_verdicts(found.verdicts)
    write_figures(json_file, {"potential": potential, "structure": structure, **found.to_json()})


@file_flags
def _compare(
    trajectory: Annotated[str, typer.Argument(help="run.traj, run.h5md, or a data set.")],
    other: Annotated[str, typer.Argument(metavar="OTHER|DATA", help="Another one, or rmd17/ethanol/test-01.")],
    json_file: JsonOption = None,
    ignore_cell: IgnoreCellOption = False,
    picture: Annotated[Path | None, typer.Option(help="Write one PNG picture.")] = None,
    **given: str | None,
) -> None:
    """Are the structures of a run those of a data set or another run? Pair distances, bonds, angles, dihedrals.

    Both have to be at one temperature.
    """
    from remul_md.analysis.comparison import compare_files, write_comparison_png
    from remul_md.datasets.file_options import FileOptions

    check_reports(json_file, picture=picture, inputs=(trajectory, other))
    found = compare_files(trajectory, other, options=FileOptions(**given), ignore_cell=ignore_cell)
    typer.echo(f"\n{trajectory}: {found.n_frames[0]} frames, {other}: {found.n_frames[1]} frames")
    width = max(len(gap.name) for gap in found.gaps)
    typer.echo(f"  {'':{width}}  gap (0 to 2)  of that sampling  difference of means")
    for gap in found.gaps:
        mean = "" if gap.mean_difference is None else f"{gap.mean_difference:+.4f} {gap.unit}"
        typer.echo(f"  {gap.name:{width}}  {gap.gap:12.3f}  {gap.sampling:16.3f}  {mean}")
    _print_verdicts([found.verdict])
    for note in found.notes:
        typer.echo(f"note: {note}")
    write_figures(json_file, {"trajectory": trajectory, "reference": other, **found.to_json()})
    if picture is not None:
        write_comparison_png(found, picture, labels=(trajectory, other))
        typer.echo(f"wrote {picture}")


compare = _compare


def spectrum(
    trajectory: Annotated[Path, typer.Argument(help="run.traj, run.h5md, or an extxyz file, with momenta.")],
    json_file: JsonOption = None,
    picture: Annotated[Path | None, typer.Option(help="Write one PNG picture.")] = None,
    frame_interval_fs: Annotated[
        float | None, typer.Option(help="Time between two frames; wins over that of the file.")
    ] = None,
    ignore_cell: IgnoreCellOption = False,
    resolution_per_cm: Annotated[float, typer.Option(help="Width of a sharp line, 1/cm.")] = 10.0,
) -> None:
    """Which frequencies the atoms of a run move at: the vibrational density of states."""
    from remul_md.analysis.spectrum import strongest_lines, trajectory_spectrum, write_spectrum_png
    from remul_md.dynamics.read import open_trajectory

    check_reports(json_file, picture=picture, inputs=(trajectory,))
    frames = open_trajectory(trajectory, frame_interval_fs=frame_interval_fs, ignore_cell=ignore_cell)
    found = trajectory_spectrum(frames, resolution_per_cm=resolution_per_cm)
    typer.echo(
        f"\n{trajectory}: {found.integral:.2f} degrees of freedom, {found.n_segments} pieces averaged, "
        f"lines {found.resolution_per_cm:.1f} 1/cm wide"
    )
    lines = " ".join(f"{line:.0f}" for line in strongest_lines(found))
    typer.echo(f"  strongest lines, 1/cm: {lines}")
    if found.warning:
        typer.echo(f"note: {found.warning}")
    write_figures(json_file, {"trajectory": str(trajectory), **found.to_json()})
    if picture is not None:
        write_spectrum_png(found, picture, title=trajectory.name)
        typer.echo(f"wrote {picture}")


def timestep_scan(
    potential: TargetArgument,
    structure: Annotated[str, typer.Option(help=StructureHelp)],
    timesteps_fs: Annotated[str, typer.Option(help="Femtoseconds, separated by commas.")] = "0.125,0.25,0.5,1",
    length_ps: Annotated[float, typer.Option(help="Picoseconds of each run.")] = 0.5,
    temperature: Annotated[float, typer.Option("--temperature-K", help="Kelvin.")] = 300.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the first velocities.")] = 0,
    json_file: JsonOption = None,
    forces: ForcesOption = None,
    device: DeviceOption = None,
    ignore_cell: IgnoreCellOption = False,
    n_threads: ThreadsOption = 1,
) -> None:
    """How the energy error grows with the time step: to the power 2 if forces and energies belong together."""
    from remul_md.analysis.timestep import timestep_scan as scan

    try:
        steps = [float(step) for step in timesteps_fs.split(",")]
    except ValueError as error:
        raise InputError(f"--timesteps-fs {timesteps_fs!r} is no list of numbers; give them as 0.25,0.5,1") from error
    check_reports(json_file, inputs=(potential, structure))
    options = {"forces": forces, "device": device}
    atoms = _structure_with(potential, structure, options=options, n_threads=n_threads, ignore_cell=ignore_cell)
    found = scan(atoms, timesteps_fs=steps, length_ps=length_ps, temperature_K=temperature, seed=seed, progress=True)
    typer.echo(f"\n{potential} on {structure}: NVE runs of {length_ps:g} ps from {temperature:g} K")
    for run in found.runs:
        value = "blew up" if run.fluctuation_meV_per_atom is None else f"{run.fluctuation_meV_per_atom:.3g} meV/atom"
        typer.echo(f"  {run.timestep_fs:8g} fs  {value}")
    _print_verdicts([found.verdict])
    write_figures(
        json_file, {"potential": potential, "structure": structure, "length_ps": length_ps, **found.to_json()}
    )


def _structure_with(
    target: str, structure: str, *, options: dict[str, str | None], n_threads: int, ignore_cell: bool
) -> Atoms:
    """The structure with its calculator; a potential in double precision, which small differences need."""
    import torch

    from remul_md.cli.audit import calculator_of
    from remul_md.datasets.structure_source import read_structure
    from remul_md.labels.sources import names_calculator

    torch.set_num_threads(n_threads)
    chosen = {key: value for key, value in options.items() if value is not None}
    if not names_calculator(target):  # which knows its own precision
        chosen["dtype"] = "float64"
    calculator = calculator_of(target, options=chosen, n_threads=n_threads)
    atoms = read_structure(structure, ignore_cell=ignore_cell)
    atoms.calc = calculator
    return atoms


def _print_verdicts(verdicts: Iterable[Verdict]) -> None:
    for verdict in verdicts:
        typer.echo(f"  {verdict.name}: {verdict_line(verdict)}")
