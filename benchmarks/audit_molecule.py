"""Molecules of Morse springs with exact forces, honest or with one fault planted: cheap calculators to audit.

Every pair of atoms has a Morse spring about its distance at rest: bonds deep, angles less, the rest shallow. What is
planted with exact forces is differentiated by torch. Many geometries go through in a call. Which atom is which is told
by the array `kind` of the structure, so that the order of the atoms does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from torch import Tensor

from remul_md.structures.topology import bond_pairs, bonded_chains

DEPTHS_eV, WIDTHS = (4.0, 0.6, 0.02), (1.9, 1.2, 1.2)  # of pairs one, two, more bonds apart; WIDTHS in 1/Angstrom

EnergyTerm = Callable[[Tensor, Tensor, float], Tensor]
ForceTerm = Callable[[Tensor, Tensor, float, np.random.Generator], Tensor]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is planted.

    Args:
        name: of the fault.
        where: the coordinate it hangs on.
        unit: of the sizes.
        sizes: in `unit`, increasing.
        exact: energy [R], eV, of positions [R, N, 3] in the order of `kind` and in the order given, whose exact forces
            are added.
        energy: the same, without forces.
        forces: the forces [R, N, 3] instead of the honest ones, from positions, honest forces, size and a generator.
        noise: of the energy, eV for size 1.
    """

    name: str
    where: str
    unit: str
    sizes: tuple[float, ...]
    exact: EnergyTerm | None = None
    energy: EnergyTerm | None = None
    forces: ForceTerm | None = None
    noise: float = 0.0


class Springs(Calculator):
    """The force field of one molecule.

    Args:
        rest: the molecule, whose distances are at rest.
        fault: what is planted, with its size.
        seed: of noise.
    """

    implemented_properties = ("energy", "forces")

    def __init__(self, rest: Atoms, *, fault: Fault | None = None, size: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        n_atoms = len(rest)
        pairs = bond_pairs(rest.numbers, rest.positions)
        self.first, self.second = np.triu_indices(n_atoms, k=1)
        apart = np.full((n_atoms, n_atoms), 2)
        angles = bonded_chains(pairs, length=3)
        apart[angles[:, 0], angles[:, 2]] = apart[angles[:, 2], angles[:, 0]] = 1
        apart[pairs[:, 0], pairs[:, 1]] = apart[pairs[:, 1], pairs[:, 0]] = 0
        kinds = apart[self.first, self.second]
        self.depths, self.widths = np.array(DEPTHS_eV)[kinds], np.array(WIDTHS)[kinds]
        self.lengths = rest.get_all_distances()[self.first, self.second]
        # From the pull of each pair to the forces of its two atoms.
        self.ends = np.zeros((n_atoms, len(kinds)))
        self.ends[self.first, np.arange(len(kinds))] = 1.0
        self.ends[self.second, np.arange(len(kinds))] = -1.0
        self.fault, self.size, self.rng = fault, size, np.random.default_rng(seed)

    def energies_and_forces(self, given: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of geometries [R, N, 3]; atom `order[k]` of them is atom k of the molecule."""
        positions, inverse = given[:, order], np.argsort(order)
        d = positions[:, self.second] - positions[:, self.first]
        r = np.sqrt((d * d).sum(-1))
        decay = np.exp(-self.widths * (r - self.lengths))
        energies = (self.depths * (1.0 - decay) ** 2).sum(-1)
        pull = (2.0 * self.depths * self.widths * decay * (1.0 - decay) / r)[..., None] * d
        forces = self.ends @ pull
        fault, size = self.fault, self.size
        if fault is None:
            return energies, forces[:, inverse]
        x, as_given = torch.from_numpy(positions), torch.from_numpy(given)
        if fault.exact is not None:
            as_given = as_given.requires_grad_()
            added = fault.exact(as_given[:, order], as_given, size)
            (slope,) = torch.autograd.grad(added.sum(), as_given)
            energies, forces = energies + added.detach().numpy(), forces - slope.numpy()[:, order]
        if fault.energy is not None:
            energies = energies + fault.energy(x, as_given, size).numpy()
        if fault.forces is not None:
            forces = fault.forces(x, torch.from_numpy(forces), size, self.rng).numpy()
        if fault.noise:
            energies = energies + size * fault.noise * self.rng.standard_normal(len(energies))
        return energies, forces[:, inverse]

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """One geometry."""
        super().calculate(atoms, properties, system_changes)
        order = np.argsort(self.atoms.get_array("kind"))
        energies, forces = self.energies_and_forces(self.atoms.positions[None], order)
        self.results = {"energy": float(energies[0]), "forces": forces[0]}

    def copies(self, atoms: Atoms, *, n_copies: int) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """A function of [R, N, 3], as the calculators of the package have it."""
        order = np.argsort(atoms.get_array("kind"))
        return lambda positions: self.energies_and_forces(positions, order)


def springs(name: str, *, fault: Fault | None = None, size: float = 0.0, seed: int = 0, rattle_A: float = 0.0) -> Atoms:
    """A molecule of ASE's collection with its springs, moved by so much from where they rest."""
    atoms = molecule(name)
    atoms.set_array("kind", np.arange(len(atoms)))
    calculator = Springs(atoms, fault=fault, size=size, seed=seed)
    if rattle_A:
        atoms.rattle(rattle_A, seed=seed)
    atoms.calc = calculator
    return atoms
