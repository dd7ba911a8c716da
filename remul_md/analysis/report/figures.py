"""What the report plots: traces, axes and one sentence each; no colours, no script.

A trace names a role (`main`, `noise`, `second`, `third`, `accent`, `band`, `bound`, `lines`, `density`, `run-0` to
`run-5`); `draw.js` gives it a colour and a line style or marker that tells it from the others without colour, for light
and dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.energy import Drift
from remul_md.analysis.trajectory import TrajectoryAnalysis
from remul_md.potentials.domain import DISTANCE_MARGIN

MAX_POINTS = 2000  # in one plot; a browser on a phone draws that at once
BAND_POINTS = 21  # of a fitted line and of both edges of its interval

ALIKE = "points at one height mean that all orientations are served alike."

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One curve: `role` decides its look, `marks` draws points instead of a line, `moments` are their times in ps.

    With `counts`, [len(y), len(x)], it is a density: x and y are the centres of its cells; empty cells are left out.
    """

    x: Array
    y: Array
    name: str
    role: str
    marks: bool = False
    moments: Array | None = None
    counts: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One plot.

    Args:
        key: identifier in the page.
        title: what is shown.
        reading: one sentence that says how to read it.
        description: for those who cannot see it: the trend in words and numbers.
        x_title, y_title: axes with units.
        traces: curves.
        thinned: what thinning left out; empty if nothing was.
        log_y: logarithmic vertical axis.
        box: left, right, bottom and top of a frame that has no room about it, as of a density; None: as the data are.
    """

    key: str
    title: str
    reading: str
    description: str
    x_title: str
    y_title: str
    traces: tuple[Trace, ...]
    thinned: str = ""
    log_y: bool = False
    box: tuple[float, float, float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain lists for the page's script."""
        return {
            "key": self.key,
            "title": self.title,
            "x_title": self.x_title,
            "y_title": self.y_title,
            "log_y": self.log_y,
            **({} if self.box is None else {"box": [_short(edge) for edge in self.box]}),
            "traces": [
                {
                    "x": [_short(value) for value in trace.x],
                    "y": [_short(value) for value in trace.y],
                    "name": trace.name,
                    "role": trace.role,
                    "marks": trace.marks,
                    **({} if trace.moments is None else {"moments": [_short(value) for value in trace.moments]}),
                    **({} if trace.counts is None else {"counts": [_filled(row) for row in trace.counts]}),
                }
                for trace in self.traces
            ],
        }


def thin(x: Array, y: Array, *, at_most: int) -> tuple[Array, Array]:
    """At most that many points, keeping the lowest and the highest of each interval, so that no spike is lost."""
    if len(x) <= at_most:
        return x, y
    kept = kept_places(y, at_most=at_most)
    return x[kept], y[kept]


def kept_places(y: Array, *, at_most: int) -> NDArray[np.int64]:
    """Places of the points that `thin` keeps, ascending."""
    if len(y) <= at_most:
        return np.arange(len(y))
    edges = np.linspace(0, len(y), at_most // 2 + 1).astype(np.int64)
    kept: list[int] = []
    for start, stop in pairwise(edges):
        ends = {start + int(np.argmin(y[start:stop])), start + int(np.argmax(y[start:stop]))}
        kept.extend(sorted(ends))
    return np.array(kept, dtype=np.int64)


def report_figures(
    analysis: TrajectoryAnalysis, *, training: Sequence[Mapping[str, float]] | None = None
) -> list[Figure]:
    """The plots that the analysis has data for, in the order of the page; what is zero throughout is not plotted."""
    made = [
        _total_energy(analysis),
        _temperature(analysis),
        _rotational_error(analysis),
        _torque(analysis),
        _bonds(analysis),
        _departure(analysis),
        None if not training else learning_curve(training),
    ]
    return [figure for figure in made if figure is not None]


def drift_band(drift: Drift, time_ps: Array) -> tuple[Array, Array, Array]:
    """Fitted line and the fan of its 95 % interval about the middle of the run, meV/atom from the line's start."""
    middle = drift.start_ps + 0.5 * drift.length_ps
    line = 1e3 * (drift.line(time_ps) - drift.intercept_eV_per_atom)
    low, high = (
        line + (edge - drift.slope_meV_per_atom_ps) * (time_ps - middle) for edge in drift.ci95_meV_per_atom_ps
    )
    return line, low, high


def drift_traces(time_ps: Array, total_energy_per_atom: Array, drift: Drift, *, at_most: int) -> tuple[Trace, ...]:
    """Total energy from the start of the fitted line, meV/atom, in at most so many points; line; both ends of its fan.

    Args:
        time_ps, total_energy_per_atom: of the run, [L], ps and eV/atom.
        drift: fitted to them.
        at_most: points that are drawn of them.
    """
    x, y = thin(time_ps, 1e3 * (total_energy_per_atom - drift.intercept_eV_per_atom), at_most=at_most)
    ends = np.linspace(time_ps[0], time_ps[-1], BAND_POINTS)
    line, low, high = drift_band(drift, ends)
    return (
        Trace(x=x, y=y, name="total energy", role="noise"),
        Trace(x=ends, y=line, name="drift", role="accent"),
        Trace(x=ends, y=low, name="95 % interval", role="band"),
        Trace(x=ends, y=high, name="", role="band"),
    )


def _total_energy(analysis: TrajectoryAnalysis) -> Figure | None:
    energies, drift = analysis.energies, analysis.drift
    if energies is None or drift is None:
        return None
    traces = drift_traces(
        energies.time_ps, energies.total_energy / analysis.n_atoms, drift, at_most=MAX_POINTS - 3 * BAND_POINTS
    )
    interval = f"{drift.ci95_meV_per_atom_ps[0]:.2g} to {drift.ci95_meV_per_atom_ps[1]:.2g}"
    return Figure(
        key="total-energy",
        title="Total energy per atom",
        reading="A flat line means that energy is conserved: the slope is the drift, and the scatter about it comes "
        "from the finite time step.",
        description=f"Total energy per atom over {drift.length_ps:.3g} ps: fitted drift "
        f"{drift.slope_meV_per_atom_ps:.2g} meV per atom and ps (95 % interval {interval}), scatter "
        f"{drift.fluctuation_meV_per_atom:.2g} meV per atom.",
        x_title="time (ps)",
        y_title="energy − start (meV/atom)",
        traces=traces,
        thinned=_thinned(len(energies.time_ps), len(traces[0].x)),
    )


def orientation_angles(analysis: TrajectoryAnalysis) -> tuple[Array, str]:
    """Angles of the frames that were rotated, [R], degrees, and from what: the training data where they are known."""
    if analysis.orientations is not None:
        return analysis.orientations.angle_deg, "the training orientation"
    return analysis.angle_swept_deg[analysis.rotation_frames], "the first frame"


def _rotational_error(analysis: TrajectoryAnalysis) -> Figure | None:
    """Against the orientation; a point knows the time of its frame."""
    rotational = analysis.rotational
    if rotational is None:
        return None
    angle, origin = orientation_angles(analysis)
    order = np.argsort(angle)
    angle, time = angle[order], analysis.time_ps[analysis.rotation_frames][order]
    wanted = [
        (rotational.error_meV_per_A, "rotational error", "accent"),
        (rotational.spread_meV_per_A, "spread over orientations", "second"),
    ]
    reading = f"How wrong the forces turn, against how far the molecule has rotated since the start: {ALIKE}"
    if analysis.orientations is not None:
        reading = (
            "How wrong the forces turn, against how far the molecule is rotated away from the orientation of the "
            f"training data (half of them lie within {analysis.orientations.median_of_training_deg:.0f}° of it): "
            + ALIKE
        )
    beside, ensemble = "", rotational.ensemble_std_meV_per_A
    if ensemble is not None:
        wanted.append((ensemble, "spread of the ensemble", "third"))
        beside = f"; ensemble spread {float(np.sqrt(np.mean(ensemble**2))):.3g} meV/Å"
        reading += " The members of the ensemble differ by what none of them knows, symmetry or not."
    traces = []
    for values, name, role in wanted:
        kept = kept_places(values[order], at_most=MAX_POINTS // 3)
        x, y, moments = angle[kept], values[order][kept], time[kept]
        traces.append(Trace(x=x, y=y, name=name, role=role, marks=True, moments=moments))
    error = rotational.error_meV_per_A
    return Figure(
        key="rotational-error",
        title="Rotational error against orientation",
        reading=reading,
        description=f"Rotational error of the forces on {len(angle)} frames, {error.min():.3g} to {error.max():.3g}, "
        f"mean {rotational.mean_error_meV_per_A:.3g} meV/Å, at angles from {angle[0]:.0f} to {angle[-1]:.0f} degrees "
        f"from {origin}; spread {rotational.rms_spread_meV_per_A:.3g} meV/Å{beside}.",
        x_title=f"angle from {origin} (degrees)",
        y_title="force error (meV/Å)",
        traces=tuple(traces),
        thinned=_thinned(len(angle), len(traces[0].x)),
        # The ensemble's spread is the larger one by far where the forces turn well.
        log_y=ensemble is not None and all(float(trace.y.min()) > 0.0 for trace in traces),
    )


def _torque(analysis: TrajectoryAnalysis) -> Figure | None:
    if analysis.net_torque_eV is None or not analysis.net_torque_eV.any():
        return None
    size = 1e3 * np.linalg.norm(analysis.net_torque_eV, axis=1)
    x, y = thin(analysis.time_ps[analysis.torque_frames], size, at_most=MAX_POINTS)
    return Figure(
        key="net-torque",
        title="Net torque",
        reading="An isolated molecule feels none: what is left is how steeply the model's energy changes when "
        "the molecule turns.",
        description=f"Size of the net torque on {len(size)} frames: root mean square "
        f"{1e3 * float(analysis.net_torque_rms_eV or 0.0):.3g}, largest {size.max():.3g} meV.",
        x_title="time (ps)",
        y_title="net torque (meV)",
        traces=(Trace(x=x, y=y, name="net torque", role="main"),),
        thinned=_thinned(len(size), len(x)),
    )


def _temperature(analysis: TrajectoryAnalysis) -> Figure | None:
    if analysis.energies is None or analysis.temperature_K is None:
        return None
    time, mean = analysis.energies.time_ps, float(analysis.temperature_K.mean())
    x, y = thin(time, analysis.temperature_K, at_most=MAX_POINTS - 4)
    ends = time[[0, -1]]
    traces = [
        Trace(x=x, y=y, name="temperature", role="noise"),
        Trace(x=ends, y=np.full(2, mean), name=f"mean {mean:.0f} K", role="accent"),
    ]
    if analysis.asked_temperature_K:
        asked = float(analysis.asked_temperature_K)
        traces.append(Trace(x=ends, y=np.full(2, asked), name=f"asked {asked:.0f} K", role="bound"))
    return Figure(
        key="temperature",
        title="Temperature",
        reading="A small molecule swings by tens of kelvin while it vibrates: compare the mean, not the moments.",
        description=f"Temperature from the kinetic energy in {analysis.n_dof} degrees of freedom, mean {mean:.1f} K, "
        f"standard deviation {analysis.temperature_K.std():.1f} K.",
        x_title="time (ps)",
        y_title="temperature (K)",
        traces=tuple(traces),
        thinned=_thinned(len(time), len(x)),
    )


def _bonds(analysis: TrajectoryAnalysis) -> Figure | None:
    bonds = analysis.bonds
    if bonds is None or not bonds.deviation_A.any():
        return None
    x, y = thin(analysis.time_ps, bonds.deviation_A, at_most=MAX_POINTS - 2)
    ends = analysis.time_ps[[0, -1]]
    trained = bonds.reference == "training data"
    return Figure(
        key="bonds",
        title="Largest bond deviation",
        reading=(
            "Zero means that every bond is as long as some training frame had it"
            if trained
            else "How far any bond is from its length in the first frame"
        )
        + "; beyond the dashed line the molecule is breaking.",
        description=f"Largest deviation of any of {bonds.n_bonds} bonds from the {bonds.reference}: at most "
        f"{bonds.max_bond_deviation_A:.3g} Å, bound {bonds.bound_A:g} Å.",
        x_title="time (ps)",
        y_title="deviation (Å)",
        traces=(
            Trace(x=x, y=y, name="largest deviation", role="main"),
            Trace(x=ends, y=np.full(2, bonds.bound_A), name="bound", role="bound"),
        ),
        thinned=_thinned(len(analysis.time_ps), len(x)),
    )


def _departure(analysis: TrajectoryAnalysis) -> Figure | None:
    departure = analysis.departure
    if departure is None or not departure.departure_A.any():
        return None
    x, y = thin(analysis.time_ps, departure.departure_A, at_most=MAX_POINTS - 2)
    return Figure(
        key="departure",
        title="Distances beyond those of the training data",
        reading="Zero means that every distance of two atoms is one that training saw for their elements; beyond the "
        "dashed line the model guesses.",
        description=f"Largest distance beyond the trained ranges: at most {departure.max_departure_A:.3g} Å, limit "
        f"{DISTANCE_MARGIN:g} Å.",
        x_title="time (ps)",
        y_title="beyond the range (Å)",
        traces=(
            Trace(x=x, y=y, name="largest departure", role="main"),
            Trace(x=analysis.time_ps[[0, -1]], y=np.full(2, DISTANCE_MARGIN), name="limit", role="bound"),
        ),
        thinned=_thinned(len(analysis.time_ps), len(x)),
    )


def learning_curve(training: Sequence[Mapping[str, float]]) -> Figure | None:
    """Validation force MAE and losses against the step, each where two rows or more have it; None if none has."""
    wanted = (
        ("validation_force_mae", "validation force MAE (meV/Å)", "accent", True),
        ("task", "task loss", "main", False),
        ("equivariance", "equivariance loss", "second", False),
    )
    traces, thinned = [], ""
    for column, name, role, marks in wanted:
        rows = [(row["step"], row[column]) for row in training if row.get(column, 0.0) > 0.0]
        if len(rows) > 1:
            table = np.array(rows, dtype=np.float64)
            x, y = thin(table[:, 0], table[:, 1], at_most=MAX_POINTS // len(wanted))
            traces.append(Trace(x=x, y=y, name=name, role=role, marks=marks))
            thinned = thinned or _thinned(len(table), len(x))
    if not traces:
        return None
    first = traces[0]
    return Figure(
        key="learning-curve",
        title="Learning curve",
        reading="Lower is better, and a step down by one label is a factor: where the validation error is flat, "
        "training longer no longer pays.",
        description=f"{first.name} went from {first.y[0]:.3g} at step {first.x[0]:.0f} to {first.y[-1]:.3g} at step "
        f"{first.x[-1]:.0f}.",
        x_title="training step",
        y_title="error and loss",
        traces=tuple(traces),
        thinned=thinned,
        log_y=True,
    )


def _thinned(n_points: int, n_kept: int) -> str:
    if n_kept >= n_points:
        return ""
    return f"Thinned to {n_kept:,} of {n_points:,} points; the lowest and highest of each interval are kept."


def _filled(row: NDArray[np.int64]) -> list[int | None]:
    return [int(count) or None for count in row]


def _short(value: float) -> float | None:
    """Six digits are more than a plot shows; what is not finite leaves a gap."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
