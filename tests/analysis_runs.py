"""Short real runs, and a calculator whose rotational error is known, for the tests of the analysis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from spring_molecule import spring_molecule

from remul_md.dynamics.options import MDOptions
from remul_md.dynamics.run import run_md

TILT = np.array([[4.0, 1.5, 0.0], [1.5, -2.5, 0.7], [0.0, 0.7, -1.5]]) * 1e-3  # eV/Angstrom^2


class Tilted(Calculator):
    """A calculator plus the lab-frame energy 1/2 sum_i d_i A d_i, d_i the deviations from the mean position.

    It is conservative and translation invariant, and breaks rotations by a known amount.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own convention)

    def __init__(self, inner: Calculator, *, tilt: np.ndarray = TILT) -> None:
        super().__init__()
        self.inner, self.tilt, self.n_calls = inner, tilt, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.n_calls += 1
        bare = self.atoms.copy()
        bare.calc = self.inner
        deviation = self.atoms.positions - self.atoms.positions.mean(axis=0)
        pull = deviation @ self.tilt
        self.results = {
            "energy": bare.get_potential_energy() + 0.5 * float((deviation * pull).sum()),
            "forces": bare.get_forces() - pull,
        }


def tilted_ethanol(*, tilt: np.ndarray = TILT) -> Atoms:
    atoms = spring_molecule("CH3CH2OH")
    atoms.calc = Tilted(atoms.calc, tilt=tilt)
    return atoms


def ethanol_run(folder: Path, *, tilted: bool = True, seed: int = 1, **options) -> Path:
    """A short NVE run of ethanol at 300 K; its trajectory, with log and record beside it."""
    atoms = tilted_ethanol() if tilted else spring_molecule("CH3CH2OH")
    chosen = {"length_ps": 1.0, "equilibrate_ps": 0.2, "frame_interval_fs": 5.0, **options}
    return run_md(atoms, MDOptions(seed=seed, **chosen), output=folder / "run.traj", progress=False).trajectory
