"""Replicas share the call of the potential and nothing else: each is the run of its own seed."""

import json

import numpy as np
import pytest
from ase.io import read
from potentials import untrained_potential
from spring_molecule import spring_molecule
from test_dynamics_resume import assert_same_run

from remul_md import RemulCalculator
from remul_md.dynamics import MDOptions, MDResult, SimulationStopped, run_md
from remul_md.dynamics.checkpoint import load_checkpoint
from remul_md.dynamics.replicas import run_replicas
from remul_md.errors import InputError
from remul_md.structures.frames import frames_from_atoms

BASE = {
    "length_ps": 0.03,
    "equilibrate_ps": 0.02,
    "timestep_fs": 0.5,
    "frame_interval_fs": 2.5,
    "log_interval": 3,
    "checkpoint_interval": 7,
    "friction_per_ps": 50.0,
    "max_bond_stretch": None,
}


def springs(positions):
    """Energies and forces of many copies of the spring molecule, one by one."""
    atoms = spring_molecule()
    energies, forces = np.zeros(len(positions)), np.zeros_like(positions)
    for copy, at in enumerate(positions):
        atoms.set_positions(at)
        energies[copy], forces[copy] = atoms.get_potential_energy(), atoms.get_forces()
    return energies, forces


def calculator(dtype="float64", **options):
    atoms = spring_molecule()
    return RemulCalculator(
        untrained_potential(frames_from_atoms([atoms]), cutoff=3.0, energy_scale=0.3),
        device="cpu",
        dtype=dtype,
        **options,
    )


@pytest.mark.parametrize("ensemble", ["nve", "langevin", "bussi", "nose-hoover"])
def test_a_replica_is_the_run_of_its_seed(tmp_path, ensemble):
    chosen = {**BASE, "ensemble": ensemble}
    results = run_replicas(
        spring_molecule(),
        MDOptions(**chosen, seed=11),
        n_replicas=4,
        output=tmp_path / "run.traj",
        evaluate=springs,
        progress=False,
    )
    for replica in (0, 3):
        alone = tmp_path / f"alone-{replica}.traj"
        run_md(spring_molecule(), MDOptions(**chosen, seed=11 + replica), output=alone, progress=False)
        assert_same_run(results[replica].trajectory, alone)
    said = json.loads((tmp_path / "run-2.json").read_text())
    assert (said["options"]["seed"], said["finished"]) == (13, True)


def test_each_replica_starts_where_it_is_told(tmp_path):
    start, chosen = spring_molecule(), MDOptions(**BASE, seed=11)
    moved = start.get_positions() + 0.03 * np.random.default_rng(4).standard_normal((3, len(start), 3))
    run_replicas(
        start,
        chosen,
        n_replicas=3,
        output=tmp_path / "run.traj",
        evaluate=springs,
        positions=moved,
        progress=False,
    )
    for replica in (0, 2):
        atoms, alone = spring_molecule(), tmp_path / f"alone-{replica}.traj"
        atoms.set_positions(moved[replica])
        run_md(atoms, MDOptions(**BASE, seed=11 + replica), output=alone, progress=False)
        assert_same_run(tmp_path / f"run-{replica}.traj", alone)
    np.testing.assert_array_equal(start.get_positions(), spring_molecule().get_positions())


@pytest.mark.slow
def test_a_replica_of_a_potential_is_a_single_run_to_rounding(tmp_path):
    """The batch sums in another order; 0.05 ps are short against the growth of such differences."""
    calc = calculator(symmetrize=2, remove_net_torque=True)
    chosen, start = MDOptions(**BASE, seed=3), spring_molecule()
    outcomes = run_replicas(
        start,
        chosen,
        n_replicas=3,
        output=tmp_path / "run.traj",
        evaluate=calc.copies(start, n_copies=3),
        progress=False,
    )
    start.calc = calc
    run_md(start, MDOptions(**BASE, seed=5), output=tmp_path / "alone.traj", progress=False)
    replica, alone = read(outcomes[2].trajectory, index=":"), read(tmp_path / "alone.traj", index=":")
    moved = np.abs(alone[-1].positions - start.positions).max()
    assert moved > 0.05
    for left, right in zip(replica, alone, strict=True):
        np.testing.assert_allclose(left.positions, right.positions, atol=1e-9)
        np.testing.assert_allclose(left.get_forces(), right.get_forces(), atol=1e-8)
        assert left.get_potential_energy() == pytest.approx(right.get_potential_energy(), abs=1e-9)


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_replicas_that_were_killed_at_different_steps_go_on_bit_for_bit(tmp_path):
    calc, start = calculator("float32"), spring_molecule()
    evaluate = calc.copies(start, n_copies=3)
    calls = []

    def is_killed(positions):
        calls.append(1)
        if len(calls) == 62:  # in production, between two checkpoints
            raise Killed
        return evaluate(positions)

    def run(name, function, *, resume=False):
        return run_replicas(
            start,
            MDOptions(**BASE, ensemble="bussi", seed=1),
            n_replicas=3,
            output=tmp_path / f"{name}.traj",
            evaluate=function,
            resume=resume,
            progress=False,
        )

    run("whole", evaluate)
    with pytest.raises(Killed):
        run("killed", is_killed)
    for path in tmp_path.glob("killed-1.*"):  # as if this one had never begun
        path.unlink()
    run("killed", evaluate, resume=True)
    for replica in range(3):
        assert_same_run(tmp_path / f"whole-{replica}.traj", tmp_path / f"killed-{replica}.traj")
    results = run("killed", evaluate, resume=True)
    assert [result.n_frames for result in results] == [13, 13, 13]


def test_the_bar_of_a_resumed_run_begins_with_what_is_done(tmp_path, capsys):
    calls = []

    def is_killed(positions):
        calls.append(1)
        if len(calls) == 62:
            raise Killed
        return springs(positions)

    def run(function):
        options, output = MDOptions(**BASE), tmp_path / "run.traj"
        run_replicas(spring_molecule(), options, n_replicas=2, output=output, evaluate=function, resume=True)

    with pytest.raises(Killed):
        run(is_killed)
    done = load_checkpoint(tmp_path / "run-0.checkpoint.npz").steps_done
    assert 40 < done < 62
    assert "| 0/100 " in capsys.readouterr().err
    run(springs)
    assert f"| {done}/100 " in capsys.readouterr().err
    for path in tmp_path.glob("run-1.*"):
        path.unlink()
    run(springs)  # the one that has to begin decides when all are done
    assert "| 0/100 " in capsys.readouterr().err


def test_one_that_falls_apart_leaves_the_others_alone(tmp_path):
    start = spring_molecule()

    def breaks_the_second(positions):
        energies, forces = springs(positions)
        if np.abs(positions[1] - start.positions).max() > 0.05:
            forces[1] = np.nan
        return energies, forces

    outcomes = run_replicas(
        start,
        MDOptions(**BASE),
        n_replicas=3,
        output=tmp_path / "run.traj",
        evaluate=breaks_the_second,
        progress=False,
    )
    assert [type(outcome) for outcome in outcomes] == [MDResult, SimulationStopped, MDResult]
    assert "forces are not finite" in str(outcomes[1])
    alone = tmp_path / "alone.traj"
    run_md(spring_molecule(), MDOptions(**BASE, seed=2), output=alone, progress=False)
    assert_same_run(tmp_path / "run-2.traj", alone)


def test_what_cannot_run_is_refused_before_any_replica_begins(tmp_path):
    def again(n_replicas, **more):
        return run_replicas(
            spring_molecule(),
            MDOptions(**BASE),
            n_replicas=n_replicas,
            output=tmp_path / "run.traj",
            evaluate=springs,
            progress=False,
            **more,
        )

    with pytest.raises(InputError, match=r"replicas .*>= 1, got 0"):
        again(0)
    with pytest.raises(InputError, match=r"\(2, \d, 3\), .*got \(3, \d, 3\)"):
        again(2, positions=np.zeros((3, len(spring_molecule()), 3)))
    (tmp_path / "run-2.json").write_text("{}")
    with pytest.raises(InputError, match=r"run-2\.json' exists already; .*--resume"):
        again(3)
    assert [path.name for path in tmp_path.iterdir()] == ["run-2.json"]
    with pytest.raises(InputError, match=r"run-2.json' lacks finished"):  # of one replica: the others end, too
        again(3, resume=True)


def test_the_bar_ends_where_the_steps_end(tmp_path, capfd):
    chosen = MDOptions(length_ps=0.01, equilibrate_ps=0.005, timestep_fs=0.5, ensemble="langevin", seed=2)
    run_replicas(spring_molecule(), chosen, n_replicas=2, output=tmp_path / "run.traj", evaluate=springs)
    last = capfd.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert " 30/30 " in last, last
