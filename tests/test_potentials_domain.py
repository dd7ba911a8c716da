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
    Domain,
    domain_of,
    element_distance_ranges,
    formula,
    require_known_charge,
    require_known_composition,
    require_known_frames,
    superposition_angle,
    trained_bond_ranges,
)
from remul_md.structures.frames import Frames, frames_from_atoms
from remul_md.structures.topology import bond_kinds
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
def domain(ethanol: Frames) -> Domain:
    return domain_of(ethanol)


def test_what_fifty_ethanol_frames_cover(ethanol: Frames, domain: Domain) -> None:
    assert domain.compositions == [{"C": 2, "H": 6, "O": 1}]
    assert domain.n_frames == 50
    assert not domain.periodic
    assert len(domain.bonds) == 8
    assert all(0.9 < low < high < 1.75 for low, high in zip(domain.bond_min, domain.bond_max, strict=True))
    assert ethanol.energy is not None
    lowest = int(np.argmin(ethanol.energy))
    np.testing.assert_array_equal(domain.reference_positions, ethanol.frame_positions(lowest))
    assert set(domain.distance_ranges) == {"C-C", "C-H", "C-O", "H-H", "H-O"}
    # Ethanol of rMD17 turns in its data: the median is near that of uniformly random orientations, 132 degrees.
    assert 80 < domain.rotation_angle_median < 150


def test_ranges_and_bonds_enclose_every_frame(ethanol: Frames, domain: Domain) -> None:
    seen: dict[str, list[float]] = {}
    for index in range(len(ethanol)):
        atoms = ethanol.atoms(index)
        distances = atoms.get_all_distances()
        for i in range(len(atoms)):
            for j in range(i):
                seen.setdefault("-".join(sorted((atoms.symbols[i], atoms.symbols[j]))), []).append(distances[i, j])
    assert domain.distance_ranges.keys() == seen.keys()
    for pair, values in seen.items():
        assert domain.distance_ranges[pair] == pytest.approx([min(values), max(values)])
    first, second = domain.bonds[3]
    lengths = [ethanol.atoms(index).get_distance(first, second) for index in range(len(ethanol))]
    assert [domain.bond_min[3], domain.bond_max[3]] == pytest.approx([min(lengths), max(lengths)])


def test_several_compositions() -> None:
    domain = domain_of(molecule_frames())
    assert domain.compositions == [{"C": 2, "H": 3, "O": 2}, {"C": 1, "H": 3, "O": 1}]
    # Bond statistics stand for the reference frame's own composition only.
    assert domain.bond_min == domain.bond_max


def test_frames_without_labels_take_the_first_as_reference(ethanol: Frames) -> None:
    unlabelled = replace(ethanol, energy=None, forces=None)
    np.testing.assert_array_equal(domain_of(unlabelled).reference_positions, ethanol.frame_positions(0))


def test_json_round_trip(domain: Domain) -> None:
    assert Domain.from_json(json.loads(json.dumps(domain.to_json()))) == domain


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
    assert domain_of(frames_from_atoms(frames)).rotation_angle_median == pytest.approx(52.0, abs=1e-4)


def test_training_frames_may_number_their_atoms_in_any_order(ethanol: Frames, domain: Domain) -> None:
    """Bond ranges are those of the molecule, however each frame numbers its atoms."""
    rng = np.random.default_rng(4)
    orders = [rng.permutation(9) for _ in range(len(ethanol))]
    lowest = int(np.argmin(ethanol.energy))
    orders[lowest] = np.arange(9)  # the reference frame
    mixed = replace(
        ethanol,
        positions=np.concatenate([ethanol.frame_positions(k)[order] for k, order in enumerate(orders)]),
        atomic_numbers=np.concatenate([ethanol.frame_numbers(k)[order] for k, order in enumerate(orders)]),
    )
    found, known = trained_bond_ranges(domain_of(mixed)), trained_bond_ranges(domain)
    assert found.keys() == known.keys()
    assert len(known) == 5  # C-C, C-O, O-H, and C-H of either carbon
    for kind, limits in known.items():
        assert found[kind] == pytest.approx(limits)


def test_bonds_of_one_kind_share_a_range(domain: Domain) -> None:
    bonds = np.array(domain.bonds)
    methyl = [k for k, kind in enumerate(bond_kinds(np.array(domain.reference_numbers), bonds)) if "HHH)-H" in kind]
    assert len(methyl) == 3
    ranges = trained_bond_ranges(domain)
    expected = (min(domain.bond_min[k] for k in methyl), max(domain.bond_max[k] for k in methyl))
    assert ranges["C(CHHH)-H(C)"] == expected


def test_charges_are_those_of_the_frames(ethanol: Frames, domain: Domain) -> None:
    assert domain.charges == [0]
    ions = domain_of(replace(ethanol, charge=np.full(len(ethanol), -1)))
    assert ions.charges == [-1]
    require_known_charge(ions, -1)
    for known, charge in ((ions, 0), (domain, 1)):
        with pytest.raises(InputError, match=rf"total charge \+?{charge} .* trained on charge {known.charges[0]}"):
            require_known_charge(known, charge)
    frames = ethanol.select([3, 4])
    require_known_frames(domain, frames, species=(1, 6, 8))
    with pytest.raises(InputError, match=r"total charge \+2"):
        require_known_frames(domain, replace(frames, charge=np.array([0, 2])), species=(1, 6, 8))


def test_compositions_are_refused_with_what_is_known(domain: Domain) -> None:
    species = (1, 6, 8)
    require_known_composition(domain, np.array(domain.reference_numbers)[::-1], species=species)  # any order
    with pytest.raises(InputError, match=r"element N, S .*knows H, C, O"):
        require_known_composition(domain, np.array([16, 1, 7]), species=species)
    message = r"composition C1H4O1 was never trained on; this potential knows C2H6O1; train on it .*allow_unseen=True"
    with pytest.raises(InputError, match=message):
        require_known_composition(domain, molecule("CH3OH").numbers, species=species)
    with pytest.raises(InputError, match="no atoms"):
        require_known_composition(domain, np.array([], dtype=np.int64), species=species)
