"""Audits of honest calculators pass, and each planted fault fails the checks that it should fail and no other."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.cluster import Octahedron
from ase.constraints import FixAtoms
from planted_faults import (
    Fault,
    Faulty,
    alloy_emt,
    copper_lj,
    cutoff_without_envelope,
    depends_on_orientation,
    forces_off_by_one_percent,
    non_conservative,
    planted,
    single_precision,
)
from potentials import molecule_frames, untrained_potential

from remul_md import InputError, RemulCalculator
from remul_md.analysis import run_audit
from remul_md.analysis.audit import AuditResult, Limits
from remul_md.analysis.audit.invariance import repeat_changes
from remul_md.analysis.audit.limits import NAMES, THERMAL_ENERGY
from remul_md.analysis.audit.probe import CalculationFailed, Probe, probed_frames
from remul_md.analysis.audit.run import N_FRAMES
from remul_md.datasets.structure_source import read_structure

# All of them but those that need hundreds of calculations.
STILL = tuple(name for name in NAMES if name != "nve")
QUICK = tuple(name for name in STILL if name != "smoothness")


def failures(result: AuditResult) -> set[str]:
    return {check.name for check in result.checks if check.outcome not in ("passed", "not applicable")}


def values(result: AuditResult) -> dict[str, float]:
    return {check.name: check.value for check in result.checks if check.value is not None}


def test_the_thermal_scale_is_kT() -> None:
    assert pytest.approx(0.025852, abs=1e-6) == THERMAL_ENERGY
    # 3 kB per atom and kelvin, in meV
    assert Limits(drift_K_per_ps=2.0).drift_meV_per_atom_ps == pytest.approx(2 * 0.258520, abs=1e-5)
    with pytest.raises(InputError, match=r"gradient_share .*got 0\.0"):
        Limits(gradient_share=0.0)


@pytest.mark.parametrize("honest", [copper_lj, alloy_emt])
def test_honest_calculators_pass(honest: Callable[[], Atoms]) -> None:
    atoms = honest()
    before = atoms.get_positions()
    result = run_audit(atoms, seed=3)
    assert failures(result) == set()
    assert [check.name for check in result.checks] == list(NAMES)
    assert all(check.applicable for check in result.checks)
    assert np.array_equal(atoms.positions, before)
    # Analytic gradients: what is left is the error of the differences, not zero and far from the limits.
    assert 0 < values(result)["gradient"] < 0.1 * {c.name: c.threshold for c in result.checks}["gradient"]
    assert len(result.scans) >= 2
    assert result.nve is not None
    assert result.nve.timestep_fs == 2.0
    kinetic = result.nve.total_energy_per_atom[0] - atoms.get_potential_energy() / 5
    assert 0.3 * THERMAL_ENERGY < kinetic < 3.0 * THERMAL_ENERGY  # on average 12 kT / 2 over 5 atoms


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (forces_off_by_one_percent, {"gradient", "smoothness"}),
        (single_precision, {"gradient", "smoothness"}),
        (depends_on_orientation, {"rotation", "mirror"}),
        (cutoff_without_envelope, {"smoothness"}),
    ],
)
def test_planted_faults_are_found_by_the_checks_they_concern(fault: Fault, expected: set[str]) -> None:
    assert failures(run_audit(planted(fault), only=STILL)) == expected


def test_forces_that_belong_to_no_energy_are_found() -> None:
    assert failures(run_audit(planted(non_conservative), only=QUICK)) == {"gradient", "closed_loop", "jacobian"}


def test_a_run_that_heats_fails() -> None:
    def stirred(atoms: Atoms, energy: float, forces: np.ndarray) -> tuple[float, np.ndarray]:
        x, y, _ = (atoms.positions - atoms.positions.mean(axis=0)).T
        return energy, forces + 0.1 * np.stack([-y, x, 0.0 * x], axis=1)

    result = run_audit(planted(stirred), only=["nve"])
    (check,) = result.checks
    assert result.nve is not None
    assert result.nve.n_steps == result.n_calls - 1 - N_FRAMES - 1 == 600  # decided by the first block
    assert not check.passed
    assert check.value is not None
    assert check.value > 1.0  # meV/atom/ps


def test_a_run_that_decides_nothing_is_undecided_and_does_not_pass() -> None:
    """Noise of the energy of 17 meV per atom hides a drift of the bound, in all four blocks."""
    rng = np.random.default_rng(0)

    def noisy(_atoms: Atoms, energy: float, forces: np.ndarray) -> tuple[float, np.ndarray]:
        return energy + 0.05 * rng.standard_normal(), forces

    atoms = molecule("H2O")
    atoms.calc = Faulty(Springs(atoms), noisy)
    result = run_audit(atoms, only=["nve"])
    (check,) = result.checks
    assert (check.outcome, check.passed, check.applicable) == ("undecided", None, True)
    assert not result.passed
    assert result.nve is not None
    assert result.nve.n_steps == 2400
    assert len(result.nve.time_ps) == 601  # every 2 fs


def test_a_factor_in_the_forces_is_measured_as_such() -> None:
    result = run_audit(planted(forces_off_by_one_percent), only=["gradient"])
    assert result.checks[0].why.count("%") == 1
    share = float(result.checks[0].why.split("differ by ")[1].split(" %")[0])
    assert share == pytest.approx(1.0, abs=0.3)  # 48 random directions


def test_a_wrong_factor_is_wrong_at_any_size() -> None:
    """Argon at rest has forces far below kT/Angstrom; 1 % of them is harmless and still a mistake."""
    atoms = Atoms("Ar3", positions=[[0.0, 0.0, 0.0], [3.8, 0.0, 0.0], [1.9, 3.3, 0.0]])
    honest = LennardJones(sigma=3.4, epsilon=0.0104, rc=9.0, ro=7.0, smooth=True)
    atoms.calc = honest
    assert failures(run_audit(atoms, only=["gradient"])) == set()
    atoms.calc = Faulty(honest, forces_off_by_one_percent)
    assert failures(run_audit(atoms, only=["gradient"])) == {"gradient"}


@pytest.mark.slow
def test_single_precision_models_pass_where_they_should_and_untrained_ones_do_not_turn() -> None:
    frames = molecule_frames().select([0])
    atoms = frames.atoms(0)
    atoms.calc = RemulCalculator(untrained_potential(frames), forces="conservative")
    names = [name for name in QUICK if name != "mirror"]
    with warnings.catch_warnings(action="error", category=UserWarning):  # to leave the data is what an audit is for
        assert failures(run_audit(atoms, only=names)) == {"rotation", "net_torque"}
    atoms.calc = RemulCalculator(untrained_potential(frames), forces="direct")
    of_direct_heads = {"net_force", "gradient", "jacobian"}
    assert failures(run_audit(atoms, only=sorted(of_direct_heads))) == of_direct_heads - {"net_force"}


@pytest.mark.slow
def test_the_shipped_potential_passes_near_its_training_data() -> None:
    atoms = read_structure("ethanol")
    atoms.calc = RemulCalculator("ethanol")
    names = ["rotation", "mirror", "permutation", "gradient", "net_torque", "repeatability"]
    result = run_audit(atoms, only=names)
    assert [check.name for check in result.checks if check.passed] == names
    assert 0.01 < values(result)["rotation"] < 1.0  # meV/A: learned, not exact


@pytest.mark.parametrize(("accuracy", "expected"), [(0.1, set()), (1.0, {"nve"})])
def test_tight_binding_passes_where_its_field_is_converged(accuracy: float, expected: set[str]) -> None:
    """As it comes (accuracy 1) it really cools, by 300 K/ns and more."""
    tblite = pytest.importorskip("tblite.ase", reason="tblite is not installed (pip install tblite)")
    atoms = molecule("H2O")
    atoms.calc = tblite.TBLite(method="GFN2-xTB", verbosity=0, accuracy=accuracy)
    assert failures(run_audit(atoms)) == expected


def test_periodic_structures() -> None:
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.calc = EMT()
    result = run_audit(atoms)
    assert failures(result) == set()
    checks = {check.name: check for check in result.checks}
    assert "the cell with the atoms" in checks["rotation"].why
    assert checks["net_torque"].outcome == "not applicable"
    assert result.passed
    assert checks["net_torque"].why == "Not applicable: a periodic structure has no centre."
    assert [scan.path.kind for scan in result.scans] == ["pair"]
    # A cell that does not turn with its atoms would give other forces.
    assert checks["rotation"].value is not None
    assert checks["rotation"].value < 1e-6


def test_subclasses_of_atoms_and_arrays_of_their_own_go_along() -> None:
    atoms = Octahedron("Cu", 2)
    assert type(atoms) is not Atoms
    atoms.set_array("kind", np.arange(6))
    seen = []

    def depends_on_an_array(atoms: Atoms, energy: float, forces: np.ndarray) -> tuple[float, np.ndarray]:
        kind = atoms.get_array("kind")
        seen.append(tuple(kind))
        weights = (kind - kind.mean())[:, None]  # a well whose strength goes with the array
        return energy + float((0.01 * weights * atoms.positions).sum()), forces - 0.01 * weights

    atoms.calc = Faulty(EMT(), depends_on_an_array)
    assert failures(run_audit(atoms, only=["permutation", "net_force"])) == set()
    assert len(set(seen)) > 5


def test_one_atom_has_little_to_check() -> None:
    atoms = Atoms("Cu", positions=[[1.0, 2.0, 3.0]])
    atoms.calc = EMT()
    result = run_audit(atoms)
    assert failures(result) == set()
    skipped = {check.name for check in result.checks if not check.applicable}
    assert skipped == {"permutation", "jacobian", "smoothness", "net_torque", "nve"}


class Springs(Calculator):
    """Every pair of atoms of a molecule on a Morse spring about its distance: cheap, smooth and bound."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own convention)

    def __init__(self, rest: Atoms) -> None:
        super().__init__()
        self.lengths = rest.get_all_distances()[np.triu_indices(len(rest), k=1)]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        first, second = np.triu_indices(len(self.atoms), k=1)
        d = self.atoms.positions[second] - self.atoms.positions[first]
        r = np.linalg.norm(d, axis=1)
        decay = np.exp(-1.5 * (r - self.lengths))
        depth = np.where(self.lengths < 1.6, 4.0, 0.05)
        pull = (3.0 * depth * decay * (1.0 - decay) / r)[:, None] * d
        forces = np.zeros((len(self.atoms), 3))
        np.add.at(forces, first, pull)
        np.add.at(forces, second, -pull)
        self.results = {"energy": float((depth * (1.0 - decay) ** 2).sum()), "forces": forces}


class FieldCalculator(Calculator):
    """A well fixed in space: it pushes and turns whatever is in it."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own convention)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        stiffness = np.array([0.5, 1.0, 2.0])
        self.results = {
            "energy": float(0.5 * (stiffness * self.atoms.positions**2).sum()),
            "forces": -stiffness * self.atoms.positions,
        }


def test_a_field_fixed_in_space_is_found() -> None:
    atoms = molecule("CH3OH")
    atoms.calc = FieldCalculator()
    assert failures(run_audit(atoms, only=QUICK)) == {"rotation", "mirror", "translation", "net_force", "net_torque"}


def test_dependence_on_the_order_of_the_atoms_is_found() -> None:
    def first_atom_is_special(atoms: Atoms, energy: float, forces: np.ndarray) -> tuple[float, np.ndarray]:
        d = atoms.positions[0] - atoms.positions[1:].mean(axis=0)
        forces = forces.copy()
        forces[0] -= 0.02 * d
        forces[1:] += 0.02 * d / (len(atoms) - 1)
        return energy + 0.01 * d @ d, forces

    assert failures(run_audit(planted(first_atom_is_special), only=QUICK)) == {"permutation"}


def test_memory_of_the_last_call_is_found() -> None:
    last = [0.0]

    def carries_over(atoms: Atoms, energy: float, forces: np.ndarray) -> tuple[float, np.ndarray]:
        previous, last[0] = last[0], energy
        return energy, forces * (1.0 + 0.5 * (previous - energy))

    assert "repeatability" in failures(run_audit(planted(carries_over), only=QUICK))
    rng = np.random.default_rng(0)
    probe = Probe(planted(carries_over))
    frames = probed_frames(probe, n_frames=3, amplitude_A=0.05, rng=rng)
    changes = repeat_changes(probe, frames, n_repeats=2)
    # Each frame is asked again with another past, also those that followed the same frame before.
    assert (np.abs(changes.forces).max(axis=(1, 2)) > 1e-6).tolist() == [False, True, True] * 2
    assert changes.energies.tolist() == [0.0] * 6


def test_a_calculator_that_fails_far_away_ends_the_scan_and_says_so() -> None:
    def stops(atoms: Atoms, energy: float, forces: np.ndarray) -> tuple[float, np.ndarray]:
        if atoms.get_all_distances().max() > 6.0:
            raise RuntimeError("no convergence\nin 250 cycles")
        return energy, forces

    result = run_audit(planted(stops), only=["smoothness"])
    assert failures(result) == set()
    assert "the calculator raised RuntimeError: no convergence." in result.checks[0].why
    assert max(scan.values.max() for scan in result.scans if scan.path.unit == "Å") < 6.0


def test_a_step_in_one_torsion_of_ethanol_is_found() -> None:
    """10 meV where C-C-O-H passes 100 degrees; bonds, angles and the structure itself do not come there."""
    atoms = molecule("CH3CH2OH")

    def steps(atoms: Atoms, energy: float, forces: np.ndarray) -> tuple[float, np.ndarray]:
        angle = abs((atoms.get_dihedral(0, 1, 2, 3) + 180.0) % 360.0 - 180.0)
        return energy + 0.01 * (angle < 100.0), forces

    assert atoms.get_chemical_symbols()[:4] == ["C", "C", "O", "H"]
    atoms.rattle(0.01, seed=0)
    atoms.calc = Faulty(Springs(atoms), steps)
    result = run_audit(atoms, only=["smoothness"])
    assert failures(result) == {"smoothness"}
    assert "torsion" in result.checks[0].why
    assert result.checks[0].value == pytest.approx(10.0, rel=0.05)
    atoms.calc = Springs(atoms)
    assert failures(run_audit(atoms, only=["smoothness"])) == set()


@pytest.mark.parametrize("hydrogen", [5, 8])
def test_a_kink_at_any_one_bond_to_hydrogen_is_found(hydrogen: int) -> None:
    """The force changes by 60 meV/A where this C-H bond is 1.19 A long."""
    atoms = molecule("CH3CH2OH")
    carbon = int(np.argmin(atoms.get_all_distances()[hydrogen] + 9.0 * (atoms.numbers != 6)))

    def kink(atoms: Atoms, energy: float, forces: np.ndarray) -> tuple[float, np.ndarray]:
        d = atoms.positions[hydrogen] - atoms.positions[carbon]
        r = float(np.linalg.norm(d))
        forces = forces.copy()
        forces[hydrogen] -= 0.06 * (r > 1.19) * d / r
        forces[carbon] += 0.06 * (r > 1.19) * d / r
        return energy + 0.06 * max(r - 1.19, 0.0), forces

    atoms.calc = Faulty(Springs(atoms), kink)
    result = run_audit(atoms, only=["smoothness"])
    assert failures(result) == {"smoothness"}
    assert any(abs(at - 1.19) < 0.02 for scan in result.scans for at in scan.jump_at)


def test_what_cannot_be_resolved_has_a_limit() -> None:
    rng = np.random.default_rng(0)

    def noisy(_atoms: Atoms, energy: float, forces: np.ndarray) -> tuple[float, np.ndarray]:
        return energy + 1e-2 * rng.standard_normal(), forces

    result = run_audit(planted(noisy), only=["smoothness"])
    assert failures(result) == {"smoothness"}
    found = sum(scan.n_unresolved for scan in result.scans) / sum(scan.n_intervals for scan in result.scans)
    assert found > 0.1
    assert f"could not be resolved ({sum(scan.n_unresolved for scan in result.scans)})" in result.checks[0].why.lower()


def test_a_point_that_does_not_converge_does_not_fail_the_rest() -> None:
    def fails_once(atoms: Atoms, energy: float, forces: np.ndarray) -> tuple[float, np.ndarray]:
        if 6.9 < atoms.get_all_distances().max() < 7.1:
            raise RuntimeError("no convergence")
        return energy, forces

    result = run_audit(planted(fails_once), only=["smoothness"])
    assert failures(result) == set()
    assert "could not be calculated, " in result.checks[0].why
    assert max(scan.values.max() for scan in result.scans) > 10.0


def test_many_geometries_in_one_call_give_what_one_by_one_gives() -> None:
    frames = molecule_frames().select([0])
    atoms = frames.atoms(0)
    atoms.calc = RemulCalculator(untrained_potential(frames), forces="conservative")
    probe = Probe(atoms)
    assert probe.batch_size > 1
    places = list(atoms.positions + 0.03 * np.random.default_rng(0).standard_normal((5, len(atoms), 3)))
    for place, found in zip(places, probe.all(places), strict=True):
        alone = probe(place)
        assert found.energy == pytest.approx(alone.energy, abs=1e-4)
        assert found.forces == pytest.approx(alone.forces, abs=1e-4)
    assert probe.n_calls == 1 + 5 + 5
    # Of a batch in which one fails, the others are told.
    broken = [places[0], np.full_like(places[0], np.nan), places[2]]
    first, second, third = probe.many(broken)
    assert isinstance(second, CalculationFailed)
    assert not isinstance(first, CalculationFailed)
    assert not isinstance(third, CalculationFailed)
    assert third.energy == pytest.approx(probe(places[2]).energy, abs=1e-4)


def test_a_calculator_that_fails_in_a_check_fails_that_check() -> None:
    def refuses_mirrors(atoms: Atoms, energy: float, forces: np.ndarray) -> tuple[float, np.ndarray]:
        a, b, c = atoms.positions[1:4] - atoms.positions[0]
        if np.dot(np.cross(a, b), c) < 0:
            forces = np.full_like(forces, np.nan)
        return energy, forces

    result = run_audit(planted(refuses_mirrors), only=["rotation", "mirror"])
    rotation, mirror = result.checks
    assert rotation.passed
    assert not mirror.passed
    assert mirror.value is None
    assert mirror.why.startswith("Could not be measured: the calculator gave energy")


def test_json_says_what_was_found_and_repeats() -> None:
    atoms = copper_lj()
    first = run_audit(atoms, only=QUICK, seed=5).to_json()
    assert first["passed"] is True
    few = ["rotation", "permutation"]
    again = run_audit(atoms, only=few, seed=5).to_json()["checks"]
    assert again == [check for check in first["checks"] if check["name"] in few]  # each has its own random numbers
    assert again != run_audit(atoms, only=few, seed=6).to_json()["checks"]
    for check in first["checks"]:
        assert set(check) >= {"name", "passed", "outcome", "value", "threshold", "unit", "why"}
        assert check["outcome"] == "passed"
    json.dumps(first, allow_nan=False)
    assert first["audited"]["calculator"] == "LennardJones"


def test_constraints_do_not_hide_faults() -> None:
    atoms = planted(forces_off_by_one_percent)
    atoms.set_constraint(FixAtoms(indices=range(5)))
    assert failures(run_audit(atoms, only=["gradient"])) == {"gradient"}
    assert len(atoms.constraints) == 1


def test_mistakes_are_explained() -> None:
    atoms = copper_lj()
    with pytest.raises(InputError, match=r"\['gradients'\] .*rotation"):
        run_audit(atoms, only=["gradients"])
    with pytest.raises(InputError, match="only: nothing is no check"):
        run_audit(atoms, only=[])
    atoms.calc = None
    with pytest.raises(InputError, match=r"atoms\.calc is None"):
        run_audit(atoms)
    with pytest.raises(InputError, match="the structure has no atoms"):
        run_audit(Atoms())

    def breaks(_atoms: Atoms, energy: float, forces: np.ndarray) -> tuple[float, np.ndarray]:
        return float("nan"), forces

    with pytest.raises(InputError, match="energy nan eV"):
        run_audit(planted(breaks))
    methanol = molecule("CH3OH")
    methanol.symbols[0] = "U"
    methanol.calc = EMT()
    with pytest.raises(InputError, match="the calculator raised "):
        run_audit(methanol)
