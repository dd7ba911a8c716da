"""The pictures of the N-body study, from a file of results alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from remul_md.studies.figures import COLORS, style, write_panels
from remul_md.studies.nbody.report import PUBLISHED, ArmSummary, summaries
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
    arms = summaries(results)
    panels = {
        "nbody_error_against_beta": _error_against_beta,
        "nbody_percent_against_step": _percent_against_step,
        "nbody_error_against_symmetry": _error_against_symmetry,
    }
    return write_panels(folder, {name: partial(draw, arms=arms) for name, draw in panels.items()})


def _error_against_beta(axes: Axes, arms: list[ArmSummary]) -> None:
    by_beta = {arm.beta: arm for arm in arms if arm.beta is not None}
    betas = sorted(by_beta)
    for label, color, name in (("in distribution", COLORS[0], "id_mse"), ("outside", COLORS[1], "ood_mse")):
        values = [1e3 * getattr(by_beta[beta], name) for beta in betas]
        if values:
            means, spans = [v.mean() for v in values], [np.abs(v - v.mean()).max() for v in values]
            axes.errorbar(betas, means, yerr=spans, color=color, marker="o", capsize=3, label=f"REMUL, {label}")
        for arm, dashes in zip((a for a in arms if a.beta is None), ("-", "--", ":", "-."), strict=False):
            level = 1e3 * getattr(arm, name).mean()
            axes.axhline(level, color=color, lw=0.9, ls=dashes, label=f"{arm.label}, {label}")
    axes.plot([], [], " ", label=f"published REMUL: {PUBLISHED['remul'][0]} / {PUBLISHED['remul'][1]}")
    axes.set(xscale="log", yscale="log", xlabel="beta (alpha = 1)", ylabel="mean squared error x 1e-3")
    axes.set_title("Bars span the seeds; lines are arms without beta", fontsize=9, loc="left")


def _percent_against_step(axes: Axes, arms: list[ArmSummary]) -> None:
    for index, arm in enumerate(arms):
        for k, run in enumerate(arm.runs):
            # An exactly equivariant arm has rounding only, which would squeeze everything else.
            rows = [row for row in run["history"] if row["percent"] > 1e-3]
            if rows:
                axes.plot(
                    [row["step"] for row in rows],
                    [row["percent"] for row in rows],
                    label=arm.label if k == 0 else None,
                    lw=1.2,
                    ms=3,
                    **style(index),
                )
    axes.axhline(SMALL_PERCENT, color="#66707a", lw=0.9, ls="--", label="2 %")
    axes.set(xscale="log", yscale="log", xlabel="step", ylabel="share of the loss due to broken symmetry, %")
    axes.set_title("Averaged weights, validation systems in Haar poses; one line a seed", fontsize=9, loc="left")


def _error_against_symmetry(axes: Axes, arms: list[ArmSummary]) -> None:
    for index, arm in enumerate(arms):
        look = {**style(index), "ls": "none", "ms": 6}
        axes.plot(arm.equivariance_norm, 1e3 * arm.id_mse, label=arm.label, **look)
        axes.plot(arm.equivariance_norm, 1e3 * arm.ood_mse, mfc="none", **look)
    axes.plot([], [], "ko", label="filled: in distribution")
    axes.plot([], [], "ko", mfc="none", label="open: outside")
    axes.set(xscale="log", yscale="log", xlabel="E'  (mean 2-norm of f(gx) - g f(x))")
    axes.set_ylabel("mean squared error x 1e-3")
