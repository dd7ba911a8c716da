"""Does a run conserve its energy: slope with an interval that slow waves cannot fool, fluctuation apart, a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.means import mean_and_half_width
from remul_md.errors import InputError

Array = NDArray[np.float64]
Conservation = Literal["conserves", "drifts", "undecided"]

MIN_SAMPLES = 20
# meV/atom/ps, 40 K/ns of classical vibrations: a run of 100 ps warms by 1 to 2 % of room temperature. What keeps its
# energy is far below: see `benchmarks/drift_coverage.py`.
DRIFT_BOUND = 0.01
# meV/atom, kT at 290 K. Energy that has changed by so much within a run was not kept, whatever its course: a run that
# blows up is as curved as a wave, but no wave of the error of an integrator that works is so high.
NOT_KEPT = 25.0
# A cosine of up to three runs' length, whatever its phase, has at most so many times as much of degree 1 as of degrees
# 2 and 3 together: 19.8 at three lengths (4.2 at one and a half). `benchmarks/drift_coverage.py` measures the coverage.
STEEPEST_WAVE = 20.0


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Straight line through the energy per atom of an NVE run.

    Args:
        slope_meV_per_atom_ps: least-squares slope of the energy that was judged.
        ci95_meV_per_atom_ps: interval that covers the true slope in at least 95 % of runs, low and high.
        fluctuation_meV_per_atom: RMS deviation of the total energy from a line of this slope.
        intercept_eV_per_atom: that line through the total energy at `start_ps`.
        start_ps: time of the first sample.
        length_ps: time from the first to the last sample.
        n_samples: number of energies.
        judged: the energy whose slope it is.
    """

    slope_meV_per_atom_ps: float
    ci95_meV_per_atom_ps: tuple[float, float]
    fluctuation_meV_per_atom: float
    intercept_eV_per_atom: float
    start_ps: float
    length_ps: float
    n_samples: int
    judged: Literal["total energy", "shadow energy"] = "total energy"

    @property
    def change_meV_per_atom(self) -> float:
        """What the slope adds up to within the run."""
        return self.slope_meV_per_atom_ps * self.length_ps

    @property
    def has_lost_its_energy(self) -> bool:
        """Whether that is more than `NOT_KEPT`, up or down."""
        return abs(self.change_meV_per_atom) > NOT_KEPT

    def line(self, time_ps: Array) -> Array:
        """The line through the total energy per atom at these times, eV."""
        return self.intercept_eV_per_atom + 1e-3 * self.slope_meV_per_atom_ps * (time_ps - self.start_ps)


@dataclass(frozen=True, kw_only=True)
class MeanDrift:
    """Drift of several runs that differ in their start.

    Args:
        slope_meV_per_atom_ps: mean of their slopes.
        interval_meV_per_atom_ps: its 95 % interval, low and high.
    """

    slope_meV_per_atom_ps: float
    interval_meV_per_atom_ps: tuple[float, float]


def energy_drift(
    time_ps: Array,
    total_energy_per_atom: Array,
    *,
    shadow_energy_per_atom: Array | None = None,
    look: tuple[int, int] = (1, 1),
) -> Drift:
    """Drift of the energy, meV/atom/ps, with an interval of at least 95 %.

    The total energy of velocity Verlet oscillates by an amount of order dt^2, and no single series tells a piece of a
    slow oscillation from a drift. So the slope of the shadow energy is judged where a run has recorded it
    (`remul_md.dynamics.shadow`): it oscillates by an amount of order dt^4 and drifts as the total energy does.

    The slope is the coefficient of degree 1 in polynomials that are orthonormal over the samples. The half width is
    STEEPEST_WAVE times the root sum of squares of degrees 2 and 3: what is judged a drift must be so much straighter
    than it is curved. A cosine of up to three runs' length or a decay at the start cannot be, and noise seldom is:
    measured coverage of zero >= 95 % for white noise, AR(1) of any correlation time up to the run, 1/f to 1/f^2, such
    waves and decays, with and without white noise on top (docs/statistics.md). It costs: in white noise the interval is
    ten times as wide as one that trusts the noise to be white. Independent runs narrow it, see `mean_drift`.

    Sample at 2 fs or finer where hydrogens move: the energy error of velocity Verlet oscillates twice per vibration
    (4.6 fs for O-H), and samples 5 fs apart alias it into slow noise.

    Args:
        time_ps: increasing times, [T], ps, T >= 20.
        total_energy_per_atom: potential + kinetic energy divided by the number of atoms, [T], eV, in float64.
        shadow_energy_per_atom: [T], eV; nan at its start is left out, since the first row of a log ends no step.
        look: (k, n) for the k-th of n looks at a run that grows by equal parts and is stopped at the first verdict. The
            5 % are then shared out, most of them to the last looks: see `_widening`.
    Raises:
        InputError: too few samples, shapes that differ, values that are not finite, times that do not increase.
    """
    if not 1 <= look[0] <= look[1]:
        raise InputError(f"look {look} is not (k, n) with 1 <= k <= n; (1, 1) is a run that is judged once")
    time, total = _checked(time_ps, total_energy_per_atom)
    known, judged = slice(None), total
    if shadow_energy_per_atom is not None:
        shadow = np.asarray(shadow_energy_per_atom, dtype=np.float64)
        known = slice(int(np.argmax(np.isfinite(shadow))), None)
        if shadow.shape != time.shape:
            raise InputError(f"shadow energies {shadow.shape} and times {time.shape} must be two columns of one length")
        _, judged = _checked(time[known], shadow[known])
    slope, curvature = _line_and_curvature(time[known], judged)
    half_width = STEEPEST_WAVE * _widening(*look) * curvature
    # The mean is taken off first: total energies are -1e3 eV/atom and the drift is sought at 1e-8 of that.
    mean, middle = total.mean(), time.mean()
    residual = total - mean - slope * (time - middle)
    return Drift(
        slope_meV_per_atom_ps=1e3 * slope,
        ci95_meV_per_atom_ps=(1e3 * (slope - half_width), 1e3 * (slope + half_width)),
        fluctuation_meV_per_atom=1e3 * float(np.sqrt(np.mean(residual**2))),
        intercept_eV_per_atom=float(mean - slope * (middle - time[0])),
        start_ps=float(time[0]),
        length_ps=float(time[-1] - time[0]),
        n_samples=len(time),
        judged="total energy" if shadow_energy_per_atom is None else "shadow energy",
    )


def conserves(drift: Drift, *, bound_meV_per_atom_ps: float = DRIFT_BOUND) -> Conservation:
    """Equivalence test: the whole interval must lie within +-bound to say `conserves`.

    A slope that merely fails to differ from zero proves nothing, a short noisy run always does. `drifts` means that
    the whole interval lies beyond the bound, or that the slope adds up to `NOT_KEPT` within the run; all else is
    `undecided`.

    Raises:
        InputError: bound <= 0.
    """
    if not bound_meV_per_atom_ps > 0.0:
        raise InputError(
            f"the drift bound must be > 0 meV/atom/ps, got {bound_meV_per_atom_ps}; {DRIFT_BOUND:g} is the default"
        )
    if drift.has_lost_its_energy and abs(drift.slope_meV_per_atom_ps) > bound_meV_per_atom_ps:
        return "drifts"
    return within(drift.ci95_meV_per_atom_ps, bound_meV_per_atom_ps=bound_meV_per_atom_ps)


def within(interval_meV_per_atom_ps: tuple[float, float], *, bound_meV_per_atom_ps: float) -> Conservation:
    """The test of `conserves` for an interval of any origin, low and high."""
    low, high = interval_meV_per_atom_ps
    if low > bound_meV_per_atom_ps or high < -bound_meV_per_atom_ps:
        return "drifts"
    if low < -bound_meV_per_atom_ps or high > bound_meV_per_atom_ps:
        return "undecided"
    return "conserves"


def mean_drift(drifts: Sequence[Drift]) -> MeanDrift:
    """Mean drift of independent runs with a 95 % interval: Student's t of the scatter of their slopes.

    Slow waves have another phase in every run, so their scatter is in it; what all runs share, such as a transient at
    the start, is not, and counts as drift. One run has its own interval.

    Raises:
        InputError: no run.
    """
    if not drifts:
        raise InputError("the mean drift of no run was asked for; give at least one")
    if len(drifts) == 1:
        return MeanDrift(
            slope_meV_per_atom_ps=drifts[0].slope_meV_per_atom_ps,
            interval_meV_per_atom_ps=drifts[0].ci95_meV_per_atom_ps,
        )
    mean, half_width = mean_and_half_width([drift.slope_meV_per_atom_ps for drift in drifts])
    return MeanDrift(slope_meV_per_atom_ps=mean, interval_meV_per_atom_ps=(mean - half_width, mean + half_width))


def _widening(look: int, n_looks: int) -> float:
    """Of the interval at one of several looks; 1 for the only one.

    A wave of three lengths of the whole run is one of 3 n / k lengths at look k, and its slope over its curvature grows
    with the square of that: the interval is (n / k)^2 as wide. In noise, misses need both curvatures to be small, so
    they fall with the square of the width; with the root their sum over the looks is that of a single one.
    """
    return float((n_looks / look) ** 2 * np.sqrt(sum((k / n_looks) ** 4 for k in range(1, n_looks + 1))))


def _checked(time_ps: Array, energy_per_atom: Array) -> tuple[Array, Array]:
    time, energy = np.asarray(time_ps, dtype=np.float64), np.asarray(energy_per_atom, dtype=np.float64)
    if time.ndim != 1 or time.shape != energy.shape:
        raise InputError(f"times {time.shape} and energies {energy.shape} must be two columns of one length")
    n_samples = len(time)
    if n_samples < MIN_SAMPLES:
        raise InputError(
            f"a drift with its interval needs at least {MIN_SAMPLES} energies, got {n_samples}; "
            "run longer or write the log more often"
        )
    if not np.isfinite(energy).all() or not np.isfinite(time).all():
        sample = int(np.argmin(np.isfinite(energy) & np.isfinite(time)))
        raise InputError(
            f"sample {sample} is not finite: time {time[sample]} ps, energy {energy[sample]} eV/atom; "
            "the run blew up there: analyse the part before it, or use a smaller time step"
        )
    if (np.diff(time) <= 0.0).any():
        sample = int(np.argmin(np.diff(time) > 0.0)) + 1
        raise InputError(
            f"times must increase, but sample {sample} ({time[sample]} ps) follows {time[sample - 1]} ps; "
            "give one run, in order"
        )
    return time, energy


def _line_and_curvature(time: Array, energy: Array) -> tuple[float, float]:
    """Least-squares slope, and the size of degrees 2 and 3 in the slope's own unit, per ps.

    Polynomials orthonormal over the samples by their three-term recurrence, which needs sums and two of them only: the
    threads that a QR factorisation starts for so narrow a matrix cost more than they save.
    """
    scaled = 2.0 * (time - time[0]) / (time[-1] - time[0]) - 1.0
    deviation = energy - energy.mean()
    rows: list[Array] = [np.full(len(scaled), len(scaled) ** -0.5)]
    for _ in range(3):
        following = scaled * rows[-1]
        for row in rows[-2:]:
            following = following - (following * row).sum() * row
        rows.append(following / np.sqrt((following**2).sum()))
    line, second, third = (float((row * deviation).sum()) for row in rows[1:])
    rise = float((rows[1] * time).sum())  # of a straight line over time, in its own norm
    return line / rise, float(np.hypot(second, third)) / abs(rise)
