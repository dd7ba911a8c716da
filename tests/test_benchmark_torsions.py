"""Torsion profiles: what is rotated, and what its errors are."""

from __future__ import annotations

import numpy as np
import pytest
import torsion_profiles

from remul_md import RemulCalculator, read_structure
from remul_md.structures.topology import dihedral_angles


def test_every_rotatable_bond_goes_once_round_as_two_rigid_halves() -> None:
    ethanol = read_structure("ethanol")
    bonds = torsion_profiles.rotated_bonds(ethanol)
    assert sorted(bonds) == ["C1-C0-O2-H8", "O2-C0-C1-H5"]
    for bond, (angles, structures) in bonds.items():
        chain = np.array([[int(name[1:]) for name in bond.split("-")]])
        assert np.allclose(np.diff(angles), 10.0)
        assert len(angles) == 36
        found = [float(dihedral_angles(atoms.positions, chain)[0]) for atoms in structures]
        assert np.allclose(np.cos(np.radians(np.subtract(found, angles))), 1.0, atol=1e-9)
        assert np.allclose(structures[0].positions, ethanol.positions)
        moved = np.linalg.norm(structures[18].positions - ethanol.positions, axis=1) > 1e-6
        assert 0 < moved.sum() < 5  # the smaller side, without what lies on the axis
        for part in (moved, ~moved):
            assert np.allclose(structures[7][part].get_all_distances(), ethanol[part].get_all_distances())


def test_half_of_each_round_of_a_planar_molecule_is_the_mirror_image_of_the_other() -> None:
    flat = read_structure("salicylic")
    assert np.allclose(torsion_profiles.planar_if_nearly(flat).positions, flat.positions)  # of 500 K: far from planar
    center, (_, _, axes) = flat.positions.mean(0), np.linalg.svd(flat.positions - flat.positions.mean(0))
    heights = (flat.positions - center) @ axes[2]
    flat.positions -= np.outer(heights, axes[2])
    bent = flat.copy()
    bent.positions += 0.01 * np.outer(np.sin(np.arange(len(bent))), axes[2])
    planar = torsion_profiles.planar_if_nearly(bent)
    assert np.linalg.svd(planar.positions - planar.positions.mean(0))[1][2] < 1e-9
    assert np.abs(planar.positions - bent.positions).max() < 0.015
    for _, structures in torsion_profiles.rotated_bonds(planar).values():
        alike = torsion_profiles.first_alike(structures)
        assert alike == [min(number, 36 - number) for number in range(36)]
        for number, first in enumerate(alike):
            assert np.allclose(structures[number].get_all_distances(), structures[first].get_all_distances())
    ethanol = read_structure("ethanol")
    for _, structures in torsion_profiles.rotated_bonds(ethanol).values():
        assert torsion_profiles.first_alike(structures) == list(range(36))


def test_errors_near_the_minimum_are_told_apart() -> None:
    found = torsion_profiles.figures([0.0, 0.4, 3.0, 0.2], [0.0, 0.5, 1.0, 0.2])
    assert found["rmse_eV"] == pytest.approx(np.sqrt((0.1**2 + 2.0**2) / 4))
    assert found["rmse_within_1_eV_eV"] == pytest.approx(0.1 / np.sqrt(3))
    assert found["share_within_1_eV"] == 0.75
    assert found["largest_error_eV"] == pytest.approx(2.0)
    assert (found["highest_reference_eV"], found["highest_potential_eV"]) == (3.0, 1.0)


def test_the_table_tells_errors_in_the_domain_from_those_outside() -> None:
    reference, energies, inside = [0.0, 0.4, 0.984, 0.2], [0.0, 0.41, 0.5, 0.203], [True, True, False, True]
    errors = torsion_profiles.errors_by_domain(reference, energies, inside)
    assert errors == {
        "largest_error_in_domain_eV": pytest.approx(0.01),
        "largest_error_outside_eV": pytest.approx(0.484),
    }
    everywhere = torsion_profiles.errors_by_domain(reference, energies, [True] * 4)
    assert everywhere == {"largest_error_in_domain_eV": pytest.approx(0.484), "largest_error_outside_eV": None}
    angles, highest = [-60.0, -50.0, -40.0, 290.0], {"highest_reference_eV": 0.984}
    potentials = {
        "a": {"in_domain": inside, **highest, **errors},
        "b": {"in_domain": [True] * 4, **highest, **everywhere},
    }
    table = torsion_profiles.table({"x": {"bonds": {"A-B": {"angle_deg": angles, "potentials": potentials}}}})
    assert table.splitlines()[2:] == ["| x, A-B | 984 | 10° | 10 | 480 |", "| x, A-B | 984 | all | 480 |  |"]


def test_a_row_says_where_the_potential_is_in_its_domain() -> None:
    ethanol = read_structure("ethanol")
    far = ethanol.copy()
    far.positions[8] += 0.9 * (far.positions[8] - far.positions[2])  # the hydrogen of the hydroxyl group
    calculators = {"ethanol": RemulCalculator("ethanol", device="cpu")}
    row = torsion_profiles.compared([10.0, 20.0], [0.0, 1.0], [ethanol, far], calculators)
    found = row["potentials"]["ethanol"]
    assert found["in_domain"] == [True, False]
    assert found["energy_eV"][0] == found["largest_error_in_domain_eV"] == 0.0
    assert found["largest_error_outside_eV"] == pytest.approx(abs(found["energy_eV"][1] - 1.0))
