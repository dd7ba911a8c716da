"""From Langevin equilibration to NVE: which momenta to take off, and which energy to begin at.

The energy of a molecule fluctuates: nine atoms at 300 K hold 21 kT in their vibrations with a standard deviation
of 4.6 kT, and NVE keeps for its whole length what it is given at its first step. Nearly all of the scatter of the
mean temperature between such runs (about 20 %) comes from there. So NVE is begun at the canonical mean:

    E_internal = <V - K_internal> + 2 <K_internal>,   <K_internal> = n_internal kT / 2 exactly,
    K_rotation = n_rotational kT / 2,                 K_translation = 0.

<V - K_internal> is averaged over the second half of the equilibration. Its expectation is that of <V> less a
constant, for any potential; but in a harmonic system V and K_internal swell and shrink together, so their
difference converges within a few vibrations, while <V> needs many relaxation times of the thermostat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from remul_md.dynamics.constraints import Constraints
from remul_md.dynamics.momenta import Array, kinetic_energy_eV, n_rotational_modes, split_motion
from remul_md.dynamics.velocities import Rotation, boltzmann_eV_per_K, scaled_to_kinetic_energy

# Velocities are scaled up or down to reach the energy; a moment at which the molecule has climbed so high that less
# than this share of its mean kinetic energy would be left is not taken, and equilibration goes on for some steps.
LOWEST_KINETIC_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class CanonicalMeans:
    """Canonical mean energies at the target temperature, eV."""

    internal_energy: float  # potential + internal kinetic energy
    internal_kinetic: float
    rotational_kinetic: float


def internal_kinetic_energy(
    positions: Array, velocities: Array, masses: Array, *, periodic: bool, constraints: Constraints
) -> float:
    """Kinetic energy without translation and rotation, eV; of a periodic system without translation only.

    All motion of a molecule that is held counts as internal.
    """
    internal, _ = _internal_and_rotation(positions, velocities, masses, periodic=periodic, constraints=constraints)
    return float(kinetic_energy_eV(internal * masses[:, None], masses))


def _internal_and_rotation(
    positions: Array, velocities: Array, masses: Array, *, periodic: bool, constraints: Constraints
) -> tuple[Array, Array]:
    if constraints.held:
        return velocities, np.zeros_like(velocities)
    motion = split_motion(positions, velocities, masses=masses)
    if periodic:
        return motion.internal + motion.rotation, np.zeros_like(velocities)
    return motion.internal, motion.rotation


def canonical_means(
    positions: Array,
    masses: Array,
    *,
    mean_excess: float,
    temperature_K: float,
    rotation: Rotation,
    periodic: bool,
    constraints: Constraints,
) -> CanonicalMeans:
    """The energies at which NVE begins, eV.

    Args:
        positions: [N, 3], Angstrom: whether the molecule is linear.
        masses: [N], amu.
        mean_excess: mean of the potential energy less the internal kinetic energy over the equilibration, eV.
        temperature_K: target temperature.
        rotation: "thermal" gives the rotation its mean energy, "zero" none.
        periodic: a periodic system has no rotation; all its motion but translation is internal.
        constraints: what is held has no energy; a molecule that is held has no translation and rotation of its own.
    """
    n_rotational = 0 if periodic or constraints.held else n_rotational_modes(positions, masses)
    n_translational = 0 if constraints.held else 3
    half_kT = 0.5 * boltzmann_eV_per_K() * temperature_K
    internal_kinetic = (3 * len(masses) - n_translational - n_rotational - constraints.n_removed) * half_kT
    return CanonicalMeans(
        internal_energy=mean_excess + 2.0 * internal_kinetic,
        internal_kinetic=internal_kinetic,
        rotational_kinetic=n_rotational * half_kT if rotation == "thermal" else 0.0,
    )


def is_good_moment(means: CanonicalMeans, *, potential_energy: float, internal_kinetic: float) -> bool:
    """Whether enough kinetic energy is left at this potential energy, and enough motion is there to be scaled."""
    left = means.internal_energy - potential_energy
    lowest = LOWEST_KINETIC_SHARE * means.internal_kinetic
    return means.internal_kinetic == 0.0 or (left >= lowest and internal_kinetic >= 0.01 * means.internal_kinetic)


def resting_velocities(
    positions: Array, velocities: Array, masses: Array, *, rotation: Rotation, periodic: bool, constraints: Constraints
) -> Array:
    """Velocities [N, 3] without translation, and with rotation="zero" without angular momentum; else unchanged.

    What the constraints forbid is taken off first; a molecule that is held keeps all the rest.
    """
    if constraints.n_removed:
        velocities = constraints.project(velocities, positions=positions, masses=masses)
    if constraints.held:
        return velocities
    motion = split_motion(positions, velocities, masses=masses)
    keep_rotation = periodic or rotation == "thermal"
    return motion.internal + motion.rotation if keep_rotation else motion.internal


def energy_matched_velocities(
    positions: Array,
    velocities: Array,
    masses: Array,
    *,
    means: CanonicalMeans,
    potential_energy: float,
    periodic: bool,
    constraints: Constraints,
) -> Array:
    """Velocities [N, 3], Angstrom/fs, with which NVE runs at the canonical mean energy; translation is removed.

    Internal motion and rotation are scaled by one factor each; their directions stay as equilibration left them.

    Args:
        positions: [N, 3], Angstrom.
        velocities: [N, 3], Angstrom/fs.
        masses: [N], amu.
        means: where to begin.
        potential_energy: at `positions`, eV.
        periodic: whether rotation counts as internal motion.
        constraints: what the velocities obey already.
    """
    internal, turning = _internal_and_rotation(
        positions, velocities, masses, periodic=periodic, constraints=constraints
    )
    matched = scaled_to_kinetic_energy(internal, masses, kinetic_energy=means.internal_energy - potential_energy)
    if not periodic and means.rotational_kinetic > 0.0:
        matched = matched + scaled_to_kinetic_energy(turning, masses, kinetic_energy=means.rotational_kinetic)
    return np.asarray(matched)
