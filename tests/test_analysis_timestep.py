"""The energy error of velocity Verlet against its time step, on springs and on forces with planted faults."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes
from spring_molecule import spring_dimer, spring_molecule

from remul_md.analysis.timestep import fitted_exponent, timestep_scan
from remul_md.errors import InputError

STEPS = (0.1, 0.2, 0.4, 0.8)


def test_a_morse_molecule_has_the_order_of_velocity_verlet():
    atoms = spring_molecule("H2O")
    start = atoms.positions.copy()
    found = timestep_scan(atoms, timesteps_fs=STEPS, length_ps=0.12)
    assert found.exponent == pytest.approx(2.0, abs=0.1)
    assert found.ci95[0] < found.exponent < found.ci95[1]
    assert found.ci95[1] - found.ci95[0] < 0.3
    assert found.verdict.passed is True
    values = [run.fluctuation_meV_per_atom for run in found.runs]
    assert [run.n_steps for run in found.runs] == [1200, 600, 300, 150]
    assert values == sorted(values)
    law = found.prefactor_meV_per_atom * np.array(STEPS) ** found.exponent
    np.testing.assert_allclose(values, law, rtol=0.15)
    np.testing.assert_array_equal(atoms.positions, start)


def test_a_harmonic_dimer_has_the_closed_form():
    """Verlet on 1/2 k x^2 keeps p^2/2m + k x^2/2 (1 - (w dt)^2/4): the energy swings by E (w dt)^2/8 about its mean.

    The RMS of a sine of that amplitude is smaller by sqrt(2), E the vibrational energy.
    """
    atoms = spring_dimer(symbols="N2", stiffness=30.0)
    found = timestep_scan(atoms, timesteps_fs=(0.2, 0.5), length_ps=0.31, temperature_K=100.0, seed=3)
    from ase import units

    from remul_md.dynamics.velocities import initial_velocities

    velocities = initial_velocities(
        atoms.positions, atoms.get_masses(), temperature_K=100.0, generator=np.random.default_rng(3), exact=True
    )
    mass = 14.007
    stretch = (velocities[1] - velocities[0])[2] / units.fs  # at the minimum all vibrational energy is kinetic
    energy = 0.5 * (mass / 2.0) * stretch**2
    omega = np.sqrt(30.0 / (mass / 2.0))
    for run in found.runs:
        amplitude = energy * (omega * run.timestep_fs * units.fs) ** 2 / 8.0
        assert run.fluctuation_meV_per_atom == pytest.approx(1e3 * amplitude / np.sqrt(2.0) / 2, rel=0.05)
    assert found.ci95 is None  # two points have no scatter
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["ci95"] is None


class Twisted(Calculator):
    """A calculator with its forces off by a share: they are no gradient of its energy."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own convention)

    def __init__(self, inner: Calculator, share: float) -> None:
        super().__init__()
        self.inner, self.share = inner, share

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        bare = self.atoms.copy()
        bare.calc = self.inner
        self.results = {"energy": bare.get_potential_energy(), "forces": bare.get_forces() * (1.0 + self.share)}


def test_forces_that_are_not_those_of_the_energy_lower_the_exponent():
    atoms = spring_molecule("H2O")
    atoms.calc = Twisted(atoms.calc, 0.01)
    found = timestep_scan(atoms, timesteps_fs=STEPS, length_ps=0.05)
    assert found.exponent < 1.5
    assert found.verdict.passed is False
    assert "no gradient" in found.verdict.why


def test_a_step_that_blows_up_is_said_and_left_out():
    atoms = spring_molecule("H2O")
    found = timestep_scan(atoms, timesteps_fs=(0.4, 0.8, 30.0), length_ps=0.6)
    assert found.runs[-1].fluctuation_meV_per_atom is None
    assert found.exponent == pytest.approx(2.0, abs=0.1)
    assert "1 longer steps blew up" in found.verdict.why
    with pytest.raises(InputError, match="1 of 2 runs blew up"):
        timestep_scan(atoms, timesteps_fs=(0.8, 30.0), length_ps=0.6)


def test_the_fit_gives_back_a_law_and_its_interval_covers():
    steps = np.array([0.1, 0.2, 0.3, 0.5, 0.8])
    exponent, (low, high), prefactor = fitted_exponent(steps, 0.7 * steps**1.83)
    assert exponent == pytest.approx(1.83)
    assert prefactor == pytest.approx(0.7)
    assert high - low < 1e-9
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        noisy = 0.7 * steps**2.0 * np.exp(rng.normal(scale=0.1, size=5))
        _, (low, high), _ = fitted_exponent(steps, noisy)
        covered += low <= 2.0 <= high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timesteps_fs": (0.5,)}, "at least two different steps > 0"),
        ({"timesteps_fs": (0.5, -1.0)}, "at least two different steps > 0"),
        ({"timesteps_fs": (0.5, 0.5, 1.0)}, "names a step twice"),
        ({"length_ps": 0.01}, "less than 20 of the longest step, 1 fs"),
        ({"temperature_K": 0.0}, "temperature_K must be > 0, got 0.0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        timestep_scan(spring_dimer(), **options)


def test_what_cannot_run_is_refused():
    from ase.constraints import FixAtoms

    atoms = spring_dimer()
    atoms.set_constraint(FixAtoms([0]))
    with pytest.raises(InputError, match="has constraints"):
        timestep_scan(atoms)
    atoms = spring_dimer()
    atoms.calc = None
    with pytest.raises(InputError, match="no calculator"):
        timestep_scan(atoms)
    with pytest.raises(InputError, match="needs two points > 0"):
        fitted_exponent(np.array([0.1, 0.2]), np.array([0.0, 1.0]))
