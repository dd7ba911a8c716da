"""Temperature of a run, with the degrees of freedom that are left to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remul_md.dynamics.momenta import angular_momentum, center_of_mass, linear_momentum, n_rotational_modes
from remul_md.dynamics.velocities import boltzmann_eV_per_K, temperature_K
from remul_md.errors import InputError

# Momenta from single precision files sum to about 1e-6 of the summed sizes; a thermal sum is 0.1 to 1 of it.
ZERO = 1e-4


def counted_degrees_of_freedom(
    positions: NDArray[np.float64],
    momenta: NDArray[np.float64],
    *,
    masses: NDArray[np.float64],
    pbc: NDArray[np.bool_],
) -> tuple[int, str]:
    """Degrees of freedom of a frame whose run says nothing of them, and how they were counted.

    3N, less 3 if the linear momentum is zero, less the rotational modes (3, or 2 if linear) if the angular momentum
    of an isolated molecule is zero too. A count for runs that conserve both, and without constraints.

    Args:
        positions: one frame, [N, 3], Angstrom.
        momenta: [N, 3], amu Angstrom/fs.
        masses: [N], amu.
        pbc: periodic flags, [3].
    """
    n_atoms = len(positions)
    total = linear_momentum(momenta)
    if np.linalg.norm(total) > ZERO * np.linalg.norm(momenta, axis=1).sum() or n_atoms == 1:
        return 3 * n_atoms, "3N: the centre of mass moves"
    if not pbc.any():
        levers = positions - center_of_mass(positions, masses)
        scale = np.linalg.norm(np.cross(levers, momenta), axis=1).sum()
        if np.linalg.norm(angular_momentum(positions, momenta, masses=masses)) <= ZERO * scale:
            n_modes = n_rotational_modes(positions, masses)
            return 3 * n_atoms - 3 - n_modes, f"3N - {3 + n_modes}: neither translation nor rotation in frame 0"
    return 3 * n_atoms - 3, "3N - 3: no translation in frame 0"


def temperatures(kinetic_energy: NDArray[np.float64], *, n_dof: int) -> NDArray[np.float64]:
    """Temperature of each frame, [T], K, from kinetic energies [T], eV.

    Raises:
        InputError: fewer than 1 degree of freedom.
    """
    return np.asarray(kinetic_energy, dtype=np.float64) * temperature_K(1.0, n_dof)


def heating_rate_K_per_ps(slope_meV_per_atom_ps: float, *, n_atoms: int, n_dof: int, n_vibrations: int) -> float:
    """How fast a drift of the total energy warms the system, K/ps.

    With the classical harmonic heat capacity (equipartition): k/2 for each degree of freedom that moves and k/2 more
    for each of those that is held by the potential. For a molecule whose rotation is free, n_dof = 3N - 3 and
    n_vibrations = 3N - 6. An estimate: real potentials are not harmonic.

    Args:
        slope_meV_per_atom_ps: of the total energy per atom.
        n_atoms: atoms of the system.
        n_dof: degrees of freedom that the temperature counts, >= 1.
        n_vibrations: internal degrees of freedom, 0 to n_dof.
    Raises:
        InputError: numbers that do not fit.
    """
    if n_dof < 1 or not 0 <= n_vibrations <= n_dof:
        raise InputError(f"a heating rate needs 0 <= n_vibrations <= n_dof, got {n_vibrations} and {n_dof}")
    heat_capacity = 0.5 * boltzmann_eV_per_K() * (n_dof + n_vibrations)
    return 1e-3 * slope_meV_per_atom_ps * n_atoms / heat_capacity


def stated_degrees_of_freedom(run: Mapping[str, Any]) -> int | None:
    """Degrees of freedom that the record of a run (`run.json`) states, or None if it does not.

    Raises:
        InputError: a number that is none.
    """
    stated = run.get("n_degrees_of_freedom")
    if stated is None:
        return None
    if isinstance(stated, bool) or not isinstance(stated, int) or stated < 1:
        raise InputError(f"n_degrees_of_freedom in the record of the run must be a whole number >= 1, got {stated!r}")
    return stated
