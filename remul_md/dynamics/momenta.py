"""Linear and angular momentum, inertia, and what part of a motion is translation, rotation or internal.

Pure functions on arrays; those that say [..., N, 3] take one frame or a whole trajectory [T, N, 3].
Units: Angstrom, amu, fs (STYLE: velocities in Angstrom/fs, momenta in amu Angstrom/fs). ASE counts time in
units of 10.1805 fs; `momenta_from_ase` and `momenta_to_ase` are the only places where that is converted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Below this ratio of the smallest to the largest moment of inertia a molecule counts as linear: 1e-3 Angstrom of
# rounding in a structure file gives about 1e-7, the thermal bending of CO2 at 300 K about 1e-3.
LINEAR_RATIO = 1e-6

Array = NDArray[np.float64]


class Motion(NamedTuple):
    """Velocities split into three parts that are orthogonal in the kinetic energy, each [N, 3], Angstrom/fs."""

    translation: Array
    rotation: Array
    internal: Array


def momenta_from_ase(momenta: Array) -> Array:
    """Momenta in ASE's unit (amu Angstrom / 10.1805 fs) as amu Angstrom/fs; velocities convert alike."""
    from ase import units

    return momenta * units.fs


def momenta_to_ase(momenta: Array) -> Array:
    """Momenta in amu Angstrom/fs in ASE's unit (amu Angstrom / 10.1805 fs); velocities convert alike."""
    from ase import units

    return momenta / units.fs


def kinetic_energy_eV(momenta: Array, masses: Array) -> Array:
    """Kinetic energy, [...], eV, of momenta [..., N, 3], amu Angstrom/fs, and masses [N], amu."""
    from ase import units

    return np.asarray(0.5 * np.einsum("...nc,...nc,n->...", momenta, momenta, 1.0 / masses) / units.fs**2)


def linear_momentum(momenta: Array) -> Array:
    """Sum of the momenta [..., N, 3]: [..., 3], in their unit (amu Angstrom/fs)."""
    return momenta.sum(axis=-2)


def center_of_mass(positions: Array, masses: Array) -> Array:
    """Centre of mass, [..., 3], Angstrom, of positions [..., N, 3] and masses [N]."""
    return np.einsum("...nc,n->...c", positions, masses) / masses.sum()


def angular_momentum(positions: Array, momenta: Array, *, masses: Array) -> Array:
    """Angular momentum about the centre of mass, [..., 3], amu Angstrom^2/fs.

    Args:
        positions: [..., N, 3], Angstrom.
        momenta: [..., N, 3], amu Angstrom/fs.
        masses: [N], amu.
    """
    levers = positions - center_of_mass(positions, masses)[..., None, :]
    return np.cross(levers, momenta).sum(axis=-2)


def inertia_tensor(positions: Array, masses: Array) -> Array:
    """Inertia tensor about the centre of mass, [..., 3, 3], amu Angstrom^2, of positions [..., N, 3]."""
    levers = positions - center_of_mass(positions, masses)[..., None, :]
    second = np.einsum("...ni,...nj,n->...ij", levers, levers, masses)
    trace = np.trace(second, axis1=-2, axis2=-1)
    return trace[..., None, None] * np.eye(3) - second


def n_rotational_modes(positions: Array, masses: Array) -> int:
    """How many ways the body [N, 3] can turn: 3, 2 if linear, 0 for a single atom (see LINEAR_RATIO)."""
    moments = np.linalg.eigvalsh(inertia_tensor(positions, masses))
    return int((moments > LINEAR_RATIO * moments[-1]).sum()) if moments[-1] > 0.0 else 0


def angular_velocity(positions: Array, velocities: Array, *, masses: Array) -> Array:
    """Angular velocity of the rigid rotation that carries the angular momentum, [3], rad/fs.

    A linear molecule has none about its axis, a single atom none at all.

    Args:
        positions: [N, 3], Angstrom.
        velocities: [N, 3], Angstrom/fs.
        masses: [N], amu.
    """
    moments, axes = np.linalg.eigh(inertia_tensor(positions, masses))
    turns = moments > LINEAR_RATIO * moments[-1]
    if not turns.any():
        return np.zeros(3)
    momentum = angular_momentum(positions, velocities * masses[:, None], masses=masses)
    return axes[:, turns] @ ((axes[:, turns].T @ momentum) / moments[turns])


def split_motion(positions: Array, velocities: Array, *, masses: Array) -> Motion:
    """Translation of the centre of mass, rigid rotation about it, and the rest.

    The parts are orthogonal projections in mass-weighted space: their kinetic energies add up, and a
    Maxwell-Boltzmann draw stays one in each part.

    Args:
        positions: [N, 3], Angstrom.
        velocities: [N, 3], Angstrom/fs.
        masses: [N], amu.
    """
    translation = np.broadcast_to(center_of_mass(velocities, masses), velocities.shape)
    omega = angular_velocity(positions, velocities, masses=masses)
    rotation = np.cross(omega, positions - center_of_mass(positions, masses))
    return Motion(translation=translation, rotation=rotation, internal=velocities - translation - rotation)
