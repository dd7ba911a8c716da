import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from messages import pattern
from spring_molecule import spring_molecule

from remul_md.dynamics import MDOptions, run_md
from remul_md.errors import InputError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ensemble": "npt"}, "ensemble 'npt' ... nve, langevin"),
        ({"rotation": "no"}, "rotation 'no' ... thermal, zero"),
        ({"timestep_fs": 0.0}, "timestep_fs ... got 0.0"),
        ({"length_ps": -1}, "length_ps ... got -1"),
        ({"length_ps": float("inf")}, "length_ps ... got inf"),
        ({"length_ps": 1e-5}, "length_ps 1e-05 ... 0.5 fs"),
        ({"temperature_K": -5.0}, "temperature_K ... got -5.0"),
        ({"temperature_K": "300"}, "temperature_K ... got '300'"),
        ({"equilibrate_ps": float("nan")}, "equilibrate_ps ... got nan"),
        ({"friction_per_ps": 0}, "friction_per_ps ... got 0"),
        ({"seed": -1}, "seed ... got -1"),
        ({"log_interval": 0}, "log_interval ... got 0"),
        ({"checkpoint_interval": 2.5}, "checkpoint_interval ... got 2.5"),
        ({"max_bond_stretch": 0.9}, "max_bond_stretch ... got 0.9"),
        ({"frame_interval_fs": 1.2}, "frame_interval_fs 1.2 ... take 1"),
        ({"frame_interval_fs": 0.1}, "frame_interval_fs 0.1 ... take 0.5"),
        ({"ensemble": "langevin", "rotation": "zero"}, "rotation 'zero' ... ensemble 'langevin'"),
        ({"thermostat_time_fs": 0.0}, "thermostat_time_fs ... got 0.0"),
        ({"ensemble": "bussi", "temperature_K": 0.0}, "temperature_K ... 'bussi', got 0"),
        ({"final_temperature_K": 500.0}, "final_temperature_K 500.0 ... 'nve'"),
        ({"ensemble": "langevin", "final_temperature_K": -1}, "final_temperature_K ... got -1"),
        (
            {"ensemble": "nose-hoover", "final_temperature_K": 0.0},
            "final_temperature_K ... 'nose-hoover', got 0",
        ),
        ({"n_inner": 0}, "n_inner ... got 0"),
        ({"n_inner": True}, "n_inner ... got True"),
        ({"n_inner": 4.0}, "n_inner ... got 4.0"),
        ({"n_inner": 4, "ensemble": "bussi"}, "n_inner 4 ... 'nve', got 'bussi'"),
        (
            {"n_inner": 4, "frame_interval_fs": 5.0},
            "5.0 ... 4 * timestep_fs ... take 4",
        ),
        ({"n_inner": 16, "frame_interval_fs": 2.0}, "2.0 ... 16 * timestep_fs ... take 8"),
        ({"n_inner": 16, "length_ps": 0.003}, "length_ps 0.003 ... 8.0 fs"),
        ({"velocities": "old"}, "velocities 'old' ... drawn, given"),
        ({"velocities": "given"}, "velocities 'given' ... 2.0 ps"),
        ({"match_energy": True, "equilibrate_ps": 0.0}, "match_energy ... after an equilibration"),
        ({"match_energy": True, "ensemble": "langevin"}, "match_energy ... 'langevin'"),
    ],
)
def test_bad_options_are_named(change, message):
    with pytest.raises(InputError, match=pattern(message)):
        MDOptions(**change)


def test_steps_are_counted():
    chosen = MDOptions(timestep_fs=0.25, length_ps=0.3, equilibrate_ps=0.1, frame_interval_fs=1.75)
    assert (chosen.n_steps, chosen.n_equilibration_steps, chosen.frame_interval) == (1200, 400, 7)
    assert chosen.time_ps(7) == pytest.approx(0.00175)
    assert chosen.matches_energy
    assert not MDOptions(equilibrate_ps=0.0).matches_energy
    assert not MDOptions(ensemble="langevin").matches_energy


def test_steps_of_multiple_time_steps_are_outer_ones():
    chosen = MDOptions(timestep_fs=0.25, length_ps=0.3, equilibrate_ps=0.1, n_inner=6, frame_interval_fs=4.5)
    assert (chosen.step_fs, chosen.n_steps, chosen.n_equilibration_steps, chosen.frame_interval) == (1.5, 200, 400, 3)
    assert chosen.time_ps(4) == pytest.approx(0.006)
    assert chosen.time_ps(4, production=False) == pytest.approx(0.001)
    intervals = [chosen.whole_steps(interval, production=True) for interval in (2, 6, 7, 1000)]
    assert intervals == [1, 1, 2, 167]
    assert chosen.whole_steps(7, production=False) == 7
    frames = [MDOptions(n_inner=n_inner).frame_interval_fs for n_inner in (None, 1, 2, 4, 5, 16)]
    assert frames == [3.5, 3.5, 3.0, 2.0, 2.5, 8.0]
    assert [MDOptions(timestep_fs=step).frame_interval_fs for step in (0.05, 1.5, 1.0, 2.0)] == [3.75, 3.0, 3.0, 2.0]


def with_nan():
    atoms = spring_molecule()
    atoms.positions[2, 1] = np.nan
    return atoms


def coincident():
    atoms = spring_molecule()
    atoms.positions[5] = atoms.positions[1] + [0.0, 0.0, 1e-5]
    return atoms


def constrained():
    atoms = spring_molecule()
    atoms.set_constraint(FixAtoms([0]))
    return atoms


def periodic():
    atoms = bulk("Cu")
    atoms.calc = EMT()
    return atoms


def single():
    atoms = Atoms("Cu")
    atoms.calc = EMT()
    return atoms


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        (Atoms, {}, "has no atoms"),
        (lambda: molecule("H2O"), {}, "set atoms.calc"),
        (constrained, {"rotation": "zero"}, "rotation 'zero' ... fixed atoms"),
        (with_nan, {}, "atom 2 is not finite: ["),
        (coincident, {}, "atoms 1 and 5 are 1e-05 Angstrom apart"),
        (periodic, {"rotation": "zero"}, "periodic ... angular momentum"),
        (spring_molecule, {"n_inner": 4}, "n_inner 4 ... fast="),
        (
            spring_molecule,
            {"velocities": "given", "equilibrate_ps": 0.0},
            "velocities 'given' ... none",
        ),
        (single, {}, "Cu has no degree of freedom in NVE"),
        (single, {"ensemble": "bussi"}, "Cu has no degree of freedom in BUSSI"),
    ],
)
def test_structures_that_cannot_run_are_named(tmp_path, make, change, message):
    with pytest.raises(InputError, match=pattern(message)):
        run_md(make(), MDOptions(**change), output=tmp_path / "run.traj", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_the_extension_of_the_output_must_be_known(tmp_path):
    with pytest.raises(InputError, match=pattern("run.xyz' ... .traj")):
        run_md(spring_molecule(), MDOptions(), output=tmp_path / "run.xyz", progress=False)


def test_provenance_must_be_writable_as_json(tmp_path):
    with pytest.raises(InputError, match="provenance is not JSON-able"):
        run_md(
            spring_molecule(),
            MDOptions(),
            output=tmp_path / "run.traj",
            progress=False,
            provenance={"x": np.zeros(2)},
        )
