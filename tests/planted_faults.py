"""Faults planted into honest calculators, each with its reason; and small structures whose calls are cheap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

Fault = Callable[[Atoms, float, np.ndarray], tuple[float, np.ndarray]]
TOTAL_ENERGY = -4209.0  # eV; all electrons of ethanol


def copper_lj() -> Atoms:
    """Five atoms bound by a smooth Lennard-Jones potential fitted to copper: a trigonal bipyramid."""
    base = [[np.cos(a), np.sin(a), 0.0] for a in 2 * np.pi * np.arange(3) / 3]
    atoms = Atoms("Cu5", 1.52 * np.array([*base, [0, 0, 1.42], [0, 0, -1.42]]))
    atoms.calc = LennardJones(sigma=2.338, epsilon=0.409, rc=9.0, ro=7.0, smooth=True)
    return atoms


def alloy_emt() -> Atoms:
    """Five atoms of three elements with effective medium theory."""
    atoms = copper_lj()
    atoms.symbols[:] = ["Cu", "Au", "Cu", "Ag", "Cu"]
    atoms.calc = EMT()
    return atoms


class Faulty(Calculator):
    """What another calculator says, changed by `fault`."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own convention)

    def __init__(self, inner: Calculator, fault: Fault) -> None:
        super().__init__()
        self.inner, self.fault = inner, fault

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        inner = self.atoms.copy()
        inner.calc = self.inner
        energy, forces = self.fault(self.atoms, inner.get_potential_energy(), inner.get_forces())
        self.results = {"energy": float(energy), "forces": forces}


def planted(fault: Fault) -> Atoms:
    atoms = copper_lj()
    atoms.calc = Faulty(atoms.calc, fault)
    return atoms


def forces_off_by_one_percent(_atoms: Atoms, energy: float, forces: np.ndarray) -> tuple[float, np.ndarray]:
    return energy, 1.01 * forces


def single_precision(_atoms: Atoms, energy: float, forces: np.ndarray) -> tuple[float, np.ndarray]:
    """Total energies as all-electron codes have them, kept in 32 bits: steps of 0.5 meV."""
    return float(np.float32(energy + TOTAL_ENERGY)), forces


def depends_on_orientation(atoms: Atoms, energy: float, forces: np.ndarray) -> tuple[float, np.ndarray]:
    """An atom prefers its neighbours along z: 20 meV sum over pairs of cos^2 exp(-r^2/d^2), with its exact forces."""
    strength, width = 0.02, 3.0
    forces = forces.copy()
    for i in range(len(atoms)):
        for j in range(i):
            d = atoms.positions[i] - atoms.positions[j]
            r2 = d @ d
            cosine2, decay = d[2] ** 2 / r2, np.exp(-r2 / width**2)
            energy += strength * cosine2 * decay
            slope = (
                strength * decay * (np.array([0, 0, 2 * d[2] / r2]) - 2 * cosine2 * d / r2 - 2 * cosine2 * d / width**2)
            )
            forces[i] -= slope
            forces[j] += slope
    return energy, forces


def non_conservative(atoms: Atoms, energy: float, forces: np.ndarray) -> tuple[float, np.ndarray]:
    """Pair forces of up to 15 meV/Angstrom whose size depends on where the other atoms are; no energy belongs to them.

    As a head that predicts forces directly: they turn right, and net force and torque are zero.
    """
    forces = forces.copy()
    crowd = atoms.get_all_distances().sum(axis=1)
    for i in range(len(atoms)):
        for j in range(i):
            d = atoms.positions[i] - atoms.positions[j]
            pull = 0.015 * np.sin(4.0 * (crowd[i] + crowd[j])) * d / np.linalg.norm(d)
            forces[i] += pull
            forces[j] -= pull
    return energy, forces


def cutoff_without_envelope(atoms: Atoms, energy: float, forces: np.ndarray) -> tuple[float, np.ndarray]:
    """Dispersion of 64 eV Angstrom^6 cut at 5.5 Angstrom, where it is 2.3 meV; its exact forces on either side."""
    forces = forces.copy()
    for i in range(len(atoms)):
        for j in range(i):
            d = atoms.positions[i] - atoms.positions[j]
            r2 = d @ d
            if r2 < 5.5**2:
                energy -= 64.0 / r2**3
                forces[i] -= 6.0 * 64.0 / r2**4 * d
                forces[j] += 6.0 * 64.0 / r2**4 * d
    return energy, forces
