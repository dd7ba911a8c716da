"""The pictures of the force-field study, from a file of results alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from remul_md.studies.figures import COLORS, plain_numbers, style, write_panels
from remul_md.studies.forcefield.methods import METHODS
from remul_md.studies.forcefield.report import (
    AIM_ACCURACY,
    AIM_SPREAD,
    BUDGET_TITLES,
    PERCENT,
    MethodSummary,
    molecules_of,
    read_results,
    summaries,
)
from remul_md.studies.summary import SMALL_PERCENT

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_plots(results: str | Path, folder: str | Path) -> list[Path]:
    """Percent against step, spread against error, spread and error against beta, and the grid; returns the PNGs.

    Args:
        results: file of results of the study.
        folder: where the pictures go; made if it is not there.
    Raises:
        InputError: no file of results, or the folder cannot be written.
    """
    content = read_results(results)
    panels: dict[str, Callable[[Axes], None]] = {}
    for molecule in molecules_of(content):
        steps = summaries(content, molecule=molecule, budget="steps")
        timed = summaries(content, molecule=molecule, budget="time")
        name = f"forcefield_{molecule}"
        if steps:
            panels[f"{name}_percent_against_step"] = partial(_percent_against_step, methods=steps)
        panels[f"{name}_trade_off"] = partial(_trade_off, methods=timed or steps)
        if any(method.beta is not None for method in timed or steps):
            panels[f"{name}_against_beta"] = partial(_against_beta, methods=timed or steps)
    if any(run["part"] == "grid" for run in content["runs"]):
        panels["forcefield_grid"] = partial(_grid, runs=[run for run in content["runs"] if run["part"] == "grid"])
    return write_panels(folder, panels)


def _style(method: str) -> dict[str, Any]:
    return style([*METHODS].index(method))  # a method looks the same in all pictures


def _percent_against_step(axes: Axes, methods: list[MethodSummary]) -> None:
    for method in methods:
        for index, run in enumerate(method.runs):
            rows = [row for row in run["history"] if row[PERCENT] > 1e-3]  # an equivariant method has rounding only
            axes.plot(
                [row["step"] for row in rows],
                [row[PERCENT] for row in rows],
                label=method.label if index == 0 and rows else None,
                lw=1.2,
                ms=3,
                **_style(method.method),
            )
    axes.axhline(SMALL_PERCENT, color="#66707a", lw=0.9, ls="--", label=f"{SMALL_PERCENT:g} %")
    axes.set(xscale="log", yscale="log", xlabel="step", ylabel="share of the force loss due to broken symmetry, %")
    axes.set_title(f"{methods[0].molecule}, validation frames, averaged weights", fontsize=9, loc="left")


def _trade_off(axes: Axes, methods: list[MethodSummary]) -> None:
    for method in methods:
        spread, error = method.accuracy("rotational_spread"), method.accuracy("force_mae_rotated")
        if spread.max() > 1e-3:
            axes.plot(spread, error, label=method.label, ls="none", ms=6, **_style(method.method))
        else:
            axes.axhline(error.mean(), color=COLORS[8], lw=0.9, ls="--", label=f"{method.label}: spread 0")
    base = next((method for method in methods if method.method == "augmentation"), None)
    if base is not None:
        limits = [
            AIM_SPREAD * base.accuracy("rotational_spread").mean(),
            AIM_ACCURACY * base.accuracy("force_mae_rotated").mean(),
        ]
        axes.axvline(limits[0], color="#66707a", lw=0.8, ls=":", label="aim: left of this line ...")
        axes.axhline(limits[1], color="#66707a", lw=0.8, ls="-.", label="... and below this one")
    axes.set(xscale="log", xlabel="rotational spread, meV/Å", ylabel="force MAE in rotated orientations, meV/Å")
    plain_numbers(axes)
    axes.set_title(f"{methods[0].molecule}, test frames, {BUDGET_TITLES[methods[0].budget]}", fontsize=9, loc="left")


def _against_beta(axes: Axes, methods: list[MethodSummary]) -> None:
    swept = sorted((method for method in methods if method.beta is not None), key=lambda method: method.beta or 0.0)
    base = next((method for method in methods if method.method == "augmentation"), None)
    for name, label, color in (
        ("force_mae_original", "force MAE, original", COLORS[2]),
        ("force_mae_rotated", "force MAE, rotated", COLORS[0]),
        ("rotational_spread", "rotational spread", COLORS[1]),
    ):
        values = [method.accuracy(name) for method in swept]
        means = [value.mean() for value in values]
        spans = [np.abs(value - value.mean()).max() for value in values]
        betas = [method.beta or 0.0 for method in swept]
        axes.errorbar(betas, means, yerr=spans, color=color, marker="o", capsize=3, label=label)
        if base is not None:
            axes.axhline(base.accuracy(name).mean(), color=color, lw=0.9, ls="--")
    axes.plot([], [], "k--", lw=0.9, label="augmentation")
    axes.set(xscale="log", yscale="log", xlabel="beta (alpha = 1)", ylabel="meV/Å")
    plain_numbers(axes)
    axes.set_title(f"{methods[0].molecule}, test frames, {BUDGET_TITLES[methods[0].budget]}", fontsize=9, loc="left")


def _grid(axes: Axes, runs: list[dict[str, Any]]) -> None:
    lines: dict[tuple[str, str, int], dict[int, list[float]]] = {}
    for run in runs:
        line = lines.setdefault((run["molecule"], run["method"], run["n_train"]), {})
        line.setdefault(run["width"], []).append(run["accuracy"]["equivariance_percent"])
    for index, ((molecule, method, n_train), line) in enumerate(sorted(lines.items())):
        widths = sorted(line)
        means = [float(np.mean(line[width])) for width in widths]
        axes.plot(widths, means, label=f"{molecule}, {METHODS[method].label}, {n_train} frames", **style(index))
    axes.axhline(SMALL_PERCENT, color="#66707a", lw=0.9, ls="--", label=f"{SMALL_PERCENT:g} %")
    axes.set(xscale="log", yscale="log", xlabel="width", ylabel="share of the force loss due to broken symmetry, %")
