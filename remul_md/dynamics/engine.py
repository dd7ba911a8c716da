"""The loop of a run: integrate, watch, record, checkpoint.

The integrators are ASE's (`remul_md.dynamics.integrators`). Langevin runs with all 3N degrees of freedom (its `fixcm`
does not sample the canonical distribution and is deprecated), so the centre of mass moves during equilibration and
temperatures count 3N there; that motion is taken off when production in another ensemble begins.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from remul_md.dynamics.checkpoint import RunState, save_checkpoint
from remul_md.dynamics.constraints import constraints_of, set_bond_lengths
from remul_md.dynamics.momenta import (
    Array,
    angular_momentum,
    kinetic_energy_eV,
    linear_momentum,
    momenta_from_ase,
    momenta_to_ase,
)
from remul_md.dynamics.options import Ensemble, MDOptions
from remul_md.dynamics.recording import SHADOW_COLUMN, THERMOSTAT_COLUMN, OutputFiles, Recording
from remul_md.dynamics.shadow import shadow_energy_eV
from remul_md.dynamics.start import production_dof
from remul_md.dynamics.switch import (
    CanonicalMeans,
    canonical_means,
    energy_matched_velocities,
    internal_kinetic_energy,
    is_good_moment,
    resting_velocities,
)
from remul_md.dynamics.velocities import temperature_K
from remul_md.errors import InputError
from remul_md.progress import progress_bar
from remul_md.structures.topology import bond_lengths, bond_pairs

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from remul_md.dynamics.integrators import Integrator


class SimulationStopped(RuntimeError):
    """The run cannot go on: the molecule fell apart, energy or forces are not finite, or what `stop_when` names is so.

    All files are valid up to there, and the description says why.

    Args:
        reason: what happened, with values.
        cause: bond, uncertainty, domain, or failure for everything else.
        phase: equilibration or production.
        step: of this phase.
        time_ps: of this phase.
    """

    def __init__(self, reason: str, *, phase: str, step: int, time_ps: float, cause: str = "failure") -> None:
        self.reason, self.cause, self.phase, self.step, self.time_ps = reason, cause, phase, step, time_ps
        super().__init__(f"stopped at step {step} ({time_ps:g} ps) of {phase}: {reason}")


class Engine:
    """One process's share of a run; the state that outlives it is `state`. Without files there are no checkpoints."""

    def __init__(
        self,
        atoms: Atoms,
        options: MDOptions,
        *,
        files: OutputFiles | None,
        state: RunState,
        recorder: Recording,
        fast: Calculator | None = None,
    ) -> None:
        self.atoms, self.options, self.files, self.state, self.recorder = atoms, options, files, state, recorder
        self.fast = fast
        self.masses = atoms.get_masses()
        self.periodic = bool(atoms.pbc.any())
        self.rng = np.random.default_rng()
        self.rng.bit_generator.state = state.rng_state
        self.bonds = np.zeros((0, 2), dtype=np.int64)
        if options.max_bond_stretch is not None and not self.periodic:
            self.bonds = bond_pairs(atoms.numbers, state.first_positions)
        self.first_lengths = bond_lengths(state.first_positions, self.bonds)
        self.stops = options.stops
        self.constraints = constraints_of(atoms)
        set_bond_lengths(atoms, state.first_positions)
        # As they are: they obey the constraints, and a correction would change the last bit of a run that goes on.
        atoms.set_positions(state.positions, apply_constraint=False)
        atoms.set_momenta(state.momenta, apply_constraint=False)
        self.integrator: Integrator  # of the present phase
        self.clock = time.perf_counter()

    def run(self, *, progress: bool) -> None:
        """Go on from `state` to the end of production.

        Raises:
            SimulationStopped: the molecule fell apart, or energy or forces are not finite.
            InputError: a file cannot be written.
        """
        total = self.options.n_equilibration_steps + self.options.n_steps
        with progress_bar(shown=progress, total=total, initial=self.state.steps_done, unit="step") as self.bar:
            if self.state.phase == "equilibration":
                self._phase(self.options.n_equilibration_steps, ensemble="langevin")
                self._switch()
            self._phase(self.options.n_steps, ensemble=self.options.ensemble)

    def _phase(self, n_steps: int, *, ensemble: Ensemble) -> None:
        """Integrate to `n_steps` of this phase; equilibration may take more until the moment suits."""
        from remul_md.dynamics.integrators import make_integrator

        state, options = self.state, self.options
        production = state.phase == "production"
        self.log_every = options.whole_steps(options.log_interval, production=production)
        checkpoint_every = options.whole_steps(options.checkpoint_interval, production=production)
        integrator = make_integrator(
            self.atoms, options, ensemble=ensemble, n_dof=state.n_dof, rng=self.rng, fast=self.fast
        )
        integrator.restore(state.thermostat)
        self.integrator = integrator
        ramps = production and options.final_temperature_K is not None
        # The formula is that of plain velocity Verlet; bonds of fixed length pull with forces that nobody tells.
        has_shadow = ensemble == "nve" and options.n_inner is None and len(self.constraints.bonds) == 0
        self.shadow = {SHADOW_COLUMN: float("nan")} if has_shadow else {}
        if state.step == 0:
            self._checkpoint()  # before the first record: a run killed right after it must not record twice
            self._record()
        while state.step < n_steps or not self._may_switch(n_steps):
            if ramps:
                integrator.aim_at(options.temperature_at(state.step))
            before = state.forces
            with self._watching():
                # Passing the forces on saves the integrator's second look at the calculator in each step.
                state.forces = integrator.step(before)
            state.step += 1
            state.steps_done += 1
            if not np.isfinite(state.forces).all():
                raise self._stop("forces are not finite; the geometry left what the potential knows")
            if self._samples_excess() and state.step > n_steps // 2:
                state.excess_sum += self._energy() - self._internal_kinetic()
                state.excess_count += 1
            if has_shadow:
                self._follow_shadow(before)
            if state.step % self.log_every == 0 or state.step % options.frame_interval == 0:
                self._record()
            if state.step % checkpoint_every == 0:
                self._checkpoint()
            self.bar.update()
        self._checkpoint()

    def _follow_shadow(self, forces_before: Array) -> None:
        """The shadow energy of the step just made, and the energy that the next one begins with.

        Every step asks for the energy, which came with its forces: so a resumed run has that of the checkpoint.
        """
        state = self.state
        energy_before, state.potential_energy = state.potential_energy, self._energy()
        if state.step % self.log_every == 0:
            assert energy_before is not None  # the first record, or the step before, has asked
            self.shadow[SHADOW_COLUMN] = shadow_energy_eV(
                (energy_before, state.potential_energy),
                (self._moving(forces_before), self._moving(state.forces)),
                momenta_from_ase(self.atoms.get_momenta()),
                masses=self.masses,
                timestep_fs=self.options.timestep_fs,
            )

    def _moving(self, forces: Array) -> Array:
        """Forces on what can move: those on fixed atoms push nothing."""
        return np.where(self.constraints.fixed, 0.0, forces) if self.constraints.n_removed else forces

    def _record(self) -> None:
        state, options = self.state, self.options
        production = state.phase == "production"
        time_ps = options.time_ps(state.step, production=production)
        energy = state.potential_energy = self._energy()
        logs = state.step % self.log_every == 0
        if logs:
            positions, momenta = self.atoms.get_positions(), momenta_from_ase(self.atoms.get_momenta())
            kinetic = float(kinetic_energy_eV(momenta, self.masses))
            total = energy + kinetic
            temperature = temperature_K(kinetic, state.n_dof)
            vectors = [*linear_momentum(momenta), *angular_momentum(positions, momenta, masses=self.masses)]
            row = (state.step, time_ps, energy, kinetic, total, temperature, *(float(v) for v in vectors))
            heat = self.integrator.thermostat_energy()
            more = self.shadow if heat is None else {THERMOSTAT_COLUMN: heat}
            self.recorder.log(row, production=production, more=more)
            if state.first_total_energy is None:
                state.first_total_energy = total
            if production:
                state.temperature_sum += temperature
                state.n_rows += 1
            change = 1000.0 * (total - state.first_total_energy) / len(self.atoms)
            label = f"{time_ps:.2f} ps, {temperature:.0f} K"
            if production and options.ensemble == "nve":
                label += f", total energy {change:+.3f} meV/atom"
            self.bar.set_description(state.phase, refresh=False)
            self.bar.set_postfix_str(label, refresh=False)
        if production and state.step % options.frame_interval == 0:
            self.recorder.frame(self.atoms, energy=energy, forces=state.forces, step=state.step, time_ps=time_ps)
            state.n_frames += 1
        if logs:
            self._check_bonds()  # after the row and the frame, which show what happened
            self._check_calculator()

    def _switch(self) -> None:
        """From equilibration to production: momenta, energy and counted degrees of freedom of the ensemble."""
        state, options = self.state, self.options
        if options.ensemble != "langevin":
            positions, velocities = self._phase_space()
            if options.matches_energy:
                velocities = energy_matched_velocities(
                    positions,
                    velocities,
                    self.masses,
                    means=self._means(),
                    potential_energy=self._energy(),
                    periodic=self.periodic,
                    constraints=self.constraints,
                )
            else:
                velocities = resting_velocities(
                    positions,
                    velocities,
                    self.masses,
                    rotation=options.rotation,
                    periodic=self.periodic,
                    constraints=self.constraints,
                )
            self.atoms.set_momenta(momenta_to_ase(velocities * self.masses[:, None]))
        state.phase, state.step, state.first_total_energy, state.thermostat = "production", 0, None, {}
        state.n_dof = production_dof(self.atoms, options)

    def _samples_excess(self) -> bool:
        return self.state.phase == "equilibration" and self.options.matches_energy

    def _means(self) -> CanonicalMeans:
        return canonical_means(
            self.atoms.get_positions(),
            self.masses,
            mean_excess=self.state.excess_sum / self.state.excess_count,
            temperature_K=self.options.temperature_K,
            rotation=self.options.rotation,
            periodic=self.periodic,
            constraints=self.constraints,
        )

    def _may_switch(self, n_steps: int) -> bool:
        if not self._samples_excess():
            return True
        if is_good_moment(self._means(), potential_energy=self._energy(), internal_kinetic=self._internal_kinetic()):
            return True
        if self.state.step > 2 * n_steps + 1000:
            raise self._stop(
                "equilibration found no moment at which the energy can be set to its canonical mean; "
                "set match_energy to False, or equilibrate for longer"
            )
        return False

    def _phase_space(self) -> tuple[Array, Array]:
        return self.atoms.get_positions(), momenta_from_ase(self.atoms.get_momenta()) / self.masses[:, None]

    def _internal_kinetic(self) -> float:
        space = self._phase_space()
        return internal_kinetic_energy(*space, self.masses, periodic=self.periodic, constraints=self.constraints)

    def _energy(self) -> float:
        with self._watching():
            energy = float(self.atoms.get_potential_energy())
        if not np.isfinite(energy):
            raise self._stop(f"the potential energy is {energy}; the geometry left what the potential knows")
        return energy

    def _check_bonds(self) -> None:
        limit = self.options.max_bond_stretch
        if limit is None or len(self.bonds) == 0:
            return
        lengths = bond_lengths(self.atoms.get_positions(), self.bonds)
        worst = int(np.argmax(lengths / self.first_lengths))
        if not lengths[worst] <= limit * self.first_lengths[worst]:
            first, second = self.bonds[worst]
            symbols = self.atoms.get_chemical_symbols()
            raise self._stop(
                f"the molecule fell apart: bond {symbols[first]}{first}-{symbols[second]}{second} is "
                f"{lengths[worst]:.3f} Angstrom long, {lengths[worst] / self.first_lengths[worst]:.2f} times its first "
                f"length of {self.first_lengths[worst]:.3f}; lower the temperature or the time step, train the "
                f"potential on such geometries, or raise max_bond_stretch ({limit})",
                cause="bond",
            )

    def _check_calculator(self) -> None:
        if self.stops.max_uncertainty is None and not self.stops.domain:
            return
        cause, reason = self.stops.why(self.atoms.calc.diagnostics)  # of these positions: their energy was just asked
        if cause:
            raise self._stop(reason, cause=cause)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """What a calculator raises at a broken geometry stops the run with its state known."""
        from ase.calculators.calculator import CalculatorError

        try:
            yield
        except (InputError, CalculatorError, ArithmeticError, np.linalg.LinAlgError) as error:
            raise self._stop(f"the calculator failed: {error}") from error

    def _stop(self, reason: str, *, cause: str = "failure") -> SimulationStopped:
        state = self.state
        time_ps = self.options.time_ps(state.step, production=state.phase == "production")
        return SimulationStopped(reason, cause=cause, phase=state.phase, step=state.step, time_ps=time_ps)

    def _checkpoint(self) -> None:
        state, now = self.state, time.perf_counter()
        state.positions, state.momenta = self.atoms.get_positions(), self.atoms.get_momenta()
        state.rng_state = dict(self.rng.bit_generator.state)
        state.wall_s += now - self.clock
        self.clock = now
        state.thermostat = self.integrator.thermostat_state()
        state.marks = self.recorder.marks()
        if self.files is not None:
            save_checkpoint(self.files.checkpoint, state)

    def summary(self) -> dict[str, Any]:
        """What the description says of a finished run."""
        state = self.state
        return {
            "n_degrees_of_freedom": state.n_dof,
            "n_frames": state.n_frames,
            "mean_temperature_K": state.temperature_sum / state.n_rows,
            "equilibration_steps": state.steps_done - self.options.n_steps,
            "wall_s": state.wall_s,
            "steps_per_s": state.steps_done / state.wall_s,
        }
