"""Is the molecule still the one it was: bond lengths against the training data, or against the first frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.structures.topology import bond_lengths

# Angstrom. Beyond the trained range even small excursions are extrapolation; relative to one frame a bond to
# hydrogen swings by up to 0.3 at 500 K without breaking.
BOUND_TRAINED_A = 0.1
BOUND_FIRST_FRAME_A = 0.5
# Angstrom. A bond this far off its usual length ends the run as a simulation of this molecule: a bond
# to hydrogen swings by 0.3 at 500 K. The criterion of stability of Fu et al. (2023), arXiv:2210.07237.
BOUND_STABLE_A = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class BondRanges:
    """Shortest and longest length of each bond in the training data.

    Args:
        pairs: atom numbers of each bond, [M, 2].
        min_A: shortest length seen, [M], Angstrom.
        max_A: longest length seen, [M], Angstrom.
    Raises:
        InputError: shapes that do not fit, a range that is empty or not finite.
    """

    pairs: NDArray[np.int64]
    min_A: NDArray[np.float64]
    max_A: NDArray[np.float64]

    def __post_init__(self) -> None:
        n_bonds = len(self.pairs)
        if self.pairs.shape != (n_bonds, 2) or self.min_A.shape != (n_bonds,) or self.max_A.shape != (n_bonds,):
            raise InputError(
                f"bond ranges need pairs [M, 2], min_A [M] and max_A [M], got {self.pairs.shape}, "
                f"{self.min_A.shape} and {self.max_A.shape}"
            )
        bad = ~((self.min_A > 0.0) & (self.max_A >= self.min_A) & np.isfinite(self.max_A))
        if bad.any():
            bond = int(np.argmax(bad))
            raise InputError(
                f"bond {self.pairs[bond].tolist()} has the range {self.min_A[bond]} to {self.max_A[bond]} Angstrom; "
                "give 0 < min_A <= max_A"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class BondDeviation:
    """How far bonds leave what is known of them.

    Args:
        deviation_A: largest deviation of any bond in each frame, [T], Angstrom, >= 0.
        worst_pair: atom numbers of the bond with the largest deviation of all.
        n_bonds: bonds compared.
        n_without_range: bonds of frame 0 that the training data does not hold: compared with frame 0 instead.
        reference: `training data` or `first frame`.
        first_off_frame: first frame with a bond BOUND_STABLE_A off the middle of its range (its length in frame 0
            without one), or None.
        first_off_pair: atom numbers of that bond.
        unlike: what the bonds of frame 0 have to do with those of training, if they are others; then the molecule is
            not the trained one from the start.
    """

    deviation_A: NDArray[np.float64]
    worst_pair: tuple[int, int]
    n_bonds: int
    n_without_range: int
    reference: str
    first_off_frame: int | None = None
    first_off_pair: tuple[int, int] | None = None
    unlike: str = ""

    @property
    def max_bond_deviation_A(self) -> float:
        """Largest deviation of any bond in any frame, Angstrom."""
        return float(self.deviation_A.max())

    @property
    def bound_A(self) -> float:
        """Deviation up to which the molecule counts as intact, Angstrom."""
        return BOUND_TRAINED_A if self.reference == "training data" else BOUND_FIRST_FRAME_A

    @property
    def intact(self) -> bool:
        """Whether it began as the trained molecule and no bond ever left its bound (a bond that is not finite has)."""
        return not self.unlike and bool(self.max_bond_deviation_A <= self.bound_A)


def bond_deviation(
    positions: NDArray[np.float64],
    pairs: NDArray[np.int64],
    *,
    ranges: BondRanges | None = None,
    reference: NDArray[np.float64] | None = None,
) -> BondDeviation | None:
    """Deviation of bond lengths from the range seen in training, else from frame 0; None where there is no bond.

    Args:
        positions: [T, N, 3], Angstrom, unwrapped.
        pairs: bonds of frame 0, [M, 2], such as `remul_md.structures.topology.bond_pairs` gives.
        ranges: lengths seen in the training data. Its bonds are compared too where frame 0 lacks them: a run that
            starts from a broken molecule is not intact.
        reference: frame 0 of the run, [N, 3], where `positions` are a later part of it.
    Raises:
        InputError: an atom number beyond the structure.
    """
    frames = np.asarray(positions, dtype=np.float64)
    bonds = _sorted_pairs(pairs)
    low = high = np.empty(0)
    known = np.empty((0, 2), dtype=np.int64)
    if ranges is not None:
        known, low, high = _sorted_pairs(ranges.pairs), ranges.min_A, ranges.max_A
    for table in (bonds, known):
        if table.size and (table.min() < 0 or table.max() >= frames.shape[1]):
            raise InputError(f"a bond names atom {int(table.max())}, the trajectory has {frames.shape[1]} atoms")
    seen = {tuple(pair) for pair in known.tolist()}
    unknown = np.array([pair for pair in bonds.tolist() if tuple(pair) not in seen], dtype=np.int64).reshape(-1, 2)
    table = np.concatenate([known, unknown])
    if len(table) == 0:
        return None
    lengths = bond_lengths(frames, table)
    start = lengths[0] if reference is None else bond_lengths(np.asarray(reference, dtype=np.float64), table)
    first = start[len(known) :]
    deviation = np.maximum(lengths - np.concatenate([high, first]), np.concatenate([low, first]) - lengths)
    deviation = np.maximum(deviation, 0.0)  # inside the range is no deviation; NaN stays NaN
    worst = table[int(np.argmax(deviation.max(axis=0)))]
    middle = np.concatenate([0.5 * (low + high), first])
    off = ~(np.abs(lengths - middle) <= BOUND_STABLE_A)  # a length that is not finite is off
    first_off = int(np.argmax(off.any(axis=1))) if off.any() else None
    culprit = None if first_off is None else table[int(np.argmax(off[first_off]))]
    return BondDeviation(
        deviation_A=deviation.max(axis=1),
        worst_pair=(int(worst[0]), int(worst[1])),
        n_bonds=len(table),
        n_without_range=0 if ranges is None else len(unknown),
        reference="first frame" if ranges is None else "training data",
        first_off_frame=first_off,
        first_off_pair=None if culprit is None else (int(culprit[0]), int(culprit[1])),
    )


def joined_bond_deviation(parts: Sequence[BondDeviation]) -> BondDeviation:
    """The deviation along a whole run from consecutive parts that have one reference."""
    worst = parts[int(np.argmax([part.max_bond_deviation_A for part in parts]))]
    starts = np.cumsum([0, *(len(part.deviation_A) for part in parts)])
    off = [
        (int(start) + part.first_off_frame, part.first_off_pair)
        for start, part in zip(starts, parts, strict=False)
        if part.first_off_frame is not None
    ]
    return replace(
        parts[0],
        deviation_A=np.concatenate([part.deviation_A for part in parts]),
        worst_pair=worst.worst_pair,
        first_off_frame=off[0][0] if off else None,
        first_off_pair=off[0][1] if off else None,
    )


def _sorted_pairs(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.sort(np.asarray(pairs, dtype=np.int64).reshape(-1, 2), axis=1)
