"""A short run at constant energy, as long as it takes to tell whether the energy is kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from remul_md.analysis.audit.limits import TEMPERATURE_K
from remul_md.analysis.audit.probe import Array, CalculationFailed, Probe
from remul_md.analysis.energy import Conservation, Drift, conserves, energy_drift
from remul_md.dynamics.momenta import momenta_from_ase
from remul_md.dynamics.shadow import shadow_energy_eV
from remul_md.dynamics.velocities import initial_velocities

BLOCK_STEPS, MAX_BLOCKS = 600, 4
LIGHTEST_STEP_FS, LONGEST_STEP_FS = 0.5, 2.0  # of hydrogen; of whatever is heavy
SAMPLE_FS = 2.0  # fast vibrations alias in coarser samples, see `energy_drift`


@dataclass(frozen=True, kw_only=True, eq=False)
class ShortRun:
    """Total energies of a run.

    Args:
        time_ps: [L], ps.
        total_energy_per_atom: [L], eV.
        drift: the line through them with its interval.
        conservation: whether that interval lies inside or outside of the bound.
        timestep_fs: fs.
        n_steps: steps made.
    """

    time_ps: Array
    total_energy_per_atom: Array
    drift: Drift
    conservation: Conservation
    timestep_fs: float
    n_steps: int


def timestep_fs(masses: Array) -> float:
    """0.5 fs for hydrogen, growing with the root of the lightest mass [N], amu, up to 2 fs."""
    return float(min(LIGHTEST_STEP_FS * np.sqrt(masses.min() / 1.008), LONGEST_STEP_FS))


def short_nve(probe: Probe, *, bound_meV_per_atom_ps: float, rng: np.random.Generator) -> ShortRun:
    """Velocity Verlet from the structure at 300 K, in blocks until the drift is decided, 4 blocks of 600 steps at most.

    Args:
        probe: what is asked; its structure is not changed.
        bound_meV_per_atom_ps: the interval of the drift must lie within +- this, or outside of it.
        rng: source of the velocities.
    Raises:
        CalculationFailed: the calculator raised, or energies are not finite: the run blew up.
    """
    from ase import units
    from ase.md.verlet import VelocityVerlet

    atoms = probe.atoms.copy()
    atoms.calc = probe.calculator
    masses = atoms.get_masses()
    step_fs = timestep_fs(masses)
    velocities = initial_velocities(atoms.get_positions(), masses, temperature_K=TEMPERATURE_K, generator=rng)
    atoms.set_velocities(velocities / units.fs)  # Angstrom/fs to ASE's unit
    interval = max(1, int(SAMPLE_FS / step_fs + 1e-9))
    dynamics = VelocityVerlet(atoms, step_fs * units.fs)
    times: list[float] = []
    energies: list[float] = []
    shadows: list[float] = []
    before: tuple[float, Array] | None = None

    def record() -> None:
        nonlocal before
        present = probe.energy_of(atoms), atoms.get_forces()
        if dynamics.nsteps % interval == 0:
            shadow = np.nan
            if before is not None:
                shadow = shadow_energy_eV(
                    (before[0], present[0]),
                    (before[1], present[1]),
                    momenta_from_ase(atoms.get_momenta()),
                    masses=masses,
                    timestep_fs=step_fs,
                )
            times.append(1e-3 * dynamics.nsteps * step_fs)
            energies.append((present[0] + atoms.get_kinetic_energy()) / len(atoms))
            shadows.append(shadow / len(atoms))
            if not np.isfinite(energies[-1]):
                raise CalculationFailed(f"the energy is {energies[-1]} after {times[-1]:.3g} ps")
        before = present

    dynamics.attach(record, interval=1)
    dynamics.attach(probe.count_call, interval=1)
    for block in range(1, MAX_BLOCKS + 1):
        try:
            dynamics.run(BLOCK_STEPS)
        except CalculationFailed:
            raise
        except Exception as error:  # calculators raise whatever their code raises
            raise CalculationFailed(
                f"after {1e-3 * dynamics.nsteps * step_fs:.3g} ps the calculator raised {type(error).__name__}: {error}"
            ) from error
        time, energy, shadow = np.array(times), np.array(energies), np.array(shadows)
        # Each block starts with the record that the last one ended with.
        fresh = np.append(True, np.diff(time) > 0.0)
        drift = energy_drift(time[fresh], energy[fresh], shadow_energy_per_atom=shadow[fresh], look=(block, MAX_BLOCKS))
        conservation = conserves(drift, bound_meV_per_atom_ps=bound_meV_per_atom_ps)
        if conservation != "undecided":
            break
    return ShortRun(
        time_ps=time[fresh],
        total_energy_per_atom=energy[fresh],
        drift=drift,
        conservation=conservation,
        timestep_fs=step_fs,
        n_steps=dynamics.nsteps,
    )
