"""Momenta, temperatures and bonds of a run."""

from __future__ import annotations

import numpy as np
import pytest
from analysis_runs import ethanol_run
from ase import units
from ase.build import molecule
from scipy.constants import atomic_mass, hbar

from remul_md.analysis.momentum import HBAR, momentum_change
from remul_md.analysis.structure import BondRanges, bond_deviation
from remul_md.analysis.temperature import counted_degrees_of_freedom, stated_degrees_of_freedom, temperatures
from remul_md.dynamics.momenta import angular_momentum, kinetic_energy_eV
from remul_md.dynamics.read import read_trajectory
from remul_md.errors import InputError
from remul_md.structures.topology import bond_pairs

ISOLATED, PERIODIC = np.zeros(3, dtype=bool), np.array([True, True, False])


@pytest.fixture(scope="module")
def exact_run(tmp_path_factory):
    return read_trajectory(ethanol_run(tmp_path_factory.mktemp("exact"), tilted=False, length_ps=0.4))


@pytest.fixture(scope="module")
def tilted_run(tmp_path_factory):
    return read_trajectory(ethanol_run(tmp_path_factory.mktemp("tilted"), length_ps=0.4))


def test_hbar_in_our_unit():
    assert pytest.approx(hbar / (atomic_mass * 1e-20 / 1e-15), rel=1e-8) == HBAR


def test_a_free_molecule_keeps_its_momenta(exact_run):
    change = momentum_change(exact_run.positions, exact_run.momenta, masses=exact_run.masses)
    assert change.reference == "initial angular momentum"
    assert change.reference_hbar > 1.0
    assert change.max_relative_change < 1e-9
    assert change.max_linear_change < 1e-12


def test_the_change_is_the_time_integral_of_the_net_torque(tilted_run):
    run = tilted_run
    change = momentum_change(run.positions, run.momenta, masses=run.masses)
    assert change.max_relative_change > 0.01
    assert change.max_linear_change < 1e-12  # the tilt does not push
    torque = np.cross(run.positions - run.positions.mean(axis=1, keepdims=True), run.forces).sum(axis=1)  # eV
    per_fs = units.fs**2  # eV in amu Angstrom^2/fs^2
    steps = np.diff(1e3 * run.time_ps)[:, None]
    integral = np.cumsum(0.5 * (torque[1:] + torque[:-1]) * steps, axis=0) * per_fs / HBAR
    np.testing.assert_allclose(np.linalg.norm(integral, axis=1), change.angular_change_hbar[1:], rtol=0.02, atol=0.02)
    assert change.end_relative_change == pytest.approx(change.angular_change_hbar[-1] / change.reference_hbar)


def test_a_run_without_rotation_is_measured_against_its_atoms(tmp_path):
    run = read_trajectory(ethanol_run(tmp_path, length_ps=0.2, rotation="zero"))
    change = momentum_change(run.positions, run.momenta, masses=run.masses)
    assert change.reference == "atomic angular momenta"
    levers = run.positions[0] - (run.masses / run.masses.sum()) @ run.positions[0]
    expected = np.sqrt((np.cross(levers, run.momenta[0]) ** 2).sum()) / HBAR
    assert change.reference_hbar == pytest.approx(expected, rel=1e-9)
    assert 0.0 < change.max_relative_change < 10.0


def test_flight_of_the_molecule_is_no_rotation(exact_run):
    drifting = exact_run.momenta + exact_run.masses[:, None] * [0.01, -0.02, 0.005]
    moved = exact_run.positions + 1e3 * exact_run.time_ps[:, None, None] * [0.01, -0.02, 0.005]
    still = momentum_change(exact_run.positions, exact_run.momenta, masses=exact_run.masses)
    flying = momentum_change(moved, drifting, masses=exact_run.masses)
    assert flying.reference_hbar == pytest.approx(still.reference_hbar, rel=1e-9)
    assert flying.max_relative_change < 1e-9


def test_momenta_without_a_scale_give_none_and_wrong_shapes_are_refused(exact_run):
    run = exact_run
    assert momentum_change(run.positions, 0.0 * run.momenta, masses=run.masses) is None
    assert momentum_change(run.positions[:, :1], run.momenta[:, :1], masses=run.masses[:1]) is None
    with pytest.raises(InputError, match=r"masses \(8,\) must be"):
        momentum_change(run.positions, run.momenta, masses=run.masses[:8])


def test_degrees_of_freedom_are_counted_from_the_first_frame(exact_run, tmp_path):
    run = exact_run
    first, momenta = run.positions[0], run.momenta[0]
    assert counted_degrees_of_freedom(first, momenta, masses=run.masses, pbc=ISOLATED)[0] == 24
    flying = momenta + 0.1 * run.masses[:, None]
    assert counted_degrees_of_freedom(first, flying, masses=run.masses, pbc=ISOLATED) == (
        27,
        "3N: the centre of mass moves",
    )
    still = read_trajectory(ethanol_run(tmp_path, tilted=False, length_ps=0.05, rotation="zero"))
    frame = (still.positions[0], still.momenta[0])
    assert np.abs(angular_momentum(*frame, masses=still.masses)).max() < 1e-12
    assert counted_degrees_of_freedom(*frame, masses=still.masses, pbc=ISOLATED)[0] == 21
    assert counted_degrees_of_freedom(*frame, masses=still.masses, pbc=PERIODIC)[0] == 24
    axis = molecule("CO2").positions
    stretch = np.array([[0, 0, 0.0], [0, 0, 0.3], [0, 0, -0.3]])
    carbon_dioxide = molecule("CO2").get_masses()
    assert counted_degrees_of_freedom(axis, stretch, masses=carbon_dioxide, pbc=ISOLATED)[0] == 4


def test_temperature_counts_what_it_is_told(exact_run):
    kinetic = kinetic_energy_eV(exact_run.momenta, exact_run.masses)
    found = temperatures(kinetic, n_dof=24)
    np.testing.assert_allclose(found, 2.0 * kinetic / (24 * 8.617333e-5), rtol=1e-6)
    np.testing.assert_allclose(temperatures(kinetic, n_dof=27) / found, 24 / 27)
    with pytest.raises(InputError, match="degree of freedom, got 0"):
        temperatures(kinetic, n_dof=0)
    assert stated_degrees_of_freedom({"n_degrees_of_freedom": 24}) == 24
    assert stated_degrees_of_freedom({}) is None
    with pytest.raises(InputError, match="whole number >= 1, got '24'"):
        stated_degrees_of_freedom({"n_degrees_of_freedom": "24"})


def test_bonds_are_compared_with_the_training_range_or_the_first_frame(exact_run):
    positions, pairs = exact_run.positions, bond_pairs(exact_run.atomic_numbers, exact_run.positions[0])
    assert len(pairs) == 8
    lengths = np.linalg.norm(positions[:, pairs[:, 0]] - positions[:, pairs[:, 1]], axis=2)
    first = bond_deviation(positions, pairs)
    assert first.reference == "first frame"
    assert first.intact
    assert first.max_bond_deviation_A == pytest.approx(np.abs(lengths - lengths[0]).max())
    np.testing.assert_allclose(first.deviation_A, np.abs(lengths - lengths[0]).max(axis=1))
    wide = BondRanges(pairs=pairs[::-1, ::-1], min_A=lengths.min(axis=0)[::-1], max_A=lengths.max(axis=0)[::-1])
    assert bond_deviation(positions, pairs, ranges=wide).max_bond_deviation_A == 0.0
    narrow = BondRanges(pairs=pairs, min_A=lengths.min(axis=0), max_A=lengths.max(axis=0) - 0.01 * (np.arange(8) == 3))
    found = bond_deviation(positions, pairs, ranges=narrow)
    assert found.max_bond_deviation_A == pytest.approx(0.01)
    assert found.worst_pair == tuple(pairs[3])
    partly = BondRanges(pairs=pairs[:5], min_A=lengths.min(axis=0)[:5], max_A=lengths.max(axis=0)[:5])
    assert bond_deviation(positions, pairs, ranges=partly).n_without_range == 3


def test_a_broken_bond_is_not_intact_even_from_the_start(exact_run):
    pairs = bond_pairs(exact_run.atomic_numbers, exact_run.positions[0])
    lengths = np.linalg.norm(exact_run.positions[:, pairs[:, 0]] - exact_run.positions[:, pairs[:, 1]], axis=2)
    ranges = BondRanges(pairs=pairs, min_A=lengths.min(axis=0), max_A=lengths.max(axis=0))
    torn = exact_run.positions.copy()
    torn[:, pairs[2, 1]] += 5.0  # the atom is away in all frames, so frame 0 has no such bond
    seen = bond_pairs(exact_run.atomic_numbers, torn[0])
    assert len(seen) < len(pairs)
    assert not bond_deviation(torn, seen, ranges=ranges).intact
    broken = exact_run.positions.copy()
    broken[-1, pairs[2, 1]] = np.nan
    assert not bond_deviation(broken, pairs).intact


def test_bonds_that_cannot_be_compared_are_refused_or_none(exact_run):
    assert bond_deviation(exact_run.positions, np.empty((0, 2), dtype=np.int64)) is None
    with pytest.raises(InputError, match=r"atom 9, .*9 atoms"):
        bond_deviation(exact_run.positions, np.array([[1, 9]]))
    with pytest.raises(InputError, match="give 0 < min_A <= max_A"):
        BondRanges(pairs=np.array([[0, 1]]), min_A=np.array([1.2]), max_A=np.array([1.1]))
    with pytest.raises(InputError, match=r"min_A .*got \(1, 2\), \(2,\)"):
        BondRanges(pairs=np.array([[0, 1]]), min_A=np.array([1.0, 1.0]), max_A=np.array([1.1]))
