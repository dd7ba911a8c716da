"""Parity plots laid level: error against label as a density, so that a thousandth of the forces can be seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.parity import Parity
from remul_md.analysis.report.figures import Figure, Trace
from remul_md.analysis.report.parts import number_text

N_BINS = 72, 41  # along the label and along the error; odd, so that the middle row is centred on zero
SHOWN = 0.995  # share of the points that the frame holds; how many lie beyond it is told

Array = NDArray[np.float64]


def parity_figures(parity: Parity | None) -> list[Figure]:
    """Forces and energies; the energies about their mean label."""
    if parity is None:
        return []
    return [
        _figure(
            "parity-forces",
            "Force errors against the labels",
            parity.forces,
            1e3 * (parity.predicted_forces - parity.forces),
            points="force components",
            x_title="label (eV/Å)",
            unit="meV/Å",
        ),
        _figure(
            "parity-energy",
            "Energy errors against the labels",
            parity.energy - parity.energy.mean(),
            1e3 * (parity.predicted_energy - parity.energy),
            points="energies",
            x_title="label − mean of the labels (eV)",
            unit="meV",
        ),
    ]


def _figure(key: str, title: str, label: Array, error: Array, *, points: str, x_title: str, unit: str) -> Figure:
    size = np.abs(error)
    reach = 1.05 * float(np.quantile(size, SHOWN)) or 1.0
    low, high = float(label.min()), float(label.max())
    edge = 0.02 * (high - low) or 1.0  # one frame has one energy
    low, high = low - edge, high + edge
    counts, x_edges, y_edges = np.histogram2d(label, error, bins=N_BINS, range=[[low, high], [-reach, reach]])
    n_beyond = int((size > reach).sum())
    beyond = f" Beyond the frame: {n_beyond:,}, the largest {number_text(float(size.max()))} {unit}."
    return Figure(
        key=key,
        title=title,
        reading=f"A parity plot laid level: zero is a model that agrees with the label. {len(error):,} {points}, mean "
        f"error (MAE) {number_text(float(size.mean()))} {unit}; darker: more of them." + (beyond if n_beyond else ""),
        description=f"Density of {len(error):,} {points}, model minus label against label: 99 % of the errors are "
        f"below {number_text(float(np.quantile(size, 0.99)))} {unit}, the largest is {number_text(float(size.max()))}.",
        x_title=x_title,
        y_title=f"model − label ({unit})",
        traces=(
            Trace(
                x=0.5 * (x_edges[1:] + x_edges[:-1]),
                y=0.5 * (y_edges[1:] + y_edges[:-1]),
                name="number of points",
                role="density",
                counts=counts.T.astype(np.int64),
            ),
            Trace(x=np.array([low, high]), y=np.zeros(2), name="model = label", role="bound"),
        ),
        box=(low, high, -reach, reach),
    )
