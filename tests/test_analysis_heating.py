"""Drift as a heating rate, stability of bonds, and what the verdicts say of them."""

from __future__ import annotations

import numpy as np
import pytest
from ase.units import kB

from remul_md.analysis.energy import energy_drift
from remul_md.analysis.structure import BondRanges, bond_deviation
from remul_md.analysis.temperature import heating_rate_K_per_ps, temperatures
from remul_md.analysis.verdicts import Bounds, bond_verdict, energy_verdict
from remul_md.errors import InputError


def test_energy_put_into_harmonic_motion_shows_as_its_temperature():
    """Five atoms, 12 degrees of freedom, 9 of them vibrations: equipartition gives T, the drift must give dT/dt."""
    n_atoms, n_dof, n_vibrations, rate = 5, 12, 9, 7.3
    time_ps = np.linspace(0.0, 4.0, 501)
    asked_K = 300.0 + rate * time_ps
    kinetic = 0.5 * n_dof * kB * asked_K
    potential = 0.5 * n_vibrations * kB * asked_K
    np.testing.assert_allclose(temperatures(kinetic, n_dof=n_dof), asked_K)
    drift = energy_drift(time_ps, (kinetic + potential) / n_atoms)
    found = heating_rate_K_per_ps(drift.slope_meV_per_atom_ps, n_atoms=n_atoms, n_dof=n_dof, n_vibrations=n_vibrations)
    assert found == pytest.approx(rate, rel=1e-6)
    pace = 1e3 * heating_rate_K_per_ps(1.0, n_atoms=n_atoms, n_dof=n_dof, n_vibrations=n_vibrations)
    verdict = energy_verdict(drift, "drifts", bounds=Bounds(), heating_K_per_ns=pace)
    assert "the run heats by about 7,300 K/ns" in verdict.why
    assert f"(limit ±{0.01 * pace:.2g} K/ns)" in verdict.why
    cooling = energy_drift(time_ps, -(kinetic + potential) / n_atoms)
    assert "the run cools by" in energy_verdict(cooling, "drifts", bounds=Bounds()).why
    with pytest.raises(InputError, match="0 <= n_vibrations <= n_dof, got 13 and 12"):
        heating_rate_K_per_ps(1.0, n_atoms=5, n_dof=12, n_vibrations=13)


def chain(lengths: np.ndarray) -> np.ndarray:
    """Frames of three atoms on a line, bonds of these lengths [T, 2]."""
    along = np.concatenate([np.zeros((len(lengths), 1)), np.cumsum(lengths, axis=1)], axis=1)
    return np.stack([along, 0.0 * along, 0.0 * along], axis=-1)


PAIRS = np.array([[0, 1], [1, 2]])


def test_the_first_bond_off_is_told_with_its_time():
    lengths = np.tile([1.1, 1.5], (8, 1))
    lengths[3, 0] = 1.59  # 0.49 off
    lengths[5:, 1] = 2.01  # 0.51 off
    lengths[6, 0] = 4.0
    bonds = bond_deviation(chain(lengths), PAIRS)
    assert bonds.first_off_frame == 5
    assert bonds.first_off_pair == (1, 2)
    assert bonds.worst_pair == (0, 1)
    time_ps = 3.0 + 0.25 * np.arange(8)
    assert "The bond of atoms 1 and 2 was the first to be 0.5 Å off, after 1.25 ps." in (
        bond_verdict(bonds, time_ps=time_ps).why
    )
    assert "off, in frame 5." in bond_verdict(bonds).why


def test_a_bond_that_stays_is_never_off_and_one_too_short_is():
    lengths = np.tile([1.1, 1.5], (5, 1))
    still = bond_deviation(chain(lengths), PAIRS)
    assert still.first_off_frame is None
    assert still.first_off_pair is None
    assert "None was ever 0.5 Å off its usual length." in bond_verdict(still).why
    lengths[2, 0] = 0.55
    assert bond_deviation(chain(lengths), PAIRS).first_off_frame == 2
    lengths[1, 1] = np.nan
    assert bond_deviation(chain(lengths), PAIRS).first_off_frame == 1


def test_the_reference_is_the_middle_of_the_trained_range():
    lengths = np.tile([1.1, 1.9], (4, 1))
    lengths[2, 1] = 2.01
    ranges = BondRanges(pairs=PAIRS, min_A=np.array([0.9, 1.4]), max_A=np.array([1.2, 1.6]))
    bonds = bond_deviation(chain(lengths), PAIRS, ranges=ranges)
    assert bonds.first_off_frame == 2  # 0.51 from 1.5; only 0.11 from frame 0
