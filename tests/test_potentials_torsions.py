"""Torsions that training did not see: told in any order of the atoms, with a margin, of bonds in no ring alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

from remul_md.datasets import read_frames
from remul_md.potentials.domain import Domain, domain_of, merged_domain
from remul_md.potentials.structure_check import StructureCheck
from remul_md.potentials.torsions import TorsionLimits, merged_torsions
from remul_md.structures.frames import Frames
from remul_md.structures.topology import dihedral_angles, torsion_chains

NUMBERS = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
HYDROXYL = "C(CHHH)-C(CHHO)-O(CH)-H(O)"


@pytest.fixture(scope="module")
def ethanol() -> Frames:
    return read_frames("rmd17/ethanol/train-01")


def hydroxyl(frames: Frames) -> tuple[np.ndarray, np.ndarray]:
    """The chain C-C-O-H, and its angle in each frame without its sign, degrees."""
    domain = domain_of(frames.select([0]))
    chains, kinds = torsion_chains(NUMBERS, np.array(domain.bonds))
    chain = chains[kinds.index(HYDROXYL)]
    return chain, np.abs(dihedral_angles(frames.positions.reshape(-1, 9, 3), chain[None])[:, 0])


@pytest.fixture(scope="module")
def domain(ethanol: Frames) -> Domain:
    """Of frames in which the hydroxyl group stands trans: 140 degrees and more."""
    _, angles = hydroxyl(ethanol)
    return domain_of(ethanol.select(np.flatnonzero(angles > 152.0)))


def with_torsion(frames: Frames, index: int, degrees: float) -> np.ndarray:
    atoms, (chain, _) = frames.atoms(index), hydroxyl(frames)
    atoms.set_dihedral(*chain, degrees, indices=[int(chain[3])])
    return atoms.get_positions()


def test_a_torsion_is_of_a_bond_in_no_ring() -> None:
    butane = molecule("trans-butane")
    check = domain_of(replace(read_like(butane), energy=np.zeros(1)))
    assert {kind.count("C(") for kind in check.torsions} == {2, 3, 4}
    ring = molecule("C6H6")
    assert domain_of(replace(read_like(ring), energy=np.zeros(1))).torsions == {}
    trans = next(seen for kind, seen in check.torsions.items() if kind.count("C(") == 4)
    assert trans == [5]  # C-C-C-C at 180 degrees


def read_like(atoms: object) -> Frames:
    from remul_md.structures.frames import frames_from_atoms

    return frames_from_atoms([atoms])  # type: ignore[list-item]


def test_what_training_saw_is_inside_and_unseen_angles_are_told(ethanol: Frames, domain: Domain) -> None:
    assert domain.torsions[HYDROXYL] == [5]
    check, (_, angles) = StructureCheck(domain), hydroxyl(ethanol)
    for index in np.flatnonzero(angles > 152.0)[::13]:
        assert check.outside(NUMBERS, ethanol.frame_positions(index)) == ()
    start = int(np.flatnonzero(angles > 152.0)[3])
    angles_of = {179.0: True, -153.0: True, 137.0: True, 133.0: False, -91.0: False, 62.0: False}
    for degrees, inside in angles_of.items():
        told = check.outside(NUMBERS, with_torsion(ethanol, start, degrees))
        assert (told == ()) == inside, (degrees, told)
        if not inside:
            low = 30 * int(abs(degrees) // 30)
            expected = f"a C-C-O-H torsion is at {low} to {low + 30} degrees, which training did not see"
            assert expected in told
    # Not the numbering, and not what came before.
    order = np.array([4, 1, 8, 0, 6, 2, 7, 3, 5])
    gauche = with_torsion(ethanol, start, 62.0)
    assert StructureCheck(domain).outside(NUMBERS[order], gauche[order]) == check.outside(NUMBERS, gauche)
    several = np.stack([ethanol.frame_positions(start), gauche])
    assert check.outside(NUMBERS, several) == check.outside(NUMBERS, gauche)
    assert check.outside(NUMBERS, several[:1]) == ()


def test_small_steps_into_an_unseen_torsion_are_noticed(ethanol: Frames, domain: Domain) -> None:
    """Where atoms hardly move from one call to the next, as in dynamics, not every call looks at all of them."""
    check, (_, angles) = StructureCheck(domain), hydroxyl(ethanol)
    start = int(np.flatnonzero(angles > 152.0)[3])
    degrees = np.arange(160.0, 110.0, -0.02)
    steps = [with_torsion(ethanol, start, angle) for angle in degrees]
    told = [bool(check.outside(NUMBERS, at)) for at in steps]
    alone = [bool(StructureCheck(domain).outside(NUMBERS, at)) for at in steps[:: len(steps) // 40]]
    assert told[:: len(steps) // 40] == alone
    first = told.index(True)
    assert degrees[first] == pytest.approx(135.0, abs=0.05)
    assert all(told[first:])


def test_files_without_torsions_have_no_limits(ethanol: Frames, domain: Domain) -> None:
    before = replace(domain, torsions={})
    assert "torsions" not in before.to_json()
    assert Domain.from_json(json.loads(json.dumps(domain.to_json()))) == domain
    gauche = with_torsion(ethanol, 3, 62.0)
    lines = StructureCheck(before).outside(NUMBERS, gauche)
    assert not [line for line in lines if "torsion" in line]
    # An ensemble knows what one of its members saw, if all of them say it.
    everything = domain_of(ethanol)
    assert merged_domain({"a": domain, "b": everything}).torsions == everything.torsions
    assert merged_domain({"a": before, "b": everything}).torsions == {}
    assert merged_torsions([{"x": [1, 4]}, {"x": [4, 5], "y": [0]}]) == {"x": [1, 4, 5], "y": [0]}


def test_the_room_of_a_torsion_is_a_proof(ethanol: Frames, domain: Domain) -> None:
    """Whatever the atoms do, as long as they move less than that no torsion leaves what is allowed."""
    limits = TorsionLimits.of(NUMBERS, np.array(domain.bonds), domain.torsions)
    assert limits is not None
    (_, angles), rng = hydroxyl(ethanol), np.random.default_rng(2)
    tried = 0
    for start in np.flatnonzero(angles > 152.0)[::6]:
        for degrees in (175.0, 150.0, 141.0, 137.5):
            at = with_torsion(ethanol, int(start), degrees)
            room = limits.room(at)
            assert room >= 0.0
            assert limits.inside(at)
            for _ in range(4 if room > 0.0 else 0):
                moved = rng.normal(size=(9, 3))
                moved *= 0.999 * room / np.linalg.norm(moved)
                assert limits.inside(at + moved)
                tried += 1
    assert tried > 100
    assert limits.room(with_torsion(ethanol, 3, 100.0)) < 0.0
    # Along the steepest way it is no more than ten times too careful.
    near = with_torsion(ethanol, int(np.flatnonzero(angles > 152.0)[0]), 145.0)
    beyond = with_torsion(ethanol, int(np.flatnonzero(angles > 152.0)[0]), 134.9)
    assert limits.room(near) > 0.05 * np.linalg.norm(beyond - near)
