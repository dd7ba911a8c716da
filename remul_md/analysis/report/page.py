"""The report of a run: one HTML file with its script, style and data inside, readable without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from remul_md.analysis.report.content import RunContent
from remul_md.analysis.report.figures import Figure, report_figures
from remul_md.analysis.report.molecule import molecule_section
from remul_md.analysis.report.parts import (
    figure_block,
    notes_section,
    number_text,
    provenance_section,
    verdict_item,
    write_page,
)
from remul_md.analysis.report.spectrum import KEY as SPECTRUM
from remul_md.analysis.report.spectrum import frequencies_section, spectrum_figure
from remul_md.analysis.trajectory import TrajectoryAnalysis
from remul_md.analysis.verdicts import QUESTIONS, Verdict

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
SIGNED = ("meV/atom/ps", "K")  # units of the verdicts whose value may miss on either side
ACCURACY = (
    ("force_mae", "Force error (MAE)", "meV/Å"),
    ("energy_mae", "Energy error (MAE)", "meV"),
)
SYMMETRY = (
    ("rotational_error", "Rotational error", "meV/Å", "mean change of a force component that a turn should not make"),
    ("rotational_spread", "Rotational spread", "meV/Å", "scatter of the forces over orientations"),
    ("equivariance_percent", "Equivariance percent, forces", "%", "share of the squared error that orientations cause"),
    ("equivariance_percent_energy", "Equivariance percent, energy", "%", "the same for the energy"),
)


def write_report(
    analysis: TrajectoryAnalysis,
    path: str | Path,
    *,
    evaluation: Mapping[str, Any] | None = None,
    training: Sequence[Mapping[str, float]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    content: RunContent | None = None,
) -> Path:
    """Write the report of a run as one self-contained HTML file (5 to 6 MB, nearly all of it the plot script).

    The page holds its data, `report_data`, in the elements `data` and `figures`.

    Args:
        analysis: of the run.
        path: file to write; its folder is made.
        evaluation: figures of `remul-md evaluate`; adds the accuracy table.
        training: rows of `metrics.csv` (step, task, equivariance, validation_force_mae); adds the learning curve.
        provenance: what made the run (potential, its hash, seeds, versions), shown at the end as it is.
        content: of `collect_content`; adds the 3D view, the spectrum and the vibrations.
    Returns:
        The path written.
    Raises:
        InputError: the file cannot be written.
    """
    content = content or RunContent()
    figures = _figures(analysis, training=training, content=content)
    data = _plain_data(analysis, evaluation=evaluation, provenance=provenance, content=content)
    spectrum = "".join(figure_block(figure) for figure in figures if figure.key == SPECTRUM)
    missing = tuple(content.missing[part] for part in ("spectrum", "vibrations") if part in content.missing)
    title = f"{analysis.formula.translate(SUBSCRIPTS)}: {_length_ps(analysis):.3g} ps of molecular dynamics"
    sections = [
        _header(analysis, title),
        _verdicts(analysis.verdicts),
        molecule_section(content.molecule, content.missing.get("molecule", "")),
        _measures(analysis),
        "" if evaluation is None else _accuracy(evaluation),
        "<section><h2>The run in pictures</h2>",
        *(figure_block(figure) for figure in figures if figure.key != SPECTRUM),
        "</section>",
        frequencies_section(
            spectrum,
            vibrations=content.vibrations,
            missing=missing,
            warning="" if content.spectrum is None else content.spectrum.warning,
        ),
        notes_section(analysis.notes),
        provenance_section(provenance or {}),
    ]
    scripts = [] if content.molecule is None else ["scene.js", "molecule.js"]
    return write_page(path, title=title, sections=sections, figures=figures, data=data, scripts=scripts)


def report_data(
    analysis: TrajectoryAnalysis,
    *,
    evaluation: Mapping[str, Any] | None = None,
    training: Sequence[Mapping[str, float]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    content: RunContent | None = None,
) -> dict[str, Any]:
    """All that the report shows as plain values: the figures of `analysis.to_json()`, its plots, and the other parts.

    Args:
        analysis, evaluation, training, provenance, content: as `write_report`.
    """
    shown = content or RunContent()
    return {
        **_plain_data(analysis, evaluation=evaluation, provenance=provenance, content=shown),
        "figures": [figure.to_json() for figure in _figures(analysis, training=training, content=shown)],
    }


def _plain_data(
    analysis: TrajectoryAnalysis,
    *,
    evaluation: Mapping[str, Any] | None,
    provenance: Mapping[str, Any] | None,
    content: RunContent,
) -> dict[str, Any]:
    """`report_data` without the plots, which a page has beside it."""
    return {
        **analysis.to_json(),
        "notes": list(analysis.notes),
        "evaluation": None if evaluation is None else dict(evaluation),
        "provenance": dict(provenance or {}),
        **content.to_json(),
    }


def _figures(
    analysis: TrajectoryAnalysis, *, training: Sequence[Mapping[str, float]] | None, content: RunContent
) -> list[Figure]:
    frequencies = spectrum_figure(content.spectrum, content.vibrations)
    return [*report_figures(analysis, training=training), *([] if frequencies is None else [frequencies])]


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
    items = [verdict_item(verdict, sign="±" if verdict.unit in SIGNED else "") for verdict in verdicts]
    return (
        "<section><h2>Verdicts</h2><p>Each number stands beside its limit; yes means that it keeps it.</p>"
        f'<ul class="verdicts">{"".join(items)}</ul>{_unanswered(verdicts)}</section>'
    )


def _unanswered(verdicts: Sequence[Verdict]) -> str:
    """The questions that every run is asked and that this one has no data for."""
    judged = {verdict.name for verdict in verdicts}
    return "".join(
        f'<p class="note">Not judged: {escape(name)}. For this {escape(needed)}.</p>'
        for name, needed in QUESTIONS.items()
        if name not in judged
    )


def _measures(analysis: TrajectoryAnalysis) -> str:
    rows: list[tuple[str, str, str]] = []
    drift = analysis.drift
    if drift is not None:
        low, high = drift.ci95_meV_per_atom_ps
        rows += [
            ("Energy drift", f"{number_text(drift.slope_meV_per_atom_ps)} meV/atom/ps", "slope of the total energy"),
            ("… 95 % interval", f"{number_text(low)} to {number_text(high)}", "for correlated noise"),
            ("Energy scatter", f"{number_text(drift.fluctuation_meV_per_atom)} meV/atom", "RMS about that line"),
        ]
    if analysis.mean_temperature_K is not None:
        dof = f"{analysis.n_dof} degrees of freedom, {analysis.n_dof_source}"
        rows.append(("Mean temperature", f"{analysis.mean_temperature_K:.1f} K", dof))
    if analysis.rotational is not None:
        made = f"{len(analysis.rotation_frames)} frames, {analysis.rotational.n_draws} random turns each"
        rows += [
            ("Rotational error", f"{number_text(analysis.rotational.mean_error_meV_per_A)} meV/Å", made),
            ("Rotational spread", f"{number_text(analysis.rotational.rms_spread_meV_per_A)} meV/Å", "over the turns"),
        ]
        if analysis.rotational.ensemble_std_meV_per_A is not None:
            scatter = float((analysis.rotational.ensemble_std_meV_per_A**2).mean() ** 0.5)
            rows.append(("Ensemble spread", f"{number_text(scatter)} meV/Å", "between its members, in those frames"))
    if analysis.net_torque_eV is not None and analysis.net_torque_rms_eV is not None:
        frames = f"RMS size over {len(analysis.torque_frames):,} frames"
        rows.append(("Net torque", f"{number_text(1e3 * analysis.net_torque_rms_eV)} meV", frames))
    if analysis.net_force_eV_per_A is not None:
        largest = 1e3 * float((analysis.net_force_eV_per_A**2).sum(axis=1).max() ** 0.5)
        rows.append(("Net force", f"{number_text(largest)} meV/Å", "largest of all frames"))
    if analysis.momentum is not None:
        relative = f"relative to {analysis.momentum.reference}"
        rows += [
            ("Angular momentum change", number_text(analysis.momentum.max_relative_change), f"largest, {relative}"),
            ("… at the end", number_text(analysis.momentum.end_relative_change), relative),
        ]
    rotated = f"{analysis.angle_swept_deg.max():.0f}°"
    rows.append(("Angle swept", rotated, "largest rotation from the first frame; 180° is the most there is"))
    if analysis.orientations is not None:
        away = f"{analysis.orientations.angle_deg.max():.0f}°"
        rows.append(
            ("… from the training orientation", away, f"largest of {len(analysis.orientations.angle_deg)} frames")
        )
    if analysis.bonds is not None:
        against = f"of {analysis.bonds.n_bonds} bonds, against the {analysis.bonds.reference}"
        rows.append(("Bond deviation", f"{number_text(analysis.bonds.max_bond_deviation_A)} Å", f"largest {against}"))
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
        original, rotated = evaluation.get(f"{key}_original"), evaluation.get(f"{key}_rotated")
        if original is not None or rotated is not None:
            rows.append(
                f'<tr><th scope="row">{name}, {unit}</th><td class="value">{number_text(original)}</td>'
                f'<td class="value">{number_text(rotated)}</td></tr>'
            )
    for element, value in (evaluation.get("force_mae_by_element") or {}).items():
        rows.append(
            f'<tr><th scope="row">Force error on {escape(str(element))}, meV/Å</th>'
            f'<td class="value" colspan="2">{number_text(value)}</td></tr>'
        )
    symmetry = []
    for key, name, unit, what in SYMMETRY:
        if evaluation.get(key) is not None:
            interval = evaluation.get(f"{key}_ci95")
            span = "" if not interval else f"<br>95 %: {number_text(interval[0])} to {number_text(interval[1])}"
            symmetry.append(
                f'<tr><th scope="row">{name}</th><td class="value">{number_text(evaluation[key])} {unit}{span}</td>'
                f"<td>{what}</td></tr>"
            )
    frames = f" on {int(evaluation['n_frames']):,} test frames" if evaluation.get("n_frames") else ""
    return (
        f"<section><h2>Accuracy of the potential</h2><p>Errors{frames}, in the orientations of the data (original) and "
        "rotated at random: two equal columns mean that the potential does not care how the molecule lies.</p>"
        '<table><thead><tr><th scope="col"><span class="hidden">measure</span></th><th scope="col">original</th>'
        f'<th scope="col">rotated</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
        + ('<table class="measures"><tbody>' + "".join(symmetry) + "</tbody></table>" if symmetry else "")
        + "</section>"
    )


def _length_ps(analysis: TrajectoryAnalysis) -> float:
    return float(analysis.time_ps[-1] - analysis.time_ps[0])
