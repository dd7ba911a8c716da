"""The command `remul-md compare`: structures of runs and data sets, and a page of runs or potentials side by side."""

from __future__ import annotations

import re
import shlex
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remul_md._version import __version__
from remul_md.cli.config_flags import file_flags
from remul_md.cli.options import IgnoreCellOption, JsonOption, ThreadsOption
from remul_md.cli.printing import print_verdicts, write_figures
from remul_md.errors import InputError
from remul_md.outputs import check_reports

if TYPE_CHECKING:
    from ase import Atoms

    from remul_md.analysis.comparison import Comparison
    from remul_md.analysis.report import Subject

MODES = {"exact": {"symmetry": "exact"}, "direct": {"forces": "direct"}, "conservative": {"forces": "conservative"}}
N_CALLS = 9  # timed, of which the median counts


@dataclass(frozen=True, kw_only=True)
class Target:
    """What one word of the command names.

    Args:
        name: the word.
        base: potential or calculator without its mode; empty for a file of frames or a data set.
        options: of the calculator, by the mode behind the @.
    """

    name: str
    base: str
    options: dict[str, str]

    @classmethod
    def of(cls, word: str) -> Target:
        """Read `ethanol@exact`: a file wins over everything, and what is no potential is taken for frames.

        Raises:
            InputError: a mode that there is not.
        """
        from remul_md.labels.sources import names_calculator
        from remul_md.potentials.potential import shipped_potentials

        base, _, mode = word.rpartition("@") if "@" in word and not Path(word).exists() else (word, "", "")
        if Path(base).suffix != ".pt" and base not in shipped_potentials() and not names_calculator(base):
            return cls(name=word, base="", options={})
        unknown = [part for part in mode.split(",") if mode and part not in MODES]
        if unknown:
            raise InputError(f"{word}: {unknown[0]!r} is no mode; behind the @ stand {', '.join(MODES)}")
        options: dict[str, str] = {}
        for part in filter(None, mode.split(",")):
            options |= MODES[part]
        return cls(name=word, base=base, options=options)


@file_flags
def _compare(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C ...]",
            help="Runs (run.traj, run.h5md) or data sets; with --report also potentials: ethanol, ethanol@exact, "
            "ethanol@direct, RUN/potential.pt, or an ASE calculator as MODULE:FACTORY. The last is what the others "
            "are held against.",
        ),
    ],
    json_file: JsonOption = None,
    ignore_cell: IgnoreCellOption = False,
    picture: Annotated[Path | None, typer.Option(help="Of two: write one PNG picture.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write runs side by side as one HTML page.")] = None,
    structure: Annotated[
        str | None, typer.Option(help="Potentials run from it: a file, or a packaged molecule such as ethanol.")
    ] = None,
    length_ps: Annotated[float, typer.Option(help="NVE of each potential, picoseconds.")] = 1.0,
    equilibrate_ps: Annotated[float, typer.Option(help="Langevin dynamics before it.")] = 0.5,
    temperature: Annotated[float, typer.Option("--temperature-K", help="Of these runs, kelvin.")] = 300.0,
    n_rotation_frames: Annotated[int, typer.Option(min=1, help="Frames of each run rotated at random.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Of velocities, thermostat and rotations.")] = 0,
    n_threads: ThreadsOption = 1,
    **given: str | None,
) -> None:
    """Are the structures of a run those of a data set or another run? With --report: runs or potentials side by side.

    All have to be of one molecule and at one temperature. Potentials are run, NVE from the same structure with the
    same seed; the runs are kept beside the report, and the same command again goes on with them.
    """
    from remul_md.analysis.comparison import compare_files, write_comparison_png
    from remul_md.datasets.file_options import FileOptions

    named = [Target.of(word) for word in targets]
    _check(named, report=report, picture=picture, structure=structure)
    check_reports(report, json_file, picture=picture, inputs=(*targets, structure))
    files: dict[str, str | Path] = {target.name: target.name for target in named}
    calculators: dict[str, Any] = {}
    if any(target.base for target in named):
        import torch

        from remul_md.cli.audit import calculator_of
        from remul_md.datasets.structure_source import read_structure
        from remul_md.dynamics.options import MDOptions

        assert report is not None
        assert structure is not None
        torch.set_num_threads(n_threads)
        options = MDOptions(length_ps=length_ps, equilibrate_ps=equilibrate_ps, temperature_K=temperature, seed=seed)
        atoms = read_structure(structure, ignore_cell=ignore_cell)
        # All of them first: what cannot be loaded must not cost the runs of the others.
        calculators = {
            target.name: calculator_of(target.base, options=target.options, n_threads=n_threads)
            for target in named
            if target.base
        }
        folder = report.with_name(f"{report.stem}-runs")
        for target in named:
            if target.base:
                calculator = calculators[target.name]
                files[target.name] = _run(target, calculator, atoms, options, folder=folder, structure=structure)
    *others, last = files
    found = {
        name: compare_files(files[name], files[last], options=FileOptions(**given), ignore_cell=ignore_cell)
        for name in others
    }
    for name, comparison in found.items():
        _print(name, last, comparison)
    subjects = []
    if report is not None:
        from remul_md.analysis.report import write_side_by_side

        subjects = [
            _subject(name, Path(path), calculators.get(name), n_rotation_frames=n_rotation_frames, seed=seed,
                     ignore_cell=ignore_cell, n_threads=n_threads)
            for name, path in files.items()
            if name in calculators or Path(path).suffix in (".traj", ".h5md", ".h5")
        ]  # fmt: skip
        made = {"command": shlex.join(["remul-md", *sys.argv[1:]]), "version": __version__}
        write_side_by_side(subjects, report, comparisons=found, reference=last, provenance=made)
        typer.echo(f"wrote {report}")
    if json_file is not None:
        from remul_md.analysis.report import side_by_side_data

        write_figures(json_file, side_by_side_data(subjects, found, last))
    if picture is not None:
        write_comparison_png(found[others[0]], picture, labels=(others[0], last))
        typer.echo(f"wrote {picture}")


compare = _compare


def _check(named: list[Target], *, report: Path | None, picture: Path | None, structure: str | None) -> None:
    from remul_md.analysis.report.subject import MAX_RUNS

    words = [target.name for target in named]
    if len(words) < 2:
        raise InputError(f"there is nothing to compare {' '.join(words)} with; name two or more")
    runs = [target.name for target in named if target.base]
    if report is not None and len(words) > MAX_RUNS:
        raise InputError(f"{len(words)} are named, a page holds {MAX_RUNS}; leave some out")
    if runs and report is None:
        raise InputError(f"{runs[0]} is a potential: they are compared on a page, give --report OUT.html")
    if runs and structure is None:
        raise InputError(f"{runs[0]} has to be run: name its molecule (--structure ethanol, or a file)")
    if len(set(words)) < len(words) and (runs or len(words) > 2):
        raise InputError("one of them is named twice; leave it out")
    if picture is not None and len(words) != 2:
        raise InputError(f"--picture draws two, {len(words)} are named; use --report")


def _run(target: Target, calculator: Any, atoms: Atoms, options: Any, *, folder: Path, structure: str) -> Path:
    """Run a potential, or go on with its run; a molecule that fell apart is shown as far as it came."""
    from remul_md.cli.md import taught
    from remul_md.dynamics import SimulationStopped, run_md

    path = folder / f"{re.sub(r'[^A-Za-z0-9.@,-]+', '_', target.name)}.traj"
    facts: dict[str, Any] = {"potential": target.base, "structure": structure, **target.options}
    known = getattr(calculator, "potential", None)
    if known is not None:
        facts |= {"potential_sha256": known.sha256, "forces": calculator.head, **taught(known)}
    started = atoms.copy()
    started.calc = calculator
    typer.echo(f"{target.name}: {options.length_ps:g} ps of NVE in {path}")
    try:
        run_md(started, options, output=path, resume=True, provenance=facts)
    except SimulationStopped as stop:
        typer.echo(f"note: {target.name} stopped: {stop}")
    return path


def _subject(
    name: str, path: Path, calculator: Any, *, n_rotation_frames: int, seed: int, ignore_cell: bool, n_threads: int
) -> Subject:
    """The analysis of a run, with the calculator that made it: the one given, else what its record names."""
    from remul_md.analysis.report import PotentialRecord, Subject
    from remul_md.analysis.spectrum import trajectory_spectrum
    from remul_md.cli.analyze import judged_run, run_calculator, run_record
    from remul_md.dynamics.read import open_trajectory

    facts = run_record(path).get("provenance", {})
    if calculator is None and facts.get("potential"):
        try:
            made = run_calculator(path, facts["potential"], device="auto", n_threads=n_threads)
        except InputError as error:
            typer.echo(f"note: {name}: its forces are not tested: {error}")
        else:
            if made.potential.sha256 == facts.get("potential_sha256"):
                calculator = made
            else:
                typer.echo(f"note: {name}: its forces are not tested: {facts['potential']} is another file now")
    analysis, atoms = judged_run(
        path, calculator, reading={"ignore_cell": ignore_cell}, n_rotation_frames=n_rotation_frames, seed=seed
    )
    try:
        spectrum = trajectory_spectrum(open_trajectory(path, ignore_cell=ignore_cell))
    except InputError as error:
        spectrum = None
        typer.echo(f"note: {name}: no spectrum: {error}")
    known = getattr(calculator, "potential", None)
    return Subject(
        name=name,
        analysis=analysis,
        record=None if known is None else PotentialRecord.of(known, forces=calculator.head),
        spectrum=spectrum,
        call_ms=None if atoms is None else _call_ms(atoms),
        provenance={"trajectory": str(path), **facts},
    )


def _call_ms(atoms: Atoms) -> float:
    """Median CPU time of energy and forces, each time of a geometry that was moved by a hair.

    Not the time on the wall: that of a busy machine says more of its other jobs.
    """
    times = []
    for _ in range(N_CALLS + 2):  # the first calls load libraries and warm up
        atoms.positions += 1e-6
        start = time.process_time()
        atoms.get_forces()
        atoms.get_potential_energy()
        times.append(time.process_time() - start)
    return 1000.0 * statistics.median(times[2:])


def _print(name: str, reference: str, found: Comparison) -> None:
    typer.echo(f"\n{name}: {found.n_frames[0]} frames, {reference}: {found.n_frames[1]} frames")
    width = max(len(gap.name) for gap in found.gaps)
    typer.echo(f"  {'':{width}}  gap (0 to 2)  of that sampling  difference of means")
    for gap in found.gaps:
        mean = "" if gap.mean_difference is None else f"{gap.mean_difference:+.4f} {gap.unit}"
        typer.echo(f"  {gap.name:{width}}  {gap.gap:12.3f}  {gap.sampling:16.3f}  {mean}")
    print_verdicts([found.verdict])
    for note in found.notes:
        typer.echo(f"note: {note}")
