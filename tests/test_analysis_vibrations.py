"""Wavenumbers of molecules whose vibrations are known, and rigid motions that cost what was planted."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
import torch
from analysis_runs import Tilted
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from spring_molecule import Springs, spring_dimer, spring_molecule

from remul_md.analysis.vibrations import force_constants, normal_modes, rigid_motions, vibrations
from remul_md.errors import InputError
from remul_md.symmetry.rotations import random_rotations


def per_cm(stiffness_over_mass: float) -> float:
    """sqrt(k/m) in 1/cm from SI constants, k in eV/Angstrom^2 and m in amu."""
    omega = np.sqrt(stiffness_over_mass * 1.602176634e-19 / 1e-20 / 1.66053906660e-27)
    return omega / (2.0 * np.pi * 2.99792458e10)


def tetrahedron(stiffness: float, mass: float) -> Atoms:
    corners = np.array([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]) * 0.8
    atoms = Atoms("P4", positions=corners, masses=[mass] * 4)
    pairs = list(combinations(range(4), 2))
    length = 1.6 * np.sqrt(2.0)
    atoms.calc = Springs(pairs, stiffness=[stiffness] * 6, lengths=[length] * 6)
    return atoms


def test_a_diatomic_has_the_frequency_of_its_spring():
    atoms = spring_dimer(stiffness=30.0)
    m1, m2 = atoms.get_masses()
    found = vibrations(atoms)
    expected = per_cm(30.0 * (m1 + m2) / (m1 * m2))
    assert found.modes.vibrations_per_cm == pytest.approx([expected], rel=1e-5)
    assert found.modes.rotations_per_cm.shape == (2,)  # a linear molecule does not turn about its axis
    assert np.abs(found.modes.rotations_per_cm).max() < 2.0
    assert np.abs(found.modes.translations_per_cm).max() < 1e-2
    assert found.modes.zero_point_energy == pytest.approx(0.5 * expected * units.invcm, rel=1e-5)
    assert [verdict.passed for verdict in found.verdicts] == [True, True, True]


def test_a_tetrahedron_of_springs():
    """Closed form: sqrt(k/m) twice, sqrt(2k/m) three times, sqrt(4k/m) once (Herzberg 1945, X4 of T_d symmetry)."""
    atoms = tetrahedron(7.0, 31.0)
    atoms.positions += np.random.default_rng(3).normal(scale=0.05, size=(4, 3))
    found = vibrations(atoms)
    base = per_cm(7.0 / 31.0)
    expected = base * np.sqrt([1.0, 1.0, 2.0, 2.0, 2.0, 4.0])
    np.testing.assert_allclose(found.modes.vibrations_per_cm, expected, rtol=1e-4)
    assert found.modes.rotations_per_cm.shape == (3,)
    assert found.relaxed
    assert 0 < found.n_steps < 100
    assert found.max_force <= 1e-4


def test_a_linear_triatomic_has_four_vibrations():
    """CO2 of two springs: sqrt(k/m_O), sqrt(k/m_O (1 + 2 m_O/m_C)), and a bend that two springs leave free."""
    atoms = Atoms("OCO", positions=[[-1.2, 0.0, 0.0], [0.0, 0.0, 0.0], [1.2, 0.0, 0.0]])
    atoms.calc = Springs([(0, 1), (1, 2)], stiffness=[50.0, 50.0], lengths=[1.2, 1.2])
    oxygen, carbon, _ = atoms.get_masses()
    modes = vibrations(atoms).modes
    expected = [per_cm(50.0 / oxygen), per_cm(50.0 / oxygen * (1.0 + 2.0 * oxygen / carbon))]
    np.testing.assert_allclose(modes.vibrations_per_cm[2:], expected, rtol=1e-5)
    assert np.abs(modes.vibrations_per_cm[:2]).max() < 5.0
    assert len(modes.rotations_per_cm) == 2


def test_modes_are_displacements_that_give_their_frequency():
    atoms = spring_molecule("CH3CH2OH")
    found = vibrations(atoms)
    masses = np.repeat(atoms.get_masses(), 3)
    relaxed = found.atoms.copy()
    relaxed.calc = atoms.calc
    hessian = force_constants(relaxed)
    flat = found.modes.vibration_modes.reshape(21, 27)
    np.testing.assert_allclose((flat * masses) @ flat.T, np.eye(21), atol=1e-10)
    quadratic = np.einsum("vi,ij,vj->v", flat, hessian, flat)
    expected = np.sign(quadratic) * [per_cm(abs(value)) for value in quadratic]
    np.testing.assert_allclose(found.modes.vibrations_per_cm, expected, atol=1e-3)


def test_emt_nitrogen_agrees_with_the_curve_of_its_energy():
    atoms = molecule("N2")
    atoms.calc = EMT()
    found = vibrations(atoms)
    length = found.atoms.get_distance(0, 1)
    stretches = np.linspace(-0.02, 0.02, 9)
    energies = []
    for stretch in stretches:
        moved = found.atoms.copy()
        moved.set_distance(0, 1, length + stretch)
        moved.calc = EMT()
        energies.append(moved.get_potential_energy())
    stiffness = 2.0 * np.polynomial.polynomial.polyfit(stretches, energies, 5)[2]
    assert found.modes.vibrations_per_cm[0] == pytest.approx(per_cm(stiffness / (14.007 / 2.0)), rel=1e-4)
    assert [verdict.passed for verdict in found.verdicts] == [True, True, True]
    assert atoms.positions == pytest.approx(molecule("N2").positions)  # the caller's structure is not moved


def test_a_planted_dependence_on_orientation_is_found_with_its_size():
    """The energy 1/2 sum_i d_i A d_i makes a dimer along z librate with omega^2 = (A_xx - A_zz)/m, and A_yy alike."""
    atoms = spring_dimer(symbols="N2")
    tilt = np.diag([0.30, 0.17, 0.02])
    atoms.calc = Tilted(atoms.calc, tilt=tilt)
    found = vibrations(atoms)
    mass = atoms.get_masses()[0]
    expected = [per_cm(0.15 / mass), per_cm(0.28 / mass)]
    np.testing.assert_allclose(found.modes.rotations_per_cm, expected, rtol=1e-2)
    np.testing.assert_allclose(found.modes.vibrations_per_cm, [per_cm((30.0 + 0.02 / 2) * 2 / mass)], rtol=1e-3)
    judged = {verdict.name: verdict for verdict in found.verdicts}
    assert judged["rotations cost nothing"].passed is False
    assert judged["rotations cost nothing"].value == pytest.approx(expected[1], rel=1e-2)
    assert judged["translations cost nothing"].passed is True


def test_a_orientation_at_the_top_is_an_imaginary_rotation():
    atoms = spring_dimer(symbols="N2")
    atoms.calc = Tilted(atoms.calc, tilt=np.diag([0.02, 0.17, 0.30]))
    found = vibrations(atoms)  # exactly along z: no torque, so the optimiser stays
    mass = atoms.get_masses()[0]
    np.testing.assert_allclose(found.modes.rotations_per_cm, [-per_cm(0.28 / mass), -per_cm(0.13 / mass)], rtol=1e-2)


class Tethered(Calculator):
    """A calculator plus 1/2 c |r_0|^2: it knows where the first atom stands."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own convention)

    def __init__(self, inner: Calculator, stiffness: float) -> None:
        super().__init__()
        self.inner, self.stiffness = inner, stiffness

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        bare = self.atoms.copy()
        bare.calc = self.inner
        first = self.atoms.positions[0]
        forces = bare.get_forces()
        forces[0] -= self.stiffness * first
        energy = bare.get_potential_energy() + 0.5 * self.stiffness * float(first @ first)
        self.results = {"energy": energy, "forces": forces}


def test_a_planted_dependence_on_the_place_is_found_with_its_size():
    atoms = spring_dimer()
    atoms.calc = Tethered(atoms.calc, 0.5)
    found = vibrations(atoms)
    # The block of a rigid translation by s: 1/2 c s^2 over the whole mass.
    np.testing.assert_allclose(found.modes.translations_per_cm, [per_cm(0.5 / atoms.get_masses().sum())] * 3, rtol=1e-3)
    judged = {verdict.name: verdict for verdict in found.verdicts}
    assert judged["translations cost nothing"].passed is False


def test_coupling_of_vibrations_to_rigid_motions_is_measured():
    """Mass-weighted curvatures [[0, c], [c, a]] of a translation and the vibration: the latter becomes larger."""
    atoms = spring_dimer(stiffness=30.0)
    masses = atoms.get_masses()
    hessian = force_constants(atoms)
    translation = rigid_motions(atoms.positions, masses=masses)[0][2]
    vibration = normal_modes(hessian, atoms.positions, masses=masses).vibration_modes.ravel()
    root = np.repeat(np.sqrt(masses), 3)
    coupling = np.outer(translation * root, vibration * masses.repeat(3)) * 0.8
    modes = normal_modes(hessian + coupling + coupling.T, atoms.positions, masses=masses)
    curvature = 30.0 * (1.0 / masses).sum()
    mixed = 0.5 * (curvature + np.sqrt(curvature**2 + 4.0 * 0.8**2))
    assert modes.vibrations_per_cm[0] == pytest.approx(per_cm(curvature), rel=1e-5)
    assert modes.shift_per_cm == pytest.approx(per_cm(mixed) - per_cm(curvature), rel=1e-3)


def test_a_saddle_is_no_minimum():
    atoms = spring_dimer(symbols="N2")
    hessian = force_constants(atoms)
    modes = normal_modes(-hessian, atoms.positions, masses=atoms.get_masses())
    assert modes.vibrations_per_cm == pytest.approx([-per_cm(30.0 * 2 / 14.007)], rel=1e-5)
    assert modes.zero_point_energy == 0.0


def test_forces_that_are_no_gradient_show_in_the_asymmetry():
    atoms = spring_molecule("H2O")
    hessian = force_constants(atoms)
    skew = np.random.default_rng(0).normal(size=(9, 9))
    skew -= skew.T
    skew *= np.linalg.norm(hessian + hessian.T) / np.linalg.norm(skew)
    clean = normal_modes(hessian, atoms.positions, masses=atoms.get_masses())
    bent = normal_modes(hessian + 0.05 * skew, atoms.positions, masses=atoms.get_masses())
    assert clean.asymmetry < 1e-6
    assert bent.asymmetry == pytest.approx(0.1, rel=1e-4)
    np.testing.assert_allclose(bent.vibrations_per_cm, clean.vibrations_per_cm, rtol=1e-6)


def test_wavenumbers_do_not_depend_on_the_orientation():
    atoms = spring_molecule("H2O")
    rotated = atoms.copy()
    rotation = random_rotations(1, generator=torch.Generator().manual_seed(5))[0].numpy()
    rotated.positions = atoms.positions @ rotation.T + [3.0, -1.0, 2.0]
    rotated.calc = atoms.calc
    one, other = vibrations(atoms).modes, vibrations(rotated).modes
    assert one.vibrations_per_cm.shape == (3,)
    np.testing.assert_allclose(one.vibrations_per_cm, other.vibrations_per_cm, rtol=1e-5)


def test_rigid_motions_are_orthonormal_and_leave_distances():
    atoms = molecule("CH3CH2OH")
    masses = atoms.get_masses()
    translations, rotations = rigid_motions(atoms.positions, masses=masses)
    every = np.concatenate([translations, rotations])
    np.testing.assert_allclose(every @ every.T, np.eye(6), atol=1e-12)
    steps = (every / np.repeat(np.sqrt(masses), 3)).reshape(6, 9, 3)
    first, second = np.triu_indices(9, k=1)
    levers = atoms.positions[second] - atoms.positions[first]
    np.testing.assert_allclose(((steps[:, second] - steps[:, first]) * levers).sum(-1), 0.0, atol=1e-12)


def test_an_unrelaxed_structure_is_not_called_a_minimum():
    atoms = spring_molecule("H2O")
    atoms.positions[1] += [0.1, 0.0, 0.0]
    found = vibrations(atoms, max_steps=0)
    assert not found.relaxed
    assert found.n_steps == 0
    assert found.verdicts[0].passed is None
    assert "allow more steps" in found.verdicts[0].why
    np.testing.assert_array_equal(found.atoms.positions, atoms.positions)


def test_json_holds_plain_numbers():
    content = json.loads(json.dumps(vibrations(spring_dimer()).to_json(), allow_nan=False))
    assert len(content["vibrations_per_cm"]) == 1
    assert len(content["rotations_per_cm"]) == 2
    assert {"name", "passed", "value", "threshold", "unit", "why"} <= set(content["verdicts"][0])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda atoms: setattr(atoms, "calc", None), {}, "no calculator"),
        (lambda atoms: setattr(atoms, "pbc", [True, False, False]), {}, "phonon code"),
        (lambda atoms: atoms.__delitem__(0), {}, "at least two atoms, got 1"),
        (lambda atoms: None, {"fmax_eV_per_A": 0.0}, "fmax_eV_per_A must be > 0, got 0.0"),
        (lambda atoms: None, {"max_steps": -1}, r"max_steps .*got -1"),
        (lambda atoms: None, {"displacement_A": -0.1}, "displacement_A must be > 0, got -0.1"),
    ],
)
def test_what_has_no_vibrations_is_refused(change, options, message):
    atoms = spring_dimer()
    change(atoms)
    with pytest.raises(InputError, match=message):
        vibrations(atoms, **options)


def test_constraints_and_broken_forces_are_refused():
    from ase.constraints import FixAtoms

    atoms = spring_dimer()
    atoms.set_constraint(FixAtoms([0]))
    with pytest.raises(InputError, match="FixAtoms"):
        vibrations(atoms)
    broken = spring_dimer(stiffness=float("nan"))
    with pytest.raises(InputError, match="forces are not finite"):
        vibrations(broken)
    with pytest.raises(InputError, match="do not fit"):
        normal_modes(np.eye(6), np.zeros((3, 3)), masses=np.ones(3))
    with pytest.raises(InputError, match=r"Hessian .*not finite"):
        normal_modes(np.full((6, 6), np.inf), np.eye(3)[:2], masses=np.ones(2))
