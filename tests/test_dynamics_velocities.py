import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule

from remul_md.dynamics.momenta import (
    angular_momentum,
    inertia_tensor,
    kinetic_energy_eV,
    linear_momentum,
    momenta_from_ase,
    momenta_to_ase,
    n_rotational_modes,
    split_motion,
)
from remul_md.dynamics.velocities import initial_velocities, n_degrees_of_freedom, temperature_K
from remul_md.errors import InputError

ETHANOL = molecule("CH3CH2OH")
MASSES = ETHANOL.get_masses()
HALF_KT = 0.5 * units.kB * 400.0


def draws(atoms, n, **options):
    generator = np.random.default_rng(11)
    return np.array(
        [
            initial_velocities(
                atoms.get_positions(), atoms.get_masses(), temperature_K=400.0, generator=generator, **options
            )
            for _ in range(n)
        ]
    )


def test_conversions_agree_with_ase():
    atoms = ETHANOL.copy()
    atoms.set_momenta(np.random.default_rng(3).normal(size=(9, 3)))
    momenta = momenta_from_ase(atoms.get_momenta())
    # 1 ASE time unit is 10.1805 fs, so the same momentum is a smaller number per fs.
    np.testing.assert_allclose(atoms.get_momenta() / momenta, 10.1805, rtol=1e-5)
    np.testing.assert_allclose(momenta_to_ase(momenta), atoms.get_momenta(), rtol=1e-15)
    assert kinetic_energy_eV(momenta, MASSES) == pytest.approx(atoms.get_kinetic_energy(), rel=1e-12)
    ours = angular_momentum(atoms.positions, momenta, masses=MASSES)
    np.testing.assert_allclose(ours, momenta_from_ase(atoms.get_angular_momentum()), rtol=1e-12)


def test_momenta_of_a_trajectory_are_those_of_its_frames():
    rng = np.random.default_rng(5)
    positions, momenta = rng.normal(size=(4, 7, 3)), rng.normal(size=(4, 7, 3))
    masses = rng.uniform(1.0, 20.0, size=7)
    spin = angular_momentum(positions, momenta, masses=masses)
    assert spin.shape == linear_momentum(momenta).shape == (4, 3)
    np.testing.assert_allclose(spin[2], angular_momentum(positions[2], momenta[2], masses=masses), rtol=1e-12)
    assert inertia_tensor(positions, masses).shape == (4, 3, 3)
    assert kinetic_energy_eV(momenta, masses).shape == (4,)


def test_angular_momentum_does_not_depend_on_the_origin():
    rng = np.random.default_rng(6)
    positions, momenta = rng.normal(size=(7, 3)), rng.normal(size=(7, 3)) + 4.0
    masses = rng.uniform(1.0, 20.0, size=7)
    moved = angular_momentum(positions + np.array([30.0, -20.0, 9.0]), momenta, masses=masses)
    np.testing.assert_allclose(moved, angular_momentum(positions, momenta, masses=masses), atol=1e-11)


def test_the_parts_of_a_motion_add_up_and_are_orthogonal_in_energy():
    velocities = np.random.default_rng(7).normal(size=(9, 3)) * 0.01
    parts = split_motion(ETHANOL.positions, velocities, masses=MASSES)
    energies = [float(kinetic_energy_eV(part * MASSES[:, None], MASSES)) for part in parts]
    np.testing.assert_allclose(sum(parts), velocities, atol=1e-17)
    assert sum(energies) == pytest.approx(float(kinetic_energy_eV(velocities * MASSES[:, None], MASSES)), rel=1e-12)
    assert min(energies) > 0.0
    internal = parts.internal * MASSES[:, None]
    np.testing.assert_allclose(angular_momentum(ETHANOL.positions, internal, masses=MASSES), 0.0, atol=1e-15)
    np.testing.assert_allclose(linear_momentum(internal), 0.0, atol=1e-16)


@pytest.mark.parametrize(
    ("atoms", "n_rotations"),
    [
        (ETHANOL, 3),
        (molecule("H2O"), 3),
        (molecule("CO2"), 2),
        (molecule("N2"), 2),
        (Atoms("Ar"), 0),
    ],
    ids=["ethanol", "water", "CO2", "N2", "Ar"],
)
def test_degrees_of_freedom(atoms, n_rotations):
    atoms = atoms.copy()
    atoms.rotate(33.0, (1.0, 2.0, 0.5))  # a linear molecule that lies along no axis
    n = len(atoms)
    assert n_rotational_modes(atoms.positions, atoms.get_masses()) == n_rotations
    assert n_degrees_of_freedom(atoms, translation_removed=False, rotation_removed=False) == 3 * n
    assert n_degrees_of_freedom(atoms, translation_removed=True, rotation_removed=False) == 3 * n - 3
    assert n_degrees_of_freedom(atoms, translation_removed=True, rotation_removed=True) == 3 * n - 3 - n_rotations


@pytest.mark.parametrize("rotation", ["thermal", "zero"])
def test_each_part_has_half_kT_per_mode(rotation):
    n = 1500
    parts = [split_motion(ETHANOL.positions, v, masses=MASSES) for v in draws(ETHANOL, n, rotation=rotation)]
    kinetic = np.array([[float(kinetic_energy_eV(p * MASSES[:, None], MASSES)) for p in part] for part in parts])
    modes = np.array([0.0, 3.0 if rotation == "thermal" else 0.0, 21.0])
    # K of d modes is kT/2 times a chi-squared variable: variance 2 d; five standard errors of n draws.
    assert (np.abs(kinetic.mean(0) / HALF_KT - modes) <= 5 * np.sqrt(2 * modes / n) + 1e-12).all()
    assert kinetic[:, 2].var() / HALF_KT**2 == pytest.approx(2 * 21, rel=0.2)


def test_every_cartesian_direction_and_element_gets_its_share():
    velocities = draws(ETHANOL, 3000)
    heat = (MASSES[None, :, None] * velocities**2).mean(0) / units.fs**2 / (2 * HALF_KT)
    # Taking off the translation takes m_i / M of each atom's share, rather much for C and O.
    np.testing.assert_allclose(heat, np.broadcast_to(1 - MASSES[:, None] / MASSES.sum(), (9, 3)), atol=0.13)


@pytest.mark.parametrize("name", ["CH3CH2OH", "CO2", "N2"])
def test_rotation_zero_leaves_no_angular_momentum(name):
    atoms = molecule(name)
    atoms.rotate(33.0, (1.0, 2.0, 0.5))
    for velocities in draws(atoms, 3, rotation="zero"):
        momenta = velocities * atoms.get_masses()[:, None]
        assert np.abs(momenta).max() > 1e-3
        np.testing.assert_allclose(linear_momentum(momenta), 0.0, atol=1e-15)
        np.testing.assert_allclose(
            angular_momentum(atoms.positions, momenta, masses=atoms.get_masses()), 0.0, atol=1e-13
        )


def test_a_single_atom_stands_still():
    np.testing.assert_allclose(draws(Atoms("Ar"), 2, rotation="zero"), 0.0, atol=1e-18)


@pytest.mark.parametrize(("rotation", "n_dof"), [("thermal", 24), ("zero", 21)])
def test_exact_hits_the_temperature_in_the_modes_that_are_left(rotation, n_dof):
    for velocities in draws(ETHANOL, 3, rotation=rotation, exact=True):
        kinetic = float(kinetic_energy_eV(velocities * MASSES[:, None], MASSES))
        assert temperature_K(kinetic, n_dof) == pytest.approx(400.0, rel=1e-12)


def test_the_seed_decides():
    first, again, other = (
        initial_velocities(
            ETHANOL.positions, MASSES, temperature_K=300.0, generator=np.random.default_rng(seed), rotation="zero"
        )
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_input_is_not_changed():
    positions, masses = ETHANOL.get_positions(), ETHANOL.get_masses()
    initial_velocities(positions, masses, temperature_K=300.0, generator=np.random.default_rng(0), rotation="zero")
    assert np.array_equal(positions, ETHANOL.positions)
    assert np.array_equal(masses, MASSES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature_K": -3.0}, "temperature_K must be >= 0, got -3.0"),
        ({"temperature_K": float("nan")}, "temperature_K must be >= 0, got nan"),
        ({"rotation": "some"}, r"rotation 'some' .*'thermal' or 'zero'"),
        ({"masses": np.array([1.0, 0.0])}, "mass of atom 1 is 0.0 amu"),
    ],
)
def test_bad_input_is_named(change, message):
    options = {"temperature_K": 300.0, "rotation": "thermal", "masses": np.ones(2), **change}
    masses = options.pop("masses")
    with pytest.raises(InputError, match=message):
        initial_velocities(np.zeros((2, 3)), masses, generator=np.random.default_rng(0), **options)


def test_no_degree_of_freedom_has_no_temperature():
    with pytest.raises(InputError, match="degree of freedom, got 0"):
        temperature_K(0.1, 0)


def test_a_periodic_system_has_no_rotation_to_remove():
    with pytest.raises(InputError, match=r"periodic .*angular momentum"):
        n_degrees_of_freedom(bulk("Cu"), translation_removed=True, rotation_removed=True)
