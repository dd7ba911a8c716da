"""The shadow energy: two orders flatter than the total energy, as steep where energy is put in, and in the log."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential
from ase.cluster import Icosahedron
from ase.constraints import FixAtoms, FixBondLength
from ase.io import read
from ase.md.verlet import VelocityVerlet
from spring_molecule import CrookedSprings, spring_dimer, spring_molecule

from remul_md import RemulCalculator, read_structure
from remul_md.analysis.log import read_log
from remul_md.dynamics import MDOptions, run_md
from remul_md.dynamics.momenta import momenta_from_ase, momenta_to_ase
from remul_md.dynamics.replicas import run_replicas
from remul_md.dynamics.shadow import shadow_energy_eV
from remul_md.dynamics.velocities import initial_velocities


def energies(atoms: Atoms, *, timestep_fs: float, length_fs: float, temperature_K: float) -> tuple[np.ndarray, ...]:
    """Total and shadow energy after each step of an NVE run, [n] each, eV, and the positions [n + 1, N, 3]."""
    masses = atoms.get_masses()
    velocities = initial_velocities(
        atoms.positions, masses, temperature_K=temperature_K, generator=np.random.default_rng(4)
    )
    atoms.set_momenta(momenta_to_ase(velocities * masses[:, None]))
    dynamics = VelocityVerlet(atoms, timestep_fs * units.fs)
    forces, potential = atoms.get_forces(), atoms.get_potential_energy()
    total, shadow, positions = [], [], [atoms.get_positions()]
    for _ in range(round(length_fs / timestep_fs)):
        forces_before, potential_before = forces, potential
        forces, potential = dynamics.step(forces), atoms.get_potential_energy()
        total.append(potential + atoms.get_kinetic_energy())
        shadow.append(
            shadow_energy_eV(
                (potential_before, potential),
                (forces_before, forces),
                momenta_from_ase(atoms.get_momenta()),
                masses=masses,
                timestep_fs=timestep_fs,
            )
        )
        positions.append(atoms.get_positions())
    return np.array(total), np.array(shadow), np.array(positions)


def anharmonic_dimer() -> Atoms:
    atoms = Atoms("NO", positions=[[0.2, -0.1, 0.3], [0.2, -0.1, 1.5]])
    atoms.calc = MorsePotential(epsilon=4.0, r0=1.15, rho0=2.5, rcut1=8.0, rcut2=9.0)
    return atoms


def copper() -> Atoms:
    atoms = Icosahedron("Cu", 2)
    atoms.calc = EMT()
    return atoms


def shipped_ethanol() -> Atoms:
    atoms = read_structure("ethanol")
    atoms.calc = RemulCalculator("ethanol", dtype="float64", device="cpu")
    return atoms


@pytest.mark.parametrize(
    ("make", "timestep_fs", "length_fs", "temperature_K"),
    [
        (spring_dimer, 0.7, 300.0, 900.0),
        (anharmonic_dimer, 0.7, 300.0, 900.0),
        (copper, 5.0, 1500.0, 300.0),
        pytest.param(shipped_ethanol, 0.5, 60.0, 300.0, marks=pytest.mark.slow),
    ],
)
def test_it_falls_with_the_fourth_power_of_the_step_where_the_total_energy_falls_with_the_second(
    make, timestep_fs, length_fs, temperature_K
):
    scatter = []
    for step in (timestep_fs, 2.0 * timestep_fs):
        total, shadow, _ = energies(make(), timestep_fs=step, length_fs=length_fs, temperature_K=temperature_K)
        scatter.append((total.std(), shadow.std()))
    (total_order, shadow_order) = np.log2(np.array(scatter[1]) / scatter[0])
    assert total_order == pytest.approx(2.0, abs=0.2)
    assert shadow_order == pytest.approx(4.0, abs=0.35)
    assert scatter[0][1] < 0.05 * scatter[0][0]


class Swirl(Calculator):
    """A calculator plus forces that turn about z: no energy belongs to them, and what they do is known."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own convention)
    strength = 0.02  # eV/Angstrom^2

    def __init__(self, inner: Calculator) -> None:
        super().__init__()
        self.inner = inner

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        bare = self.atoms.copy()
        bare.calc = self.inner
        self.results = {
            "energy": bare.get_potential_energy(),
            "forces": bare.get_forces() + self.swirl(self.atoms.positions),
        }

    def swirl(self, positions: np.ndarray) -> np.ndarray:
        return self.strength * np.cross([0.0, 0.0, 1.0], positions - positions.mean(0))


def test_its_slope_is_the_drift_that_was_planted():
    atoms = spring_molecule()
    atoms.calc = Swirl(atoms.calc)
    _, shadow, positions = energies(atoms, timestep_fs=0.5, length_fs=400.0, temperature_K=300.0)
    swirl = np.array([atoms.calc.swirl(frame) for frame in positions])
    work = np.cumsum((0.5 * (swirl[1:] + swirl[:-1]) * np.diff(positions, axis=0)).sum((1, 2)))
    at_half_steps = work - 0.5 * np.diff(work, prepend=0.0)  # the shadow energy is the mean over the ends of a step
    assert np.ptp(work) > 0.01
    left = shadow - at_half_steps
    assert np.ptp(left) < 0.02 * np.ptp(work)
    time = np.arange(len(work)) * 5e-4
    assert np.polyfit(time, shadow, 1)[0] == pytest.approx(np.polyfit(time, at_half_steps, 1)[0], rel=0.01)


def options(**changes) -> MDOptions:
    short = {"length_ps": 0.03, "equilibrate_ps": 0.0, "frame_interval_fs": 0.5, "log_interval": 3, "seed": 6}
    return MDOptions(**{**short, **changes})


def test_the_log_of_nve_tells_it_of_the_step_that_ends_in_a_row(tmp_path):
    result = run_md(spring_molecule(), options(), output=tmp_path / "run.traj", progress=False)
    log, frames = read_log(result.log), read(result.trajectory, index=":")
    assert len(frames) == 61
    assert np.isnan(log.shadow_energy[0])
    for row in range(1, 21):
        before, after = frames[3 * row - 1], frames[3 * row]
        told = shadow_energy_eV(
            (before.get_potential_energy(), after.get_potential_energy()),
            (before.get_forces(), after.get_forces()),
            momenta_from_ase(after.get_momenta()),
            masses=after.get_masses(),
            timestep_fs=0.5,
        )
        assert log.shadow_energy[row] == pytest.approx(told, abs=1e-14)
    assert log.shadow_energy[1:].std() < 0.1 * log.total_energy.std()


def test_replicas_tell_it_as_a_run_alone_does(tmp_path):
    atoms = spring_molecule()

    def evaluate(positions):
        moved = atoms.copy()
        moved.calc = atoms.calc
        found = []
        for each in positions:
            moved.set_positions(each)
            found.append((moved.get_potential_energy(), moved.get_forces()))
        return np.array([energy for energy, _ in found]), np.array([forces for _, forces in found])

    run_replicas(atoms, options(), n_replicas=2, output=tmp_path / "run.traj", evaluate=evaluate, progress=False)
    alone = run_md(spring_molecule(), options(seed=7), output=tmp_path / "alone.traj", progress=False)
    assert (tmp_path / "run-1.log.csv").read_bytes() == alone.log.read_bytes()
    assert "shadow_energy_eV" in alone.log.read_text().splitlines()[0]


def test_it_is_told_of_plain_velocity_verlet_only(tmp_path):
    def header(name: str, atoms: Atoms, chosen: MDOptions, **more) -> str:
        result = run_md(atoms, chosen, output=tmp_path / f"{name}.traj", progress=False, **more)
        return result.log.read_text().splitlines()[0]

    held, bonded = spring_molecule(), spring_molecule()
    held.set_constraint(FixAtoms([0]))
    bonded.set_constraint(FixBondLength(0, 1))
    fast = CrookedSprings(molecule("CH3CH2OH"))
    assert "shadow" in header("held", held, options())
    log = read_log(tmp_path / "held.log.csv")
    assert log.shadow_energy[1:].std() < 0.1 * log.total_energy.std()
    assert "shadow" not in header("bonded", bonded, options())
    assert "shadow" not in header("respa", spring_molecule(), options(n_inner=2, frame_interval_fs=1.0), fast=fast)
    thermostatted = header("bussi", spring_molecule(), options(ensemble="bussi"))
    assert "shadow" not in thermostatted
    assert thermostatted.endswith("thermostat_energy_eV")
