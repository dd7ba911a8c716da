"""The command `remul-md audit`; heavy imports wait until they are needed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from remul_md._version import __version__
from remul_md.cli.options import AxisOption, IgnoreCellOption, JsonOption, SymmetryOption, ThreadsOption, chosen_axis
from remul_md.cli.printing import verdict_line, write_figures
from remul_md.errors import InputError
from remul_md.labels.sources import label_source, names_calculator
from remul_md.outputs import check_reports


def audit(
    target: Annotated[
        str, typer.Argument(metavar="POTENTIAL|MODULE:FACTORY", help="A potential, or what makes an ASE calculator.")
    ],
    structure: Annotated[str, typer.Option(help="A file, a packaged molecule, or rmd17/ethanol/test-01:17.")],
    report: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page.")] = None,
    json_file: JsonOption = None,
    only: Annotated[list[str] | None, typer.Option(help="Make this check only; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    forces: Annotated[str | None, typer.Option(help="Of a potential: auto, conservative or direct.")] = None,
    symmetry: SymmetryOption = None,
    axis: AxisOption = None,
    device: Annotated[str | None, typer.Option(help="Of a potential: auto, cpu, cuda or cuda:N.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of a potential: float32 or float64.")] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Of a potential: compile the forces, minutes once, then much faster.")
    ] = False,
    reference: Annotated[
        str | None,
        typer.Option(metavar="POTENTIAL|xtb|pbe|MODULE:FACTORY", help="Pull bonds with it, too; tell the difference."),
    ] = None,
    ignore_cell: IgnoreCellOption = False,
    n_threads: ThreadsOption = 1,
) -> None:
    """Is a calculator fit for dynamics? Twelve checks of any ASE calculator; exit code 1 unless all pass.

    MODULE:FACTORY is called without arguments, as in ase.calculators.emt:EMT or mymodel:make for ./mymodel.py.
    """
    import torch

    from remul_md.analysis.audit import run_audit
    from remul_md.datasets.structure_source import read_structure

    check_reports(report, json_file, inputs=(target, structure))
    asked = {"forces": forces, "symmetry": symmetry, "device": device, "dtype": dtype}
    options: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    if compiled:
        options["compile"] = True
    torch.set_num_threads(n_threads)
    atoms = read_structure(structure, ignore_cell=ignore_cell)
    atoms.calc = calculator_of(target, options=options, n_threads=n_threads)
    known = None if reference is None else calculator_of(reference, options={}, n_threads=n_threads)
    recorded = None if names_calculator(target) else atoms.calc.potential.provenance.axis
    about = chosen_axis(axis, recorded)
    result = run_audit(atoms, only=only, seed=seed, axis=about, reference=known, progress=True)
    typer.echo(f"\n{target} on {structure}: {result.formula}, {result.n_calls} calculations in {result.wall_s:.0f} s")
    for check in result.checks:
        typer.echo(f"  {check.name:13}  {verdict_line(check)}")
    for stretch in result.stretches:
        bumps = (("energy", stretch.spurious_energy_extrema), ("force", stretch.spurious_force_extrema))
        told = "; ".join(f"{len(at)} of the {of}" + "".join(f" at {r:.2f} Å" for r in at[:1]) for of, at in bumps)
        failures = f"; {stretch.n_failed} points failed" if stretch.n_failed else ""
        typer.echo(
            f"  {stretch.label} pulled from {stretch.lengths[0]:.2f} to {stretch.lengths[-1]:.2f} Å: force "
            f"{stretch.force_rms:.3g} eV/Å (RMS) from {reference}; extrema it has not: {told}{failures}"
        )
    typer.echo("all checks passed" if result.passed else "NOT all checks passed")
    if report is not None:
        from remul_md.analysis.audit.report import write_audit_report

        command = shlex.join(["remul-md", *sys.argv[1:]])
        provenance = {"audited": target, "structure": structure, "command": command, "version": __version__}
        write_audit_report(result, report, provenance=provenance)
        typer.echo(f"wrote {report}")
    write_figures(json_file, result.to_json())
    if not result.passed:
        raise typer.Exit(1)


def calculator_of(target: str, *, options: dict[str, Any], n_threads: int) -> Any:
    """An ASE calculator: xtb, pbe or what MODULE:FACTORY makes, else the potential of that file or shipped name.

    Args:
        target: a file first; see `label_source`.
        options: of `RemulCalculator`; others take none.
        n_threads: likewise; others take what torch is set to.
    Raises:
        InputError: no such module, factory or potential; a factory that fails, or makes no calculator.
    """
    if not names_calculator(target):
        from remul_md.calculators import RemulCalculator

        return RemulCalculator(target, n_threads=n_threads, **options)
    if options:
        raise InputError(
            f"--{next(iter(options))} is an option of potentials; {target} takes none: write a factory of your own"
        )
    return label_source(target).make()
