"""Molecules of which some atoms or bonds are held: degrees of freedom, temperatures, records, and what is judged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLengths, FixCartesian, FixInternals
from ase.io import read, write
from spring_molecule import SpringMolecule, spring_molecule

from remul_md.analysis.trajectory import TrajectoryAnalysis, analyze_trajectory
from remul_md.dynamics.constraints import Constraints, SeenConstraints, constraints_of
from remul_md.dynamics.momenta import kinetic_energy_eV
from remul_md.dynamics.options import MDOptions
from remul_md.dynamics.run import MDResult, run_md
from remul_md.dynamics.velocities import initial_velocities, n_degrees_of_freedom, temperature_K
from remul_md.errors import InputError
from remul_md.structures.topology import bond_pairs

ANGULAR = "angular momentum kept"
TORQUE = "no torque from nowhere"


def to_hydrogen(atoms: Atoms) -> list[list[int]]:
    pairs = bond_pairs(atoms.numbers, atoms.positions).tolist()
    return [pair for pair in pairs if 1 in atoms.numbers[pair]]


def held_at_three_atoms() -> Atoms:
    atoms = spring_molecule()
    atoms.set_constraint(FixAtoms([0, 1, 4]))
    return atoms


def with_rigid_hydrogens() -> Atoms:
    atoms = spring_molecule()
    atoms.set_constraint(FixBondLengths(to_hydrogen(atoms)))
    return atoms


CASES = pytest.mark.parametrize(
    ("structure", "n_dof"), [(held_at_three_atoms, 18), (with_rigid_hydrogens, 18)], ids=["atoms", "bonds"]
)


def test_what_constraints_hold_is_counted() -> None:
    held = constraints_of(held_at_three_atoms())
    assert (held.held, held.n_removed) == (True, 9)
    atoms = with_rigid_hydrogens()
    rigid = constraints_of(atoms)
    assert (rigid.held, rigid.n_removed) == (False, 6)
    count = {"translation_removed": True, "rotation_removed": True}
    assert n_degrees_of_freedom(atoms, **count) == 27 - 6 - 6
    assert n_degrees_of_freedom(held_at_three_atoms(), **count) == 18
    atoms.set_constraint(FixCartesian([3], mask=(True, False, True)))
    assert constraints_of(atoms).to_json() == {"fixed_atoms": {"3": "xz"}, "fixed_bonds": []}
    for constraints in (held, rigid, constraints_of(atoms)):
        again = Constraints.from_json(json.loads(json.dumps(constraints.to_json())), n_atoms=9)
        np.testing.assert_array_equal(again.fixed, constraints.fixed)
        np.testing.assert_array_equal(again.bonds, constraints.bonds)
    with pytest.raises(InputError, match=r"constraints .*cannot be read"):
        Constraints.from_json({"fixed_atoms": {"9": "x"}, "fixed_bonds": []}, n_atoms=9)


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (lambda: FixInternals(bonds=[[1.1, [0, 3]]]), "of the kind FixInternals, whose degrees of freedom"),
        (lambda: [FixAtoms([0]), FixBondLengths([[0, 1]])], "a fixed length and a fixed end"),
    ],
)
def test_constraints_that_are_not_counted_are_refused(tmp_path: Path, constraint, message: str) -> None:
    atoms = spring_molecule()
    atoms.set_constraint(constraint())
    with pytest.raises(InputError, match=message):
        run_md(atoms, MDOptions(length_ps=0.01), output=tmp_path / "run.traj", progress=False)
    assert not list(tmp_path.iterdir())


def test_the_projection_is_orthogonal_in_the_kinetic_energy() -> None:
    atoms = with_rigid_hydrogens()
    masses, positions, constraints = atoms.get_masses(), atoms.get_positions(), constraints_of(atoms)
    velocities = np.random.default_rng(2).normal(size=(9, 3))
    allowed = constraints.project(velocities, positions=positions, masses=masses)
    for first, second in constraints.bonds:
        along = positions[first] - positions[second]
        assert along @ (allowed[first] - allowed[second]) == pytest.approx(0.0, abs=1e-12)
    rest = velocities - allowed
    assert np.sum(masses[:, None] * rest * allowed) == pytest.approx(0.0, abs=1e-10)
    assert np.sum(masses[:, None] * rest**2) > 1.0
    np.testing.assert_allclose(constraints.project(allowed, positions=positions, masses=masses), allowed, atol=1e-12)


@CASES
def test_drawn_velocities_have_the_temperature(structure, n_dof: int) -> None:
    atoms = structure()
    constraints, masses = constraints_of(atoms), atoms.get_masses()
    generator = np.random.default_rng(5)
    found = []
    for exact in [True] + [False] * 400:
        velocities = initial_velocities(
            atoms.get_positions(),
            masses,
            temperature_K=310.0,
            generator=generator,
            exact=exact,
            constraints=constraints,
        )
        found.append(temperature_K(float(kinetic_energy_eV(velocities * masses[:, None], masses)), n_dof))
    assert found[0] == pytest.approx(310.0)
    assert np.mean(found[1:]) == pytest.approx(310.0, abs=4.0 * np.std(found) / 20.0)
    assert not velocities[constraints.fixed].any()


@pytest.mark.slow
@pytest.mark.parametrize("ensemble", ["langevin", "bussi", "nose-hoover"])
@CASES
def test_thermostats_keep_the_temperature(tmp_path: Path, structure, n_dof: int, ensemble: str) -> None:
    timestep_fs = 2.0 if structure is with_rigid_hydrogens else 1.0  # what they are made rigid for
    options = MDOptions(
        ensemble=ensemble, temperature_K=300.0, length_ps=3.5, equilibrate_ps=0.5, timestep_fs=timestep_fs, seed=3,
        friction_per_ps=20.0, thermostat_time_fs=50.0, frame_interval_fs=100.0,
    )  # fmt: skip
    result = run_md(structure(), options, output=tmp_path / "run.traj", progress=False)
    kicked = 3 if ensemble == "langevin" and structure is with_rigid_hydrogens else 0  # it moves the centre of mass
    assert result.n_degrees_of_freedom == n_dof + kicked
    assert result.mean_temperature_K == pytest.approx(300.0, abs=25.0)


def nve(structure, path: Path, *, length_ps: float = 0.5) -> MDResult:
    options = MDOptions(length_ps=length_ps, equilibrate_ps=0.2, frame_interval_fs=2.0, seed=11, temperature_K=300.0)
    return run_md(structure(), options, output=path, progress=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[], Atoms]], MDResult]:
    """The NVE run of each structure, made once and only read."""
    folder, found = tmp_path_factory.mktemp("runs"), dict[Callable[[], Atoms], MDResult]()

    def run(structure: Callable[[], Atoms]) -> MDResult:
        if structure not in found:
            found[structure] = nve(structure, folder / f"{structure.__name__}.traj")
        return found[structure]

    return run


def verdicts(analysis: TrajectoryAnalysis) -> set[str]:
    return {verdict.name for verdict in analysis.verdicts}


@CASES
def test_a_run_holds_what_it_is_told_and_its_analysis_counts_it(runs, structure, n_dof: int) -> None:
    result = runs(structure)
    assert result.n_degrees_of_freedom == n_dof
    record = json.loads(result.description.read_text())
    assert record["constraints"] == constraints_of(structure()).to_json()
    frames = read(result.trajectory, index=":")
    start = structure()
    constraints = constraints_of(start)
    moved = np.abs(np.array([frame.positions for frame in frames]) - start.positions).max(axis=0)
    assert not moved[constraints.fixed].any()
    assert moved[~constraints.fixed].min() > 1e-3
    for first, second in constraints.bonds:
        lengths = [frame.get_distance(first, second) for frame in frames]
        assert np.ptp(lengths) < 1e-10
        assert lengths[0] == pytest.approx(start.get_distance(first, second), abs=1e-10)
    analysis = analyze_trajectory(result.trajectory)
    assert analysis.n_dof == n_dof
    assert analysis.mean_temperature_K == pytest.approx(result.mean_temperature_K)
    assert analysis.drift is not None
    assert abs(analysis.drift.slope_meV_per_atom_ps) < 0.5
    assert any("degrees of freedom are held" in note for note in analysis.notes)
    assert (ANGULAR in verdicts(analysis)) is (not constraints.held)
    assert (TORQUE in verdicts(analysis)) is (not constraints.held)


@pytest.mark.parametrize("suffix", [".traj", ".extxyz"])
@CASES
def test_runs_of_other_programs_show_what_they_held(runs, tmp_path: Path, structure, n_dof: int, suffix: str) -> None:
    """No record, no constraints in the file: what never moved and which bonds never changed is seen in the frames."""
    result = runs(structure)
    frames = read(result.trajectory, index=":")
    for frame in frames:
        results = frame.calc.results
        frame.set_constraint()
        frame.calc = SinglePointCalculator(frame, energy=results["energy"], forces=results["forces"])
    write(tmp_path / f"foreign{suffix}", frames)
    analysis = analyze_trajectory(tmp_path / f"foreign{suffix}")
    assert analysis.n_dof == n_dof
    assert "fixed" in analysis.n_dof_source
    known = analyze_trajectory(result.trajectory)
    assert analysis.mean_temperature_K == pytest.approx(known.mean_temperature_K, rel=0.05)  # of frames, not the log
    assert verdicts(analysis) == verdicts(known) - {"temperature as asked"}


def test_a_free_molecule_is_not_taken_for_a_held_one(tmp_path: Path) -> None:
    result = nve(spring_molecule, tmp_path / "run.traj", length_ps=0.1)
    analysis = analyze_trajectory(result.trajectory)
    assert analysis.n_dof == 24
    assert not any("held" in note for note in analysis.notes)
    assert "constraints" not in json.loads(result.description.read_text())
    still = np.tile(spring_molecule().positions, (4, 1, 1))
    seen = SeenConstraints(still[0], bond_pairs(spring_molecule().numbers, still[0]))
    seen.update(still)  # nothing moves at all: frozen, not fixed
    assert seen.result().n_removed == 0


class Interrupted(SpringMolecule):
    """Stops like a kill after some calls."""

    n_left = 10**9

    def calculate(self, *given) -> None:
        type(self).n_left -= 1
        if self.n_left < 0:
            raise KeyboardInterrupt
        super().calculate(*given)


@CASES
def test_a_resumed_run_has_the_same_bits(tmp_path: Path, structure, n_dof: int) -> None:
    options = MDOptions(length_ps=0.1, equilibrate_ps=0.03, frame_interval_fs=2.0, seed=11, checkpoint_interval=20)
    whole = run_md(structure(), options, output=tmp_path / "whole.traj", progress=False)
    atoms = structure()
    atoms.calc = Interrupted(atoms)
    for n_left in (35, 150):
        Interrupted.n_left = n_left
        with pytest.raises(KeyboardInterrupt):
            run_md(atoms, options, output=tmp_path / "cut.traj", resume=True, progress=False)
    Interrupted.n_left = 10**9
    cut = run_md(atoms, options, output=tmp_path / "cut.traj", resume=True, progress=False)
    assert whole.log.read_bytes() == cut.log.read_bytes()
    for one, other in zip(read(whole.trajectory, index=":"), read(cut.trajectory, index=":"), strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
        np.testing.assert_array_equal(one.get_momenta(), other.get_momenta())
    free = spring_molecule()
    free.calc = Interrupted(free)
    with pytest.raises(InputError, match=r"other options: .*constraints"):
        run_md(free, options, output=tmp_path / "cut.traj", resume=True, progress=False)
