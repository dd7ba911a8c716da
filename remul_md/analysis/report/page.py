"""The report of a run: one HTML file with its script, style and data inside, readable without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remul_md.analysis.report.banner import SUBSCRIPTS, banner, cards, verdict_in_words
from remul_md.analysis.report.content import RunContent
from remul_md.analysis.report.figures import Figure, report_figures
from remul_md.analysis.report.parity import parity_figures
from remul_md.analysis.report.parts import write_page
from remul_md.analysis.report.record import PotentialRecord
from remul_md.analysis.report.sections import report_sections, table_of_contents
from remul_md.analysis.report.spectrum import spectrum_figure
from remul_md.analysis.trajectory import TrajectoryAnalysis


def write_report(
    analysis: TrajectoryAnalysis,
    path: str | Path,
    *,
    evaluation: Mapping[str, Any] | None = None,
    training: Sequence[Mapping[str, float]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    content: RunContent | None = None,
    record: PotentialRecord | None = None,
) -> Path:
    """Write the report of a run as one self-contained HTML file (5 to 6 MB, nearly all of it the plot script).

    The page holds its data, `report_data`, in the elements `data` and `figures`.

    Args:
        analysis: of the run.
        path: file to write; its folder is made.
        evaluation: figures of `remul-md evaluate`; without them those that ship with the potential are shown, else the
            validation error of its training.
        training: rows of `metrics.csv` (step, task, equivariance, validation_force_mae); adds the learning curve.
        provenance: what made the run (potential, its hash, seeds, versions), shown at the end as it is.
        content: of `collect_content`; adds the 3D view, the spectrum, the vibrations and the parity plots.
        record: of the potential; says what the verdict is good for and how accurate the forces are.
    Returns:
        The path written.
    Raises:
        InputError: the file cannot be written.
    """
    content = content or RunContent()
    known = evaluation_of(evaluation, record)
    figures = _figures(analysis, training=training, content=content)
    data = _plain_data(analysis, evaluation=known, provenance=provenance, content=content)
    sections = [
        banner(analysis, record),
        cards(analysis, evaluation=known, record=record),
        table_of_contents(),
        *report_sections(
            analysis, figures, content=content, evaluation=known, record=record, provenance=provenance or {}
        ),
    ]
    title = f"{analysis.formula.translate(SUBSCRIPTS)}: {verdict_in_words(analysis, record)[1]}"
    scripts = [] if content.molecule is None else ["scene.js", "molecule.js"]
    return write_page(path, title=title, sections=sections, figures=figures, data=data, scripts=scripts)


def evaluation_of(evaluation: Mapping[str, Any] | None, record: PotentialRecord | None) -> Mapping[str, Any] | None:
    """What is known of the accuracy on test frames: what was given, else what ships with the potential."""
    return evaluation if evaluation is not None or record is None else record.figures


def report_data(
    analysis: TrajectoryAnalysis,
    *,
    evaluation: Mapping[str, Any] | None = None,
    training: Sequence[Mapping[str, float]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    content: RunContent | None = None,
    record: PotentialRecord | None = None,
) -> dict[str, Any]:
    """All that the report shows as plain values: the figures of `analysis.to_json()`, its plots, and the other parts.

    Args:
        analysis, evaluation, training, provenance, content, record: as `write_report`.
    """
    shown = content or RunContent()
    return {
        **_plain_data(analysis, evaluation=evaluation_of(evaluation, record), provenance=provenance, content=shown),
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
    return [
        *parity_figures(content.parity),
        *report_figures(analysis, training=training),
        *([] if frequencies is None else [frequencies]),
    ]
