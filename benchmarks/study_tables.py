"""Tables of the studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from conditioning import table as conditioning_rows
from loss_surfaces import table as surfaces_table
from measured import ROOT, measured

from remul_md.studies.report import lowest_percent, markdown_report, step_of_percent
from remul_md.studies.tasks.flow import CLOUD

SIZES = ("flow_32_50", "flow_32_800", "flow_256_50", "flow_256_800")  # widths and training conformers


def study_table(name: str) -> str:
    """All tables of a study."""
    return markdown_report(ROOT / "results" / f"{name}.json")


def md17_baseline_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of `md17_baselines.py`, x 1e-2."""
    lines = [
        "| molecule | heavy atoms | pairs | standing still | mean geometry | mean geometry, superposed | 100 frames |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        errors = [row[name] for name in ("no_motion", "mean_geometry", "mean_superposed")]
        cells = [f"{100 * mean:.3g} ± {100 * error:.2g}" for mean, error in errors]
        cells = [row["molecule"], str(row["n_heavy"]), str(row["n_pairs"]), *cells, f"{100 * row['no_motion_100']:.2g}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def md17_baseline_table() -> str:
    """What the MD17 task costs without learning."""
    return md17_baseline_rows(measured("md17_baselines")["rows"])


def protocol_table() -> str:
    """Four bodies with other choices of protocol, x 1e-3."""
    lines = ["| changed | method | train | in | outside | best step |", "|---|---|---|---|---|---|"]
    for row in measured("nbody_protocol")["rows"]:
        method = {"plain": "plain", "remul-1": "REMUL, beta = 1"}[row["method"]]
        errors = [f"{1e3 * row[name]:.3g}" for name in ("train", "in", "out")]
        changed = row["set"].replace(" ", ", ") or "nothing"
        lines.append("| " + " | ".join([changed, method, *errors, str(row["best_step"])]) + " |")
    return "\n".join(lines)


def curvature_table() -> str:
    """Losses and largest eigenvalues of Hessians where training ended, of four bodies."""
    return surfaces_table(measured("loss_surfaces"))


def conditioning_table() -> str:
    """T and s² and their Hessians along trainings of flow matching."""
    return conditioning_rows(measured("conditioning"))


def sizes_table() -> str:
    """Flow matching of ethanol at four corners of width and training data."""
    lines = [
        "| width | weights | conformers | method | train | test | all orientations | percent "
        "| at 1,000 steps | steps to 2 % | lowest percent (step) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for content in map(measured, SIZES):
        for run in content["runs"]:
            width, n_train = (str(content["options"][name]) for name in ("width", "n_train"))
            errors = [f"{run['figures'][name]:.3g}" for name in ("train", "test", "rotated")]
            (at_1000,) = (row["percent"] for row in run["history"] if row["step"] == 1000)
            below = step_of_percent(run, below=CLOUD)
            cells = [width, f"{run['n_parameters']:,}", n_train, run["method"], *errors]
            cells += [f"{run['figures']['percent']:.2g}", f"{at_1000:.2g}"]
            cells += ["never" if below is None else f"{below:,}", lowest_percent(run, below=CLOUD)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
