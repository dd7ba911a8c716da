"""What an audit scans: one bond and angle of each kind, moved so that only what hangs on it changes."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from remul_md.analysis.audit.graph import BondGraph
from remul_md.analysis.audit.paths import Path, scan_paths


def labelled(atoms: Atoms) -> dict[str, Path]:
    return {path.label: path for path in scan_paths(atoms)}


def moved_atoms(path: Path, atoms: Atoms, value: float) -> list[int]:
    return np.flatnonzero(np.abs(path.place(value) - atoms.positions).max(axis=1) > 1e-9).tolist()


def test_graph_and_what_comes_off() -> None:
    ethanol = molecule("CH3CH2OH")
    graph = BondGraph(ethanol)
    assert len(graph.bonds) == 8
    oxygen = ethanol.symbols.indices()["O"][0]
    (carbon, hydrogen) = sorted(graph.neighbours[oxygen], key=lambda atom: -ethanol.numbers[atom])
    assert graph.part(carbon, oxygen) == (sorted([oxygen, hydrogen]), True)
    assert len(graph.part(oxygen, carbon)[0]) == 7
    assert graph.reached(hydrogen)[carbon] == 2
    benzene = BondGraph(molecule("C6H6"))
    assert benzene.part(0, 1) == ([1], False)


def test_ethanol_has_a_path_of_each_kind() -> None:
    ethanol = molecule("CH3CH2OH")
    paths = scan_paths(ethanol)
    kinds = [(path.kind, "".join(sorted(c for c in path.label.split()[1] if c.isalpha()))) for path in paths]
    # All 8 bonds, 13 angles and both bonds that can be rotated.
    assert [kind for kind, _ in kinds] == ["bond"] * 8 + ["angle"] * 13 + ["torsion"] * 2 + ["pair"]
    assert {names for kind, names in kinds[:4]} == {"CC", "CO", "CH", "HO"}
    assert all(path.outwards[-1] == pytest.approx(path.start + 9.0) for path in paths[:4])
    assert len({path.label for path in paths}) == len(paths)


def test_torsions_turn_to_the_value_asked_for_and_all_the_way_round() -> None:
    ethanol = molecule("CH3CH2OH")
    torsions = [path for path in scan_paths(ethanol) if path.kind == "torsion"]
    for path in torsions:
        chain = [int("".join(filter(str.isdigit, name))) for name in path.label.split()[1].split("-")]
        assert path.outwards[-1] - path.inwards[-1] == pytest.approx(360.0)
        assert np.abs(path.place(path.start) - ethanol.positions).max() < 1e-12
        for value in (path.outwards[3], path.inwards[7], path.outwards[-1]):
            rotated = ethanol.copy()
            rotated.positions = path.place(value)
            assert (rotated.get_dihedral(*chain) - value + 180.0) % 360.0 - 180.0 == pytest.approx(0.0, abs=1e-6)
            for i, j in BondGraph(ethanol).bonds.tolist():
                assert rotated.get_distance(i, j) == pytest.approx(ethanol.get_distance(i, j))
            assert rotated.get_angle(*chain[:3]) == pytest.approx(ethanol.get_angle(*chain[:3]))
    # About C-O only the hydrogen moves, and no ring is rotated.
    assert [len(moved_atoms(path, ethanol, path.start + 90.0)) for path in torsions] == [1, 3]
    assert not any(path.kind == "torsion" for path in scan_paths(molecule("C6H6")))


def test_bonds_stretch_and_rigid_parts_stay_rigid() -> None:
    ethanol = molecule("CH3CH2OH")
    paths = scan_paths(ethanol)
    for path in paths:
        assert np.abs(path.place(path.start) - ethanol.positions).max() < 1e-12
        if path.kind != "bond":
            continue
        i, j = (int("".join(filter(str.isdigit, name))) for name in path.label.split()[1].split("-"))
        assert path.start == pytest.approx(ethanol.get_distance(i, j))
        if path.label in {path.label for path in paths[:4]}:
            assert path.outwards[-1] == pytest.approx(path.start + 9.0)
            assert path.inwards[-1] == pytest.approx(0.6 * path.start)
        else:
            assert path.outwards[-1] == pytest.approx(1.4 * path.start)
            assert path.inwards[-1] == pytest.approx(0.75 * path.start)
        assert np.all(np.diff(path.outwards) > 0)
        assert np.all(np.diff(path.inwards) < 0)
        far = path.place(4.0)
        assert np.linalg.norm(far[j] - far[i]) == pytest.approx(4.0)
        moved = moved_atoms(path, ethanol, 4.0)
        assert j in moved
        assert len(moved) <= 4  # the smaller part
        for part in (moved, sorted(set(range(9)) - set(moved))):
            before, after = ethanol.positions[part], far[part]
            assert np.linalg.norm(after[:, None] - after, axis=2) == pytest.approx(
                np.linalg.norm(before[:, None] - before, axis=2)
            )


@pytest.mark.parametrize("name", ["isobutane", "CH3COCH3", "CH3CH2NH2", "C3H8", "CH3CONH2", "SiH4"])
@pytest.mark.parametrize("step", [1, -1])  # heavy atoms first, hydrogens first
def test_the_smaller_part_moves(name: str, step: int) -> None:
    atoms = molecule(name)[::step]
    paths = scan_paths(atoms)
    assert {path.kind for path in paths} >= {"bond", "angle"}
    for path in paths:
        assert 1 <= len(moved_atoms(path, atoms, path.inwards[0])) <= len(atoms) / 2, path.label


def test_angles_turn_to_the_value_asked_for() -> None:
    ethanol = molecule("CH3CH2OH")
    for path in scan_paths(ethanol):
        if path.kind == "angle":
            i, j, k = (int("".join(filter(str.isdigit, name))) for name in path.label.split()[1].split("-"))
            assert path.start == pytest.approx(ethanol.get_angle(i, j, k))
            for value in (path.outwards[-1], path.inwards[-1]):
                rotated = ethanol.copy()
                rotated.positions = path.place(value)
                assert rotated.get_angle(i, j, k) == pytest.approx(value)
                assert rotated.get_distance(j, k) == pytest.approx(ethanol.get_distance(j, k))


def test_straight_angles_bend() -> None:
    dioxide = molecule("CO2")
    (angle,) = (path for path in scan_paths(dioxide) if path.kind == "angle")
    assert angle.start == pytest.approx(180.0, abs=1e-3)
    bent = dioxide.copy()
    bent.positions = angle.place(150.0)
    assert bent.get_angle(1, 0, 2) == pytest.approx(150.0, abs=1e-6)


def test_two_molecules_are_taken_apart_and_rings_keep_their_shape() -> None:
    pair = molecule("H2O") + molecule("CH4")
    pair.positions[3:] += [0.0, 0.0, 4.0]
    (between,) = (path for path in scan_paths(pair) if path.kind == "pair")
    assert between.one_well
    assert moved_atoms(between, pair, 8.0) == [0, 1, 2]  # the smaller one
    benzene = labelled(molecule("C6H6"))
    ring = [path for label, path in benzene.items() if label.startswith("bond C") and label.count("C") == 2]
    assert len(ring) == 6
    assert all(len(moved_atoms(path, molecule("C6H6"), 1.6)) == 1 for path in ring)


def test_periodic_structures_and_single_atoms() -> None:
    crystal = bulk("Cu", cubic=True) * (2, 1, 1)
    (path,) = scan_paths(crystal)
    assert path.kind == "pair"
    assert not path.one_well
    assert path.start == pytest.approx(3.61 / np.sqrt(2.0))
    for value in (path.inwards[-1], path.outwards[-1]):
        stretched = crystal.copy()
        stretched.positions = path.place(value)
        i, j = (int(name.lstrip("Cu")) for name in path.label.split()[1].split("-"))
        if value < path.start:
            assert stretched.get_distance(i, j, mic=True) == pytest.approx(value)
    assert scan_paths(Atoms("Cu")) == []
