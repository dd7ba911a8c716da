"""Reversible RESPA: velocity Verlet for M = 1, reversible, of second order, and as many calls as it promises."""

import numpy as np
import pytest
from ase import units
from ase.constraints import FixAtoms
from ase.md.verlet import VelocityVerlet
from spring_molecule import CrookedSprings, spring_molecule

from remul_md.dynamics.momenta import momenta_to_ase
from remul_md.dynamics.respa import RespaVerlet
from remul_md.dynamics.velocities import initial_velocities
from remul_md.errors import InputError


def moving():
    atoms = spring_molecule()
    masses, rng = atoms.get_masses(), np.random.default_rng(6)
    velocities = initial_velocities(atoms.positions, masses, temperature_K=400.0, generator=rng)
    atoms.set_momenta(momenta_to_ase(velocities * masses[:, None]))
    return atoms, CrookedSprings(atoms)


def test_one_inner_step_is_velocity_verlet():
    atoms, fast = moving()
    reference, _ = moving()
    RespaVerlet(atoms, 0.5 * units.fs, fast=fast, n_inner=1).run(200)
    VelocityVerlet(reference, 0.5 * units.fs).run(200)
    np.testing.assert_allclose(atoms.positions, reference.positions, atol=1e-11)
    np.testing.assert_allclose(atoms.get_momenta(), reference.get_momenta(), atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("n_inner", [1, 5])
def test_with_momenta_reversed_a_picosecond_returns(n_inner):
    atoms, fast = moving()
    start = atoms.get_positions()
    n_outer = 2000 // n_inner
    RespaVerlet(atoms, 0.5 * units.fs, fast=fast, n_inner=n_inner).run(n_outer)
    assert np.abs(atoms.positions - start).max() > 0.1
    atoms.set_momenta(-atoms.get_momenta())
    RespaVerlet(atoms, 0.5 * units.fs, fast=fast, n_inner=n_inner).run(n_outer)
    np.testing.assert_allclose(atoms.positions, start, atol=1e-6)


def test_it_follows_the_accurate_forces_to_second_order():
    """Distance from the accurate trajectory after 24 fs falls fourfold when both steps are halved."""
    exact, _ = moving()
    VelocityVerlet(exact, 0.02 * units.fs).run(1200)
    distances = []
    for timestep_fs in (0.4, 0.2):
        atoms, fast = moving()
        dynamics = RespaVerlet(atoms, timestep_fs * units.fs, fast=fast, n_inner=4)
        dynamics.run(round(24.0 / (4 * timestep_fs)))
        assert dynamics.get_time() == pytest.approx(24.0 * units.fs)
        distances.append(np.abs(atoms.positions - exact.positions).max())
    assert distances[0] / distances[1] == pytest.approx(4.0, abs=0.8)
    wrong, fast = moving()
    wrong.calc = fast
    VelocityVerlet(wrong, 0.1 * units.fs).run(240)
    assert np.abs(wrong.positions - exact.positions).max() > 20.0 * distances[0]


def test_calls_are_counted():
    atoms, fast = moving()
    accurate = atoms.calc
    calculate, calls = accurate.calculate, []
    accurate.calculate = lambda *given: (calls.append(1), calculate(*given))[1]
    RespaVerlet(atoms, 0.5 * units.fs, fast=fast, n_inner=3).run(7)
    assert (len(calls), fast.calls) == (7 + 1, 3 * 7 + 1)


def test_what_cannot_run_is_named():
    atoms, fast = moving()
    for n_inner in (0, 2.0, True):
        with pytest.raises(InputError, match=f"n_inner .*got {n_inner}"):
            RespaVerlet(atoms, units.fs, fast=fast, n_inner=n_inner)
    with pytest.raises(InputError, match="fast is the calculator of"):
        RespaVerlet(atoms, units.fs, fast=atoms.calc, n_inner=2)
    atoms.set_constraint(FixAtoms([0]))
    with pytest.raises(InputError, match="the structure has constraints"):
        RespaVerlet(atoms, units.fs, fast=fast, n_inner=2)
