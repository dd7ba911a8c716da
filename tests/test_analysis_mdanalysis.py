"""The classes over MDAnalysis give what the functions give, from H5MD in its units."""

from __future__ import annotations

import numpy as np
import pytest
from analysis_runs import ethanol_run, tilted_ethanol

from remul_md.analysis.momentum import momentum_change
from remul_md.analysis.rotation import angle_swept, net_force, net_torque, rotational_error_along
from remul_md.analysis.structure import bond_deviation
from remul_md.bonds import bond_pairs
from remul_md.dynamics.h5md import export_h5md
from remul_md.dynamics.trajectory import read_trajectory
from remul_md.errors import InputError


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
    turned = checks.RotationalConsistency(universe.atoms, tilted_ethanol(), n_draws=3, seed=4).run(**chosen)
    wanted = rotational_error_along(tilted_ethanol(), positions, n_draws=3, seed=4)
    np.testing.assert_allclose(turned.results.rotational.error_meV_per_A, wanted.error_meV_per_A, rtol=1e-4)


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

    from remul_md.analysis.mdanalysis import AngularMomentum, NetTorque

    still = MDAnalysis.Universe(str(run[1]))
    with pytest.raises(InputError, match="frame 0 has no forces"):
        NetTorque(still.atoms).run()
    with pytest.raises(InputError, match="frame 0 has no velocities"):
        AngularMomentum(still.atoms).run()
    with pytest.raises(InputError, match="atom group is empty"):
        NetTorque(universe.select_atoms("element Xe"))
    with pytest.raises(InputError, match="no frame was chosen"):
        NetTorque(universe.atoms).run(start=5, stop=5)
