"""A cheap molecule for tests of dynamics: Morse bonds, harmonic 1-3 distances, exact forces, no rotation preferred."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes

from remul_md.structures.topology import bond_pairs


class SpringMolecule(Calculator):
    """Bonds D (1 - exp(-a (r - r0)))^2 with D = 4 eV, a = 2 / Angstrom; 1-3 pairs 1.5 eV/Angstrom^2 (r - r0)^2."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own convention)

    def __init__(self, reference: Atoms) -> None:
        super().__init__()
        self.bonds = bond_pairs(reference.numbers, reference.positions)
        graph = np.zeros((len(reference), len(reference)), dtype=int)
        graph[self.bonds[:, 0], self.bonds[:, 1]] = graph[self.bonds[:, 1], self.bonds[:, 0]] = 1
        self.angles = np.argwhere(np.triu((graph @ graph > 0) & (graph == 0), k=1))
        self.pairs = np.concatenate([self.bonds, self.angles])
        self.lengths = reference.get_all_distances()[self.pairs[:, 0], self.pairs[:, 1]]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        vectors = self.atoms.positions[self.pairs[:, 1]] - self.atoms.positions[self.pairs[:, 0]]
        distances = np.linalg.norm(vectors, axis=1)
        n_bonds = len(self.bonds)
        stretch = distances - self.lengths
        decay = np.exp(-2.0 * stretch[:n_bonds])
        energy = (4.0 * (1.0 - decay) ** 2).sum() + (1.5 * stretch[n_bonds:] ** 2).sum()
        slope = np.concatenate([16.0 * (1.0 - decay) * decay, 3.0 * stretch[n_bonds:]])
        pull = (slope / distances)[:, None] * vectors
        forces = np.zeros_like(self.atoms.positions)
        np.add.at(forces, self.pairs[:, 0], pull)
        np.add.at(forces, self.pairs[:, 1], -pull)
        self.results = {"energy": float(energy), "forces": forces}


def spring_molecule(name: str = "CH3CH2OH") -> Atoms:
    atoms = molecule(name)
    atoms.calc = SpringMolecule(atoms)
    return atoms


class CrookedSprings(SpringMolecule):
    """Forces as a direct head has them: a few percent off, and no gradient of anything."""

    def __init__(self, reference):
        super().__init__(reference)
        self.calls = 0

    def calculate(self, *given):
        super().calculate(*given)
        self.calls += 1
        methods = self.atoms.positions - self.atoms.positions.mean(0)
        self.results["forces"] = 0.96 * self.results["forces"] + 0.05 * np.cross([0.3, 1.0, -0.4], methods)


class Springs(Calculator):
    """Harmonic springs 1/2 k (r - r0)^2 between given pairs: small vibrations are known in closed form."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own convention)

    def __init__(self, pairs: list[tuple[int, int]], *, stiffness: list[float], lengths: list[float]) -> None:
        super().__init__()
        self.pairs, self.stiffness, self.lengths = np.array(pairs), np.array(stiffness), np.array(lengths)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        vectors = self.atoms.positions[self.pairs[:, 1]] - self.atoms.positions[self.pairs[:, 0]]
        distances = np.linalg.norm(vectors, axis=1)
        stretch = distances - self.lengths
        pull = (self.stiffness * stretch / distances)[:, None] * vectors
        forces = np.zeros_like(self.atoms.positions)
        np.add.at(forces, self.pairs[:, 0], pull)
        np.add.at(forces, self.pairs[:, 1], -pull)
        self.results = {"energy": 0.5 * float((self.stiffness * stretch**2).sum()), "forces": forces}


def spring_dimer(*, stiffness: float = 30.0, length: float = 1.1, symbols: str = "NO") -> Atoms:
    """Two atoms along z on one spring, eV/Angstrom^2."""
    atoms = Atoms(symbols, positions=[[0.2, -0.1, 0.3], [0.2, -0.1, 0.3 + length]])
    atoms.calc = Springs([(0, 1)], stiffness=[stiffness], lengths=[length])
    return atoms
