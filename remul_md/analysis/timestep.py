"""How the energy error of velocity Verlet grows with the time step: a test of forces, and a guide to the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.verdicts import Verdict
from remul_md.dynamics.momenta import momenta_to_ase
from remul_md.dynamics.velocities import initial_velocities
from remul_md.errors import InputError
from remul_md.progress import progress_bar

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]

ORDER = 2.0  # of velocity Verlet
# On the exponent. Forces that are no gradient, a cutoff that jumps or energies in single precision put a floor under
# the fluctuation, which pulls it well below 1.8; steps near the limit of stability push it above 2.2.
ORDER_BOUND = 0.2
DEFAULT_STEPS_FS = (0.125, 0.25, 0.5, 1.0)
# Fluctuation beyond this share of the kinetic energy per atom of the start: the run is not on its energy surface.
BLOWN_UP = 1.0


@dataclass(frozen=True, kw_only=True)
class ScanRun:
    """One run of the scan.

    Args:
        timestep_fs: fs.
        n_steps: steps made.
        fluctuation_meV_per_atom: RMS deviation of the total energy from its straight line; None if it blew up.
        slope_meV_per_atom_ps: of that line; None if it blew up.
    """

    timestep_fs: float
    n_steps: int
    fluctuation_meV_per_atom: float | None
    slope_meV_per_atom_ps: float | None


@dataclass(frozen=True, kw_only=True)
class TimestepScan:
    """Fluctuation of the total energy against the time step, and the power law through it.

    Args:
        runs: in the order of the steps.
        exponent: of the fitted law, 2 for velocity Verlet.
        ci95: 95 % interval of the exponent, from the scatter of the runs about the law; None for two runs.
        prefactor_meV_per_atom: fluctuation of the law at 1 fs.
        verdict: whether the exponent is that of the integrator.
    """

    runs: tuple[ScanRun, ...]
    exponent: float
    ci95: tuple[float, float] | None
    prefactor_meV_per_atom: float
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {**asdict(self), "ci95": None if self.ci95 is None else list(self.ci95)}


def timestep_scan(
    atoms: Atoms,
    *,
    timesteps_fs: Sequence[float] = DEFAULT_STEPS_FS,
    length_ps: float = 0.5,
    temperature_K: float = 300.0,
    seed: int = 0,
    progress: bool = False,
) -> TimestepScan:
    """NVE runs from one start with several time steps, and the exponent of the fluctuation of their total energy.

    Velocity Verlet keeps a shadow energy that differs from the true one by a term of order dt^2 that oscillates with
    the vibrations: its fluctuation grows with the square of the step as long as energies and forces belong together.

    Args:
        atoms: structure with any ASE calculator in double precision; it is not changed.
        timesteps_fs: at least two, each > 0, in any order.
        length_ps: of each run.
        temperature_K: of the first velocities.
        seed: of them.
        progress: show a bar.
    Raises:
        InputError: options out of range, no calculator, fewer than two runs that stayed together.
    Source: Hairer, Lubich and Wanner, Acta Numerica 12 (2003), 399 (backward error analysis of Stoermer-Verlet).
    """
    steps = _checked_steps(timesteps_fs, length_ps=length_ps, temperature_K=temperature_K)
    if atoms.calc is None:
        raise InputError("the structure has no calculator; set atoms.calc before")
    if atoms.constraints:
        raise InputError("the structure has constraints; remove them with atoms.set_constraint()")
    velocities = initial_velocities(
        atoms.get_positions(),
        atoms.get_masses(),
        temperature_K=temperature_K,
        generator=np.random.default_rng(seed),
        exact=True,
    )
    runs = [
        _run(atoms, velocities, timestep_fs=step, n_steps=round(1e3 * length_ps / step))
        for step in progress_bar(steps, shown=progress, unit="run")
    ]
    kept = [(run.timestep_fs, run.fluctuation_meV_per_atom) for run in runs if run.fluctuation_meV_per_atom is not None]
    if len(kept) < 2:
        raise InputError(
            f"{len(runs) - len(kept)} of {len(runs)} runs blew up (steps {', '.join(f'{s:g}' for s in steps)} fs); "
            "an exponent needs two: use shorter steps"
        )
    exponent, ci95, at_1_fs = fitted_exponent(*np.array(kept).T)
    return TimestepScan(
        runs=tuple(runs),
        exponent=exponent,
        ci95=ci95,
        prefactor_meV_per_atom=at_1_fs,
        verdict=_verdict(exponent, ci95, n_lost=len(runs) - len(kept)),
    )


def fitted_exponent(timesteps_fs: Array, fluctuations: Array) -> tuple[float, tuple[float, float] | None, float]:
    """Least squares of log(fluctuation) on log(step): exponent, its 95 % interval, and the law's value at 1 fs.

    The interval is Student's with n - 2 degrees of freedom, for scatter about the law; None for two points.

    Args:
        timesteps_fs: [n], > 0, n >= 2, not all equal.
        fluctuations: [n], > 0.
    Raises:
        InputError: fewer than two points, or values that are not > 0.
    """
    from scipy.stats import t as student

    n_points = len(timesteps_fs)
    if n_points < 2 or not ((timesteps_fs > 0.0) & (fluctuations > 0.0)).all():
        raise InputError(f"an exponent needs two points > 0, got {list(zip(timesteps_fs, fluctuations, strict=True))}")
    x, y = np.log(timesteps_fs), np.log(fluctuations)
    spread = float(((x - x.mean()) ** 2).sum())
    exponent = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    intercept = float(y.mean()) - exponent * float(x.mean())
    if n_points == 2:
        return exponent, None, float(np.exp(intercept))
    variance = float(((y - intercept - exponent * x) ** 2).sum()) / (n_points - 2)
    half = float(student.ppf(0.975, n_points - 2)) * float(np.sqrt(variance / spread))
    return exponent, (exponent - half, exponent + half), float(np.exp(intercept))


def _run(atoms: Atoms, velocities: Array, *, timestep_fs: float, n_steps: int) -> ScanRun:
    from ase import units
    from ase.calculators.calculator import CalculatorError
    from ase.md.verlet import VelocityVerlet

    moved = atoms.copy()
    moved.calc = atoms.calc
    moved.set_momenta(momenta_to_ase(velocities * atoms.get_masses()[:, None]))
    integrator = VelocityVerlet(moved, timestep_fs * units.fs)
    kinetic = moved.get_kinetic_energy() / len(moved)
    energies = [moved.get_potential_energy() / len(moved) + kinetic]
    forces = moved.get_forces(md=True)
    lost = ScanRun(timestep_fs=timestep_fs, n_steps=n_steps, fluctuation_meV_per_atom=None, slope_meV_per_atom_ps=None)
    for _ in range(n_steps):
        try:
            # Passing the forces on saves the integrator's second look at the calculator in each step.
            forces = integrator.step(forces)
            energies.append((moved.get_potential_energy() + moved.get_kinetic_energy()) / len(moved))
        except (InputError, CalculatorError, ArithmeticError, np.linalg.LinAlgError):
            return lost  # what calculators raise at a broken geometry
        if not abs(energies[-1] - energies[0]) <= BLOWN_UP * kinetic:
            return lost
    time_ps = 1e-3 * timestep_fs * np.arange(n_steps + 1)
    relative = 1e3 * (np.array(energies) - energies[0])
    slope, intercept = np.polynomial.polynomial.polyfit(time_ps, relative, 1)[::-1]
    return ScanRun(
        timestep_fs=timestep_fs,
        n_steps=n_steps,
        fluctuation_meV_per_atom=float((relative - intercept - slope * time_ps).std()),
        slope_meV_per_atom_ps=float(slope),
    )


def _verdict(exponent: float, ci95: tuple[float, float] | None, *, n_lost: int) -> Verdict:
    interval = "" if ci95 is None else f" (95 % interval {ci95[0]:.2f} to {ci95[1]:.2f})"
    lost = f" {n_lost} longer steps blew up." if n_lost else ""
    passed = abs(exponent - ORDER) <= ORDER_BOUND
    if passed:
        why = f"The energy error grows with the step to the power {exponent:.2f}{interval}, as it must."
    elif exponent < ORDER:
        why = (
            f"The energy error grows with the step to the power {exponent:.2f}{interval}, not 2: something else than "
            "the step makes it, such as forces that are no gradient, jumps, or single precision."
        )
    else:
        why = f"The energy error grows to the power {exponent:.2f}{interval}, not 2: the longest steps are too long."
    return Verdict(
        name="energy error of second order",
        passed=passed,
        value=exponent,
        threshold=ORDER_BOUND,
        unit="",
        why=why + lost,
        sense="within",
        target=ORDER,
    )


def _checked_steps(timesteps_fs: Sequence[float], *, length_ps: float, temperature_K: float) -> list[float]:
    steps = sorted(float(step) for step in timesteps_fs)
    if len(set(steps)) < 2 or not all(np.isfinite(step) and step > 0.0 for step in steps):
        raise InputError(f"timesteps_fs needs at least two different steps > 0, got {list(timesteps_fs)}")
    if len(set(steps)) < len(steps):
        raise InputError(f"timesteps_fs names a step twice: {steps}; give each once")
    if not (np.isfinite(length_ps) and 1e3 * length_ps >= 20.0 * steps[-1]):
        raise InputError(f"length_ps {length_ps} is less than 20 of the longest step, {steps[-1]:g} fs; run longer")
    if not (np.isfinite(temperature_K) and temperature_K > 0.0):
        raise InputError(f"temperature_K must be > 0, got {temperature_K}: at rest nothing fluctuates")
    return steps
