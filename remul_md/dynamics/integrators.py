"""ASE's integrators behind one face: they count the degrees of freedom that the run counts, follow a ramp, and their
thermostats can be saved.

Bussi and Nose-Hoover act on the momenta as a whole, so they conserve what is zero at their start: translation, and
with rotation="zero" the angular momentum. ASE counts 3N for both, which would make nine atoms 12 % too hot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from ase import units
from ase.calculators.calculator import Calculator
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import NoseHooverChainThermostat
from ase.md.verlet import VelocityVerlet

from remul_md.dynamics.momenta import Array
from remul_md.dynamics.options import Ensemble, MDOptions
from remul_md.dynamics.respa import RespaVerlet
from remul_md.dynamics.velocities import boltzmann_eV_per_K

if TYPE_CHECKING:
    from ase import Atoms

CHAIN_LENGTH = 3


class Integrator(Protocol):
    """What the loop of a run needs. All of them change the atoms in place."""

    def step(self, forces: Array) -> Array:
        """One step with the forces at the present positions, [N, 3], eV/Angstrom; returns those at the new ones."""
        ...

    def aim_at(self, temperature_K: float) -> None:
        """Change the target temperature."""
        ...

    def thermostat_energy(self) -> float | None:
        """Energy the thermostat holds, eV: added to the total energy it is conserved. None: not defined."""
        ...

    def thermostat_state(self) -> dict[str, Any]:
        """What the next step depends on beside atoms and random state, JSON-able; floats survive JSON exactly."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `thermostat_state`; an empty one changes nothing."""
        ...


class _WithoutThermostatState:
    def thermostat_energy(self) -> float | None:
        return None

    def thermostat_state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass


class VerletIntegrator(_WithoutThermostatState, VelocityVerlet):
    """Velocity Verlet."""

    def aim_at(self, temperature_K: float) -> None:
        """NVE has no target; `MDOptions` refuses a ramp."""


class RespaIntegrator(_WithoutThermostatState, RespaVerlet):
    """Multiple time steps; one `step` is an outer step, and takes and returns the accurate forces."""

    def aim_at(self, temperature_K: float) -> None:
        """NVE has no target; `MDOptions` refuses a ramp."""


class LangevinIntegrator(_WithoutThermostatState, Langevin):
    """Langevin dynamics of all 3N degrees of freedom."""

    def aim_at(self, temperature_K: float) -> None:
        """Change the target temperature."""
        self.set_temperature(temperature_K=temperature_K)


class BussiIntegrator(Bussi):
    """Stochastic velocity rescaling of `n_dof` degrees of freedom.

    Source: Bussi, Donadio and Parrinello (2007), doi:10.1063/1.2408420.
    """

    def __init__(
        self, atoms: Atoms, timestep: float, *, temperature_K: float, taut: float, n_dof: int, rng: np.random.Generator
    ) -> None:
        super().__init__(atoms, timestep, temperature_K=temperature_K, taut=taut, rng=rng)
        self.ndof = n_dof
        self.aim_at(temperature_K)

    def aim_at(self, temperature_K: float) -> None:
        """Change the target temperature."""
        self.temp = boltzmann_eV_per_K() * temperature_K
        self.target_kinetic_energy = 0.5 * self.temp * self.ndof

    def thermostat_energy(self) -> float:
        """Energy taken out of the system so far, eV."""
        return -float(self.transferred_energy)

    def thermostat_state(self) -> dict[str, Any]:
        """See `Integrator`."""
        return {"transferred_energy": float(self.transferred_energy)}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Integrator`."""
        self.transferred_energy = state.get("transferred_energy", self.transferred_energy)


class NoseHooverIntegrator(VelocityVerlet):
    """Velocity Verlet between two half steps of a Nose-Hoover chain on `n_dof` degrees of freedom.

    The chain is ASE's. Its own dynamics class fixes 3N degrees of freedom and asks the calculator twice a step.

    Source: Martyna, Klein and Tuckerman (1992), doi:10.1063/1.463940.
    """

    def __init__(self, atoms: Atoms, timestep: float, *, temperature_K: float, tdamp: float, n_dof: int) -> None:
        super().__init__(atoms, timestep)
        self.chain = NoseHooverChainThermostat(
            num_atoms_global=n_dof / 3,  # type: ignore[arg-type]  # it uses three times this number only
            masses=atoms.get_masses()[:, None],
            temperature_K=temperature_K,
            tdamp=tdamp,
            tchain=CHAIN_LENGTH,
        )

    def step(self, forces: Array | None = None) -> Array:
        """See `Integrator`."""
        self._half_step()
        forces = super().step(forces)
        self._half_step()
        return forces

    def _half_step(self) -> None:
        self.atoms.set_momenta(self.chain.integrate_nhc(self.atoms.get_momenta(), 0.5 * self.dt))

    def aim_at(self, temperature_K: float) -> None:
        """Change the target temperature; the masses of the chain stay those of the first one."""
        self.chain._kT = boltzmann_eV_per_K() * temperature_K

    def thermostat_energy(self) -> float:
        """Energy of the chain, eV."""
        return float(self.chain.get_thermostat_energy())

    def thermostat_state(self) -> dict[str, Any]:
        """See `Integrator`."""
        return {"eta": self.chain._eta.tolist(), "p_eta": self.chain._p_eta.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Integrator`."""
        if state:
            self.chain._eta, self.chain._p_eta = np.array(state["eta"]), np.array(state["p_eta"])


def make_integrator(
    atoms: Atoms,
    options: MDOptions,
    *,
    ensemble: Ensemble,
    n_dof: int,
    rng: np.random.Generator,
    fast: Calculator | None = None,
) -> Integrator:
    """The integrator of one phase of a run, at the first temperature of the options.

    Args:
        atoms: with calculator and momenta; changed by every step.
        options: time step, temperature, friction and time constant.
        ensemble: of this phase; equilibration is Langevin whatever production is.
        n_dof: degrees of freedom that the thermostat acts on ("langevin" has all 3N).
        rng: source of the random numbers; its state is the caller's to save.
        fast: calculator of the inner steps, in a phase that has some (`options.n_inner`).
    """
    timestep = options.timestep_fs * units.fs
    if ensemble == "nve" and options.n_inner is not None:
        assert fast is not None  # `check_structure` has asked for it
        return RespaIntegrator(atoms, timestep, fast=fast, n_inner=options.n_inner)
    if ensemble == "nve":
        return VerletIntegrator(atoms, timestep)
    target = {"temperature_K": options.temperature_K}
    if ensemble == "langevin":
        friction = options.friction_per_ps / (1000.0 * units.fs)
        return LangevinIntegrator(atoms, timestep, **target, friction=friction, fixcm=False, rng=rng)
    time_constant = options.thermostat_time_fs * units.fs
    if ensemble == "bussi":
        return BussiIntegrator(atoms, timestep, **target, taut=time_constant, n_dof=n_dof, rng=rng)
    return NoseHooverIntegrator(atoms, timestep, **target, tdamp=time_constant, n_dof=n_dof)
