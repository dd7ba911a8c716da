from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from analysis_runs import TILT, ethanol_run, tilted_ethanol
from ase.build import molecule
from ase.calculators.emt import EMT
from spring_molecule import spring_molecule

from remul_md.analysis.log import read_log
from remul_md.analysis.structure import BondRanges
from remul_md.analysis.training_statistics import TrainingStatistics
from remul_md.analysis.trajectory import analyze_frames, analyze_trajectory
from remul_md.analysis.verdicts import Bounds
from remul_md.dynamics.read import read_trajectory
from remul_md.errors import InputError

KEYS = {
    "drift_meV_per_atom_ps",
    "drift_ci95",
    "drift_of",
    "energy_change_meV_per_atom",
    "heating_K_per_ps",
    "heating_ci95",
    "fluctuation_meV_per_atom",
    "temperature_K",
    "rotational_error",
    "net_torque_rms_eV",
    "angular_momentum_change",
    "first_broken_bond_ps",
    "pair_distances",
    "angle_swept_deg",
    "angle_from_training_deg",
    "max_bond_deviation_A",
    "max_distance_departure_A",
    "n_frames",
    "verdicts",
}


@pytest.fixture(scope="module")
def tilted_path(tmp_path_factory):
    return ethanol_run(tmp_path_factory.mktemp("tilted"), length_ps=0.6, log_interval=2)


def verdicts(analysis) -> dict[str, bool | None]:
    return {verdict.name: verdict.passed for verdict in analysis.verdicts}


@pytest.mark.slow
def test_a_sound_run_passes_every_check(tmp_path):
    path = ethanol_run(tmp_path, tilted=False, length_ps=2.0)
    frames = read_trajectory(path)
    analysis = analyze_trajectory(path, atoms=spring_molecule("CH3CH2OH"), n_rotation_frames=7, n_draws=3)
    assert verdicts(analysis) == {
        "energy conserved": True,
        "forces turn with the molecule": True,
        "molecule intact": True,
        "temperature as asked": True,
        "no torque from nowhere": True,
        "angular momentum kept": True,
    }
    figures = json.loads(json.dumps(analysis.to_json(), allow_nan=False))
    assert set(figures) == KEYS
    assert figures["n_frames"] == len(frames) == 401
    assert figures["drift_ci95"][0] < figures["drift_meV_per_atom_ps"] < figures["drift_ci95"][1]
    assert figures["drift_of"] == "shadow energy"
    assert figures["energy_change_meV_per_atom"] == pytest.approx(2.0 * figures["drift_meV_per_atom_ps"])
    assert figures["rotational_error"] < 1e-9
    assert figures["net_torque_rms_eV"] < 1e-9
    assert figures["angular_momentum_change"] < 1e-8
    assert 30.0 < figures["angle_swept_deg"] <= 180.0
    assert figures["angle_from_training_deg"] is None  # nothing is known of the training data
    assert 0.02 < figures["max_bond_deviation_A"] < 0.4
    assert figures["first_broken_bond_ps"] is None
    assert figures["pair_distances"]["n_values"] == 401 * 36
    # Nine atoms, 24 degrees of freedom, 21 vibrations: 1 meV/atom/ps is 9e-3 eV / (k (24 + 21) / 2) = 4.6 K/ps.
    per_slope = 9e-3 / (8.617e-5 * 22.5)
    assert figures["heating_K_per_ps"] == pytest.approx(per_slope * figures["drift_meV_per_atom_ps"], rel=1e-3)
    assert figures["heating_ci95"] == pytest.approx([per_slope * end for end in figures["drift_ci95"]], rel=1e-3)
    fields = {"name", "passed", "value", "threshold", "unit", "why", "limit_from", "sense", "target"}
    fields |= {"applicable"}
    assert set(figures["verdicts"][0]) == fields
    assert analysis.formula == "C2H6O"
    assert analysis.notes == ()


def test_an_inexact_symmetry_is_found(tilted_path):
    analysis = analyze_trajectory(tilted_path, atoms=tilted_ethanol(), n_rotation_frames=11, n_draws=5)
    found = verdicts(analysis)
    assert not found["forces turn with the molecule"]
    assert found["molecule intact"]
    assert found["energy conserved"] is not False  # conservative all the same
    assert list(analysis.rotation_frames[[0, -1]]) == [0, len(analysis.time_ps) - 1]
    assert len(analysis.rotational.error_meV_per_A) == 11
    assert analysis.net_torque_eV.shape == (len(analysis.time_ps), 3)
    loose = Bounds(rotational_error_meV_per_A=50.0)
    relaxed = analyze_trajectory(tilted_path, atoms=tilted_ethanol(), n_rotation_frames=3, bounds=loose)
    assert verdicts(relaxed)["forces turn with the molecule"]


def test_energies_come_from_the_log_and_degrees_of_freedom_from_the_record(tilted_path, tmp_path):
    analysis = analyze_trajectory(tilted_path)
    assert analysis.energies.source == "log"
    assert len(analysis.energies.time_ps) == 601
    assert analysis.n_dof_source == "stated by the run"
    record = json.loads(tilted_path.with_suffix(".json").read_text())
    assert analysis.n_dof == record["n_degrees_of_freedom"] == 24
    assert analysis.mean_temperature_K == pytest.approx(record["mean_temperature_K"], rel=0.02)
    assert analysis.to_json()["rotational_error"] is None
    alone = tmp_path / "alone.traj"
    alone.write_bytes(tilted_path.read_bytes())
    bare = analyze_trajectory(alone)
    assert bare.energies.source == "frames"
    assert bare.n_dof == 24
    assert "3N - 3" in bare.n_dof_source
    assert len(bare.energies.time_ps) == len(bare.time_ps) == 121
    assert "temperature as asked" not in verdicts(bare)  # nobody says what was asked
    low, high = bare.drift.ci95_meV_per_atom_ps
    assert low < analysis.drift.slope_meV_per_atom_ps < high
    assert high - low > np.diff(analysis.drift.ci95_meV_per_atom_ps)[0]  # the log resolves the oscillation better


def test_another_calculator_than_the_one_that_ran_is_noticed(tilted_path):
    other = analyze_trajectory(tilted_path, atoms=tilted_ethanol(tilt=30 * TILT), n_rotation_frames=3, n_draws=2)
    assert any("differ from the calculator's by" in note for note in other.notes)
    same = analyze_trajectory(tilted_path, atoms=tilted_ethanol(), n_rotation_frames=3, n_draws=2)
    assert same.notes == ()


def test_positions_alone_give_what_they_can(tilted_path):
    frames = replace(read_trajectory(tilted_path), momenta=None, forces=None, energy=None)
    analysis = analyze_frames(frames)
    figures = analysis.to_json()
    missing = {key for key, value in figures.items() if value is None}
    assert missing == KEYS - {"n_frames", "pair_distances", "angle_swept_deg", "max_bond_deviation_A", "verdicts"}
    assert any("lacks potential energies or momenta" in note for note in analysis.notes)
    measured = analyze_frames(frames, atoms=tilted_ethanol(), n_rotation_frames=5, n_draws=2)
    assert measured.net_torque_eV.shape == (5, 3)  # the calculator's own forces, where it was asked
    assert list(measured.torque_frames) == list(measured.rotation_frames)


def test_a_thermostatted_run_is_not_judged_by_its_energy(tmp_path):
    path = ethanol_run(tmp_path, tilted=False, length_ps=0.3, ensemble="langevin", equilibrate_ps=0.0)
    analysis = analyze_trajectory(path)
    assert analysis.conservation is None
    assert not {"energy conserved", "angular momentum kept"} & set(verdicts(analysis))
    assert analysis.heating_K_per_ps is None
    assert analysis.drift is not None
    assert any("thermostat" in note for note in analysis.notes)


def test_bonds_out_of_the_training_range_fail(tilted_path):
    pairs = np.array([[0, 1], [1, 2]])
    bonds = BondRanges(pairs=pairs, min_A=np.array([1.0, 1.0]), max_A=np.array([1.2, 1.2]))  # C-C is 1.5
    analysis = analyze_trajectory(tilted_path, training_statistics=TrainingStatistics(bonds=bonds))
    assert verdicts(analysis)["molecule intact"] is False
    assert analysis.to_json()["max_bond_deviation_A"] > 0.2
    assert any("6 of 8 bonds do not occur" in note for note in analysis.notes)


def test_the_first_broken_bond_and_the_heating_are_told(tilted_path):
    frames = read_trajectory(tilted_path)
    torn = frames.positions.copy()
    torn[40:, 1] += [0.0, 0.0, 0.9]  # an atom leaves at frame 40
    n_frames = len(frames)
    ramp = 0.4e-3 * 9 * frames.time_ps  # 0.4 meV per atom and ps
    kinetic_free = replace(frames, positions=torn, energy=frames.energy + ramp)
    analysis = analyze_frames(kinetic_free, bounds=Bounds(drift_meV_per_atom_ps=1e-3))
    assert n_frames == 121
    assert analysis.to_json()["first_broken_bond_ps"] == pytest.approx(frames.time_ps[40] - frames.time_ps[0])
    intact = {verdict.name: verdict for verdict in analysis.verdicts}["molecule intact"]
    assert intact.passed is False
    assert "was the first to be 0.5 Å off, after 0.2 ps" in intact.why
    assert analysis.n_vibrations == 21


def test_wrong_options_are_refused_before_the_file_is_read(tmp_path, tilted_path):
    absent = tmp_path / "absent.traj"
    with pytest.raises(InputError, match=r"n_rotation_frames .*got 0"):
        analyze_trajectory(absent, n_rotation_frames=0)
    with pytest.raises(InputError, match="without a calculator"):
        analyze_trajectory(absent, atoms=molecule("CH3CH2OH"))
    with pytest.raises(InputError, match="n_draws must be at least 2"):
        analyze_trajectory(absent, atoms=tilted_ethanol(), n_draws=1)
    with pytest.raises(InputError, match="does not exist"):
        analyze_trajectory(absent)
    with pytest.raises(InputError, match="bound net_torque_eV must be > 0, got -1"):
        Bounds(net_torque_eV=-1.0)
    water = molecule("H2O")
    water.calc = EMT()
    with pytest.raises(InputError, match=r"calculator.* OH2, .*trajectory.* C2OH6"):
        analyze_trajectory(tilted_path, atoms=water)


def test_a_log_cut_by_a_kill_is_read_and_a_spoilt_one_is_refused(tilted_path, tmp_path):
    whole = tilted_path.with_suffix(".log.csv").read_text()
    log = tmp_path / "run.log.csv"
    log.write_text(whole[:-90])
    assert len(read_log(log).time_ps) == 600
    np.testing.assert_allclose(
        read_log(log).total_energy, read_log(tilted_path.with_suffix(".log.csv")).total_energy[:600], rtol=0, atol=0
    )
    log.write_text(whole.replace("kinetic_energy_eV", "kinetic"))
    with pytest.raises(InputError, match="no column kinetic_energy_eV"):
        read_log(log)
    log.write_text(whole.replace("\n5", "\nx5,x", 1).replace(",0.00", ",oops", 1))
    with pytest.raises(InputError, match="the log cannot be read"):
        read_log(log)
    log.write_text(whole.splitlines()[0] + "\n")
    assert read_log(log) is None
