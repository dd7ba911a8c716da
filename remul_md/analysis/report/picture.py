"""One picture of a run, for a README: energy, symmetry, and what training reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from remul_md.analysis.drawing import ACCENT, INK, SOFT, drawn_panels
from remul_md.analysis.energy import DRIFT_BOUND
from remul_md.analysis.report.figures import drift_band, learning_curve, orientation_angles, thin
from remul_md.analysis.trajectory import TrajectoryAnalysis
from remul_md.analysis.verdicts import ROTATION
from remul_md.errors import InputError
from remul_md.outputs import save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_PX, HEIGHT_PX, DPI = 1600, 640, 160
Panel = Callable[["Axes", TrajectoryAnalysis, Any, Any], None]


def write_summary_png(
    analysis: TrajectoryAnalysis,
    path: str | Path,
    *,
    evaluation: Mapping[str, Any] | None = None,
    training: Sequence[Mapping[str, float]] | None = None,
) -> Path:
    """Write a picture 1600 pixels wide: energy with its drift, rotational error against the angle swept, training.

    Panels without data are left out. The third panel is the learning curve, or the accuracy in original and rotated
    orientations where only an evaluation is given.

    Args:
        analysis: of the run.
        path: PNG file to write; its folder is made.
        evaluation: figures of `remul-md evaluate`.
        training: rows of `metrics.csv`.
    Raises:
        InputError: nothing to draw, or the file cannot be written.
    """
    panels: list[Panel] = []
    if analysis.drift is not None and analysis.energies is not None:
        panels.append(_energy_panel)
    if analysis.rotational is not None:
        panels.append(_rotation_panel)
    curve = learning_curve(training) if training else None
    if curve is not None or evaluation is not None:
        panels.append(_training_panel)
    if not panels:
        raise InputError(
            f"{analysis.name} holds nothing to draw: it needs energies and momenta over at least 20 rows, "
            "or a calculator for the rotations"
        )
    inches = WIDTH_PX / DPI, HEIGHT_PX / DPI
    with drawn_panels(len(panels), n_columns=len(panels), inches=inches) as (canvas, axes):
        for ax, panel in zip(axes, panels, strict=True):
            panel(ax, analysis, evaluation, training)
        save_picture(canvas, path, dpi=DPI)
    return Path(path)


def _heading(ax: Axes, title: str, finding: str) -> None:
    ax.set_title(f"{title}\n", loc="left", fontsize=10.5, fontweight="bold", color=INK)
    ax.text(0.0, 1.025, finding, transform=ax.transAxes, fontsize=8.5, color=SOFT, va="bottom")


def _energy_panel(ax: Axes, analysis: TrajectoryAnalysis, _evaluation: Any, _training: Any) -> None:
    energies, drift = analysis.energies, analysis.drift
    assert energies is not None
    assert drift is not None
    relative = 1e3 * (energies.total_energy / analysis.n_atoms - drift.intercept_eV_per_atom)
    ends = energies.time_ps[[0, -1]]
    line, low, high = drift_band(drift, ends)
    ax.plot(
        *thin(energies.time_ps, relative, at_most=2000), color=SOFT, linewidth=0.45, alpha=0.8, label="total energy"
    )
    ax.fill_between(ends, low, high, color=ACCENT, alpha=0.25, linewidth=0)
    ax.plot(ends, line, color=ACCENT, linewidth=2.0, label="drift")
    # Room for the drift that the bound would allow: a conserved energy must look flat, whatever its own scale.
    reach = max(float(np.abs(relative).max()) * 1.15, 0.6 * DRIFT_BOUND * drift.length_ps)
    ax.set_ylim(-reach, reach)
    ax.set_xlabel("time (ps)")
    ax.set_ylabel("total energy − start (meV/atom)")
    half = 0.5 * (drift.ci95_meV_per_atom_ps[1] - drift.ci95_meV_per_atom_ps[0])
    slope = f"{drift.slope_meV_per_atom_ps:z.4f}".replace("-", "−")
    _heading(
        ax,
        "Energy is kept" if analysis.conservation == "conserves" else "Energy",
        f"drift {slope} ± {half:.4f} meV/atom/ps",
    )
    ax.legend(loc="lower left", ncols=2, handlelength=1.6, columnspacing=1.2)


def _rotation_panel(ax: Axes, analysis: TrajectoryAnalysis, _evaluation: Any, _training: Any) -> None:
    rotational = analysis.rotational
    assert rotational is not None
    angle, origin = orientation_angles(analysis)
    ax.plot(angle, rotational.error_meV_per_A, "o", color=ACCENT, markersize=4.2, alpha=0.85, markeredgewidth=0)
    ax.set_xlim(-4, 184)
    ax.set_xticks([0, 45, 90, 135, 180])
    ax.set_ylim(0.0, 1.25 * float(rotational.error_meV_per_A.max()))
    ax.set_xlabel(f"angle from {origin} (degrees)")
    ax.set_ylabel("rotational error of the forces (meV/Å)")
    share = 100.0 * rotational.mean_error_meV_per_A / rotational.rms_force_meV_per_A
    small = any(verdict.passed for verdict in analysis.verdicts if verdict.name == ROTATION)
    _heading(
        ax,
        "Forces turn with the molecule" if small else "Rotational error of the forces",
        f"{rotational.mean_error_meV_per_A:.2g} meV/Å = {share:.2g} % of the RMS force",
    )


def _training_panel(
    ax: Axes,
    _analysis: TrajectoryAnalysis,
    evaluation: Mapping[str, Any] | None,
    training: Sequence[Mapping[str, float]] | None,
) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    accuracy = None
    if evaluation is not None and evaluation.get("force_mae_original") is not None:
        accuracy = (float(evaluation["force_mae_original"]), float(evaluation["force_mae_rotated"]))
    curve = learning_curve(training) if training else None
    if curve is not None and curve.traces[0].marks:
        trace = curve.traces[0]
        ax.plot(trace.x, trace.y, "o-", color=ACCENT, markersize=3, linewidth=1.4, label="validation")
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("training step")
        ax.set_ylabel("force error (MAE, meV/Å)")
        finding = f"validation {trace.y[-1]:.1f} meV/Å at the end"
        if accuracy is not None:
            finding = f"test {accuracy[0]:.1f} meV/Å original, {accuracy[1]:.1f} rotated"
            ax.axhline(accuracy[1], color=INK, linewidth=1.0, linestyle="--", label="test, rotated")
            ax.legend(loc="upper right")
        _heading(ax, "Learned from data", finding)
    elif accuracy is not None:
        bars = ax.bar(["original orientation", "rotated"], accuracy, color=[SOFT, ACCENT], width=0.5)
        ax.bar_label(bars, fmt="%.1f", padding=3, color=INK)
        ax.set_ylim(0.0, 1.25 * max(accuracy))
        ax.set_ylabel("force error (MAE, meV/Å)")
        _heading(ax, "Test accuracy", f"{evaluation.get('n_frames', '')} test frames" if evaluation else "")
