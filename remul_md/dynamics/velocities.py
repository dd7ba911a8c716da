"""Initial velocities and temperatures with the degrees of freedom counted right.

ASE's `get_temperature` divides by 3N whatever was removed: ethanol with translation and rotation removed and
"300 K" by that count has 386 K in its modes. Here every temperature states its degrees of freedom.
Pure functions: arrays in, new arrays out, random numbers from the generator that is passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from remul_md.dynamics.constraints import Constraints, constraints_of
from remul_md.dynamics.momenta import Array, kinetic_energy_eV, n_rotational_modes, split_motion
from remul_md.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

Rotation = Literal["thermal", "zero"]


def boltzmann_eV_per_K() -> float:
    """Boltzmann constant, eV/K, as ASE has it (CODATA 2014)."""
    from ase import units

    return float(units.kB)


def n_degrees_of_freedom(atoms: Atoms, *, translation_removed: bool, rotation_removed: bool) -> int:
    """Number of momenta that are free: 3N, less 3 for translation, less 3 (linear: 2, one atom: 0) for rotation.

    Fixed coordinates and bonds of the structure's constraints are taken off, too. Fixed atoms hold the molecule, which
    then keeps neither translation nor rotation that could be removed.

    Whether the molecule is linear is decided by the geometry given: CO2 that is bent by its vibration has three
    rotations.

    Raises:
        InputError: `rotation_removed` for a periodic system, which has no rotation of its own to remove; a kind of
            constraint that is not counted.
    """
    constraints = constraints_of(atoms)
    if rotation_removed and atoms.pbc.any():
        raise InputError(
            f"pbc is {atoms.pbc.tolist()}: a periodic system keeps no angular momentum that could be removed; "
            "use rotation='thermal' or set pbc to False"
        )
    n_free = 3 * len(atoms) - constraints.n_removed
    if translation_removed and not constraints.held:
        n_free -= 3
    if rotation_removed and not constraints.held:
        n_free -= n_rotational_modes(atoms.get_positions(), atoms.get_masses())
    return n_free


def temperature_K(kinetic_energy: float, n_dof: int) -> float:
    """Temperature, K, of a kinetic energy, eV, in `n_dof` degrees of freedom.

    Raises:
        InputError: no degree of freedom, hence no temperature.
    """
    if n_dof < 1:
        raise InputError(f"a temperature needs at least one degree of freedom, got {n_dof}; the system cannot move")
    return 2.0 * kinetic_energy / (n_dof * boltzmann_eV_per_K())


def initial_velocities(
    positions: Array,
    masses: Array,
    *,
    temperature_K: float,
    generator: np.random.Generator,
    rotation: Rotation = "thermal",
    exact: bool = False,
    constraints: Constraints | None = None,
) -> Array:
    """Maxwell-Boltzmann velocities with the centre of mass at rest, [N, 3], Angstrom/fs.

    Each mode that is left has kT/2 on average: translation and rotation are projected out of a draw for all 3N
    modes, and a projection does not change the distribution of the others.

    Args:
        positions: [N, 3], Angstrom. Needed for the rotation only.
        masses: [N], amu, > 0.
        temperature_K: target temperature, >= 0.
        generator: source of the random numbers.
        rotation: "thermal" keeps the rotation of the molecule as drawn, "zero" removes the angular momentum.
        exact: scale the draw so that its temperature is `temperature_K` and not only its mean over draws.
        constraints: what cannot move. A molecule that is held keeps the motion of its centre of mass as drawn.
    Raises:
        InputError: negative temperature, unknown `rotation`, masses that are not > 0.
    """
    if not (np.isfinite(temperature_K) and temperature_K >= 0.0):
        raise InputError(f"temperature_K must be >= 0, got {temperature_K}; give it in kelvin")
    if rotation not in ("thermal", "zero"):
        raise InputError(f"rotation {rotation!r} is unknown; choose 'thermal' or 'zero'")
    if not (masses > 0.0).all():
        atom = int(np.argmin(masses > 0.0))
        raise InputError(f"mass of atom {atom} is {masses[atom]} amu; velocities need masses > 0")
    from ase import units

    width = np.sqrt(boltzmann_eV_per_K() * temperature_K / masses) * units.fs  # Angstrom/fs
    draw = generator.standard_normal((len(masses), 3)) * width[:, None]
    held = constraints is not None and constraints.held
    n_removed = 0 if constraints is None else constraints.n_removed
    if constraints is not None and constraints.n_removed:
        draw = constraints.project(draw, positions=positions, masses=masses)
    if held:
        velocities = draw
    else:
        motion = split_motion(positions, draw, masses=masses)
        velocities = motion.internal if rotation == "zero" else motion.internal + motion.rotation
        n_removed += 3 + (n_rotational_modes(positions, masses) if rotation == "zero" else 0)
    if exact and temperature_K > 0.0:
        target = 0.5 * (3 * len(masses) - n_removed) * boltzmann_eV_per_K() * temperature_K
        velocities = scaled_to_kinetic_energy(velocities, masses, kinetic_energy=target)
    return velocities


def scaled_to_kinetic_energy(velocities: Array, masses: Array, *, kinetic_energy: float) -> Array:
    """Velocities [N, 3] times one factor, so that their kinetic energy is `kinetic_energy`, eV.

    A target that is not positive gives zero velocities; velocities that are all zero stay so.
    """
    present = float(kinetic_energy_eV(velocities * masses[:, None], masses))
    if present == 0.0 or kinetic_energy <= 0.0:
        return np.zeros_like(velocities)
    return velocities * np.sqrt(kinetic_energy / present)
