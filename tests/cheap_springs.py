"""A cheap surface beside a reference one, for tests of pretraining: springs, and the same springs a fifth too stiff."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from spring_molecule import SpringMolecule, spring_molecule

MOLECULE = "CH3OH"  # six atoms
first_positions: list[np.ndarray] = []  # where each calculator of `stiff_springs` began


class StiffSprings(SpringMolecule):
    """Energy and forces 1.2 times those of the reference, and 40 eV more."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if not hasattr(self, "began"):
            self.began = self.atoms.get_positions()
            first_positions.append(self.began)
        self.results = {"energy": 40.0 + 1.2 * self.results["energy"], "forces": 1.2 * self.results["forces"]}


def stiff_springs() -> StiffSprings:
    """As `cheap_springs:stiff_springs` on the command line."""
    return StiffSprings(spring_molecule(MOLECULE))


def reference_file(path: Path, *, n_frames: int, seed: int = 0) -> Path:
    """Frames of the reference surface at 500 K, 20 fs apart, energies near -700 eV, as extxyz."""
    atoms = spring_molecule(MOLECULE)
    rng = np.random.default_rng(seed)
    dynamics = Langevin(atoms, 1.0 * units.fs, temperature_K=500.0, friction=0.05 / units.fs, fixcm=False, rng=rng)
    dynamics.run(200)
    frames: list[Atoms] = []
    for _ in range(n_frames):
        dynamics.run(20)
        frame = Atoms(atoms.numbers, atoms.positions)
        energy = atoms.get_potential_energy() - 700.0
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=atoms.get_forces())
        frames.append(frame)
    ase.io.write(path, frames)
    return path
