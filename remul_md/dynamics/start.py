"""The start of a run: what is refused, initial velocities, degrees of freedom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from remul_md.dynamics.checkpoint import RunState
from remul_md.dynamics.constraints import constraints_of
from remul_md.dynamics.momenta import Array, momenta_from_ase, momenta_to_ase
from remul_md.dynamics.options import MDOptions
from remul_md.dynamics.switch import resting_velocities
from remul_md.dynamics.velocities import initial_velocities, n_degrees_of_freedom
from remul_md.errors import InputError
from remul_md.structures.topology import bond_lengths

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

MIN_DISTANCE = 1e-3  # Angstrom


def check_structure(atoms: Atoms, options: MDOptions, *, fast: Calculator | None = None) -> None:
    """Refuse what cannot be run, before the calculator is called or a file made.

    Raises:
        InputError: no atoms, no calculator, constraints that are not counted or that the options do not go with,
            positions that are not finite, two atoms at one place, nothing that can move; velocities "given" that are
            not there; multiple time steps without a calculator of their own, or such a calculator without them.
    """
    _check_fast(atoms, options, fast)
    if len(atoms) == 0:
        raise InputError("the structure has no atoms; give at least one")
    if atoms.calc is None:
        raise InputError("the structure has no calculator; set atoms.calc before the run")
    constraints = constraints_of(atoms)
    if constraints.n_removed and options.n_inner is not None:
        raise InputError(
            f"n_inner {options.n_inner} does not go with constraints ({type(atoms.constraints[0]).__name__}); leave it "
            "out, or remove them with atoms.set_constraint()"
        )
    if constraints.held and options.rotation == "zero":
        raise InputError("rotation 'zero' was asked for, but fixed atoms hold the molecule; leave rotation out")
    if not np.isfinite(atoms.get_positions()).all():
        atom = int(np.argwhere(~np.isfinite(atoms.get_positions()).all(axis=1))[0, 0])
        raise InputError(f"position of atom {atom} is not finite: {atoms.positions[atom].tolist()}; mend the structure")
    if len(atoms) > 1 and not atoms.pbc.any():
        first, second = np.triu_indices(len(atoms), k=1)
        distances = bond_lengths(atoms.get_positions(), np.stack([first, second], axis=1))
        closest = int(np.argmin(distances))
        if distances[closest] < MIN_DISTANCE:
            raise InputError(
                f"atoms {first[closest]} and {second[closest]} are {distances[closest]:.2g} Angstrom apart; "
                "two atoms cannot be at one place: mend the structure"
            )
    if options.velocities == "given" and not (atoms.has("momenta") and np.isfinite(atoms.get_momenta()).all()):
        raise InputError(
            "velocities 'given' were asked for, but the structure has none that are finite; set its momenta, or leave "
            "velocities out"
        )
    if production_dof(atoms, options) < 1:
        raise InputError(
            f"{atoms.get_chemical_formula()} has no degree of freedom in {options.ensemble.upper()} with rotation "
            f"{options.rotation!r}; "
            "use rotation 'thermal', ensemble 'langevin' or a larger molecule"
        )


def _check_fast(atoms: Atoms, options: MDOptions, fast: Calculator | None) -> None:
    if options.n_inner is not None and fast is None:
        raise InputError(
            f"n_inner {options.n_inner} needs a calculator for the inner steps; give it as fast=, or leave n_inner out"
        )
    if options.n_inner is None and fast is not None:
        raise InputError("a fast calculator was given, but n_inner is None; set n_inner, or leave fast out")
    if fast is not None and fast is atoms.calc:  # it would forget at each call what it computed for the other
        raise InputError("fast is the calculator of the structure itself; give a second one")


def production_dof(atoms: Atoms, options: MDOptions) -> int:
    """Degrees of freedom that temperatures of production count: all 3N under Langevin, else fewer."""
    at_rest = options.ensemble != "langevin"
    spinless = at_rest and options.rotation == "zero"
    return n_degrees_of_freedom(atoms, translation_removed=at_rest, rotation_removed=spinless)


def first_state(atoms: Atoms, options: MDOptions, *, fast: Calculator | None = None) -> RunState:
    """The state before the first step; calls each calculator once, so a refused structure leaves no files.

    Raises:
        InputError: energy or forces are not finite, the calculator does not tell what `options.stop_when` watches, or
            what the calculator raises.
    """
    equilibrates = options.n_equilibration_steps > 0
    constraints = constraints_of(atoms)
    generator = np.random.default_rng(options.seed)
    if options.velocities == "given":
        velocities = _given_velocities(atoms, options)
    else:
        velocities = initial_velocities(
            atoms.get_positions(),
            atoms.get_masses(),
            temperature_K=options.temperature_K,
            generator=generator,
            rotation=options.rotation,
            # A thermostat brings its own fluctuations; bare NVE should begin at the temperature that was asked.
            exact=options.ensemble == "nve" and not equilibrates,
            constraints=constraints,
        )
    forces = atoms.get_forces(md=True)
    options.stops.require(getattr(atoms.calc, "diagnostics", None))
    inner = forces if fast is None else fast.get_forces(atoms)
    if not (np.isfinite(forces).all() and np.isfinite(inner).all() and np.isfinite(atoms.get_potential_energy())):
        raise InputError("energy or forces of the first structure are not finite; check structure and potential")
    return RunState(
        phase="equilibration" if equilibrates else "production",
        n_dof=3 * len(atoms) - constraints.n_removed if equilibrates else production_dof(atoms, options),
        positions=atoms.get_positions(),
        momenta=momenta_to_ase(velocities * atoms.get_masses()[:, None]),
        forces=forces,
        first_positions=atoms.get_positions(),
        rng_state=dict(generator.bit_generator.state),
    )


def _given_velocities(atoms: Atoms, options: MDOptions) -> Array:
    """Those of the structure, [N, 3], Angstrom/fs, without what production does not count as a degree of freedom."""
    velocities = momenta_from_ase(atoms.get_momenta()) / atoms.get_masses()[:, None]
    constraints = constraints_of(atoms)
    if options.ensemble == "langevin":
        if not constraints.n_removed:
            return velocities
        return constraints.project(velocities, positions=atoms.get_positions(), masses=atoms.get_masses())
    return resting_velocities(
        atoms.get_positions(),
        velocities,
        atoms.get_masses(),
        rotation=options.rotation,
        periodic=bool(atoms.pbc.any()),
        constraints=constraints,
    )
