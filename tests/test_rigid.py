"""Forces without net force and torque: what is conserved, to rounding, and what is not."""

import numpy as np
import pytest
import torch
from ase import units
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.md.verlet import VelocityVerlet
from potentials import untrained_potential
from spring_molecule import spring_molecule

from remul_md import RemulCalculator
from remul_md.dynamics.momenta import angular_momentum, angular_velocity, split_motion
from remul_md.dynamics.velocities import initial_velocities
from remul_md.errors import InputError
from remul_md.structures.frames import frames_from_atoms
from remul_md.symmetry.rigid import without_net_force_and_torque


def removed(forces, structures):
    tensors = [np.concatenate([getattr(a, name)() for a in structures]) for name in ("get_positions", "get_masses")]
    lengths = torch.tensor([len(atoms) for atoms in structures])
    return without_net_force_and_torque(
        torch.from_numpy(forces),
        *(torch.from_numpy(values) for values in tensors),
        system_index=torch.repeat_interleave(torch.arange(len(lengths)), lengths),
        n_systems=len(lengths),
    )


def test_what_is_left_is_the_internal_acceleration():
    """The same projection as that of velocities in `split_motion`, which knows bent, linear and single molecules."""
    structures = [molecule("CH3CH2OH"), molecule("CO2"), molecule("H"), molecule("CH3OH")]
    structures[0].positions += [40.0, -7.0, 3.0]
    forces = np.random.default_rng(2).normal(size=(9 + 3 + 1 + 6, 3))
    rest = removed(forces, structures)
    parts = np.split(np.arange(19), [9, 12, 13])
    for system, (atoms, rows) in enumerate(zip(structures, parts, strict=True)):
        masses = atoms.get_masses()
        motion = split_motion(atoms.get_positions(), forces[rows] / masses[:, None], masses=masses)
        np.testing.assert_allclose(rest.forces[rows], motion.internal * masses[:, None], atol=1e-12)
        torque = angular_momentum(atoms.get_positions(), forces[rows], masses=masses)
        np.testing.assert_allclose(rest.net_torque[system], torque, atol=1e-12)
        np.testing.assert_allclose(rest.net_force[system], forces[rows].sum(0), atol=1e-12)


def test_the_power_taken_away_is_that_of_the_rigid_motion():
    """alpha . L + v_cm . F_net: nothing at rest and without spin, whatever the molecule does inside."""
    atoms, rng = spring_molecule(), np.random.default_rng(5)
    positions, masses = atoms.get_positions(), atoms.get_masses()
    forces, velocities = rng.normal(size=(2, 9, 3))
    rest = removed(forces, [atoms])
    power = ((forces - rest.forces.numpy()) * velocities).sum()
    spin = angular_momentum(positions, velocities * masses[:, None], masses=masses)
    alpha = angular_velocity(positions, forces / masses[:, None], masses=masses)
    centre = (masses[:, None] * velocities).sum(0) / masses.sum()
    assert power == pytest.approx(alpha @ spin + centre @ forces.sum(0), rel=1e-10)
    inside = split_motion(positions, velocities, masses=masses).internal
    assert ((forces - rest.forces.numpy()) * inside).sum() == pytest.approx(0.0, abs=1e-12)


class RotatedBySpace(Calculator):
    """The spring molecule in a field that knows up from down: conservative, with net force and torque."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's protocol)

    def __init__(self, *, remove):
        super().__init__()
        self.inner, self.remove = spring_molecule(), remove
        self.field = np.random.default_rng(8).normal(scale=0.15, size=9)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.inner.set_positions(self.atoms.positions)
        height = self.atoms.positions[:, 2]
        forces = self.inner.get_forces()
        forces[:, 2] -= 2.0 * self.field * height
        if self.remove:
            forces = removed(forces, [self.atoms]).forces.numpy()
        energy = self.inner.get_potential_energy() + (self.field * height**2).sum()
        self.results = {"energy": energy, "forces": forces}


def run(timestep_fs, *, rotation, remove=True):
    """Change of the total energy, eV, and of linear and angular momentum in 60 fs."""
    atoms = spring_molecule()
    masses = atoms.get_masses()
    generator = np.random.default_rng(1)
    velocities = initial_velocities(
        atoms.positions, masses, temperature_K=900.0, generator=generator, rotation=rotation
    )
    atoms.set_velocities(velocities / units.fs)
    atoms.calc = RotatedBySpace(remove=remove)
    before = atoms.get_total_energy(), atoms.get_momenta().sum(0), atoms.get_angular_momentum()
    VelocityVerlet(atoms, timestep_fs * units.fs).run(round(60.0 / timestep_fs))
    after = atoms.get_total_energy(), atoms.get_momenta().sum(0), atoms.get_angular_momentum()
    return tuple(np.abs(a - b).max() for a, b in zip(after, before, strict=True))


def test_momenta_are_conserved_and_energy_only_without_spin():
    """Without spin the energy error is that of velocity Verlet and falls fourfold when the step is halved."""
    free, _, free_spin = run(0.5, rotation="thermal", remove=False)
    assert free < 0.05  # conservative: only the error of the integrator
    assert free_spin > 0.1
    for rotation in ("zero", "thermal"):
        coarse, linear, spin = run(0.5, rotation=rotation)
        fine, _, _ = run(0.25, rotation=rotation)
        assert linear < 1e-11
        assert spin < 1e-10
        if rotation == "zero":
            assert coarse / fine == pytest.approx(4.0, abs=1.0)
        else:
            assert fine > 0.02
            assert coarse / fine == pytest.approx(1.0, abs=0.2)


@pytest.fixture
def crooked():
    """A random potential, whose net torque is large."""
    frames = frames_from_atoms([molecule("CH3CH2OH")])
    return untrained_potential(frames, cutoff=4.0, energy_scale=0.3)


@pytest.mark.parametrize("forces", ["conservative", "direct"])
def test_the_calculator_takes_it_off_and_says_how_much(crooked, forces):
    atoms, plain = molecule("CH3CH2OH"), molecule("CH3CH2OH")
    plain.calc = RemulCalculator(crooked, device="cpu", forces=forces)
    atoms.calc = RemulCalculator(crooked, device="cpu", forces=forces, remove_net_torque=True)
    raw, masses = plain.get_forces(), plain.get_masses()
    np.testing.assert_allclose(atoms.get_forces(), removed(raw, [plain]).forces, atol=1e-12)
    assert atoms.get_potential_energy() == plain.get_potential_energy()
    torque = angular_momentum(plain.positions, raw, masses=masses)
    assert np.linalg.norm(torque) > 0.01
    np.testing.assert_allclose(atoms.calc.diagnostics["net_torque"], torque, atol=1e-9)
    np.testing.assert_allclose(atoms.calc.diagnostics["net_force"], raw.sum(0), atol=1e-9)
    assert "net_torque" not in plain.calc.diagnostics


def test_other_masses_are_another_question(crooked):
    atoms = molecule("CH3CH2OH")
    atoms.calc = RemulCalculator(crooked, device="cpu", remove_net_torque=True)
    light = atoms.get_forces()
    atoms.set_masses(np.where(atoms.numbers == 1, 2.014, atoms.get_masses()))
    heavy = atoms.get_forces()
    assert np.abs(light - heavy).max() > 1e-3
    torque = angular_momentum(atoms.positions, heavy, masses=atoms.get_masses())
    np.testing.assert_allclose(torque, 0.0, atol=1e-10)


def test_periodic_systems_are_refused():
    from ase.build import bulk

    atoms = bulk("Si", cubic=True)
    potential = untrained_potential(frames_from_atoms([atoms]), cutoff=4.0)
    atoms.calc = RemulCalculator(potential, device="cpu", remove_net_torque=True)
    with pytest.raises(InputError, match="periodic system"):
        atoms.get_forces()
