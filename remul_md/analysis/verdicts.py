"""What the numbers mean: bounds, verdicts, and the reason of each in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.energy import DRIFT_BOUND, Conservation, Drift
from remul_md.analysis.extrapolation import RangeDeparture
from remul_md.analysis.momentum import MomentumChange
from remul_md.analysis.rotation import RotationalError
from remul_md.analysis.structure import BOUND_STABLE_A, BondDeviation
from remul_md.dynamics.velocities import boltzmann_eV_per_K
from remul_md.errors import InputError
from remul_md.potentials.domain import DISTANCE_MARGIN
from remul_md.potentials.provenance import axis_in_words

ENERGY = "energy conserved"
ROTATION = "forces turn with the molecule"
INTACT = "molecule intact"
INSIDE = "inside the training data"
TORQUE = "no torque from nowhere"
ANGULAR = "angular momentum kept"
TEMPERATURE = "temperature as asked"
CLASSICAL_K_PER_NS = 1.0 / (3.0 * boltzmann_eV_per_K())  # of 1 meV/atom/ps in vibrations, 3 kT an atom
OF_PLACES = (ROTATION, INTACT, INSIDE, TORQUE, ANGULAR)  # what wrapped coordinates make meaningless
# The four that a reader asks first, and what is missing where a run has no verdict on them.
QUESTIONS = {
    ENERGY: "the run has to be NVE, with potential energies and momenta of at least 20 steps",
    ROTATION: "its forces have to be computed: name the potential (--potential)",
    INTACT: "an isolated molecule with bonds is needed (--ignore-cell for one that stands in a box)",
    INSIDE: "the potential has to be named (--potential), and the system to be isolated (--ignore-cell)",
}


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Limits of the verdicts. The defaults suit an isolated organic molecule at room temperature.

    Args:
        drift_meV_per_atom_ps: the 95 % interval of the drift must lie within +- this; 0.01 warms a free molecule by
            about 40 K/ns. The shipped ethanol potential stays below a tenth of it (docs/statistics.md).
        rotational_error_meV_per_A: mean absolute component of f(gx) - g f(x).
        net_torque_eV: root mean square size of the net torque; 0.025 eV is kT at 290 K, so that a turn by one
            radian changes the energy by less than that.
        angular_momentum_change: largest change relative to the start; beyond a quarter the molecule's turning is
            no longer its own.
        temperature_share: of the asked temperature, by which the mean may miss it.
    Raises:
        InputError: a bound <= 0.
    """

    drift_meV_per_atom_ps: float = DRIFT_BOUND
    rotational_error_meV_per_A: float = 2.0
    net_torque_eV: float = 0.025
    angular_momentum_change: float = 0.25
    temperature_share: float = 0.1

    def __post_init__(self) -> None:
        require_positive(self, what="bound")


def require_positive(bounds: Any, *, what: str) -> None:
    """Refuse a dataclass of bounds of which one is not > 0: those of a run or those of an audit.

    Raises:
        InputError: naming it.
    """
    for field in fields(bounds):
        if not getattr(bounds, field.name) > 0.0:
            raise InputError(f"{what} {field.name} must be > 0, got {getattr(bounds, field.name)}")


Outcome = Literal["passed", "failed", "undecided", "not applicable"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One judged number, of a run or of an audit.

    Args:
        name: what is judged, such as `energy conserved`.
        passed: True, False, or None where what was measured cannot decide it, or where it does not apply.
        value: the number, in `unit`; None where there is none: not applicable, or the calculator failed.
        threshold: its limit, in `unit`; None where there is no number.
        unit: empty for a plain ratio.
        why: one or two sentences for a reader who does not know the measure.
        limit_from: where the threshold comes from; empty where `why` says it.
        sense: whether the value is to be at most or at least the threshold, or within that of `target` on either side.
        target: what a value that may miss it on either side should be, in `unit`.
        applicable: whether the question has a meaning for this structure; `passed` and `value` are None where not.
    """

    name: str
    passed: bool | None
    value: float | None
    threshold: float | None
    unit: str
    why: str
    limit_from: str = ""
    sense: Literal["at most", "at least", "within"] = "at most"
    target: float = 0.0
    applicable: bool = True

    @property
    def outcome(self) -> Outcome:
        """The verdict in words."""
        if not self.applicable:
            return "not applicable"
        return "undecided" if self.passed is None else "passed" if self.passed else "failed"

    @property
    def number(self) -> str:
        """The value without its unit, in three digits (a temperature to a tenth); a dash where there is none."""
        if self.value is None:
            return "–"
        return f"{self.value:.1f}".replace("-", "−") if self.unit == "K" else three_digits(self.value)

    @property
    def limit(self) -> str:
        """The limit with its unit: `≤ 2 meV/Å`, `±0.05 meV/atom/ps`, `300 ± 30 K`; empty where there is none."""
        if self.threshold is None:
            return ""
        size = f"{three_digits(self.threshold)} {self.unit}".rstrip()
        if self.sense != "within":
            return f"{'≤' if self.sense == 'at most' else '≥'} {size}"
        return f"{three_digits(self.target)} ± {size}" if self.target else f"±{size}"

    @property
    def measured(self) -> str:
        """Number, unit and limit: `0.057 meV/Å (limit ≤ 1.71 meV/Å)`; empty where there is no number."""
        return "" if self.value is None else f"{self.number} {self.unit}".rstrip() + f" (limit {self.limit})"

    @property
    def ratio(self) -> float:
        """How far the value is from its target, over its limit: up to 1 passes. Not for `at least`; 0: no number."""
        if self.value is None or self.threshold is None:
            return 0.0
        return abs(self.value - self.target) / self.threshold


def three_digits(value: float) -> str:
    """Three digits, without a power of ten from 1e-4 to 1e6; a true minus, but not in a power."""
    text = f"{float(f'{value:.3g}'):g}".replace("e-0", "e-").replace("e+0", "e")
    return "−" + text[1:] if text.startswith("-") else text


def energy_verdict(
    drift: Drift, conservation: Conservation, *, bounds: Bounds, heating_K_per_ns: float = CLASSICAL_K_PER_NS
) -> Verdict:
    """Whether an NVE run keeps its energy, with its drift and the limit as heating rates beside.

    Args:
        drift: of the run.
        conservation: what its interval says against the bound.
        bounds: limits.
        heating_K_per_ns: of a drift of 1 meV/atom/ps; default: of classical vibrations, 3 kT an atom.
    """
    low, high = drift.ci95_meV_per_atom_ps
    bound = bounds.drift_meV_per_atom_ps
    pace = heating_K_per_ns * drift.slope_meV_per_atom_ps
    cold, hot, limit = (_rate(heating_K_per_ns * value) for value in (low, high, bound))
    why = (
        f"The slope of the {drift.judged} is {low:.2g} to {high:.2g} meV/atom/ps with 95 % confidence, "
        f"{cold} to {hot} K/ns (limit ±{limit} K/ns); in these {drift.length_ps:.3g} ps it adds "
        f"up to {drift.change_meV_per_atom:.2g} meV/atom. "
    )
    if conservation == "conserves":
        why += "That lies within the limit, as it must for conservative forces and a short enough step."
    elif conservation == "drifts":
        beyond = (
            "That is more than kT at room temperature" if drift.has_lost_its_energy else "That lies beyond the limit"
        )
        why += (
            f"{beyond}: the run {'heats' if pace > 0.0 else 'cools'} by about {_rate(abs(pace))} K/ns. "
            "Try conservative forces or a shorter step."
        )
    else:
        why += "That reaches both inside and outside of the limit, so neither is shown: run longer."
        if drift.judged == "total energy":
            why += (
                " One series of total energies cannot tell a slow wave from a drift; `remul-md md` logs the shadow "
                "energy (NVE, plain steps), which can."
            )
    return Verdict(
        name=ENERGY,
        passed={"conserves": True, "drifts": False, "undecided": None}[conservation],
        value=drift.slope_meV_per_atom_ps,
        threshold=bound,
        unit="meV/atom/ps",
        why=why,
        limit_from=_source(
            bounds,
            "drift_meV_per_atom_ps",
            f"a drift this large warms by about {heating_K_per_ns * bound:.0f} K/ns, a run of 100 ps by 1 to 2 % of "
            "room temperature",
        ),
        sense="within",
    )


def _rate(value: float) -> str:
    """Two digits, and no powers of ten where a number of K/ns is large."""
    return f"{value:,.0f}" if 10.0 <= abs(value) < 1e7 else f"{value:.2g}"


def bond_verdict(bonds: BondDeviation, *, time_ps: NDArray[np.float64] | None = None) -> Verdict:
    """Whether the molecule stayed in one piece, and since when not; `time_ps` of the frames, [T], ps."""
    first, second = bonds.worst_pair
    reference = "the range seen in training" if bonds.reference == "training data" else "its length in the first frame"
    why = f"No bond went further than this from {reference}; the bond of atoms {first} and {second} went furthest."
    if bonds.max_bond_deviation_A == 0.0:
        why = f"Every bond stayed within {reference}." if bonds.reference == "training data" else "No bond moved."
    if not bonds.intact:
        why = f"The bond of atoms {first} and {second} went too far from {reference}: it breaks, or the model guesses."
    if bonds.unlike:
        why = f"From the first frame on {bonds.unlike}; bonds are compared with that frame."
    if bonds.first_off_frame is None:
        why += f" None was ever {BOUND_STABLE_A:g} Å off its usual length."
    else:
        when = f"in frame {bonds.first_off_frame}"
        if time_ps is not None:
            when = f"after {time_ps[bonds.first_off_frame] - time_ps[0]:.4g} ps"
        pair = bonds.first_off_pair or bonds.worst_pair
        why += f" The bond of atoms {pair[0]} and {pair[1]} was the first to be {BOUND_STABLE_A:g} Å off, {when}."
    return Verdict(
        name=INTACT,
        passed=bonds.intact,
        value=bonds.max_bond_deviation_A,
        threshold=bonds.bound_A,
        unit="Å",
        why=why,
        limit_from=(
            "beyond the trained range even a small excursion is extrapolation"
            if bonds.reference == "training data"
            else "without training data: bonds to hydrogen swing by 0.3 Å at 500 K and do not break"
        ),
    )


def range_verdict(departure: RangeDeparture, *, time_ps: NDArray[np.float64]) -> Verdict:
    """Whether the distances of the run are those that training saw; `time_ps` of the frames, [T], ps."""
    worst = int(np.argmax(departure.departure_A))
    value = departure.max_departure_A
    passed = bool(value <= DISTANCE_MARGIN)
    if value <= 0.0:
        why = "No distance between two atoms was ever shorter or longer than training saw for their elements."
    else:
        n_beyond = int(np.count_nonzero(~(departure.departure_A <= DISTANCE_MARGIN)))
        moment = f"after {time_ps[worst] - time_ps[0]:.4g} ps"
        why = (
            f"Nothing beyond the margin of {DISTANCE_MARGIN:g} Å about the distances of the training frames; nearest "
            f"to its edge were those of {departure.worst_pair}, {moment}."
        )
        if not passed:
            why = (
                f"Distances of {departure.worst_pair} left the trained range by most, {moment}; {n_beyond:,} of "
                f"{len(time_ps):,} frames are beyond the limit: the model guesses."
            )
    return Verdict(
        name=INSIDE,
        passed=passed,
        value=value,
        threshold=DISTANCE_MARGIN,
        unit="Å",
        why=why,
        limit_from="dynamics at the temperature of the data leaves the range by so much; beyond, the calculator warns",
    )


def wrapped_verdict(verdict: Verdict, box_A: Mapping[str, float]) -> Verdict:
    """A verdict that hangs on where the atoms are, where wrapping has torn the molecule: the run cannot decide it."""
    box = " and ".join(f"{length:.1f} Å along {axis}" for axis, length in box_A.items())
    return replace(
        verdict,
        passed=None,
        why=f"Atoms jump by {box} between frames: coordinates are wrapped into a box that the file does not state. "
        "Unwrap them in the program that wrote them, or give a file with its box.",
    )


def temperature_verdict(mean_K: float, *, asked_K: float, n_dof: int, bounds: Bounds, set_by: str = "") -> Verdict:
    """Whether the mean temperature is the one that was asked for; `set_by` says in a sentence what decides that."""
    return Verdict(
        name=TEMPERATURE,
        passed=abs(mean_K - asked_K) <= bounds.temperature_share * asked_K,
        value=mean_K,
        threshold=bounds.temperature_share * asked_K,
        unit="K",
        why=f"Mean temperature {mean_K:.1f} K over {n_dof} degrees of freedom, asked {asked_K:g} K. {set_by}".rstrip(),
        limit_from=_source(bounds, "temperature_share", "a tenth of what was asked"),
        sense="within",
        target=asked_K,
    )


def rotation_verdict(rotational: RotationalError, *, bounds: Bounds) -> Verdict:
    """Whether the forces turn with the molecule."""
    value = rotational.mean_error_meV_per_A
    passed = value <= bounds.rotational_error_meV_per_A
    share = 100.0 * value / max(rotational.rms_force_meV_per_A, 1e-300)
    how = "rotated at random"
    if rotational.axis is not None:
        how += f" about {axis_in_words(rotational.axis)}, or mirrored through a plane that holds this axis"
    return Verdict(
        name=ROTATION,
        passed=passed,
        value=value,
        threshold=bounds.rotational_error_meV_per_A,
        unit="meV/Å",
        why=f"When the molecule is {how}, a force component is off by {share:.2g} % of its typical size "
        f"({rotational.rms_force_meV_per_A:.0f} meV/Å) on average.",
        limit_from=_source(
            bounds,
            "rotational_error_meV_per_A",
            "below the force error of good potentials of small molecules, 4 to 10 meV/Å",
        ),
    )


def torque_verdict(net_torque_rms_eV: float, *, bounds: Bounds, axis: Sequence[float] | None = None) -> Verdict:
    """Whether the energy depends on the orientation, or with an axis on the angle about it."""
    passed = net_torque_rms_eV <= bounds.net_torque_eV
    return Verdict(
        name=TORQUE,
        passed=passed,
        value=1e3 * net_torque_rms_eV,
        threshold=1e3 * bounds.net_torque_eV,
        unit="meV",
        why=f"{_where(axis)} the net torque is zero. What is left is the slope of the energy under rotation: "
        + ("small" if passed else "not small")
        + " against the thermal energy of 25 meV.",
        limit_from=_source(bounds, "net_torque_eV", "the thermal energy at 290 K for a turn by one radian"),
    )


def angular_momentum_verdict(change: MomentumChange, *, bounds: Bounds, axis: Sequence[float] | None = None) -> Verdict:
    """Whether a free molecule keeps its angular momentum, or one in a field the part along an axis."""
    value = change.max_relative_change
    part = "" if axis is None else f" of the part along {axis_in_words(axis)}"
    return Verdict(
        name=ANGULAR,
        passed=value <= bounds.angular_momentum_change,
        value=100.0 * value,
        threshold=100.0 * bounds.angular_momentum_change,
        unit="%",
        why=f"Largest change{part} {change.angular_change_hbar.max():.3g} ħ against {change.reference_hbar:.3g} ħ "
        f"({change.reference}). Only the net torque of an inexact model changes it.",
        limit_from=_source(
            bounds, "angular_momentum_change", "beyond a quarter the molecule's turning is no longer its own"
        ),
    )


def _where(axis: Sequence[float] | None) -> str:
    return "In free space" if axis is None else f"About {axis_in_words(axis)}, the axis of what acts on the molecule,"


def _source(bounds: Bounds, name: str, reason: str) -> str:
    """The reason of a default; another limit is the caller's."""
    return reason if getattr(bounds, name) == getattr(Bounds(), name) else "chosen for this analysis"
