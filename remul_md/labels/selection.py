"""Which geometries are worth a label: far from all that are known and from each other.

Geometries are compared by their sorted inverse distances, for each pair of elements apart: the same whatever the
orientation of the molecule and the order of its equal atoms, and near atoms count most.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.structures.frames import Frames
from remul_md.structures.topology import all_pairs, bond_lengths, weakest_link

# Of the median distance from a known geometry to the nearest other one; nearer geometries tell as good as nothing new.
NEAR_COPY = 0.5
# Times the sum of the covalent radii: farther the molecule is in pieces, nearer its atoms sit in one another.
WHOLE, APART = 2.0, 0.5
BLOCK = 50  # rows of distances at once: bounds the memory


def descriptors(frames: Frames) -> NDArray[np.float64]:
    """Sorted inverse distances of the pairs of atoms, 1/Angstrom, [B, P], for each pair of elements apart.

    Args:
        frames: isolated molecules of one composition, whose atoms may stand in any order.
    Raises:
        InputError: several compositions.
    """
    rows = []
    for index in range(len(frames)):
        numbers = frames.frame_numbers(index)
        order = np.argsort(numbers, kind="stable")
        pairs = all_pairs(len(numbers))
        inverse = 1.0 / bond_lengths(frames.frame_positions(index)[order], pairs)
        kinds = numbers[order][pairs[:, 0]] * 1000 + numbers[order][pairs[:, 1]]
        rows.append((kinds[np.argsort(kinds, kind="stable")], inverse[np.lexsort((inverse, kinds))]))
    if any(not np.array_equal(kinds, rows[0][0]) for kinds, _ in rows):
        raise InputError(f"{frames.name}: holds several compositions; geometries of one are compared")
    return np.array([inverse for _, inverse in rows])


def select_new(
    candidates: NDArray[np.float64], known: NDArray[np.float64], *, n_frames: int
) -> tuple[NDArray[np.int64], float]:
    """The candidates to label, farthest first: each is as far as can be from all known and chosen ones.

    Args:
        candidates: their descriptors, [C, P].
        known: those of the frames that have labels, [K, P]; at least 2.
        n_frames: at most so many.
    Returns:
        Their numbers, and the distance (root mean square over the pairs, 1/Angstrom) below which a geometry counts as a
        near copy and is not chosen.
    Source: farthest-point sampling, Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5.
    """
    nearest_known = _distances(known, known)
    np.fill_diagonal(nearest_known, np.inf)
    near = NEAR_COPY * float(np.median(nearest_known.min(axis=1)))
    chosen: list[int] = []
    if len(candidates) == 0:
        return np.array(chosen, dtype=np.int64), near
    distance = _distances(candidates, known).min(axis=1)
    while len(chosen) < n_frames:
        farthest = int(np.argmax(distance))
        if not distance[farthest] > near:
            break
        chosen.append(farthest)
        distance = np.minimum(distance, _distances(candidates, candidates[[farthest]])[:, 0])
    return np.array(chosen, dtype=np.int64), near


def is_plausible(numbers: NDArray[np.integer[Any]], positions: NDArray[np.float64]) -> bool:
    """Whether a method of electronic structure can be asked about a geometry: in one piece, no atom inside another.

    Args:
        numbers: atomic numbers, [N].
        positions: [N, 3], Angstrom.
    """
    if not np.isfinite(positions).all():
        return False
    if len(numbers) < 2:
        return True
    pairs = all_pairs(len(numbers))
    radii = covalent_radii[np.asarray(numbers)]
    closest = (bond_lengths(positions, pairs) / (radii[pairs[:, 0]] + radii[pairs[:, 1]])).min()
    return bool(closest > APART and weakest_link(numbers, positions)[1] < WHOLE)


def _distances(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square differences of descriptors, [M, N]."""
    blocks = [
        np.sqrt(np.square(one[start : start + BLOCK, None] - other[None]).mean(axis=2))
        for start in range(0, len(one), BLOCK)
    ]
    return np.concatenate(blocks)
