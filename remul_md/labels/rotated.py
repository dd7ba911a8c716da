"""Geometries with a torsion that no frame shows: barriers and conformers that short dynamics never reached."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.labels.selection import is_plausible
from remul_md.labels.stretched import require_one_molecule
from remul_md.potentials.domain import domain_of
from remul_md.potentials.torsions import BIN_DEGREES, N_BINS
from remul_md.structures.frames import Frames
from remul_md.structures.topology import dihedral_angles, side_of_bond, torsion_chains


def unseen_torsions(frames: Frames, *, seed: int) -> Frames | None:
    """Frames of one molecule in each of which a torsion is in a range of 30 degrees that none of them shows.

    For each kind of torsion about a bond in no ring, and each range that is not seen, one frame and one torsion of that
    kind are drawn and the smaller side is rotated about the bond to the middle of the range, to either sign. What puts
    atoms into each other is left out.

    Args:
        frames: of one isolated molecule, its atoms in one order, with energies (the bonds are those of the lowest).
        seed: of the draws.
    Returns:
        Without labels, in the order of the kinds; None where all is seen.
    Raises:
        InputError: no energies, a cell, several molecules or orders.
    """
    if frames.energy is None:
        raise InputError(f"{frames.name}: has no energies, by which the frame with the right bonds is found")
    numbers = require_one_molecule(frames)
    domain = domain_of(frames)
    bonds = np.array(domain.bonds, dtype=np.int64).reshape(-1, 2)
    chains, kinds = torsion_chains(numbers, bonds)
    positions = frames.positions.reshape(len(frames), len(numbers), 3)
    rng = np.random.default_rng(seed)
    made: list[NDArray[np.float64]] = []
    for kind, seen in domain.torsions.items():
        of_kind = [chain for chain, its in zip(chains, kinds, strict=True) if its == kind]
        for number in sorted(set(range(N_BINS)) - set(seen)):
            chain, start = of_kind[rng.integers(len(of_kind))], positions[rng.integers(len(frames))]
            degrees = (number + 0.5) * BIN_DEGREES * rng.choice([-1.0, 1.0])
            rotated = with_torsion(start, bonds, chain=chain, degrees=degrees)
            if is_plausible(numbers, rotated):
                made.append(rotated)
    if not made:
        return None
    return Frames(
        positions=np.concatenate(made),
        atomic_numbers=np.tile(numbers, len(made)),
        n_atoms=np.full(len(made), len(numbers), dtype=np.int64),
        pbc=np.zeros((len(made), 3), dtype=bool),
        charge=None if frames.charge is None else np.full(len(made), frames.charge[0]),
        name=frames.name,
    )


def with_torsion(
    positions: NDArray[np.float64], bonds: NDArray[np.int64], *, chain: NDArray[np.int64], degrees: float
) -> NDArray[np.float64]:
    """A geometry [N, 3] in which the torsion of this chain of four atoms has this angle; the smaller side moves.

    Args:
        positions: [N, 3], Angstrom.
        bonds: [M, 2].
        chain: i, j, k, l; the bond of j and k is in no ring.
        degrees: -180 to 180, positive clockwise seen along j to k.
    """
    _, j, k, _ = (int(atom) for atom in chain)
    side = side_of_bond(bonds, j, k)
    axis = (positions[k] - positions[j]) / np.linalg.norm(positions[k] - positions[j])
    angle = np.radians(degrees - float(dihedral_angles(positions, chain[None])[0]))
    if 2 * len(side) > len(positions):
        side, angle = np.setdiff1d(np.arange(len(positions)), side), -angle
    levers = positions[side] - positions[j]
    moved = positions.copy()
    # Rodrigues' formula.
    moved[side] = (
        positions[j]
        + levers * np.cos(angle)
        + np.cross(axis, levers) * np.sin(angle)
        + np.outer(levers @ axis, axis) * (1.0 - np.cos(angle))
    )
    return moved
