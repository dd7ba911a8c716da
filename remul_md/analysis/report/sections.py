"""The sections of a report, in the order of a reader's questions, each with its verdicts, plots and reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from remul_md.analysis.report.banner import SECTION_OF, frames_in_words, molecule_name
from remul_md.analysis.report.content import RunContent
from remul_md.analysis.report.figures import Figure
from remul_md.analysis.report.measures import accuracy_table, measures_table
from remul_md.analysis.report.molecule import molecule_block
from remul_md.analysis.report.parts import figure_block, folded, provenance_list, verdict_badge
from remul_md.analysis.report.record import PotentialRecord
from remul_md.analysis.report.spectrum import frequencies_block
from remul_md.analysis.trajectory import TrajectoryAnalysis
from remul_md.analysis.verdicts import QUESTIONS, Verdict

# Key, word in the table of contents, question, plots.
SECTIONS = (
    ("accuracy", "Accuracy", "Is it accurate?", ("parity-forces", "parity-energy")),
    ("energy", "Energy", "Does it conserve energy?", ("total-energy", "temperature")),
    ("symmetry", "Symmetry", "Do the forces turn with the molecule?", ("rotational-error", "net-torque")),
    ("stability", "Bonds", "Does the molecule hold?", ("bonds",)),
    ("domain", "Data", "Where does it go beyond its data?", ("departure",)),
    ("origin", "Origin", "Which potential, run and versions?", ("learning-curve",)),
)


def table_of_contents() -> str:
    """A line that stays on screen."""
    links = "".join(f'<a href="#{key}">{word}</a>' for key, word, _, _ in SECTIONS)
    return f'<nav aria-label="Contents">{links}</nav>'


def report_sections(
    analysis: TrajectoryAnalysis,
    figures: Sequence[Figure],
    *,
    content: RunContent,
    evaluation: Mapping[str, Any] | None,
    record: PotentialRecord | None,
    provenance: Mapping[str, Any],
) -> list[str]:
    """The HTML of each section."""
    drawn = {figure.key: figure_block(figure) for figure in figures}
    missing = tuple(content.missing[part] for part in ("spectrum", "vibrations") if part in content.missing)
    frequencies = frequencies_block(
        drawn.pop("spectrum", ""),
        vibrations=content.vibrations,
        missing=missing,
        warning="" if content.spectrum is None else content.spectrum.warning,
    )
    view = molecule_block(content.molecule, content.missing.get("molecule", ""), name=molecule_name(analysis, record))
    within = {
        "accuracy": frequencies,
        "stability": view,
        "domain": _data(record),
        "origin": measures_table(analysis, evaluation) + _provenance(provenance),
    }
    made = []
    for key, _, question, plots in SECTIONS:
        shown = "".join(drawn[plot] for plot in plots if plot in drawn)
        pair = f'<div class="pair">{shown}</div>' if shown else ""
        found = _findings(analysis.verdicts, key)
        if key == "accuracy":
            found += _accuracy(evaluation, record) + _parity(content)
        made.append(f'<section id="{key}"><h2>{question}</h2>{found}{pair}{within.get(key, "")}</section>')
    return made


def _findings(verdicts: Sequence[Verdict], section: str) -> str:
    """What was judged there, with the reason of each limit, and what could not be."""
    lines = [finding(verdict) for verdict in verdicts if SECTION_OF.get(verdict.name, "origin") == section]
    judged = {verdict.name for verdict in verdicts}
    lines += [
        f'<li class="open"><span class="badge">–</span> Not judged: {escape(name)}. For this {escape(needed)}.</li>'
        for name, needed in QUESTIONS.items()
        if name not in judged and SECTION_OF[name] == section
    ]
    return f'<ul class="findings">{"".join(lines)}</ul>' if lines else ""


def finding(verdict: Verdict) -> str:
    """A verdict as a line: what, why, and where its limit comes from."""
    style, word = verdict_badge(verdict.passed)
    source = f" Limit {verdict.limit}" + (f": {verdict.limit_from}." if verdict.limit_from else ".")
    return (
        f'<li class="{style}"><span class="badge">{word}</span> <b>{escape(verdict.name.capitalize())}.</b> '
        f'{escape(verdict.why)}<span class="source">{escape(source)}</span></li>'
    )


def _accuracy(evaluation: Mapping[str, Any] | None, record: PotentialRecord | None) -> str:
    if evaluation is not None:
        return (
            f"<p>Mean absolute errors on {escape(frames_in_words(evaluation))}, in the orientations of the data and "
            f"rotated at random.</p>{accuracy_table(evaluation)}"
        )
    if record is None:
        return '<p class="note">Nothing is known of the potential: name it with --potential.</p>'
    if record.validation_force_mae_meV_per_A is None:
        return '<p class="note">The potential has no record of an accuracy; `remul-md evaluate` measures it.</p>'
    return (
        "<p>Known from its own record: the error of the forces on the validation frames of its training, the card "
        "above. `remul-md evaluate` measures it on frames that training never saw; give its JSON with --evaluation.</p>"
    )


def _parity(content: RunContent) -> str:
    """On which frames the plots were made, or why there are none."""
    said = content.missing.get("parity", "")
    if content.parity is not None:
        said = f"Drawn: {content.parity.data}."
    return f'<p class="note">{escape(said)}</p>' if said else ""


def _data(record: PotentialRecord | None) -> str:
    if record is None or not record.training_data:
        return ""
    hot = "" if record.data_temperature_K is None else f", from dynamics at {record.data_temperature_K:g} K"
    return f'<p class="note">Training data: {escape(record.training_data)}{hot}.</p>'


def _provenance(provenance: Mapping[str, Any]) -> str:
    return folded("Hashes, command and versions", provenance_list(provenance)) if provenance else ""
