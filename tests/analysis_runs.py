"""Short real runs and calculators with known rotational errors, for the tests of the analysis."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import TrajectoryWriter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS


class TiltedEMT(Calculator):
    """EMT plus the lab-frame energy 1/2 sum_i d_i A d_i of the deviations d_i from the mean position.

    It is conservative and translation invariant, and breaks rotations by a known amount.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, stiffness: np.ndarray) -> None:
        super().__init__()
        self.stiffness = stiffness  # [3, 3], symmetric, eV/Angstrom^2
        self.emt = EMT()
        self.n_calls = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.n_calls += 1
        bare = self.atoms.copy()
        bare.calc = self.emt
        deviation = self.atoms.positions - self.atoms.positions.mean(axis=0)
        pull = deviation @ self.stiffness
        self.results = {
            "energy": bare.get_potential_energy() + 0.5 * float((deviation * pull).sum()),
            "forces": bare.get_forces() - pull,
        }


def copper_cluster() -> Atoms:
    """Seven copper atoms, relaxed: a pentagonal bipyramid, shaken so that no two moments are equal."""
    ring = [[2.1 * np.cos(2 * np.pi * k / 5), 2.1 * np.sin(2 * np.pi * k / 5), 0.0] for k in range(5)]
    atoms = Atoms("Cu7", positions=[*ring, [0, 0, 1.3], [0, 0, -1.3]])
    atoms.positions += np.random.default_rng(11).normal(scale=0.05, size=(7, 3))
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=200)
    return atoms


def run_nve(
    atoms: Atoms,
    *,
    n_frames: int,
    seed: int = 3,
    temperature_K: float = 400.0,
    timestep_fs: float = 4.0,
    stride: int = 1,
    path=None,
):
    """Velocity Verlet with thermal rotation and no translation; arrays as `TrajectoryArrays` has them."""
    generator = np.random.default_rng(seed)
    masses = atoms.get_masses()
    momenta = generator.normal(size=(len(atoms), 3)) * np.sqrt(units.kB * temperature_K * masses)[:, None]
    atoms.set_momenta(momenta - momenta.sum(axis=0) * (masses / masses.sum())[:, None])
    dynamics = VelocityVerlet(atoms, timestep_fs * units.fs)
    frames = {key: [] for key in ("time_ps", "positions", "momenta", "forces", "potential_energy", "kinetic_energy")}
    writer = None if path is None else TrajectoryWriter(str(path), mode="w")
    for frame in range(n_frames):
        if frame:
            dynamics.run(stride)
        frames["time_ps"].append(frame * stride * timestep_fs * 1e-3)
        frames["positions"].append(atoms.get_positions())
        frames["momenta"].append(atoms.get_momenta() * units.fs)
        frames["forces"].append(atoms.get_forces())
        frames["potential_energy"].append(atoms.get_potential_energy())
        frames["kinetic_energy"].append(atoms.get_kinetic_energy())
        if writer is not None:
            stored = atoms.copy()
            stored.info["time_ps"] = frames["time_ps"][-1]
            stored.calc = SinglePointCalculator(stored, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
            writer.write(stored)
    if writer is not None:
        writer.close()
    return {key: np.array(values) for key, values in frames.items()}
