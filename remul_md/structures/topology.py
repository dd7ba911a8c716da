"""Bond graph of a molecule from covalent radii: which atoms are bonded and how long the bonds are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError

BOND_SCALE = 1.25  # times the sum of the covalent radii: closer atoms are bonded


def bond_pairs(
    atomic_numbers: NDArray[np.integer[Any]], positions: NDArray[np.float64], *, scale: float = BOND_SCALE
) -> NDArray[np.int64]:
    """Pairs of atoms closer than `scale` times the sum of their covalent radii, [M, 2], i < j, sorted.

    The default reaches 25 % past the sum: it keeps every bond of a room-temperature molecule (C-H up to 1.34,
    C-C up to 1.90 Angstrom) and stays below every 1-3 distance. Molecules only: no periodic images.

    Args:
        atomic_numbers: [N].
        positions: [N, 3], Angstrom.
        scale: how far past the sum of the radii a bond reaches, > 0, dimensionless.
    Raises:
        InputError: `scale` <= 0.
    Source: covalent radii of Cordero et al. (2008), doi:10.1039/b801115j, as ASE tabulates them.
    """
    if not scale > 0.0:
        raise InputError(f"scale must be > 0, got {scale}; {BOND_SCALE} suits organic molecules")
    from ase.data import covalent_radii

    radii = covalent_radii[np.asarray(atomic_numbers)]
    first, second = np.triu_indices(len(positions), k=1)
    reach = scale * (radii[first] + radii[second])
    pairs = np.stack([first, second], axis=1).astype(np.int64)
    return pairs[bond_lengths(positions, pairs) < reach]


def bond_lengths(positions: NDArray[np.float64], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Distances of the pairs [M, 2] in one geometry [N, 3] or many [..., N, 3]: [..., M], Angstrom."""
    return np.linalg.norm(positions[..., pairs[:, 1], :] - positions[..., pairs[:, 0], :], axis=-1)


def bonded_chains(pairs: NDArray[np.int64], *, length: int) -> NDArray[np.int64]:
    """Chains of that many atoms along bonds, [P, length], each once, no atom twice: 3 for angles, 4 for dihedrals.

    A chain is given in the direction in which its first atom has the smaller number.

    Args:
        pairs: bonds, [M, 2].
        length: atoms in a chain, >= 2.
    Raises:
        InputError: `length` < 2.
    """
    if length < 2:
        raise InputError(f"a chain has at least 2 atoms, got length {length}")
    neighbors: dict[int, list[int]] = {}
    for first, second in np.asarray(pairs, dtype=np.int64).reshape(-1, 2).tolist():
        neighbors.setdefault(first, []).append(second)
        neighbors.setdefault(second, []).append(first)
    chains: list[tuple[int, ...]] = [(atom,) for atom in sorted(neighbors)]
    for _ in range(length - 1):
        chains = [(*chain, atom) for chain in chains for atom in sorted(neighbors[chain[-1]]) if atom not in chain]
    once = [chain for chain in chains if chain[0] < chain[-1]]
    return np.array(once, dtype=np.int64).reshape(-1, length)


def bond_angles(positions: NDArray[np.float64], chains: NDArray[np.int64]) -> NDArray[np.float64]:
    """Angles i-j-k at the middle atoms, [..., P], degrees, 0 to 180, of positions [..., N, 3] and chains [P, 3]."""
    one = positions[..., chains[:, 0], :] - positions[..., chains[:, 1], :]
    other = positions[..., chains[:, 2], :] - positions[..., chains[:, 1], :]
    # atan2 of sine and cosine: the arc cosine alone loses half the digits near 0 and 180 degrees.
    sine = np.linalg.norm(np.cross(one, other), axis=-1)
    return np.degrees(np.arctan2(sine, (one * other).sum(axis=-1)))


def dihedral_angles(positions: NDArray[np.float64], chains: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dihedral angles i-j-k-l, [..., P], degrees, -180 to 180, of positions [..., N, 3] and chains [P, 4].

    0 is cis, and positive is clockwise seen along j to k (IUPAC). Atoms i, j, k on one line have none: 0 is given.
    """
    i, j, k, end = (positions[..., chains[:, column], :] for column in range(4))
    axis = k - j
    before, after = np.cross(j - i, axis), np.cross(axis, end - k)
    sine = np.linalg.norm(axis, axis=-1) * ((j - i) * after).sum(axis=-1)
    return np.degrees(np.arctan2(sine, (before * after).sum(axis=-1)))
