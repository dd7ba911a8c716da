from __future__ import annotations

import numpy as np
import pytest
import torch
from analysis_runs import TILT, Tilted, tilted_ethanol
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from scipy.spatial.transform import Rotation
from spring_molecule import spring_molecule

from remul_md.analysis.rotation import (
    angle_swept,
    net_force,
    net_torque,
    rotational_error_along,
    superposition_rotations,
)
from remul_md.errors import InputError
from remul_md.symmetry.rotations import random_rotations


def shaken(atoms, *, n_frames: int, seed: int, width: float = 0.05) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(scale=width, size=(n_frames, len(atoms), 3))
    return atoms.get_positions() + noise


def test_net_torque_is_minus_the_slope_of_the_energy_under_rotation():
    atoms = tilted_ethanol()
    positions = shaken(atoms, n_frames=4, seed=2)
    step = 1e-4  # radian
    for frame in positions:
        atoms.positions = frame
        torque = net_torque(frame, atoms.get_forces())
        slopes = []
        for axis in np.eye(3):
            energies = []
            for sign in (1.0, -1.0):
                atoms.positions = frame @ Rotation.from_rotvec(sign * step * axis).as_matrix().T
                energies.append(atoms.get_potential_energy())
            slopes.append((energies[0] - energies[1]) / (2.0 * step))
        np.testing.assert_allclose(torque, -np.array(slopes), atol=1e-8)
        assert np.linalg.norm(torque) > 1e-3


def test_exact_forces_have_no_net_force_torque_or_rotational_error():
    atoms = spring_molecule("CH3CH2OH")
    positions = shaken(atoms, n_frames=5, seed=4) + 7.0  # far from the origin
    result = rotational_error_along(atoms, positions, n_draws=3, seed=1)
    assert result.error_meV_per_A.max() < 1e-9
    assert result.rms_force_meV_per_A > 500.0
    assert np.abs(net_force(result.forces)).max() < 1e-12
    assert np.abs(net_torque(positions, result.forces)).max() < 1e-12


def test_rotational_error_and_spread_are_those_of_the_known_tilt():
    atoms = tilted_ethanol()
    positions = shaken(atoms, n_frames=6, seed=8)
    before = atoms.get_positions()
    result = rotational_error_along(atoms, positions, n_draws=7, seed=5)
    np.testing.assert_array_equal(atoms.get_positions(), before)
    draws = random_rotations(6 * 7, generator=torch.Generator().manual_seed(5)).numpy().reshape(6, 7, 3, 3)
    # f(gx) - g f(x) = (g A - A g) d for the pull -A d alone: the exact part of the forces drops out.
    for frame, turns, error, atoms_error, spread in zip(
        positions, draws, result.error_meV_per_A, result.atom_error_meV_per_A, result.spread_meV_per_A, strict=True
    ):
        deviation = frame - frame.mean(axis=0)
        gap = np.einsum("kij,aj->kai", turns @ TILT - TILT @ turns, deviation)
        gap = np.einsum("kji,kaj->kai", turns, gap)  # rotated back before the mean over components
        assert error == pytest.approx(1e3 * np.abs(gap).mean(), rel=1e-9)
        np.testing.assert_allclose(atoms_error, 1e3 * np.abs(gap).mean(axis=(0, 2)), rtol=1e-9)
        rotated_back = np.einsum("kji,jl,klm,am->kai", turns, TILT, turns, deviation, optimize=True)
        squares = ((rotated_back - rotated_back.mean(axis=0)) ** 2).sum() / (7 - 1)
        assert spread == pytest.approx(1e3 * np.sqrt(squares / 27), rel=1e-9)
    assert result.mean_error_meV_per_A == pytest.approx(result.error_meV_per_A.mean())
    assert result.ensemble_std_meV_per_A is None  # it has no members
    assert result.rms_spread_meV_per_A == pytest.approx(np.sqrt((result.spread_meV_per_A**2).mean()))


class TellsItsError(Tilted):
    """As an ensemble does: standard deviations of the forces that belong to the positions it was asked for."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.diagnostics = {"forces_std": np.abs(self.atoms.positions) * [1e-3, 2e-3, 5e-3]}


def test_the_error_bar_of_a_ensemble_is_that_of_the_original_frame():
    atoms = tilted_ethanol()
    positions = shaken(atoms, n_frames=4, seed=7) + 2.0
    plain = rotational_error_along(atoms, positions, n_draws=2, seed=3)
    atoms.calc = TellsItsError(spring_molecule("CH3CH2OH").calc)
    told = rotational_error_along(atoms, positions, n_draws=2, seed=3)
    expected = np.sqrt((np.abs(positions) * [1.0, 2.0, 5.0]) ** 2).reshape(4, -1)
    np.testing.assert_allclose(told.ensemble_std_meV_per_A, np.sqrt((expected**2).mean(axis=1)))
    np.testing.assert_array_equal(told.error_meV_per_A, plain.error_meV_per_A)


def test_draws_are_seeded_independent_between_frames_and_cost_what_is_said():
    atoms = tilted_ethanol()
    same_twice = np.repeat(shaken(atoms, n_frames=1, seed=3), 2, axis=0)
    first = rotational_error_along(atoms, same_twice, n_draws=5, seed=9)
    assert atoms.calc.n_calls == 2 * (1 + 5)
    again = rotational_error_along(atoms, same_twice, n_draws=5, seed=9)
    other = rotational_error_along(atoms, same_twice, n_draws=5, seed=10)
    np.testing.assert_array_equal(first.error_meV_per_A, again.error_meV_per_A)
    assert first.error_meV_per_A[0] != first.error_meV_per_A[1]
    assert not np.isin(other.error_meV_per_A, first.error_meV_per_A).any()


def test_a_cell_turns_with_its_atoms():
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.calc = EMT()
    positions = shaken(atoms, n_frames=2, seed=6)
    exact = rotational_error_along(atoms, positions, n_draws=3)
    assert exact.rms_force_meV_per_A > 100.0
    assert exact.error_meV_per_A.max() < 1e-8
    atoms.calc = Tilted(EMT())
    assert rotational_error_along(atoms, positions, n_draws=3).error_meV_per_A.min() > 0.1


@pytest.mark.parametrize("masses", [None, "own"])
def test_superposition_finds_the_rotation_that_was_made(masses):
    atoms = molecule("CH3CH2OH")
    weights = None if masses is None else atoms.get_masses()
    vectors = Rotation.random(17, random_state=4)
    turns = vectors.as_matrix()
    frames = np.einsum("tij,aj->tai", turns, atoms.positions) + np.arange(17)[:, None, None]
    found = superposition_rotations(frames, atoms.positions, masses=weights)
    np.testing.assert_allclose(found, turns, atol=1e-10)
    angles = angle_swept(frames, reference=atoms.positions, masses=weights)
    np.testing.assert_allclose(angles, np.degrees(vectors.magnitude()), atol=1e-6)


def test_superposition_is_never_a_reflection():
    atoms = molecule("CH3CH2OH")
    mirrored = shaken(atoms, n_frames=5, seed=12, width=0.2) * [1.0, 1.0, -1.0]
    found = superposition_rotations(mirrored, atoms.positions)
    np.testing.assert_allclose(np.linalg.det(found), 1.0, atol=1e-10)
    # and it is the best proper rotation: small turns about it fit worse
    reference = atoms.positions - atoms.positions.mean(axis=0)
    frame = mirrored[0] - mirrored[0].mean(axis=0)
    best = np.linalg.norm(frame - reference @ found[0].T)
    for axis in np.concatenate([np.eye(3), -np.eye(3)]):
        nearby = Rotation.from_rotvec(1e-3 * axis).as_matrix() @ found[0]
        assert np.linalg.norm(frame - reference @ nearby.T) > best


def test_planar_molecule_flipped_by_half_a_turn_is_no_reflection():
    atoms = molecule("C6H6")
    flipped = atoms.positions * [1.0, -1.0, -1.0]
    assert angle_swept(np.stack([atoms.positions, flipped]))[1] == pytest.approx(180.0, abs=1e-5)


def test_linear_molecules_turn_by_the_angle_of_their_axis():
    carbon_dioxide = molecule("CO2").positions
    angles = np.radians([0.0, 31.0, 90.0, 149.0, 180.0])
    # Spin about the own axis first: it is undefined, and must not count.
    frames = [
        carbon_dioxide @ (Rotation.from_rotvec([a, 0, 0]) * Rotation.from_rotvec([0, 0, 1.3 * a + 0.4])).as_matrix().T
        for a in angles
    ]
    frames = np.array(frames) + np.random.default_rng(1).normal(scale=1e-4, size=(5, 3, 3))
    np.testing.assert_allclose(angle_swept(frames, reference=carbon_dioxide), np.degrees(angles), atol=0.05)
    exact = np.stack([carbon_dioxide, -carbon_dioxide])
    np.testing.assert_allclose(angle_swept(exact), [0.0, 180.0], atol=1e-5)
    assert (angle_swept(np.random.default_rng(2).normal(size=(4, 1, 3))) == 0.0).all()  # one atom


def test_wrong_input_is_refused():
    atoms = tilted_ethanol()
    positions = shaken(atoms, n_frames=2, seed=1)
    with pytest.raises(InputError, match=r"n_draws must be at least 2 .* got 1"):
        rotational_error_along(atoms, positions, n_draws=1)
    with pytest.raises(InputError, match=r"shape \(2, 8, 3\), expected \[frames >= 1, 9, 3\]"):
        rotational_error_along(atoms, positions[:, :8])
    bare = atoms.copy()
    with pytest.raises(InputError, match="attach a calculator"):
        rotational_error_along(bare, positions)
    with pytest.raises(InputError, match="must be of one shape"):
        net_torque(positions, positions[:, :5])
    with pytest.raises(InputError, match="fit the reference"):
        superposition_rotations(positions, positions[0, :5])
