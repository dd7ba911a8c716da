"""Runs with multiple time steps: what is logged and when, equilibration, energy, and what is refused."""

import json

import numpy as np
import pytest
from ase.io import read
from spring_molecule import CrookedSprings, spring_molecule

from remul_md.analysis.energy import energy_drift
from remul_md.analysis.log import read_log
from remul_md.dynamics import MDOptions, initial_velocities, read_trajectory, run_md
from remul_md.dynamics.momenta import momenta_to_ase
from remul_md.dynamics.replicas import run_replicas
from remul_md.errors import InputError

N_ATOMS = 9


def run(folder, *, name="run", fast=True, atoms=None, resume=False, **chosen):
    atoms = atoms or spring_molecule()
    options = MDOptions(**{"length_ps": 0.5, "equilibrate_ps": 0.0, "seed": 4, **chosen})
    slope = CrookedSprings(atoms) if fast else None
    output = folder / f"{name}.traj"
    return run_md(atoms, options, output=output, fast=slope, resume=resume, progress=False)


def moving(*, seed=6):
    atoms = spring_molecule()
    masses, rng = atoms.get_masses(), np.random.default_rng(seed)
    velocities = initial_velocities(atoms.positions, masses, temperature_K=400.0, generator=rng)
    atoms.set_momenta(momenta_to_ase(velocities * masses[:, None]))
    return atoms


def test_log_and_frames_come_at_outer_steps_and_the_record_says_the_scheme(tmp_path):
    result = run(tmp_path, n_inner=6, equilibrate_ps=0.02, frame_interval_fs=15.0, log_interval=7)
    assert (result.n_steps, result.n_frames) == (167, 34)  # outer steps of 3 fs; frames every fifth of them
    log = np.genfromtxt(result.log, delimiter=",", names=True)
    np.testing.assert_array_equal(log["step"], np.arange(0, 168, 2))  # 7 inner steps are rounded up to 2 outer ones
    np.testing.assert_allclose(log["time_ps"], 0.003 * log["step"])
    np.testing.assert_allclose(read_trajectory(result.trajectory).time_ps, 0.015 * np.arange(34))
    before = np.genfromtxt(tmp_path / "run.equilibration.csv", delimiter=",", names=True)
    np.testing.assert_allclose(before["time_ps"], 0.0005 * before["step"])  # plain steps
    np.testing.assert_array_equal(np.diff(before["step"]), 7)
    said = json.loads(result.description.read_text())
    assert said["scheme"] == "reversible RESPA: 6 inner steps of 0.5 fs to one outer step"
    assert (said["calculator"], said["fast_calculator"]) == ("SpringMolecule", "CrookedSprings")
    assert (said["options"]["n_inner"], said["options"]["frame_interval_fs"]) == (6, 15.0)


def test_equilibration_has_the_accurate_forces_only(tmp_path):
    plain = run(tmp_path, name="plain", fast=False, equilibrate_ps=0.05)
    multiple = run(tmp_path, name="multiple", n_inner=5, equilibrate_ps=0.05)
    names = ("plain.equilibration.csv", "multiple.equilibration.csv")
    assert (tmp_path / names[0]).read_bytes() == (tmp_path / names[1]).read_bytes()
    first, second = read(plain.trajectory, index=0), read(multiple.trajectory, index=0)
    assert np.array_equal(first.get_momenta(), second.get_momenta())
    assert not np.allclose(read(plain.trajectory, index=1).positions, read(multiple.trajectory, index=1).positions)


@pytest.mark.slow
def test_one_inner_step_is_the_plain_run_and_many_conserve_where_the_fast_forces_do_not(tmp_path):
    """The fast forces are no gradient: alone they heat by meV/atom/ps, corrected at every fourth step they do not."""
    plain = run(tmp_path, name="plain", fast=False)
    single = run(tmp_path, name="single", n_inner=1)
    one, other = read_trajectory(plain.trajectory), read_trajectory(single.trajectory)
    np.testing.assert_allclose(one.positions, other.positions, atol=1e-9)
    np.testing.assert_allclose(one.forces, other.forces, atol=1e-8)

    def slope(name, atoms, **chosen):
        log = read_log(run(tmp_path, name=name, atoms=atoms, **chosen).log)
        return energy_drift(log.time_ps, log.total_energy / N_ATOMS).slope_meV_per_atom_ps

    crooked = spring_molecule()
    crooked.calc = CrookedSprings(crooked)
    assert abs(slope("fast", crooked, fast=False, length_ps=0.4)) > 2.0
    assert abs(slope("four", spring_molecule(), n_inner=4, length_ps=4.0)) < 0.1


def test_given_velocities_begin_the_run(tmp_path):
    atoms = moving()
    atoms.set_momenta(atoms.get_momenta() + 0.01 * atoms.get_masses()[:, None])
    chosen = {"atoms": atoms, "velocities": "given", "fast": False}
    result = run(tmp_path, **chosen)
    expected = atoms.get_momenta() - 0.01 * atoms.get_masses()[:, None]  # the centre of mass comes to rest
    np.testing.assert_allclose(read(result.trajectory, index=0).get_momenta(), expected, atol=1e-12)
    assert run(tmp_path, **chosen, resume=True) == result
    with pytest.raises(InputError, match=r"momenta_sha256 was '[0-9a-f]{64}', now"):
        run(tmp_path, **{**chosen, "atoms": moving(seed=7)}, resume=True)
    at_rest = run(tmp_path, name="rest", **{**chosen, "rotation": "zero"})
    log = np.genfromtxt(at_rest.log, delimiter=",", names=True)
    assert abs(log["angular_momentum_x_amu_A2_per_fs"][0]) < 1e-12
    assert at_rest.n_degrees_of_freedom == 21


def test_a_resumed_run_must_have_the_same_scheme(tmp_path):
    run(tmp_path, n_inner=4, length_ps=0.05)
    with pytest.raises(InputError, match=r"n_inner was 4, now 5; .*RESPA: 4 inner"):
        run(tmp_path, n_inner=5, length_ps=0.05, resume=True)
    with pytest.raises(InputError, match=r"n_inner was 4, now None; .*RESPA: .*, now None"):
        run(tmp_path, fast=False, length_ps=0.05, resume=True)


def test_what_does_not_fit_is_refused_before_a_file_is_made(tmp_path):
    with pytest.raises(InputError, match=r"fast .*n_inner is None"):
        run(tmp_path)
    atoms = spring_molecule()
    with pytest.raises(InputError, match="fast is the calculator of"):
        run_md(atoms, MDOptions(n_inner=2), output=tmp_path / "run.traj", fast=atoms.calc, progress=False)
    with pytest.raises(InputError, match="n_inner 2 does not go with replicas"):
        run_replicas(atoms, MDOptions(n_inner=2), n_replicas=2, output=tmp_path / "run.traj", evaluate=lambda x: (x, x))
    assert list(tmp_path.iterdir()) == []
