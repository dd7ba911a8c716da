"""What training covered: compositions, bonds, ranges, orientations; and what is refused or warned about."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule
from potentials import molecule_frames
from scipy.spatial.transform import Rotation

from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.potentials.domain import (
    DISTANCE_MARGIN,
    Coverage,
    coverage_of,
    coverage_warnings,
    element_distance_ranges,
    formula,
    require_known_composition,
    superposition_angle,
)
from remul_md.structures.frames import Frames, frames_from_atoms
from remul_md.symmetry.rotations import random_rotations


def rotated(positions: np.ndarray, axis: list[float], degrees: float) -> np.ndarray:
    """Positions rotated about an axis through the origin (Rodrigues' formula)."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = np.radians(degrees)
    rotation = np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross
    return positions @ rotation.T


@pytest.fixture(scope="module")
def ethanol() -> Frames:
    return read_frames("rmd17/ethanol/train-01").select(range(0, 1000, 20))


@pytest.fixture(scope="module")
def coverage(ethanol: Frames) -> Coverage:
    return coverage_of(ethanol)


def test_what_fifty_ethanol_frames_cover(ethanol: Frames, coverage: Coverage) -> None:
    assert coverage.compositions == [{"C": 2, "H": 6, "O": 1}]
    assert coverage.n_frames == 50
    assert not coverage.periodic
    assert len(coverage.bonds) == 8
    assert all(0.9 < low < high < 1.75 for low, high in zip(coverage.bond_min, coverage.bond_max, strict=True))
    assert ethanol.energy is not None
    lowest = int(np.argmin(ethanol.energy))
    np.testing.assert_array_equal(coverage.reference_positions, ethanol.frame_positions(lowest))
    assert set(coverage.distance_ranges) == {"C-C", "C-H", "C-O", "H-H", "H-O"}
    # Ethanol of rMD17 turns in its data: the median is near that of uniformly random orientations, 132 degrees.
    assert 80 < coverage.rotation_angle_median < 150


def test_ranges_and_bonds_enclose_every_frame(ethanol: Frames, coverage: Coverage) -> None:
    seen: dict[str, list[float]] = {}
    for index in range(len(ethanol)):
        atoms = ethanol.atoms(index)
        distances = atoms.get_all_distances()
        for i in range(len(atoms)):
            for j in range(i):
                seen.setdefault("-".join(sorted((atoms.symbols[i], atoms.symbols[j]))), []).append(distances[i, j])
    assert coverage.distance_ranges.keys() == seen.keys()
    for pair, values in seen.items():
        assert coverage.distance_ranges[pair] == pytest.approx([min(values), max(values)])
    first, second = coverage.bonds[3]
    lengths = [ethanol.atoms(index).get_distance(first, second) for index in range(len(ethanol))]
    assert [coverage.bond_min[3], coverage.bond_max[3]] == pytest.approx([min(lengths), max(lengths)])


def test_several_compositions() -> None:
    coverage = coverage_of(molecule_frames())
    assert coverage.compositions == [{"C": 2, "H": 3, "O": 2}, {"C": 1, "H": 3, "O": 1}]
    # Bond statistics stand for the reference frame's own composition only.
    assert coverage.bond_min == coverage.bond_max


def test_frames_without_labels_take_the_first_as_reference(ethanol: Frames) -> None:
    unlabelled = replace(ethanol, energy=None, forces=None)
    np.testing.assert_array_equal(coverage_of(unlabelled).reference_positions, ethanol.frame_positions(0))


def test_json_round_trip(coverage: Coverage) -> None:
    assert Coverage.from_json(json.loads(json.dumps(coverage.to_json()))) == coverage


def test_formula_counts() -> None:
    assert formula(np.array([8, 1, 6, 1, 17, 1])) == {"C": 1, "Cl": 1, "H": 3, "O": 1}


def test_a_single_atom_has_no_ranges() -> None:
    assert element_distance_ranges(np.array([8]), np.zeros((1, 3))) == {}


@pytest.mark.parametrize("degrees", [0.0, 1.0, 37.0, 90.0, 179.0])
def test_superposition_finds_the_angle_of_a_rotation(degrees: float) -> None:
    positions = molecule_frames().frame_positions(0)
    moved = rotated(positions, [1.0, -2.0, 0.5], degrees) + np.array([3.0, -1.0, 7.0])
    assert superposition_angle(positions, moved) == pytest.approx(degrees, abs=1e-4)


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_superposition_is_always_a_proper_rotation(mirror: float) -> None:
    """For a mirror image the best superposition is improper; the best proper one is asked for."""
    positions = molecule_frames().frame_positions(0)
    rng = np.random.default_rng(6)
    moved = (rotated(positions, [0.2, 1.0, -0.7], 64.0) + rng.normal(scale=0.3, size=(7, 3))) * [1.0, 1.0, mirror]
    best, _ = Rotation.align_vectors(moved - moved.mean(0), positions - positions.mean(0))
    assert superposition_angle(positions, moved) == pytest.approx(np.degrees(best.magnitude()), abs=1e-4)


def test_random_orientations_have_the_known_median_angle() -> None:
    """Haar rotations turn by a median of 132 degrees: what `rotation_angle_median` is held against."""
    positions = molecule_frames().frame_positions(0)
    rotations = random_rotations(1500, generator=torch.Generator().manual_seed(3)).numpy()
    angles = [superposition_angle(positions, positions @ rotation.T) for rotation in rotations]
    assert np.median(angles) == pytest.approx(132.3, abs=3.0)


def test_the_median_angle_is_that_of_the_frames() -> None:
    water = molecule("H2O")
    frames = [water.copy() for _ in range(5)]
    for atoms, degrees in zip(frames, (0.0, 11.0, 52.0, 80.0, 95.0), strict=True):
        atoms.positions = rotated(atoms.positions, [0.3, 1.0, 0.1], degrees)
    assert coverage_of(frames_from_atoms(frames)).rotation_angle_median == pytest.approx(52.0, abs=1e-4)


def test_known_frames_give_no_warning(ethanol: Frames, coverage: Coverage) -> None:
    for index in (0, 17, 49):
        assert coverage_warnings(coverage, ethanol.frame_numbers(index), ethanol.frame_positions(index)) == []


def test_a_broken_bond_is_named(ethanol: Frames, coverage: Coverage) -> None:
    numbers, positions = ethanol.frame_numbers(0), ethanol.frame_positions(0).copy()
    first, second = next(bond for bond in coverage.bonds if 1 in numbers[bond])
    hydrogen, other = (first, second) if numbers[first] == 1 else (second, first)
    positions[hydrogen] += 0.9 * (positions[hydrogen] - positions[other])
    warnings = coverage_warnings(coverage, numbers, positions)
    assert warnings[0].startswith(f"the bond graph is not the trained one: missing [[{first}, {second}]], new [")


def test_a_new_bond_is_named(ethanol: Frames, coverage: Coverage) -> None:
    numbers, positions = ethanol.frame_numbers(0), ethanol.frame_positions(0).copy()
    oxygen = int(np.flatnonzero(numbers == 8)[0])
    bonded = {atom for bond in coverage.bonds if oxygen in bond for atom in bond}
    far = max(
        (int(atom) for atom in np.flatnonzero(numbers == 1) if atom not in bonded),
        key=lambda atom: float(np.linalg.norm(positions[atom] - positions[oxygen])),
    )
    positions[far] = positions[oxygen] + [0.0, 0.0, 0.95]
    assert (
        f"[{min(far, oxygen)}, {max(far, oxygen)}]"
        in coverage_warnings(coverage, numbers, positions)[0].split("new")[1]
    )


def test_distances_out_of_range_are_named(coverage: Coverage, ethanol: Frames) -> None:
    """Uniform stretching keeps the bond graph for a while; the ranges notice it."""
    numbers = np.array(coverage.reference_numbers)
    positions = np.array(coverage.reference_positions)
    seen = coverage.distance_ranges["C-C"]
    carbons = np.flatnonzero(numbers == 6)
    axis = positions[carbons[1]] - positions[carbons[0]]
    length = np.linalg.norm(axis)
    for excess, warned in ((0.5 * DISTANCE_MARGIN, False), (1.2 * DISTANCE_MARGIN, True)):
        moved = positions.copy()
        moved[carbons[1]] = positions[carbons[0]] + axis / length * (seen[1] + excess)
        lines = [line for line in coverage_warnings(coverage, numbers, moved) if line.startswith("C-C distances")]
        assert bool(lines) == warned
    distance = seen[1] + 1.2 * DISTANCE_MARGIN
    assert lines == [
        f"C-C distances {distance:.2f} to {distance:.2f} Angstrom leave the trained {seen[0]:.2f} to {seen[1]:.2f}"
    ]


def test_pairs_that_come_too_close_are_named(coverage: Coverage) -> None:
    numbers, positions = np.array(coverage.reference_numbers), np.array(coverage.reference_positions)
    carbons = np.flatnonzero(numbers == 6)
    axis = positions[carbons[1]] - positions[carbons[0]]
    distance = coverage.distance_ranges["C-C"][0] - 1.2 * DISTANCE_MARGIN
    positions[carbons[1]] = positions[carbons[0]] + axis / np.linalg.norm(axis) * distance
    lines = coverage_warnings(coverage, numbers, positions)
    assert any(line.startswith(f"C-C distances {distance:.2f} to {distance:.2f} Angstrom leave") for line in lines)


def test_another_composition_is_not_held_against_the_bonds(coverage: Coverage) -> None:
    methanol = molecule("CH3OH")
    assert not any("bond graph" in line for line in coverage_warnings(coverage, methanol.numbers, methanol.positions))


def test_compositions_are_refused_with_what_is_known(coverage: Coverage) -> None:
    species = (1, 6, 8)
    require_known_composition(coverage, np.array(coverage.reference_numbers)[::-1], species=species)  # any order
    with pytest.raises(InputError, match="element N, S was never trained on; this potential knows H, C, O"):
        require_known_composition(coverage, np.array([16, 1, 7]), species=species)
    message = r"composition C1H4O1 was never trained on; this potential knows C2H6O1; train on it .*allow_unseen=True"
    with pytest.raises(InputError, match=message):
        require_known_composition(coverage, molecule("CH3OH").numbers, species=species)
    with pytest.raises(InputError, match="the structure has no atoms; give at least one"):
        require_known_composition(coverage, np.array([], dtype=np.int64), species=species)
