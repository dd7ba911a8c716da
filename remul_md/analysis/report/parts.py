"""What all reports are built from: the page with its style and scripts, cards of verdicts, figures, provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from remul_md._version import __version__
from remul_md.analysis.report.figures import Figure
from remul_md.analysis.verdicts import Verdict, three_digits
from remul_md.outputs import GENERATOR, write_text


def write_page(
    path: str | Path,
    *,
    title: str,
    sections: Sequence[str],
    figures: Sequence[Figure],
    data: Mapping[str, Any] | None = None,
    scripts: Sequence[str] = (),
) -> Path:
    """Write one self-contained HTML file (about 5 MB, nearly all of it the plot script).

    Args:
        path: file to write; its folder is made.
        title: of the browser's window, plain text.
        sections: HTML of the body, in order; a figure among them must be one of `figures`.
        figures: all plots of the page.
        data: all else that the page shows, JSON-able: kept in it, and read by `scripts`.
        scripts: names of files beside this module, run before the plots are drawn.
    Returns:
        The path written.
    Raises:
        InputError: the file cannot be written, or stands where something else does.
    """
    from plotly.offline import get_plotlyjs

    parts = resources.files("remul_md.analysis.report")
    html = "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta name="generator" content="{GENERATOR}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',  # or the browser asks for one and logs an error
            f"<title>{escape(title)}</title>",
            f"<style>{(parts / 'style.css').read_text(encoding='utf-8')}</style></head><body><main>",
            *sections,
            f"<footer>Written by remul-md {escape(__version__)}. This file holds all it needs and asks no network."
            "</footer></main>",
            figure_data(figures),
            "" if data is None else json_element("data", data),
            f"<script>{get_plotlyjs()}</script>",
            *(f"<script>{(parts / name).read_text(encoding='utf-8')}</script>" for name in (*scripts, "draw.js")),
            "</body></html>\n",
        ]
    )
    write_text(Path(path), html)
    return Path(path)


def figure_data(figures: Sequence[Figure]) -> str:
    """The plots as a script element that the page's script reads."""
    return json_element("figures", [figure.to_json() for figure in figures])


def json_element(name: str, content: Any) -> str:
    """Plain values as a script element with that id; no text in them can end it early."""
    data = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return f'<script type="application/json" id="{name}">{data.replace("<", chr(92) + "u003c")}</script>'


def verdict_badge(passed: bool | None, *, applicable: bool = True) -> tuple[str, str]:
    """Class of a verdict and the word on its badge, with a sign that tells it without colour."""
    if not applicable:
        return "open", "– Not applicable"
    return {True: ("pass", "✓ Yes"), False: ("fail", "✗ No"), None: ("open", "? Undecided")}[passed]


def verdict_value(verdict: Verdict) -> tuple[str, str]:
    """The number of a verdict and its unit; a temperature to a tenth."""
    return verdict.number, verdict.unit


def verdict_card(verdict: Verdict, *, title: str) -> str:
    """One verdict as a list item, with its number where it has one.

    Args:
        verdict: what was judged.
        title: what is judged, for a reader.
    """
    style, word = verdict_badge(verdict.passed, applicable=verdict.applicable)
    number = ""
    if verdict.value is not None:
        suffix = escape(f" {verdict.unit}" if verdict.unit else "")
        number = (
            f'<div class="number">{verdict.number}<span class="unit">{suffix}</span>'
            f"<small>limit {escape(verdict.limit)}</small></div>"
        )
    return (
        f'<li class="verdict {style}"><span class="badge">{word}</span><h3>{escape(title)}</h3>'
        f"{number}<p>{escape(verdict.why)}</p></li>"
    )


def figure_block(figure: Figure) -> str:
    """A plot with its title and how to read it."""
    thinned = f'<p class="note">{escape(figure.thinned)}</p>' if figure.thinned else ""
    return (
        f"<figure><figcaption><h3>{escape(figure.title)}</h3><p>{escape(figure.reading)}</p></figcaption>"
        f'<div class="plot" id="{figure.key}" role="img" aria-label="{escape(figure.description)}"></div>{thinned}'
        "</figure>"
    )


def folded(title: str, content: str) -> str:
    """What few readers need: behind a line that opens it, and open in print."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def provenance_section(provenance: Mapping[str, Any]) -> str:
    """What made the numbers, as it is; nothing where nothing is known."""
    return f"<section><h2>Provenance</h2>{provenance_list(provenance)}</section>" if provenance else ""


def provenance_list(provenance: Mapping[str, Any]) -> str:
    """The same without a heading."""
    shown = {key: _plain(value) for key, value in provenance.items()}
    rows = "".join(f"<dt>{escape(str(key))}</dt><dd>{escape(value)}</dd>" for key, value in shown.items())
    return f"<dl>{rows}</dl>"


def _plain(value: Any) -> str:
    """A value without the brackets of JSON, as far as it can do without."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in value.items())
    return json.dumps(value, default=str)


def number_text(value: float | None) -> str:
    """Three digits, a dash where there is no number."""
    return "–" if value is None else three_digits(value)
