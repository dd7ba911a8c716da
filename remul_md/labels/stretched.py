"""Geometries with one bond stretched or squeezed: what molecular dynamics at room temperature never shows a network.

A network that saw no stretched bond does not know what one costs: pulled off ethanol, a hydrogen atom of the hydroxyl
group cost 0.5 eV where the reference says 4.6 (docs/beyond-the-data.md). Ten geometries of each kind of bond tell it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.structures.frames import Frames
from remul_md.structures.topology import all_pairs, bond_kinds, bond_lengths, bond_reach, side_of_bond

SQUEEZED = (0.70, 0.78, 0.86)  # times the mean length of that kind of bond
NEAREST_STRETCHED = 1.2  # times the mean length; thermal motion reaches about so far
FARTHEST_A = 3.0  # Angstrom: the electrons of the two sides have parted
# A bond in a ring is stretched by its two atoms alone, whose other bonds are distorted with it.
STRETCHED_IN_RING = (1.15, 1.25, 1.35)


def stretched_bonds(frames: Frames, *, seed: int, n_stretched: int = 7) -> tuple[Frames, NDArray[np.int64]]:
    """Frames of one molecule in each of which one bond has another length, without labels.

    Of each kind of bond (`remul_md.structures.topology.bond_kinds`) there are `SQUEEZED` lengths and `n_stretched` from
    `NEAREST_STRETCHED` times the mean to `FARTHEST_A`, evenly spaced in their logarithm; each is made from a frame and
    at a bond of that kind that are drawn at random. The smaller side moves as a whole, along the bond. In a ring, which
    has no sides, both atoms move with what hangs on them, to `SQUEEZED` and `STRETCHED_IN_RING` lengths. Squeezed bonds
    come first, the longest last.

    Args:
        frames: of one isolated molecule, its atoms in one order.
        seed: of the draws.
        n_stretched: longer lengths of each kind of bond, >= 1.
    Returns:
        The geometries, whose `name` is that of the frames, and of each the number of the frame that it was made from.
    Raises:
        InputError: `n_stretched` < 1, a cell, several molecules or orders, a molecule without bonds.
    """
    if n_stretched < 1:
        raise InputError(f"n_stretched must be >= 1, got {n_stretched}")
    numbers = require_one_molecule(frames)
    positions = frames.positions.reshape(len(frames), len(numbers), 3)
    pairs = all_pairs(len(numbers))
    means = bond_lengths(positions, pairs).mean(axis=0)  # of one frame a bond may be longer than bonds are
    bonded = means < bond_reach(numbers, pairs)
    bonds, mean_lengths = pairs[bonded], means[bonded]
    if len(bonds) == 0:
        raise InputError(f"{frames.name}: the molecule has no bonds to stretch; give frames of one that has")
    kinds = np.array(bond_kinds(numbers, bonds))
    rng = np.random.default_rng(seed)
    made: list[tuple[float, int, NDArray[np.float64]]] = []
    for kind in sorted(set(kinds.tolist())):
        of_kind = np.flatnonzero(kinds == kind).tolist()
        mean = float(mean_lengths[of_kind].mean())
        in_ring = all(_side(bonds, bond) is None for bond in of_kind)
        if in_ring:
            longer = np.array(STRETCHED_IN_RING)
        else:
            of_kind = [bond for bond in of_kind if _side(bonds, bond) is not None]
            longer = np.geomspace(NEAREST_STRETCHED, max(FARTHEST_A / mean, NEAREST_STRETCHED), n_stretched)
        for factor in (*SQUEEZED, *longer.tolist()):
            start, bond = int(rng.integers(len(frames))), int(rng.choice(of_kind))
            made.append((factor, start, with_bond_length(positions[start], bonds, bond=bond, length=factor * mean)))
    made.sort(key=lambda one: one[0])  # stable: equal ones stay in the order of their kinds
    n_made = len(made)
    geometries = Frames(
        positions=np.concatenate([moved for _, _, moved in made]),
        atomic_numbers=np.tile(numbers, n_made),
        n_atoms=np.full(n_made, len(numbers), dtype=np.int64),
        pbc=np.zeros((n_made, 3), dtype=bool),
        charge=None if frames.charge is None else np.full(n_made, frames.charge[0]),
        name=frames.name,
    )
    return geometries, np.array([start for _, start, _ in made], dtype=np.int64)


def with_bond_length(
    positions: NDArray[np.float64], bonds: NDArray[np.int64], *, bond: int, length: float
) -> NDArray[np.float64]:
    """A geometry [N, 3] in which one of the bonds [M, 2] has this length, Angstrom; see `stretched_bonds`."""
    first, second = (int(atom) for atom in bonds[bond])
    along = positions[second] - positions[first]
    before = float(np.linalg.norm(along))
    change = along / before * (length - before)
    moved, side = positions.copy(), _side(bonds, bond)
    if side is None:
        moved[_hanging(bonds, first)] -= 0.5 * change
        moved[_hanging(bonds, second)] += 0.5 * change
    elif len(side) <= len(positions) - len(side):
        moved[side] += change
    else:
        moved[np.setdiff1d(np.arange(len(positions)), side)] -= change
    return moved


def require_one_molecule(frames: Frames) -> NDArray[np.int64]:
    """Atomic numbers [N] of frames that show one isolated molecule in one order of its atoms.

    Raises:
        InputError: a cell, or frames that differ in their atoms or in their order.
    """
    if frames.cell is not None or frames.pbc.any():
        raise InputError(f"{frames.name}: has cells; labels are sampled for isolated molecules only")
    numbers = frames.frame_numbers(0)
    for index in range(len(frames)):
        if not np.array_equal(frames.frame_numbers(index), numbers):
            raise InputError(
                f"{frames.name}: frames 0 and {index} differ in their atoms or in their order; labels are "
                "sampled for one molecule at a time"
            )
    return numbers


def _side(bonds: NDArray[np.int64], bond: int) -> NDArray[np.int64] | None:
    """Atoms that hang together with the second atom of a bond when it is cut; None where the first is among them."""
    first, second = (int(atom) for atom in bonds[bond])
    side = side_of_bond(bonds, first, second)
    return None if first in side else side


def _hanging(bonds: NDArray[np.int64], atom: int) -> NDArray[np.int64]:
    """An atom of a ring and all that hangs on it by bonds that are in no ring."""
    others = [int(pair.sum()) - atom for pair in bonds if atom in pair]
    branches = [side_of_bond(bonds, atom, other) for other in others]
    return np.unique(np.concatenate([[atom], *(branch for branch in branches if atom not in branch)]))
