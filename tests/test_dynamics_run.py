"""Real runs on cheap potentials: conservation, temperature, what is written."""

import csv
import json

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron
from ase.io import read
from spring_molecule import spring_molecule

from remul_md.dynamics import MDOptions, SimulationStopped, read_trajectory, run_md
from remul_md.dynamics.momenta import angular_momentum, linear_momentum


def options(**changes):
    short = {
        "length_ps": 0.2,
        "equilibrate_ps": 0.0,
        "timestep_fs": 0.5,
        "frame_interval_fs": 5.0,
        "log_interval": 4,
        "seed": 3,
    }
    return MDOptions(**{**short, **changes})


def log_of(result):
    with open(result.log, newline="") as handle:
        rows = list(csv.DictReader(handle))
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}


def columns(log, start):
    return np.stack([log[key] for key in log if key.startswith(start)], axis=1)


def test_energy_error_falls_with_the_square_of_the_time_step(tmp_path):
    scatter = {}
    for timestep in (0.25, 0.5, 1.0):
        chosen = options(timestep_fs=timestep, length_ps=0.4, log_interval=1)
        result = run_md(spring_molecule(), chosen, output=tmp_path / f"{timestep}.traj", progress=False)
        scatter[timestep] = log_of(result)["total_energy_eV"].std()
    assert np.log2(scatter[0.5] / scatter[0.25]) == pytest.approx(2.0, abs=0.25)
    assert np.log2(scatter[1.0] / scatter[0.5]) == pytest.approx(2.0, abs=0.25)
    assert 0.0 < scatter[0.25] < 0.1 * 24 * units.kB * 300.0 / 2


@pytest.mark.parametrize("rotation", ["thermal", "zero"])
def test_nve_conserves_both_momenta(tmp_path, rotation):
    result = run_md(spring_molecule(), options(rotation=rotation), output=tmp_path / "run.traj", progress=False)
    trajectory = read_trajectory(result.trajectory)
    spin = angular_momentum(trajectory.positions, trajectory.momenta, masses=trajectory.masses)
    np.testing.assert_allclose(spin - spin[0], 0.0, atol=1e-12)
    np.testing.assert_allclose(linear_momentum(trajectory.momenta), 0.0, atol=1e-14)
    if rotation == "zero":
        np.testing.assert_allclose(spin, 0.0, atol=1e-13)
    else:
        assert np.linalg.norm(spin[0]) > 0.05
    assert np.abs(trajectory.positions[-1] - trajectory.positions[0]).max() > 0.05


@pytest.mark.parametrize(("rotation", "n_dof"), [("thermal", 24), ("zero", 21)])
def test_bare_nve_begins_exactly_at_the_temperature(tmp_path, rotation, n_dof):
    result = run_md(spring_molecule(), options(rotation=rotation), output=tmp_path / "run.traj", progress=False)
    first = read(result.trajectory, index=0)
    assert result.n_degrees_of_freedom == n_dof
    assert 2 * first.get_kinetic_energy() / (n_dof * units.kB) == pytest.approx(300.0, rel=1e-12)
    assert log_of(result)["temperature_K"][0] == pytest.approx(300.0, rel=1e-12)
    # Begun in the minimum without equilibration, half of the heat goes into the springs.
    assert 130.0 < result.mean_temperature_K < 190.0


@pytest.mark.slow
def test_langevin_keeps_the_temperature_of_all_3n_modes(tmp_path):
    chosen = options(
        ensemble="langevin",
        length_ps=8.0,
        equilibrate_ps=0.4,
        timestep_fs=1.0,
        friction_per_ps=20.0,
        frame_interval_fs=50.0,
        log_interval=5,
    )
    result = run_md(spring_molecule("CH3OH"), chosen, output=tmp_path / "run.traj", progress=False)
    trajectory = read_trajectory(result.trajectory)
    assert result.n_degrees_of_freedom == 18
    # About 80 independent values of 18 modes: 4 % standard error. Wrong counts are 20 % (3N-3) or 50 % (3N-6) off.
    assert result.mean_temperature_K == pytest.approx(300.0, rel=0.12)
    centre = (linear_momentum(trajectory.momenta) ** 2).sum(1) / trajectory.masses.sum() / units.fs**2 / 2
    assert centre[1:].mean() == pytest.approx(1.5 * units.kB * 300.0, rel=0.4)


@pytest.mark.slow
@pytest.mark.parametrize("rotation", ["thermal", "zero"])
def test_nve_after_equilibration_runs_at_the_temperature(tmp_path, rotation):
    means = []
    for seed in range(4):
        chosen = options(
            seed=seed, rotation=rotation, timestep_fs=1.0, length_ps=1.2, equilibrate_ps=0.8, frame_interval_fs=50.0
        )
        result = run_md(spring_molecule(), chosen, output=tmp_path / f"{seed}.traj", progress=False)
        log = log_of(result)
        np.testing.assert_allclose(columns(log, "momentum"), 0.0, atol=1e-13)
        if rotation == "zero":
            np.testing.assert_allclose(columns(log, "angular"), 0.0, atol=1e-12)
        means.append(result.mean_temperature_K)
    assert np.abs(np.array(means) - 300.0).max() < 30.0
    assert np.std(means) < 15.0  # left at the energy of one moment, they scatter by about 60 K


@pytest.mark.slow
def test_left_at_the_energy_of_one_moment_the_temperatures_scatter(tmp_path):
    means = []
    for seed in range(4):
        chosen = options(seed=seed, timestep_fs=1.0, length_ps=0.5, equilibrate_ps=0.5, match_energy=False)
        result = run_md(spring_molecule(), chosen, output=tmp_path / f"{seed}.traj", progress=False)
        np.testing.assert_allclose(columns(log_of(result), "momentum"), 0.0, atol=1e-13)
        means.append(result.mean_temperature_K)
    assert np.std(means) > 20.0


def test_log_and_frames_say_what_ase_says(tmp_path):
    result = run_md(spring_molecule(), options(), output=tmp_path / "run.traj", progress=False)
    log, frames = log_of(result), read(result.trajectory, index=":")
    assert len(frames) == result.n_frames == 41
    assert len(log["step"]) == 101
    for number, frame in enumerate(frames):
        assert frame.info["step"] == 10 * number
        assert frame.info["time_ps"] == pytest.approx(0.005 * number, abs=1e-12)
        frame_again = frame.copy()
        frame_again.calc = spring_molecule().calc
        assert frame.get_potential_energy() == frame_again.get_potential_energy()
        assert np.array_equal(frame.get_forces(), frame_again.get_forces())
    frame, row = frames[2], int(np.flatnonzero(log["step"] == 20)[0])
    assert log["time_ps"][row] == frame.info["time_ps"]
    assert log["potential_energy_eV"][row] == frame.get_potential_energy()
    assert log["kinetic_energy_eV"][row] == pytest.approx(frame.get_kinetic_energy(), rel=1e-13)
    assert log["total_energy_eV"][row] == log["potential_energy_eV"][row] + log["kinetic_energy_eV"][row]
    assert log["temperature_K"][row] == pytest.approx(frame.get_temperature() * 27 / 24, rel=1e-13)
    np.testing.assert_allclose(columns(log, "angular")[row], frame.get_angular_momentum() * units.fs, rtol=1e-11)
    assert result.mean_temperature_K == pytest.approx(log["temperature_K"].mean(), rel=1e-12)


def test_description_says_what_was_run(tmp_path):
    facts = {"potential": "ethanol.pt", "sha256": "0f" * 32}
    result = run_md(spring_molecule(), options(), output=tmp_path / "run.traj", progress=False, provenance=facts)
    said = json.loads(result.description.read_text())
    assert (said["status"], said["finished"], said["stopped"]) == ("finished", True, None)
    assert MDOptions(**said["options"]) == options()
    assert (said["formula"], said["n_atoms"], said["n_degrees_of_freedom"]) == ("C2H6O", 9, 24)
    assert said["provenance"] == facts
    assert {"remul-md", "ase", "numpy", "torch", "python"} <= set(said["versions"])
    assert said["steps_per_s"] == pytest.approx(400 / said["wall_s"])


def test_the_seed_decides_every_bit_and_the_structure_is_left_alone(tmp_path):
    given = spring_molecule()
    before = given.get_positions()
    chosen = {seed: options(seed=seed, equilibrate_ps=0.05) for seed in (5, 6)}
    first, again, other = (
        run_md(given, chosen[seed], output=tmp_path / name / "run.traj", progress=False)
        for seed, name in ((5, "a"), (5, "b"), (6, "c"))
    )
    assert first.log.read_bytes() == again.log.read_bytes() != other.log.read_bytes()
    assert first.trajectory.read_bytes() == again.trajectory.read_bytes()
    assert np.array_equal(given.get_positions(), before)
    assert not given.has("momenta")


def test_one_calculator_call_a_step(tmp_path):
    atoms = spring_molecule()
    calls = []
    calculate = atoms.calc.calculate
    atoms.calc.calculate = lambda *given: (calls.append(1), calculate(*given))[1]
    run_md(atoms, options(equilibrate_ps=0.05), output=tmp_path / "run.traj", progress=False)
    assert len(calls) == 100 + 400 + 1


@pytest.mark.slow
def test_a_metal_cluster_and_a_periodic_crystal_with_emt(tmp_path):
    cluster = Icosahedron("Cu", 2)
    crystal = bulk("Cu", cubic=True) * (2, 1, 2)
    for name, atoms, n_dof in (("cluster", cluster, 36), ("crystal", crystal, 45)):
        atoms.calc = EMT()
        chosen = options(timestep_fs=4.0, frame_interval_fs=20.0, length_ps=1.6, equilibrate_ps=1.6, log_interval=1)
        result = run_md(atoms, chosen, output=tmp_path / f"{name}.traj", progress=False)
        log = log_of(result)
        assert result.n_degrees_of_freedom == n_dof
        assert log["total_energy_eV"].std() < 0.01 * log["kinetic_energy_eV"].mean()
        assert result.mean_temperature_K == pytest.approx(300.0, rel=0.15)
        assert read(result.trajectory, index=-1).pbc.tolist() == atoms.pbc.tolist()


def test_a_molecule_that_falls_apart_stops_the_run(tmp_path):
    output = tmp_path / "run.traj"
    with pytest.raises(SimulationStopped, match=r"fell apart: bond [CHO]\d-[CHO]\d is \d.* times its first") as caught:
        run_md(spring_molecule(), options(temperature_K=30000.0), output=output, progress=False)
    stop = caught.value
    said = json.loads(output.with_suffix(".json").read_text())
    assert (said["status"], said["finished"]) == ("stopped", False)
    assert said["stopped"] == {
        "cause": "bond",
        "reason": stop.reason,
        "phase": "production",
        "step": stop.step,
        "time_ps": pytest.approx(stop.step * 0.0005),
    }
    assert 0 < stop.step < 400
    frames = read(output, index=":")
    assert len(frames) == stop.step // 10 + 1
    with open(output.with_suffix(".log.csv")) as handle:
        assert int(handle.readlines()[-1].split(",")[0]) == stop.step
    run_md(
        spring_molecule(),
        options(temperature_K=30000.0, max_bond_stretch=None, length_ps=0.05),
        output=tmp_path / "free.traj",
        progress=False,
    )


@pytest.mark.parametrize(("broken", "message"), [("energy", "the potential energy is nan"), ("forces", "not finite")])
def test_numbers_that_are_not_finite_stop_the_run(tmp_path, broken, message):
    atoms = spring_molecule()
    calculate, calls = atoms.calc.calculate, []

    def fails_later(*given):
        calculate(*given)
        calls.append(1)
        if len(calls) > 51:
            atoms.calc.results[broken] = atoms.calc.results[broken] * np.nan

    atoms.calc.calculate = fails_later
    with pytest.raises(SimulationStopped, match=message) as caught:
        run_md(atoms, options(), output=tmp_path / "run.traj", progress=False)
    assert caught.value.step == 51  # at once, though a row of the log is written every 4 steps only
    assert all(np.isfinite(frame.get_forces()).all() for frame in read(tmp_path / "run.traj", index=":"))


def test_a_calculator_that_fails_stops_the_run_with_its_words(tmp_path):
    from ase.calculators.calculator import CalculationFailed

    atoms = spring_molecule()
    calculate, calls = atoms.calc.calculate, []

    def fails_later(*given):
        calls.append(1)
        if len(calls) > 30:
            raise CalculationFailed("lost the way")
        calculate(*given)

    atoms.calc.calculate = fails_later
    with pytest.raises(SimulationStopped, match=r"step 29 \(0.0145 ps\) of production: the calculator failed: lost"):
        run_md(atoms, options(), output=tmp_path / "run.traj", progress=False)
