"""The page of `remul-md compare --report`: runs side by side, one column each in the table, one colour in the plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from remul_md.analysis import verdicts as judge
from remul_md.analysis.comparison import Comparison
from remul_md.analysis.report.banner import IN_WORDS, MAX_TOLD, MEASURE, molecule_name, run_in_words
from remul_md.analysis.report.overlays import overlay_figures
from remul_md.analysis.report.parts import (
    figure_block,
    folded,
    number_text,
    provenance_list,
    verdict_badge,
    verdict_value,
    write_page,
)
from remul_md.analysis.report.subject import MAX_RUNS, Subject
from remul_md.analysis.verdicts import Verdict
from remul_md.errors import InputError
from remul_md.potentials.provenance import axis_in_words

# In the order of a reader's questions; others follow as they come.
ROWS = (
    judge.ENERGY,
    judge.TEMPERATURE,
    judge.ROTATION,
    judge.TORQUE,
    judge.ANGULAR,
    judge.INTACT,
    judge.INSIDE,
)
MAX_GAPS = 6  # structures that differ most, of each comparison
# Key, word in the table of contents, question, plots.
SECTIONS = (
    ("glance", "Numbers", "Which of them holds?", ()),
    ("energy", "Energy", "Do they conserve energy?", ("total-energy",)),
    ("symmetry", "Symmetry", "Do their forces turn with the molecule?", ("rotational-error", "net-torque")),
    ("structure", "Structures", "Do they visit the same structures?", ("pair-distances", "spectrum")),
    ("origin", "Origin", "Which potentials, runs and versions?", ()),
)


def write_side_by_side(
    subjects: Sequence[Subject],
    path: str | Path,
    *,
    comparisons: Mapping[str, Comparison],
    reference: str,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write runs side by side as one self-contained HTML file.

    Args:
        subjects: two to six runs of one molecule.
        path: file to write; its folder is made.
        comparisons: the structures of each that was held against `reference`, by name.
        reference: the last of what was named: a run or a data set.
        provenance: what made the page.
    Raises:
        InputError: no run or more than six, or the file cannot be written.
    """
    if not 1 <= len(subjects) <= MAX_RUNS:
        raise InputError(f"a page holds one to {MAX_RUNS} runs, got {len(subjects)}; leave some out")
    figures = overlay_figures(subjects, comparisons=comparisons, reference=reference)
    drawn = {figure.key: figure_block(figure) for figure in figures}
    within = {
        "glance": _table(subjects),
        "structure": _gaps(comparisons, reference),
        "origin": folded(
            "Hashes, command and versions",
            provenance_list(provenance or {}) + "".join(_provenance(each) for each in subjects),
        ),
    }
    title = headline(subjects)
    sections = [_banner(subjects, title), _contents()]
    for key, _, question, plots in SECTIONS:
        shown = "".join(drawn[plot] for plot in plots if plot in drawn)
        pair = f'<div class="pair">{shown}</div>' if shown else ""
        if pair or within.get(key):
            sections.append(f'<section id="{key}"><h2>{question}</h2>{pair}{within.get(key, "")}</section>')
    return write_page(
        path, title=title, sections=sections, figures=figures, data=side_by_side_data(subjects, comparisons, reference)
    )


def side_by_side_data(
    subjects: Sequence[Subject], comparisons: Mapping[str, Comparison], reference: str
) -> dict[str, Any]:
    """All that the page shows besides its plots, as plain values."""
    return {
        "runs": {
            each.name: {
                **each.analysis.to_json(),
                "verdicts": [asdict(verdict) for verdict in each.analysis.verdicts],
                "force_error_meV_per_A": None if (known := each.force_error_meV_per_A) is None else known[0],
                "call_ms": each.call_ms,
                "provenance": dict(each.provenance),
            }
            for each in subjects
        },
        "comparisons": [
            {"trajectory": name, "reference": reference, **found.to_json()} for name, found in comparisons.items()
        ],
    }


def headline(subjects: Sequence[Subject]) -> str:
    """Who holds and who does not, with the first reasons in words."""
    failed = {each.name: words for each in subjects if (words := _reasons(each, passed=False))}
    unsure = {
        each.name: _reasons(each, passed=None) or ["nothing was judged"]
        for each in subjects
        if each.name not in failed and _standing(each) == "open"
    }
    good = [each.name for each in subjects if _standing(each) == "pass"]
    if len(good) == len(subjects):
        return "It holds" if len(good) == 1 else "Both hold" if len(good) == 2 else f"All {len(good)} hold"
    told = [f"{name}: {', '.join(words[:MAX_TOLD])}" for name, words in failed.items()]
    told += [f"not decided for {name}: {', '.join(words[:MAX_TOLD])}" for name, words in unsure.items()]
    told += [f"{_and(good)} {'hold' if len(good) > 1 else 'holds'}"] if good else []
    text = "; ".join(told)
    return text[:1].upper() + text[1:]


def _standing(subject: Subject) -> str:
    passed = [verdict.passed for verdict in subject.analysis.verdicts]
    return "fail" if False in passed else "open" if None in passed or not passed else "pass"


def _reasons(subject: Subject, *, passed: bool | None) -> list[str]:
    """In words: the checks that failed (False), or those that the run cannot decide (None)."""
    place = 1 if passed is None else 0
    return [
        IN_WORDS[verdict.name][place] if verdict.name in IN_WORDS else verdict.name
        for verdict in subject.analysis.verdicts
        if verdict.passed is passed
    ]


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _banner(subjects: Sequence[Subject], title: str) -> str:
    standings = {_standing(each) for each in subjects}
    style = "fail" if "fail" in standings else "open" if "open" in standings else "pass"
    first = subjects[0]
    runs = list(dict.fromkeys(run_in_words(each.analysis, each.record) for each in subjects))
    lengths = [float(each.analysis.time_ps[-1] - each.analysis.time_ps[0]) for each in subjects]
    length = (
        f"{min(lengths):.3g} ps"
        if max(lengths) - min(lengths) < 0.02 * max(lengths)
        else (f"{min(lengths):.3g} to {max(lengths):.3g} ps")
    )
    said = f"{_and(runs)}, {length} each; the same checks and limits for all of them."
    about = {each.name: axis_in_words(each.analysis.axis) for each in subjects if each.analysis.axis is not None}
    if about:
        told = "; ".join(f"{name} about {axis}" for name, axis in about.items())
        said += f" Rotations, torque and angular momentum were judged about an axis only: {told}."
    return (
        f'<header class="banner {style}"><p class="kicker">Side by side: '
        f"{escape(molecule_name(first.analysis, first.record))}</p><h1>{escape(title)}</h1>"
        f'<p class="lead">{escape(said)}</p><p class="note">{escape(" · ".join(each.name for each in subjects))}</p>'
        "</header>"
    )


def _contents() -> str:
    links = "".join(f'<a href="#{key}">{word}</a>' for key, word, _, _ in SECTIONS)
    return f'<nav aria-label="Contents">{links}</nav>'


def _table(subjects: Sequence[Subject]) -> str:
    """What was measured of each; a verdict has its sign, and its limit stands once, under the name of the row."""
    names = [f'<th scope="col" class="run-{place}">{escape(each.name)}</th>' for place, each in enumerate(subjects)]
    of_each = [{verdict.name: verdict for verdict in each.analysis.verdicts} for each in subjects]
    found = [name for verdicts in of_each for name in verdicts]
    rows = [_force_row(subjects)]
    for name in dict.fromkeys([*(row for row in ROWS if row in found), *found]):
        verdicts = [own.get(name) for own in of_each]
        limits = list(dict.fromkeys(verdict.limit for verdict in verdicts if verdict is not None))
        what = f"{MEASURE[name]}, limit {limits[0]}" if name in MEASURE and len(limits) == 1 else MEASURE.get(name, "")
        rows.append(_row(name.capitalize(), what, [_cell(verdict) for verdict in verdicts]))
    calls = [each.call_ms for each in subjects]
    if any(call is not None for call in calls):
        rows.append(
            _row("CPU time of a call", "energy and forces of one geometry, here", [_plain(c, "ms") for c in calls])
        )
    return (
        f'<div class="scroll"><table class="side" style="--n: {len(subjects)}"><thead><tr><th scope="col">'
        f'<span class="hidden">measure</span></th>{"".join(names)}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>"
    )


def _force_row(subjects: Sequence[Subject]) -> str:
    known = [each.force_error_meV_per_A for each in subjects]
    where = list(dict.fromkeys(pair[1] for pair in known if pair is not None))
    return _row(
        "Force error",
        f"MAE, measured before, {_and(where)}" if where else "known for none of them",
        [_plain(None if pair is None else pair[0], "meV/Å") for pair in known],
    )


def _row(name: str, what: str, cells: Sequence[str]) -> str:
    return f'<tr><th scope="row">{escape(name)}<small>{escape(what)}</small></th>{"".join(cells)}</tr>'


def _plain(value: float | None, unit: str) -> str:
    shown = "–" if value is None else f"{number_text(value)}<small>{unit}</small>"
    return f'<td class="value">{shown}</td>'


def _cell(verdict: Verdict | None) -> str:
    if verdict is None:
        return '<td class="value">–<small>not judged</small></td>'
    style, word = verdict_badge(verdict.passed)
    number, unit = verdict_value(verdict)
    return f'<td class="value {style}">{number}<small>{escape(unit)} <span class="badge">{word}</span></small></td>'


def _gaps(comparisons: Mapping[str, Comparison], reference: str) -> str:
    """The h(r) MAE of each against the reference, with what sampling alone makes of it, and the largest other gaps."""
    lines = []
    for name, found in comparisons.items():
        style, word = verdict_badge(found.verdict.passed)
        others = sorted(found.gaps[1:], key=lambda gap: -gap.gap)[:MAX_GAPS]
        told = ", ".join(f"{gap.name} {number_text(gap.gap)}" for gap in others)
        lines.append(
            f'<li class="{style}"><span class="badge">{word}</span> <b>{escape(name)} beside {escape(reference)}.</b> '
            f"h(r) MAE {number_text(found.verdict.value)}, limit {escape(found.verdict.limit)}. "
            f'{escape(found.verdict.why)}<span class="source"> Largest gaps (0 to 2): {escape(told)}.</span></li>'
        )
        lines += [f'<li class="note">{escape(note)}</li>' for note in found.notes]
    return f'<ul class="findings">{"".join(dict.fromkeys(lines))}</ul>' if lines else ""


def _provenance(subject: Subject) -> str:
    return f"<h3>{escape(subject.name)}</h3>{provenance_list(subject.provenance)}" if subject.provenance else ""
