"""The frequencies of a run in its report: density of states, with the harmonic vibrations as lines under it."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.report.figures import MAX_POINTS, Figure, Trace, thin
from remul_md.analysis.report.parts import folded, number_text, verdict_badge
from remul_md.analysis.spectrum import FASTEST_PER_CM, Spectrum
from remul_md.analysis.vibrations import Vibrations

KEY = "spectrum"


def spectrum_figure(spectrum: Spectrum | None, vibrations: Vibrations | None) -> Figure | None:
    """Density of states up to the fastest vibration there is, and a line for each harmonic one; None for neither."""
    traces: list[Trace] = []
    reading, description, thinned, height = [], [], "", 1.0
    if spectrum is not None:
        wanted = spectrum.wavenumbers_per_cm <= FASTEST_PER_CM
        x, y = thin(spectrum.wavenumbers_per_cm[wanted], 1e3 * spectrum.density[wanted], at_most=MAX_POINTS)
        traces.append(Trace(x=x, y=y, name="motion in this run", role="main"))
        height = float(y.max())
        thinned = "" if len(x) == wanted.sum() else f"Thinned to {len(x):,} of {int(wanted.sum()):,} points."
        reading.append(
            "Where the atoms of the run move; the area under the density is the number of degrees of freedom, and a "
            f"sharp line is {spectrum.resolution_per_cm:.0f} 1/cm wide."
        )
        description.append(
            f"Density of states with {spectrum.integral:.1f} degrees of freedom, highest near {x[np.argmax(y)]:.0f} "
            "1/cm."
        )
    if vibrations is not None:
        lines = vibrations.modes.vibrations_per_cm
        x, y = _lines(lines[lines >= 0.0], depth=0.08 * height)
        traces.append(Trace(x=x, y=y, name="harmonic, at the minimum", role="lines"))
        reading.append(
            "Lines below zero are the harmonic vibrations at the minimum; real motion lies a little lower, because "
            "bonds soften as they stretch, and a molecule that turns splits its lines."
        )
        n_imaginary = int((lines < 0.0).sum())
        if n_imaginary:
            reading.append(f"Imaginary ones are not drawn ({n_imaginary}).")
        description.append(f"{len(lines)} harmonic vibrations from {lines[0]:.0f} to {lines[-1]:.0f} 1/cm.")
    if not traces:
        return None
    return Figure(
        key=KEY,
        title="Vibrations",
        reading=" ".join(reading),
        description=" ".join(description),
        x_title="wavenumber (1/cm)",
        y_title="density (per 1000 1/cm)",
        traces=tuple(traces),
        thinned=thinned,
    )


def _lines(wavenumbers_per_cm: NDArray[np.float64], *, depth: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vertical lines from 0 down to -depth as one curve with gaps, [3 V]."""
    n = len(wavenumbers_per_cm)
    return np.repeat(wavenumbers_per_cm, 3), np.tile([0.0, -depth, np.nan], n)


def frequencies_block(figure: str, *, vibrations: Vibrations | None, missing: tuple[str, ...], warning: str) -> str:
    """The plot, the verdicts on the minimum and the table of wavenumbers; what is missing is said.

    Args:
        figure: the block of `spectrum_figure`, or "".
        vibrations: if computed.
        missing: why a part is missing, one sentence each.
        warning: of the spectrum.
    """
    if not figure and not missing:
        return ""
    notes = "".join(f'<p class="note">{escape(line)}</p>' for line in (*missing, warning) if line)
    return f"{figure}{notes}{_minimum(vibrations)}"


def _minimum(found: Vibrations | None) -> str:
    if found is None:
        return ""
    judged = "".join(
        f'<li class="{verdict_badge(verdict.passed)[0]}"><span class="badge">{verdict_badge(verdict.passed)[1]}</span> '
        f"<b>{escape(verdict.name.capitalize())}.</b> {escape(verdict.measured)}. "
        f"{escape(verdict.why)}</li>"
        for verdict in found.verdicts
    )
    modes = found.modes
    rows = (
        ("Translations, 1/cm", modes.translations_per_cm, "zero, because no place is special"),
        (
            "Rotations, 1/cm",
            modes.rotations_per_cm,
            "zero where the energy does not depend on the orientation",
        ),
        ("Vibrations, 1/cm", modes.vibrations_per_cm, "negative numbers stand for imaginary ones"),
    )
    table = "".join(f"<dt>{name}</dt><dd>{_numbers(values)} ({what})</dd>" for name, values, what in rows)
    state = "relaxed" if found.relaxed else "not relaxed"
    left = f"a largest force of {number_text(1e3 * found.max_force)} meV/Å"
    inside = (
        f"<p>The first frame, {state} in {found.n_steps} steps to {left}; zero-point energy "
        f"{number_text(modes.zero_point_energy)} eV (harmonic).</p>"
        f'<ul class="findings">{judged}</ul><dl>{table}</dl>'
    )
    failed = [verdict.name for verdict in found.verdicts if verdict.passed is not True]
    return folded("The nearest minimum" + (f", not as it should be: {', '.join(failed)}" if failed else ""), inside)


def _numbers(values: NDArray[np.float64]) -> str:
    return " ".join(f"{value + 0.0:.1f}".replace("-0.0", "0.0").replace("-", "−") for value in values)
