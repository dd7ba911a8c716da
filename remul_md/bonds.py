"""Bond graph of a molecule from covalent radii: which atoms are bonded and how long the bonds are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError


def bond_pairs(
    atomic_numbers: NDArray[np.integer[Any]], positions: NDArray[np.float64], *, scale: float = 1.25
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
        raise InputError(f"scale must be > 0, got {scale}; 1.25 suits organic molecules")
    from ase.data import covalent_radii

    radii = covalent_radii[np.asarray(atomic_numbers)]
    first, second = np.triu_indices(len(positions), k=1)
    reach = scale * (radii[first] + radii[second])
    pairs = np.stack([first, second], axis=1).astype(np.int64)
    return pairs[bond_lengths(positions, pairs) < reach]


def bond_lengths(positions: NDArray[np.float64], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Distances of the pairs [M, 2] in one geometry [N, 3] or many [..., N, 3]: [..., M], Angstrom."""
    return np.linalg.norm(positions[..., pairs[:, 1], :] - positions[..., pairs[:, 0], :], axis=-1)
