"""Does a run stay among the distances that training saw, pair of elements by pair of elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.structures.topology import all_pairs, bond_lengths

Array = NDArray[np.float64]
DISTANCES_AT_ONCE = 2**20  # memory grows neither with the run nor with the square of the number of atoms


@dataclass(frozen=True, kw_only=True, eq=False)
class RangeDeparture:
    """How far distances between atoms leave the ranges of the training data.

    Args:
        departure_A: of each frame, the largest of any pair of atoms, [T], Angstrom; 0 inside the ranges.
        worst_pair: elements of the pair that left by most, such as `C-H`; empty if none did.
        n_without_range: kinds of pairs that training never saw; they are not judged.
    """

    departure_A: Array
    worst_pair: str
    n_without_range: int

    @property
    def max_departure_A(self) -> float:
        """Largest of all frames, Angstrom."""
        return float(self.departure_A.max())


def range_departure(
    positions: Array, atomic_numbers: NDArray[np.int64], ranges: Mapping[str, Sequence[float]]
) -> RangeDeparture:
    """Departure of the distances of an isolated molecule from the ranges of their elements.

    Args:
        positions: [T, N, 3], Angstrom, T >= 1.
        atomic_numbers: [N].
        ranges: shortest and longest distance of pairs of elements, such as {"C-H": [1.0, 4.1]}, Angstrom; names in
            alphabetical order, as `remul_md.potentials.domain.Domain` has them.
    Raises:
        InputError: positions and atomic numbers that do not fit, or a range that is none.
    """
    from ase.data import chemical_symbols

    if positions.ndim != 3 or positions.shape[1:] != (len(atomic_numbers), 3) or len(positions) == 0:
        raise InputError(
            f"positions {positions.shape} must be [T, N, 3] of at least one frame, with N = {len(atomic_numbers)}"
        )
    for pair, (low, high) in ranges.items():
        if not 0.0 <= low <= high < np.inf:
            raise InputError(f"the range of {pair} is {low} to {high} Angstrom; give 0 <= shortest <= longest")
    pairs = all_pairs(len(atomic_numbers))
    symbols = [chemical_symbols[int(number)] for number in atomic_numbers]
    names = np.array(["-".join(sorted((symbols[i], symbols[j]))) for i, j in pairs])
    kinds = sorted(set(names.tolist()))
    departure, worst, worst_pair = np.zeros(len(positions)), 0.0, ""
    for kind in kinds:
        if kind not in ranges:
            continue
        (low, high), here = ranges[kind], pairs[names == kind]
        step = max(1, DISTANCES_AT_ONCE // len(here))
        for start in range(0, len(positions), step):
            distances = bond_lengths(positions[start : start + step], here)
            beyond = np.maximum(low - distances, distances - high).max(axis=1).clip(min=0.0)
            departure[start : start + step] = np.maximum(departure[start : start + step], beyond)
            if beyond.max() > worst:
                worst, worst_pair = float(beyond.max()), kind
    return RangeDeparture(
        departure_A=departure,
        worst_pair=worst_pair,
        n_without_range=len([kind for kind in kinds if kind not in ranges]),
    )


def joined_range_departure(parts: Sequence[RangeDeparture]) -> RangeDeparture:
    """The departure along a whole run from consecutive parts of it."""
    worst = parts[int(np.argmax([part.max_departure_A for part in parts]))]
    return replace(worst, departure_A=np.concatenate([part.departure_A for part in parts]))
