"""The head of a report: whether the run may be trusted and for what, in words, and a card for each number behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from remul_md.analysis import verdicts as judge
from remul_md.analysis.report.parts import number_text, verdict_badge, verdict_value
from remul_md.analysis.report.record import PotentialRecord
from remul_md.analysis.trajectory import TrajectoryAnalysis
from remul_md.analysis.verdicts import QUESTIONS, Verdict
from remul_md.potentials.provenance import axis_in_words

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
# A check in words: where it failed, and what is not known where the run cannot decide it.
IN_WORDS = {
    judge.ENERGY: ("the energy drifts", "whether the energy is conserved"),
    judge.ROTATION: ("the forces do not turn with the molecule", "whether the forces turn with the molecule"),
    judge.INTACT: ("a bond went beyond its limit", "whether the molecule held"),
    judge.INSIDE: ("the run left the training data", "whether the run stayed in the training data"),
    judge.TEMPERATURE: ("the temperature is not the one asked for", "whether the temperature is the one asked for"),
    judge.TORQUE: ("a torque comes from nowhere", "whether a torque comes from nowhere"),
    judge.ANGULAR: ("the angular momentum is not kept", "whether the angular momentum is kept"),
}
# What the number of a check is.
MEASURE = {
    judge.ENERGY: "drift",
    judge.ROTATION: "rotational error",
    judge.INTACT: "longest way of a bond from its range",
    judge.INSIDE: "longest way of a distance from its range",
    judge.TEMPERATURE: "mean",
    judge.TORQUE: "net torque",
    judge.ANGULAR: "largest change",
}
MAX_TOLD = 2  # in the headline; the list under it has all
# The section in which a check is explained.
SECTION_OF = {
    judge.ENERGY: "energy",
    judge.TEMPERATURE: "energy",
    judge.ROTATION: "symmetry",
    judge.TORQUE: "symmetry",
    judge.ANGULAR: "symmetry",
    judge.INTACT: "stability",
    judge.INSIDE: "domain",
}


def molecule_name(analysis: TrajectoryAnalysis, record: PotentialRecord | None) -> str:
    """`ethanol, C₂H₆O`, or the formula alone."""
    formula = analysis.formula.translate(SUBSCRIPTS)
    return formula if record is None or not record.molecule else f"{record.molecule}, {formula}"


def run_in_words(analysis: TrajectoryAnalysis, record: PotentialRecord | None) -> str:
    """What was run: `300 K NVE of ethanol`."""
    name = analysis.formula.translate(SUBSCRIPTS) if record is None or not record.molecule else record.molecule
    kind = {"": "dynamics", "nve": "NVE"}.get(analysis.ensemble, f"NVT ({analysis.ensemble})")
    if analysis.asked_temperature_K:
        return f"{analysis.asked_temperature_K:g} K {kind} of {name}"
    if analysis.mean_temperature_K is not None:
        return f"{kind} of {name}, {analysis.mean_temperature_K:.0f} K on average"
    return f"{kind} of {name}"


def verdict_in_words(analysis: TrajectoryAnalysis, record: PotentialRecord | None) -> tuple[str, str]:
    """Style of the banner (pass, fail or open) and its headline."""
    run = run_in_words(analysis, record)
    failed = [_words(verdict, 0) for verdict in analysis.verdicts if verdict.passed is False]
    unsure = [_words(verdict, 1) for verdict in analysis.verdicts if verdict.passed is None]
    if not analysis.verdicts:
        return "open", f"Nothing to judge: {run}"
    if failed:
        return "fail", f"Does not hold: {_told(failed)}"
    if unsure:
        return "open", f"Not decided: {_told(unsure)}"
    if set(QUESTIONS) - {verdict.name for verdict in analysis.verdicts}:
        return "open", f"Holds as far as it was checked: {run}"
    return "pass", f"Holds for {run}"


def scope_in_words(analysis: TrajectoryAnalysis, record: PotentialRecord | None) -> str:
    """What the verdict is good for and what it says nothing about."""
    inside = any(verdict.passed for verdict in analysis.verdicts if verdict.name == judge.INSIDE)
    where = " within its training data" if inside else ""
    if record is not None and record.fields_V_per_A:
        fields = " or ".join(f"({' '.join(f'{part:g}' for part in field)})" for field in record.fields_V_per_A)
        where += f", in the electric field {fields} V/Å"
    beyond = "hotter runs"
    if record is not None and record.data_temperature_K is not None:
        beyond = f"runs hotter than its data, {record.data_temperature_K:g} K"
    said = f"The run: {run_in_words(analysis, record)}{where}."
    if verdict_in_words(analysis, record)[0] == "pass":
        said = f"Scope: {run_in_words(analysis, record)}{where}; not bond breaking, other molecules or {beyond}."
    if analysis.axis is not None:
        said += f" Rotations, torque and angular momentum were judged about {axis_in_words(analysis.axis)} only."
    return said


def counted(verdicts: Sequence[Verdict]) -> str:
    """How many checks passed, and which questions had no data."""
    n_passed = sum(verdict.passed is True for verdict in verdicts)
    said = (
        f"All {n_passed} checks passed."
        if n_passed == len(verdicts)
        else f"{n_passed} of {len(verdicts)} checks passed."
    )
    unanswered = [IN_WORDS[name][1] for name in QUESTIONS if name not in {verdict.name for verdict in verdicts}]
    return said + (f" Not judged: {', '.join(unanswered)}." if unanswered else "")


def banner(analysis: TrajectoryAnalysis, record: PotentialRecord | None) -> str:
    """Verdict, scope, number of checks, and the reason of each that did not pass."""
    style, title = verdict_in_words(analysis, record)
    lead = [scope_in_words(analysis, record)]
    if analysis.verdicts:
        lead.insert(0, counted(analysis.verdicts))
    else:
        lead.insert(0, "The files hold nothing that could be judged.")
    trouble = "".join(
        f'<li class="{verdict_badge(verdict.passed)[0]}"><span class="badge">{verdict_badge(verdict.passed)[1]}</span> '
        f"{escape(verdict.name.capitalize())}. {escape(verdict.why)}</li>"
        for verdict in analysis.verdicts
        if verdict.passed is not True
    )
    length = float(analysis.time_ps[-1] - analysis.time_ps[0])
    facts = f"{length:.3g} ps, {len(analysis.time_ps):,} frames, {analysis.n_atoms} atoms, {analysis.name}"
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in analysis.notes)
    return (
        f'<header class="banner {style}"><p class="kicker">Molecular dynamics of '
        f"{escape(molecule_name(analysis, record))}</p><h1>{escape(title)}</h1>"
        f'<p class="lead">{escape(" ".join(lead))}</p>'
        + (f'<ul class="trouble">{trouble}</ul>' if trouble else "")
        + f'<p class="note">{escape(facts)}</p>{notes}</header>'
    )


def cards(analysis: TrajectoryAnalysis, *, evaluation: Mapping[str, Any] | None, record: PotentialRecord | None) -> str:
    """The force error, then every judged number with its limit; each leads to its section."""
    judged = "".join(_card(verdict) for verdict in analysis.verdicts)
    return f'<ul class="cards">{_force_card(evaluation, record)}{judged}</ul>'


def _told(reasons: Sequence[str]) -> str:
    further = len(reasons) - MAX_TOLD
    return "; ".join(reasons[:MAX_TOLD]) + (f"; and {further} more" if further > 0 else "")


def _words(verdict: Verdict, place: int) -> str:
    known = IN_WORDS.get(verdict.name)
    return known[place] if known else f"{verdict.name}: {'no' if place == 0 else 'not known'}"


def _card(verdict: Verdict) -> str:
    style, word = verdict_badge(verdict.passed)
    number, unit = verdict_value(verdict)
    measure = f"{MEASURE[verdict.name]}, " if verdict.name in MEASURE else ""
    return (
        f'<li class="{style}"><a href="#{SECTION_OF.get(verdict.name, "origin")}">'
        f'<span class="badge">{word}</span><span class="name">{escape(verdict.name.capitalize())}</span>'
        f'<span class="number">{number}<span class="unit"> {escape(unit)}</span></span>'
        f'<span class="limit">{escape(measure)}limit {escape(verdict.limit)}</span></a></li>'
    )


def _force_card(evaluation: Mapping[str, Any] | None, record: PotentialRecord | None) -> str:
    """Mean absolute error of a force component: of an evaluation, else of the validation frames of the training."""
    value, source = None, "not known: name the potential (--potential)"
    if evaluation is not None and evaluation.get("force_mae_rotated") is not None:
        value = float(evaluation["force_mae_rotated"])
        source = f"mean, {frames_in_words(evaluation)}"
    elif record is not None:
        value, source = record.validation_force_mae_meV_per_A, "its record holds none; give --evaluation"
        if value is not None:
            source = "mean, validation frames of its training"
    number = "–" if value is None else f'{number_text(value)}<span class="unit"> meV/Å</span>'
    return (
        '<li class="known"><a href="#accuracy"><span class="badge">Measured before</span>'
        f'<span class="name">Force error</span><span class="number">{number}</span>'
        f'<span class="limit">{escape(source)}</span></a></li>'
    )


def frames_in_words(evaluation: Mapping[str, Any]) -> str:
    """What an evaluation was made on: `1,000 frames of rmd17/ethanol/test-01`."""
    frames = f"{int(evaluation['n_frames']):,} test frames" if evaluation.get("n_frames") else "test frames"
    return f"{frames} of {evaluation['data']}" if evaluation.get("data") else frames
