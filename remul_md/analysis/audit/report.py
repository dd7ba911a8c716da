"""The report of an audit: verdicts in plain words, the scans and the run behind them."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from remul_md.analysis.audit.limits import TEMPERATURE_K, REACHABLE_eV
from remul_md.analysis.audit.nve import ShortRun
from remul_md.analysis.audit.run import AuditResult
from remul_md.analysis.audit.smoothness import Scan
from remul_md.analysis.report.banner import SUBSCRIPTS
from remul_md.analysis.report.figures import MAX_POINTS, Figure, Trace, drift_traces
from remul_md.analysis.report.parts import (
    figure_block,
    number_text,
    provenance_section,
    verdict_card,
    write_page,
)

TITLES = {
    "rotation": "Forces turn with the structure",
    "mirror": "Mirror images are alike",
    "translation": "The place does not matter",
    "permutation": "The order of the atoms does not matter",
    "gradient": "Forces are the slope of the energy",
    "closed_loop": "No work round a closed loop",
    "jacobian": "Forces are the slope of some energy",
    "smoothness": "The energy is smooth",
    "net_force": "Nothing pushes the whole",
    "net_torque": "Nothing turns the whole",
    "repeatability": "The same question has the same answer",
    "nve": "A short run keeps its energy",
}
GROUPS = (
    ("Symmetry", ("rotation", "mirror", "net_torque", "translation", "net_force", "permutation")),
    ("Conservation", ("gradient", "closed_loop", "jacobian", "nve")),
    ("Smooth and repeatable", ("smoothness", "repeatability")),
)


def write_audit_report(result: AuditResult, path: str | Path, *, provenance: Mapping[str, Any] | None = None) -> Path:
    """Write the audit as one self-contained HTML file (about 5 MB, nearly all of it the plot script).

    Args:
        result: of `run_audit`.
        path: file to write; its folder is made.
        provenance: what was audited and how (calculator, structure, command), shown at the end as it is.
    Returns:
        The path written.
    Raises:
        InputError: the file cannot be written.
    """
    figures = audit_figures(result)
    title = f"Audit of {result.calculator} on {result.formula.translate(SUBSCRIPTS)}"
    checks = {check.name: check for check in result.checks}
    sections = [_header(result, title)]
    for group, names in GROUPS:
        cards = "".join(verdict_card(checks[name], title=TITLES[name]) for name in names if name in checks)
        if cards:
            sections.append(f'<section><h2>{group}</h2><ul class="verdicts">{cards}</ul></section>')
    sections += [
        "<section><h2>What lies behind</h2>",
        f"<p>Limits count in two scales: the thermal energy at {TEMPERATURE_K:g} K, 25.9 meV, and the RMS force "
        f"component of this structure, {number_text(result.force_scale_meV_per_A)} meV/Å.</p>",
        '<div class="pair">',
        *(figure_block(figure) for figure in figures),
        "</div>",
        "</section>",
        _stretches(result),
        provenance_section(
            {**(provenance or {}), "calculations": f"{result.n_calls:,} in {result.wall_s:.0f} s", "seed": result.seed}
        ),
    ]
    return write_page(path, title=title, sections=sections, figures=figures, data=result.to_json())


def audit_figures(result: AuditResult) -> list[Figure]:
    """The energies of the run and of each scan."""
    run = [] if result.nve is None else [_run_figure(result.nve, result)]
    return [*run, *(_scan_figure(scan, index) for index, scan in enumerate(result.scans))]


def _header(result: AuditResult, title: str) -> str:
    names = {
        outcome: [check.name.replace("_", " ") for check in result.checks if check.outcome == outcome]
        for outcome in ("passed", "failed", "undecided", "not applicable")
    }
    lead = f"{len(names['passed'])} of {len(result.checks) - len(names['not applicable'])} checks passed"
    for outcome in ("failed", "undecided"):
        lead += f"; {outcome}: {', '.join(names[outcome])}" if names[outcome] else ""
    lead += "."
    lead += f" {len(names['not applicable'])} do not apply to this structure." if names["not applicable"] else ""
    verdict = (
        "Fit for dynamics, as far as checked" if result.passed else "Look at what did not pass before you run dynamics"
    )
    return (
        f'<header><div class="kicker">Audit of a calculator</div><h1>{escape(title)}</h1>'
        f'<p class="lead">{escape(verdict)}. {escape(lead)}</p>'
        f'<p class="note">{result.n_atoms} atoms · {result.n_calls:,} calculations</p></header>'
    )


def _stretches(result: AuditResult) -> str:
    if not result.stretches:
        return ""
    rows = "".join(
        f"<tr><th scope='row'>{escape(stretch.label)}</th>"
        f"<td>{stretch.lengths[0]:.2f} to {stretch.lengths[-1]:.2f} Å</td>"
        f"<td>{number_text(stretch.force_rms)} eV/Å</td><td>{_places(stretch.spurious_energy_extrema)}</td>"
        f"<td>{_places(stretch.spurious_force_extrema)}</td></tr>"
        for stretch in result.stretches
    )
    return (
        "<section><h2>Bonds pulled, beside the reference</h2><p>Nothing is judged by it: whether a reference is right "
        "about a broken bond is another question.</p><table><tr><th>bond</th><th>length</th><th>force, RMS deviation"
        "</th><th>extrema of the energy it has not</th><th>of the force</th></tr>" + rows + "</table></section>"
    )


def _places(lengths: tuple[float, ...]) -> str:
    return "none" if not lengths else ", ".join(f"{length:.2f} Å" for length in lengths)


def _run_figure(run: ShortRun, result: AuditResult) -> Figure:
    drift = run.drift
    traces = drift_traces(run.time_ps, run.total_energy_per_atom, drift, at_most=MAX_POINTS // 2)
    n_drawn = len(traces[0].x)
    interval = f"{drift.ci95_meV_per_atom_ps[0]:.2g} to {drift.ci95_meV_per_atom_ps[1]:.2g}"
    return Figure(
        key="audit-run",
        title="Total energy per atom of the short run",
        reading="A flat line means that energy is conserved; the scatter about it comes from the finite time step.",
        description=f"Total energy per atom over {drift.length_ps:.3g} ps of {result.formula}: drift "
        f"{drift.slope_meV_per_atom_ps:.2g} meV per atom and ps (95 % interval {interval}), scatter "
        f"{drift.fluctuation_meV_per_atom:.2g} meV per atom.",
        x_title="time (ps)",
        y_title="energy − start (meV/atom)",
        traces=traces,
        thinned="" if n_drawn == len(run.time_ps) else f"Thinned to {n_drawn:,} of {len(run.time_ps):,} points.",
    )


def _scan_figure(scan: Scan, index: int) -> Figure:
    values, energies = scan.values, scan.energies
    traces = [Trace(x=values, y=energies, name="energy", role="main")]
    if len(scan.jump_at):
        at = np.array(scan.jump_at)
        traces.append(Trace(x=at, y=np.interp(at, values, energies), name="jump", role="accent", marks=True))
    if len(scan.minima):
        at = np.array([minimum[0] for minimum in scan.minima])
        traces.append(Trace(x=at, y=np.interp(at, values, energies), name="other minimum", role="second", marks=True))
    jumps = _counted(len(scan.jump_at), "jump", "jumps")
    minima = _counted(len(scan.minima), "other minimum", "other minima")
    if not scan.path.one_well:
        minima = "other minima are not judged, because atoms move among others and may find a bond"
        if scan.path.kind == "torsion":
            minima = "other minima are not judged, because a torsion has several"
    reading = (
        f"The {scan.path.kind} {'once round' if scan.path.kind == 'torsion' else 'from compression to the far end'}; "
        f"all else is rigid. {minima.capitalize()}, {jumps}."
    )
    if scan.minima:
        reading += f" Minima behind more than {REACHABLE_eV:g} eV are out of reach at {TEMPERATURE_K:g} K."
    return Figure(
        key=f"scan-{index}",
        title=scan.path.label[0].upper() + scan.path.label[1:],
        reading=reading,
        description=f"Energy from {values[0]:.3g} to {values[-1]:.3g} {scan.path.unit}, lowest {energies.min():.3g}, "
        f"highest {energies.max():.3g} eV relative to the structure at {scan.path.start:.3g}; {minima}, {jumps}.",
        x_title=f"{scan.path.kind} (degrees)" if scan.path.unit == "degrees" else "distance (Å)",
        y_title="energy − start (eV)",
        traces=tuple(traces),
        thinned=" ".join(f"{reason}." for reason in (*scan.ended_early, *scan.failures[:3])),
    )


def _counted(n: int, one: str, many: str) -> str:
    return f"no {one}" if n == 0 else f"1 {one}" if n == 1 else f"{n} {many}"
