"""A short run at constant energy, as long as it takes to tell whether the energy is kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from remul_md.analysis.audit.limits import TEMPERATURE_K
from remul_md.analysis.audit.probe import Array, CalculationFailed, Probe, ProbedForces
from remul_md.analysis.energy import Conservation, Drift, conserves, energy_drift
from remul_md.dynamics.checkpoint import RunState
from remul_md.dynamics.engine import Engine, SimulationStopped
from remul_md.dynamics.options import MDOptions
from remul_md.dynamics.recording import SHADOW_COLUMN, RowsInMemory
from remul_md.dynamics.start import check_structure, first_state

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


def short_nve(probe: Probe, *, bound_meV_per_atom_ps: float, seed: int) -> ShortRun:
    """NVE from the structure at 300 K, in blocks until the drift is decided, 4 blocks of 600 steps at most.

    The engine of `run_md` makes each block, without files.

    Args:
        probe: what is asked; its structure is not changed.
        bound_meV_per_atom_ps: the interval of the drift must lie within +- this, or outside of it.
        seed: of the velocities.
    Raises:
        CalculationFailed: the calculator raised, or energies are not finite: the run blew up.
    """
    atoms = probe.atoms.copy()
    atoms.calc = ProbedForces(probe)
    step_fs = timestep_fs(atoms.get_masses())
    state: RunState | None = None
    recorder = RowsInMemory()
    for block in range(1, MAX_BLOCKS + 1):
        options = MDOptions(
            ensemble="nve",
            temperature_K=TEMPERATURE_K,
            timestep_fs=step_fs,
            length_ps=1e-3 * step_fs * BLOCK_STEPS * block,
            equilibrate_ps=0.0,
            log_interval=max(1, int(SAMPLE_FS / step_fs + 1e-9)),
            frame_interval_fs=step_fs * BLOCK_STEPS,
            checkpoint_interval=BLOCK_STEPS,
            max_bond_stretch=None,  # clusters and crystals have no bonds to break; the energy is what is judged
            seed=seed,
        )
        if state is None:
            check_structure(atoms, options)
            state = first_state(atoms, options)
        try:
            Engine(atoms, options, files=None, state=state, recorder=recorder).run(progress=False)
        except SimulationStopped as stop:
            raise CalculationFailed(f"the run {stop}") from stop
        time, energy, shadow = (recorder.column(name) for name in ("time_ps", "total_energy_eV", SHADOW_COLUMN))
        energy, shadow = energy / len(atoms), shadow / len(atoms)
        drift = energy_drift(time, energy, shadow_energy_per_atom=shadow, look=(block, MAX_BLOCKS))
        conservation = conserves(drift, bound_meV_per_atom_ps=bound_meV_per_atom_ps)
        if conservation != "undecided":
            break
    return ShortRun(
        time_ps=time,
        total_energy_per_atom=energy,
        drift=drift,
        conservation=conservation,
        timestep_fs=step_fs,
        n_steps=BLOCK_STEPS * block,
    )
