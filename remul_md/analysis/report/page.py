"""The report: one HTML file with its script, style and data inside, readable without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from remul_md._version import __version__
from remul_md.analysis.report.figures import Figure, report_figures
from remul_md.analysis.trajectory import TrajectoryAnalysis
from remul_md.analysis.verdicts import Verdict
from remul_md.errors import InputError
from remul_md.files import replace_atomically

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
SIGNED = ("meV/atom/ps", "K")  # units of the verdicts whose value may miss on either side
ACCURACY = (
    ("force_mae", "Force error (MAE)", "meV/Å"),
    ("energy_mae", "Energy error (MAE)", "meV"),
)
SYMMETRY = (
    ("rotational_error", "Rotational error", "meV/Å", "mean change of a force component that a turn should not make"),
    ("rotational_spread", "Rotational spread", "meV/Å", "scatter of the forces over orientations"),
    ("equivariance_percent", "Equivariance percent, forces", "%", "share of the squared error that poses cause"),
    ("equivariance_percent_energy", "Equivariance percent, energy", "%", "the same for the energy"),
)


def write_report(
    analysis: TrajectoryAnalysis,
    path: str | Path,
    *,
    evaluation: Mapping[str, Any] | None = None,
    training: Sequence[Mapping[str, float]] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report of a run as one self-contained HTML file (about 5 MB, nearly all of it the plot script).

    Args:
        analysis: of the run.
        path: file to write; its folder is made.
        evaluation: figures of `remul-md evaluate`; adds the accuracy table.
        training: rows of `metrics.csv` (step, task, equivariance, validation_force_mae); adds the learning curve.
        provenance: what made the run (potential, its hash, seeds, versions), shown at the end as it is.
    Returns:
        The path written.
    Raises:
        InputError: the file cannot be written.
    """
    from plotly.offline import get_plotlyjs

    figures = report_figures(analysis, training=training)
    parts = resources.files("remul_md.analysis.report")
    title = f"{analysis.formula.translate(SUBSCRIPTS)}: {_length_ps(analysis):.3g} ps of molecular dynamics"
    html = "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',  # or the browser asks for one and logs an error
            f"<title>{escape(title)}</title>",
            f"<style>{(parts / 'style.css').read_text(encoding='utf-8')}</style></head><body><main>",
            _header(analysis, title),
            _verdicts(analysis.verdicts),
            _measures(analysis),
            "" if evaluation is None else _accuracy(evaluation),
            "<section><h2>The run in pictures</h2>",
            *(_figure(figure) for figure in figures),
            "</section>",
            _notes(analysis.notes),
            _provenance(provenance or {}),
            f"<footer>Written by remul-md {escape(__version__)}. This file holds all it needs and asks no network."
            "</footer></main>",
            figure_data(figures),
            f"<script>{get_plotlyjs()}</script>",
            f"<script>{(parts / 'draw.js').read_text(encoding='utf-8')}</script>",
            "</body></html>\n",
        ]
    )
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(target, html.encode())
    except OSError as error:
        raise InputError(f"cannot write the report {target}: {error.strerror}; choose another path") from error
    return target


def figure_data(figures: Sequence[Figure]) -> str:
    """The plots as a script element that the page's script reads; no text in them can end it early."""
    data = json.dumps([figure.to_json() for figure in figures], separators=(",", ":"), allow_nan=False)
    return f'<script type="application/json" id="figures">{data.replace("<", chr(92) + "u003c")}</script>'


def _header(analysis: TrajectoryAnalysis, title: str) -> str:
    facts = [f"{analysis.n_atoms} atoms", f"{len(analysis.time_ps):,} frames", escape(analysis.name)]
    failed = [verdict.name for verdict in analysis.verdicts if verdict.passed is False]
    unsure = [verdict.name for verdict in analysis.verdicts if verdict.passed is None]
    n_passed = len(analysis.verdicts) - len(failed) - len(unsure)
    lead = f"{n_passed} of {len(analysis.verdicts)} checks passed"
    lead += f"; failed: {', '.join(failed)}" if failed else ""
    lead += f"; undecided: {', '.join(unsure)}" if unsure else ""
    return (
        f'<header><div class="kicker">Molecular dynamics report</div><h1>{escape(title)}</h1>'
        f'<p class="lead">{escape(lead)}.</p><p class="note">{" · ".join(facts)}</p></header>'
    )


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return '<section><h2>Verdicts</h2><p class="note">The files hold nothing that could be judged.</p></section>'
    items = []
    for verdict in verdicts:
        style, word = {True: ("pass", "✓ Yes"), False: ("fail", "✗ No"), None: ("open", "? Undecided")}[verdict.passed]
        unit = escape(f" {verdict.unit}" if verdict.unit else "")
        sign = "±" if verdict.unit in SIGNED else ""
        items.append(
            f'<li class="verdict {style}"><span class="badge">{word}</span><h3>{escape(verdict.name.capitalize())}</h3>'
            f'<div class="number">{_number(verdict.value)}<span class="unit">{unit}</span>'
            f"<small>limit {sign}{_number(verdict.threshold)}{unit}</small></div><p>{escape(verdict.why)}</p></li>"
        )
    return (
        "<section><h2>Verdicts</h2><p>Each number stands beside its limit; yes means that it keeps it.</p>"
        f'<ul class="verdicts">{"".join(items)}</ul></section>'
    )


def _measures(analysis: TrajectoryAnalysis) -> str:
    rows: list[tuple[str, str, str]] = []
    drift = analysis.drift
    if drift is not None:
        low, high = drift.ci95_meV_per_atom_ps
        rows += [
            ("Energy drift", f"{_number(drift.slope_meV_per_atom_ps)} meV/atom/ps", "slope of the total energy"),
            ("… 95 % interval", f"{_number(low)} to {_number(high)}", "for correlated noise"),
            ("Energy scatter", f"{_number(drift.fluctuation_meV_per_atom)} meV/atom", "RMS about that line"),
        ]
    if analysis.mean_temperature_K is not None:
        dof = f"{analysis.n_dof} degrees of freedom, {analysis.n_dof_source}"
        rows.append(("Mean temperature", f"{analysis.mean_temperature_K:.1f} K", dof))
    if analysis.rotational is not None:
        made = f"{len(analysis.rotation_frames)} frames, {analysis.rotational.n_draws} random turns each"
        rows += [
            ("Rotational error", f"{_number(analysis.rotational.mean_error_meV_per_A)} meV/Å", made),
            ("Rotational spread", f"{_number(analysis.rotational.rms_spread_meV_per_A)} meV/Å", "over the turns"),
        ]
    if analysis.net_torque_eV is not None and analysis.net_torque_rms_eV is not None:
        frames = f"RMS size over {len(analysis.torque_frames):,} frames"
        rows.append(("Net torque", f"{_number(1e3 * analysis.net_torque_rms_eV)} meV", frames))
    if analysis.net_force_eV_per_A is not None:
        largest = 1e3 * float((analysis.net_force_eV_per_A**2).sum(axis=1).max() ** 0.5)
        rows.append(("Net force", f"{_number(largest)} meV/Å", "largest of all frames"))
    if analysis.momentum is not None:
        relative = f"relative to {analysis.momentum.reference}"
        rows += [
            ("Angular momentum change", _number(analysis.momentum.max_relative_change), f"largest, {relative}"),
            ("… at the end", _number(analysis.momentum.end_relative_change), relative),
        ]
    turned = f"{analysis.angle_swept_deg.max():.0f}°"
    rows.append(("Angle swept", turned, "largest rotation from the first frame; 180° is the most there is"))
    if analysis.bonds is not None:
        against = f"of {analysis.bonds.n_bonds} bonds, against the {analysis.bonds.reference}"
        rows.append(("Bond deviation", f"{_number(analysis.bonds.max_bond_deviation_A)} Å", f"largest {against}"))
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="value">{escape(value)}</td><td>{escape(what)}</td></tr>'
        for name, value, what in rows
    )
    return (
        "<section><h2>All measures</h2><p>What was measured, its value, and over what it was "
        f'taken.</p><table class="measures"><tbody>{body}</tbody></table></section>'
    )


def _accuracy(evaluation: Mapping[str, Any]) -> str:
    rows = []
    for key, name, unit in ACCURACY:
        stock, turned = evaluation.get(f"{key}_stock"), evaluation.get(f"{key}_turned")
        if stock is not None or turned is not None:
            rows.append(
                f'<tr><th scope="row">{name}, {unit}</th><td class="value">{_number(stock)}</td>'
                f'<td class="value">{_number(turned)}</td></tr>'
            )
    for element, value in (evaluation.get("force_mae_by_element") or {}).items():
        rows.append(
            f'<tr><th scope="row">Force error on {escape(str(element))}, meV/Å</th>'
            f'<td class="value" colspan="2">{_number(value)}</td></tr>'
        )
    symmetry = []
    for key, name, unit, what in SYMMETRY:
        if evaluation.get(key) is not None:
            interval = evaluation.get(f"{key}_ci95")
            span = "" if not interval else f"<br>95 %: {_number(interval[0])} to {_number(interval[1])}"
            symmetry.append(
                f'<tr><th scope="row">{name}</th><td class="value">{_number(evaluation[key])} {unit}{span}</td>'
                f"<td>{what}</td></tr>"
            )
    frames = f" on {int(evaluation['n_frames']):,} test frames" if evaluation.get("n_frames") else ""
    return (
        f"<section><h2>Accuracy of the potential</h2><p>Errors{frames}, in the poses of the data (stock) and turned at "
        "random: two equal columns mean that the potential does not care how the molecule lies.</p>"
        '<table><thead><tr><th scope="col"><span class="hidden">measure</span></th><th scope="col">stock</th>'
        f'<th scope="col">turned</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
        + ('<table class="measures"><tbody>' + "".join(symmetry) + "</tbody></table>" if symmetry else "")
        + "</section>"
    )


def _figure(figure: Figure) -> str:
    thinned = f'<p class="note">{escape(figure.thinned)}</p>' if figure.thinned else ""
    return (
        f"<figure><figcaption><h3>{escape(figure.title)}</h3><p>{escape(figure.reading)}</p></figcaption>"
        f'<div class="plot" id="{figure.key}" role="img" aria-label="{escape(figure.description)}"></div>{thinned}'
        "</figure>"
    )


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return "<section><h2>To know besides</h2>" + "".join(f"<p>{escape(note)}</p>" for note in notes) + "</section>"


def _provenance(provenance: Mapping[str, Any]) -> str:
    if not provenance:
        return ""
    shown = {
        key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in provenance.items()
    }
    rows = "".join(f"<dt>{escape(str(key))}</dt><dd>{escape(value)}</dd>" for key, value in shown.items())
    return f"<section><h2>What made it</h2><dl>{rows}</dl></section>"


def _number(value: float | None) -> str:
    """Three digits, without a power of ten where one can do without; a true minus."""
    if value is None:
        return "–"
    size = abs(value)
    text = f"{value:.3g}" if size == 0.0 or 1e-4 <= size < 1e5 else f"{value:.2e}"
    return text.replace("-", "−") if "e" not in text else text.replace("e-0", "e-").replace("-", "−")


def _length_ps(analysis: TrajectoryAnalysis) -> float:
    return float(analysis.time_ps[-1] - analysis.time_ps[0])
