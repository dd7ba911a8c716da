"""The pictures of the N-body study, from a file of results alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from remul_md.studies.figures import COLORS, style, write_panels
from remul_md.studies.nbody.report import PUBLISHED, MethodSummary, summaries
from remul_md.studies.summary import SMALL_PERCENT

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_plots(results: str | Path, folder: str | Path) -> list[Path]:
    """Draw error against beta, percent against step, and error against E'; returns the PNG files.

    Args:
        results: file of results of the study.
        folder: where the pictures go; made if it is not there.
    Raises:
        InputError: no file of results, or the folder cannot be written.
    """
    methods = summaries(results)
    panels = {
        "nbody_error_against_beta": _error_against_beta,
        "nbody_percent_against_step": _percent_against_step,
        "nbody_error_against_symmetry": _error_against_symmetry,
    }
    return write_panels(folder, {name: partial(draw, methods=methods) for name, draw in panels.items()})


def _error_against_beta(axes: Axes, methods: list[MethodSummary]) -> None:
    by_beta = {method.beta: method for method in methods if method.beta is not None}
    betas = sorted(by_beta)
    for label, color, name in (("in distribution", COLORS[0], "id_mse"), ("outside", COLORS[1], "ood_mse")):
        values = [1e3 * getattr(by_beta[beta], name) for beta in betas]
        if values:
            means, spans = [v.mean() for v in values], [np.abs(v - v.mean()).max() for v in values]
            axes.errorbar(betas, means, yerr=spans, color=color, marker="o", capsize=3, label=f"REMUL, {label}")
        for method, dashes in zip((a for a in methods if a.beta is None), ("-", "--", ":", "-."), strict=False):
            level = 1e3 * getattr(method, name).mean()
            axes.axhline(level, color=color, lw=0.9, ls=dashes, label=f"{method.label}, {label}")
    axes.plot([], [], " ", label=f"published REMUL: {PUBLISHED['remul'][0]} / {PUBLISHED['remul'][1]}")
    axes.set(xscale="log", yscale="log", xlabel="beta (alpha = 1)", ylabel="mean squared error x 1e-3")
    axes.set_title("Bars span the seeds; lines are methods without beta", fontsize=9, loc="left")


def _percent_against_step(axes: Axes, methods: list[MethodSummary]) -> None:
    for index, method in enumerate(methods):
        for k, run in enumerate(method.runs):
            # An exactly equivariant method has rounding only, which would squeeze everything else.
            rows = [row for row in run["history"] if row["percent"] > 1e-3]
            if rows:
                axes.plot(
                    [row["step"] for row in rows],
                    [row["percent"] for row in rows],
                    label=method.label if k == 0 else None,
                    lw=1.2,
                    ms=3,
                    **style(index),
                )
    axes.axhline(SMALL_PERCENT, color="#66707a", lw=0.9, ls="--", label="2 %")
    axes.set(xscale="log", yscale="log", xlabel="step", ylabel="share of the loss due to broken symmetry, %")
    axes.set_title("Averaged weights, validation systems in Haar orientations; one line a seed", fontsize=9, loc="left")


def _error_against_symmetry(axes: Axes, methods: list[MethodSummary]) -> None:
    for index, method in enumerate(methods):
        look = {**style(index), "ls": "none", "ms": 6}
        axes.plot(method.equivariance_norm, 1e3 * method.id_mse, label=method.label, **look)
        axes.plot(method.equivariance_norm, 1e3 * method.ood_mse, mfc="none", **look)
    axes.plot([], [], "ko", label="filled: in distribution")
    axes.plot([], [], "ko", mfc="none", label="open: outside")
    axes.set(xscale="log", yscale="log", xlabel="E'  (mean 2-norm of f(gx) - g f(x))")
    axes.set_ylabel("mean squared error x 1e-3")
