"""The classes over MDAnalysis give what the functions give, from H5MD in its units."""

from __future__ import annotations

import numpy as np
import pytest
from analysis_runs import ethanol_run, tilted_ethanol

from remul_md.analysis.distributions import pair_distance_distribution, structure_distributions
from remul_md.analysis.energy import energy_drift
from remul_md.analysis.momentum import momentum_change
from remul_md.analysis.rotation import angle_swept, net_force, net_torque, rotational_error_along
from remul_md.analysis.spectrum import trajectory_spectrum
from remul_md.analysis.structure import bond_deviation
from remul_md.analysis.temperature import temperatures
from remul_md.dynamics.momenta import kinetic_energy_eV
from remul_md.dynamics.read import read_trajectory
from remul_md.dynamics.readers.h5md import export_h5md
from remul_md.errors import InputError
from remul_md.structures.topology import bond_pairs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = ethanol_run(tmp_path_factory.mktemp("run"), length_ps=0.25)
    topology = export_h5md(path, path.with_suffix(".h5md"))
    return read_trajectory(path), topology, path.with_suffix(".h5md")


@pytest.fixture
def universe(run):
    import MDAnalysis

    universe = MDAnalysis.Universe(str(run[1]), str(run[2]))
    universe.atoms.masses = run[0].masses
    return universe


def test_classes_agree_with_the_functions_in_our_units(run, universe):
    from remul_md.analysis import mdanalysis as checks

    frames = run[0]
    steps = slice(1, 47, 3)
    positions, masses = frames.positions[steps], frames.masses
    pairs = bond_pairs(frames.atomic_numbers, positions[0])
    chosen = {"start": 1, "stop": 47, "step": 3}
    torque = checks.NetTorque(universe.atoms).run(**chosen).results
    np.testing.assert_allclose(torque.time_ps, frames.time_ps[steps], atol=1e-6)
    expected = net_torque(positions, frames.forces[steps], masses=masses)
    np.testing.assert_allclose(torque.net_torque_eV, expected, atol=1e-5)
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(torque.net_force_eV_per_A, net_force(frames.forces[steps]), atol=1e-5)
    angle = checks.AngleSwept(universe.atoms).run(**chosen).results.angle_swept_deg
    np.testing.assert_allclose(angle, angle_swept(positions, masses=masses), atol=1e-3)
    change = checks.AngularMomentum(universe.atoms).run(**chosen).results.change
    known = momentum_change(positions, frames.momenta[steps], masses=masses)
    np.testing.assert_allclose(change.angular_change_hbar, known.angular_change_hbar, atol=1e-3)
    assert change.reference_hbar == pytest.approx(known.reference_hbar, rel=1e-5)
    bonds = checks.Bonds(universe.atoms, pairs).run(**chosen).results.bonds
    np.testing.assert_allclose(bonds.deviation_A, bond_deviation(positions, pairs).deviation_A, atol=1e-5)
    rotated = checks.RotationalConsistency(universe.atoms, tilted_ethanol(), n_draws=3, seed=4).run(**chosen)
    wanted = rotational_error_along(tilted_ethanol(), positions, n_draws=3, seed=4)
    np.testing.assert_allclose(rotated.results.rotational.error_meV_per_A, wanted.error_meV_per_A, rtol=1e-4)


def test_structure_and_energies_agree_with_the_functions(run, universe):
    from remul_md.analysis import mdanalysis as checks

    frames = run[0].part(slice(2, 50, 1))
    positions, masses, numbers = frames.positions, frames.masses, frames.atomic_numbers
    chosen = {"start": 2, "stop": 50}
    pairs = bond_pairs(numbers, positions[0])
    found = checks.PairDistances(universe.atoms).run(**chosen).results.pair_distances
    expected = pair_distance_distribution(positions)
    assert found.n_values == expected.n_values == 48 * 36
    assert np.abs(found.half_counts - expected.half_counts).sum() <= 4  # single precision moves a few over an edge
    assert found.mean == pytest.approx(expected.mean, abs=1e-6)
    by_name = checks.StructureDistributions(universe.atoms).run(**chosen).results.distributions
    known = structure_distributions(positions, atomic_numbers=numbers, pairs=pairs)
    assert set(by_name) == set(known)
    assert {"pair distances", "bond C-O", "angle C-O-H", "dihedral C-C-O-H"} <= set(known)
    for name, one in known.items():
        assert by_name[name].n_values == one.n_values, name
        assert np.abs(by_name[name].half_counts - one.half_counts).sum() <= 4, name
    kinetic = kinetic_energy_eV(frames.momenta, masses)
    warm = checks.Temperature(universe.atoms).run(**chosen).results
    assert warm.n_dof == 24
    np.testing.assert_allclose(warm.temperature_K, temperatures(kinetic, n_dof=24), rtol=1e-5)
    fixed = checks.Temperature(universe.atoms, n_dof=12).run(**chosen).results
    np.testing.assert_allclose(fixed.temperature_K, 2.0 * warm.temperature_K, rtol=1e-9)
    energies = checks.EnergyDrift(universe.atoms).run(**chosen).results
    drift = energy_drift(frames.time_ps, (frames.energy + kinetic) / 9)
    # Velocities in single precision are good to 1e-7 of 0.3 eV: 1e-8 eV a frame, 1e-4 meV/atom/ps over 0.24 ps.
    assert energies.drift.slope_meV_per_atom_ps == pytest.approx(drift.slope_meV_per_atom_ps, abs=1e-3)
    assert energies.drift.fluctuation_meV_per_atom == pytest.approx(drift.fluctuation_meV_per_atom, rel=1e-3)
    spectrum = checks.VibrationalSpectrum(universe.atoms, resolution_per_cm=60.0).run(**chosen).results.spectrum
    wanted = trajectory_spectrum(frames, resolution_per_cm=60.0)
    np.testing.assert_allclose(spectrum.wavenumbers_per_cm, wanted.wavenumbers_per_cm, rtol=1e-5)
    np.testing.assert_allclose(spectrum.density, wanted.density, rtol=1e-3, atol=1e-4 * wanted.density.max())


def test_the_first_broken_bond_is_told_in_time(run, universe):
    from remul_md.analysis.mdanalysis import Bonds

    frames = run[0]
    pairs = bond_pairs(frames.atomic_numbers, frames.positions[0])
    assert Bonds(universe.atoms, pairs).run().results.first_broken_bond_ps is None
    torn = frames.positions.copy()
    torn[17:, 1] += [0.0, 0.0, 0.9]
    universe.load_new(torn.astype(np.float32), dt=0.005)
    found = Bonds(universe.atoms, pairs).run(start=3).results
    assert found.first_broken_bond_ps == pytest.approx(14 * 0.005)
    assert found.bonds.first_off_frame == 14


@pytest.mark.slow
def test_blocks_make_no_difference(universe, monkeypatch):
    from remul_md.analysis import frame_check
    from remul_md.analysis import mdanalysis as checks

    def numbers():
        group = universe.atoms
        change = checks.AngularMomentum(group).run().results.change
        bonds = checks.Bonds(group, np.array([[0, 1], [1, 2]])).run().results.bonds
        return [
            checks.NetTorque(group).run().results.net_torque_eV,
            checks.AngleSwept(group).run().results.angle_swept_deg,
            change.angular_change_hbar,
            bonds.deviation_A,
            np.array([*bonds.worst_pair, change.reference_hbar]),
            checks.PairDistances(group).run().results.pair_distances.half_counts,
            checks.Temperature(group).run().results.temperature_K,
            checks.EnergyDrift(group).run().results.total_energy,
        ]

    whole = numbers()
    monkeypatch.setattr(frame_check, "block_length", lambda n_atoms: 7)
    for one, other in zip(whole, numbers(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-12, atol=1e-12)


def test_the_universe_is_left_as_it_was(universe):
    from remul_md.analysis.mdanalysis import AngleSwept, NetTorque

    universe.trajectory[7]
    before = universe.atoms.positions.copy()
    for check in (NetTorque, AngleSwept):
        analysis = check(universe.atoms)
        first, again = analysis.run().results, analysis.run().results
        assert len(first.time_ps) == len(again.time_ps) == len(universe.trajectory)
    universe.trajectory[7]
    np.testing.assert_array_equal(universe.atoms.positions, before)


@pytest.mark.filterwarnings("ignore:Reader has no dt information")
def test_what_the_universe_lacks_is_said(run, universe):
    import MDAnalysis

    from remul_md.analysis.mdanalysis import AngularMomentum, EnergyDrift, NetTorque, PairDistances

    still = MDAnalysis.Universe(str(run[1]))
    with pytest.raises(InputError, match="frame 0 has no forces"):
        NetTorque(still.atoms).run()
    with pytest.raises(InputError, match="frame 0 has no velocities"):
        AngularMomentum(still.atoms).run()
    with pytest.raises(InputError, match="atom group is empty"):
        NetTorque(universe.select_atoms("element Xe"))
    with pytest.raises(InputError, match="no frame was chosen"):
        NetTorque(universe.atoms).run(start=5, stop=5)
    with pytest.raises(InputError, match="carries no 'potential_energy'"):
        EnergyDrift(still.atoms).run()
    with pytest.raises(InputError, match=r"all 9 atoms, .*3"):
        EnergyDrift(universe.atoms[:3])
    with pytest.raises(InputError, match="at least two atoms, the group has 1"):
        PairDistances(universe.atoms[:1])
