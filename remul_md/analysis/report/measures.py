"""The tables of a report: the errors of the potential on labelled frames, and all measures of the run."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from remul_md.analysis.report.parts import folded, number_text
from remul_md.analysis.trajectory import TrajectoryAnalysis

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


def measures_table(analysis: TrajectoryAnalysis, evaluation: Mapping[str, Any] | None) -> str:
    """All that was measured, folded: what, its value, and over what it was taken."""
    rows: list[tuple[str, str, str]] = []
    drift = analysis.drift
    if drift is not None:
        low, high = drift.ci95_meV_per_atom_ps
        rows += [
            ("Energy drift", f"{number_text(drift.slope_meV_per_atom_ps)} meV/atom/ps", f"slope of the {drift.judged}"),
            ("… 95 % interval", f"{number_text(low)} to {number_text(high)} meV/atom/ps", "with slow waves in it"),
            ("… in the whole run", f"{number_text(drift.change_meV_per_atom)} meV/atom", f"{drift.length_ps:.3g} ps"),
            (
                "Energy scatter",
                f"{number_text(drift.fluctuation_meV_per_atom)} meV/atom",
                "of the total energy, RMS about that line",
            ),
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
            ("Angular momentum change", _percent(analysis.momentum.max_relative_change), f"largest, {relative}"),
            ("… at the end", _percent(analysis.momentum.end_relative_change), relative),
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
    rows += _symmetry_rows(evaluation or {})
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="value">{escape(value)}</td><td>{escape(what)}</td></tr>'
        for name, value, what in rows
    )
    return folded("All measures", f'<table class="measures"><tbody>{body}</tbody></table>')


def accuracy_table(evaluation: Mapping[str, Any]) -> str:
    """Errors of forces and energy, original and rotated, and of the forces on each element."""
    rows = []
    by_element = "".join(
        f'<tr><th scope="row">Force error on {escape(str(element))}</th>'
        f'<td class="value">{number_text(value)} meV/Å</td><td class="value"></td></tr>'
        for element, value in (evaluation.get("force_mae_by_element") or {}).items()
    )
    for key, name, unit in ACCURACY:
        original, rotated = evaluation.get(f"{key}_original"), evaluation.get(f"{key}_rotated")
        if original is not None or rotated is not None:
            rows.append(
                f'<tr><th scope="row">{name}</th><td class="value">{number_text(original)} {unit}</td>'
                f'<td class="value">{number_text(rotated)} {unit}</td></tr>'
            )
        if key == "force_mae":
            rows.append(by_element)
    return (
        '<table class="accuracy"><thead><tr><th scope="col"><span class="hidden">measure</span></th>'
        f'<th scope="col">original</th><th scope="col">rotated</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def _symmetry_rows(evaluation: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    for key, name, unit, what in SYMMETRY:
        if evaluation.get(key) is not None:
            interval = evaluation.get(f"{key}_ci95")
            span = "" if not interval else f" (95 %: {number_text(interval[0])} to {number_text(interval[1])} {unit})"
            rows.append((f"{name}, test frames", f"{number_text(evaluation[key])} {unit}{span}", what))
    return rows


def _percent(share: float) -> str:
    return f"{number_text(100.0 * share)} %"
