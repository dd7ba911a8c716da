"""The page of `remul-md improve`: a row a round, and a picture of how long the runs held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remul_md.analysis.drawing import SERIES, SOFT, drawn_panels
from remul_md.outputs import save_picture, write_text

PAGE, PICTURE = "improve.md", "improve.png"
COLUMNS = (
    "round",
    "labels",
    "new",
    "refused",
    "held (ps)",
    "ended by",
    "limit (meV/Å)",
    "old frames before / after (meV/Å)",
    "new frames before / after (meV/Å)",
    "error / error bar",
    "seconds: runs, labels, training",
)


def write_page(folder: Path, content: Mapping[str, Any], *, draw: bool = True) -> None:
    """Write `improve.md` and, if asked to, `improve.png` from what `improve.json` holds."""
    asked, rounds = content["asked"], content["rounds"]
    lines = [
        f"# {asked['method']}, {asked['temperature_K']} K, until {asked['until_ps']:g} ps",
        "",
        f"Ended: {content['ended'] or 'not yet'}. Columns: docs/improve.md.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
        *(f"| {' | '.join(row)} |" for row in table_rows(rounds)),
        "",
        f"![How long the runs held]({PICTURE})",
        "",
    ]
    write_text(folder / PAGE, "\n".join(lines))
    sampled = [row for row in rounds if "runs" in row]
    if draw and sampled:
        _draw(folder / PICTURE, sampled, until_ps=asked["until_ps"])


def table_rows(rounds: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The cells of each round; a stage that is not done is a dash."""
    rows, total = [], 0
    for entry in rounds:
        total += entry.get("n_labels", 0)
        seconds = entry["seconds"]
        ratio, limit = entry.get("error_over_std_new"), entry.get("max_uncertainty_eV_per_A")
        rows.append(
            [
                str(entry["round"]),
                str(total),
                _told(entry.get("n_labels"), "d"),
                _told(None if "refused" not in entry else len(entry["refused"]), "d"),
                _held(entry.get("runs", ())) or "-",
                _causes(entry.get("runs", ())) or "-",
                _told(None if limit is None else 1000.0 * limit, ".0f"),
                _pair(entry.get("force_mae_old")),
                _pair(entry.get("force_mae_new")),
                _told(ratio, ".2f"),
                ", ".join(_told(seconds.get(stage), ".0f") for stage in ("hot runs", "labels", "training")),
            ]
        )
    return rows


def _pair(errors: Mapping[str, float] | None) -> str:
    """Before and after a training, meV/Angstrom."""
    return f"{errors['before']:.1f} / {errors['after']:.1f}" if errors else "-"


def _held(runs: Sequence[Mapping[str, Any]]) -> str:
    """Shortest and longest time of each temperature, and how many of its runs held."""
    told = []
    for temperature in sorted({run["temperature_K"] for run in runs}):
        times = [run["stable_ps"] for run in runs if run["temperature_K"] == temperature]
        n_held = sum(not run["cause"] for run in runs if run["temperature_K"] == temperature)
        span = f"{min(times):.3g}" if min(times) == max(times) else f"{min(times):.3g} to {max(times):.3g}"
        told.append(f"{temperature:g} K: {span} ({n_held} of {len(times)} held)")
    return "; ".join(told)


def _causes(runs: Sequence[Mapping[str, Any]]) -> str:
    causes = [run["cause"] for run in runs if run["cause"]]
    return ", ".join(f"{causes.count(cause)} {cause}" for cause in sorted(set(causes)))


def _told(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _draw(path: Path, sampled: Sequence[Mapping[str, Any]], *, until_ps: float) -> None:
    with drawn_panels(1, n_columns=1, inches=(6.4, 4.0)) as (figure, (axes,)):
        for place, temperature in enumerate(sorted({run["temperature_K"] for row in sampled for run in row["runs"]})):
            points = [
                (row["round"] + 0.08 * place, run["stable_ps"], bool(run["cause"]))
                for row in sampled
                for run in row["runs"]
                if run["temperature_K"] == temperature
            ]
            color = SERIES[place % len(SERIES)]
            axes.plot([], [], "o", color=color, label=f"{temperature:g} K")
            for ended, filled in ((True, color), (False, "none")):
                chosen = [(x, y) for x, y, cause in points if cause == ended]
                axes.plot(*zip(*chosen, strict=True) if chosen else ([], []), "o", color=color, markerfacecolor=filled)
        axes.axhline(until_ps, color=SOFT, linewidth=1.0)
        axes.set_yscale("symlog", linthresh=0.01)
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel("round")
        axes.set_ylabel("held (ps; open: until the runs of the round were ended)")
        axes.legend()
        save_picture(figure, path)
