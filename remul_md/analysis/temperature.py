"""Temperature of a run, with the degrees of freedom that are left to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from remul_md.dynamics.constraints import Constraints, SeenConstraints
from remul_md.dynamics.momenta import (
    angular_momentum,
    center_of_mass,
    kinetic_energy_eV,
    linear_momentum,
    n_rotational_modes,
)
from remul_md.dynamics.velocities import boltzmann_eV_per_K, temperature_K
from remul_md.errors import InputError
from remul_md.structures.topology import bond_pairs

if TYPE_CHECKING:
    from remul_md.dynamics.trajectory import FrameStream

# Momenta from single precision files sum to about 1e-6 of the summed sizes; a thermal sum is 0.1 to 1 of it.
ZERO = 1e-4


def counted_degrees_of_freedom(
    positions: NDArray[np.float64],
    momenta: NDArray[np.float64],
    *,
    masses: NDArray[np.float64],
    pbc: NDArray[np.bool_],
    constraints: Constraints | None = None,
) -> tuple[int, str]:
    """Degrees of freedom of a frame whose run says nothing of them, and how they were counted.

    3N, less 3 if the linear momentum is zero, less the rotational modes (3, or 2 if linear) if the angular momentum
    of an isolated molecule is zero too. A count for runs that conserve both. Fixed coordinates and bonds are taken off;
    a molecule that fixed atoms hold conserves neither momentum, so nothing else is.

    Args:
        positions: one frame, [N, 3], Angstrom.
        momenta: [N, 3], amu Angstrom/fs.
        masses: [N], amu.
        pbc: periodic flags, [3].
        constraints: what is held.
    """
    n_atoms = len(positions)
    if constraints is not None and constraints.n_removed:
        n_removed = constraints.n_removed
        told = f"{int(constraints.fixed.sum())} fixed coordinates and {len(constraints.bonds)} fixed bonds"
        if constraints.held:
            return 3 * n_atoms - n_removed, f"3N - {n_removed}: {told}"
        free, how = counted_degrees_of_freedom(positions, momenta, masses=masses, pbc=pbc)
        return free - n_removed, f"{how}; less {n_removed}: {told}"
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


def held_in_run(run: Mapping[str, Any], seen: Constraints) -> Constraints:
    """What the record of a run (`run.json`) says is held, else what never changed in its frames.

    Raises:
        InputError: a record of constraints that cannot be read.
    """
    if "constraints" in run:
        return Constraints.from_json(run["constraints"], n_atoms=len(seen.fixed))
    return seen


def constraint_notes(constraints: Constraints) -> list[str]:
    """What a reader has to know of a run in which something is held."""
    if not constraints.n_removed:
        return []
    notes = [
        f"{int(constraints.fixed.all(axis=1).sum())} atoms never moved and {len(constraints.bonds)} bonds kept their "
        f"length: {constraints.n_removed} degrees of freedom are held, and no temperature counts them."
    ]
    if constraints.held:
        notes.append(
            "Fixed atoms take up momentum and angular momentum, and forces on them may be left out: neither of these "
            "nor the net torque of the run says anything about the potential, so they are not judged."
        )
    return notes


def n_vibrations(
    positions: NDArray[np.float64], masses: NDArray[np.float64], *, constraints: Constraints, isolated: bool
) -> int:
    """Internal degrees of freedom of a frame [N, 3], and all that are left of a molecule that is held."""
    n_left = 3 * len(masses) - constraints.n_removed
    if constraints.held:
        return n_left
    return n_left - 3 - (n_rotational_modes(positions, masses) if isolated else 0)


def temperatures(kinetic_energy: NDArray[np.float64], *, n_dof: int) -> NDArray[np.float64]:
    """Temperature of each frame, [T], K, from kinetic energies [T], eV.

    Raises:
        InputError: fewer than 1 degree of freedom.
    """
    return np.asarray(kinetic_energy, dtype=np.float64) * temperature_K(1.0, n_dof)


def mean_temperature_K(frames: FrameStream) -> float | None:
    """Mean over the frames of a run with its degrees of freedom counted, K; None without momenta or motion."""
    seen: SeenConstraints | None = None
    kinetic: list[NDArray[np.float64]] = []
    for block in frames.blocks():
        if block.momenta is None:
            return None
        if seen is None:
            first = block.part(np.array([0]))
            bonds = np.empty((0, 2), np.int64)
            if not block.pbc.any():
                bonds = bond_pairs(block.atomic_numbers, block.positions[0])
            seen = SeenConstraints(block.positions[0], bonds)
        seen.update(block.positions)
        kinetic.append(kinetic_energy_eV(block.momenta, block.masses))
    assert seen is not None  # a trajectory has at least one frame
    assert first.momenta is not None
    mean = float(np.concatenate(kinetic).mean())
    n_dof, _ = counted_degrees_of_freedom(
        first.positions[0], first.momenta[0], masses=first.masses, pbc=first.pbc, constraints=seen.result()
    )
    return temperature_K(mean, n_dof) if mean > 0.0 and n_dof > 0 else None


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


def what_sets_the_temperature(options: Mapping[str, Any]) -> str:
    """What decides the mean temperature of a run, in a sentence, by the options in its record; empty for none."""
    ensemble = options.get("ensemble")
    if ensemble is None:
        return ""
    if ensemble != "nve":
        return f"The thermostat ({ensemble}) keeps it there."
    if options.get("match_energy") is not False and options.get("equilibrate_ps", 0.0) > 0.0:
        return (
            "The run began with its velocities scaled to the mean energy at that temperature: this says how well "
            "that was met, and nothing about the potential."
        )
    return "NVE keeps the energy of its first moment: this says which that was, and nothing about the potential."
