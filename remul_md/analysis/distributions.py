"""How bonds, angles, dihedrals and pair distances are distributed, and how far two such distributions are apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.structures.topology import all_pairs, bond_angles, bond_lengths, bonded_chains, dihedral_angles

Kind = Literal["distance", "angle", "dihedral"]
Array = NDArray[np.float64]
Measure = Callable[[Array, NDArray[np.int64]], Array]

PAIR_DISTANCES = "pair distances"
FRAMES_AT_ONCE = 1024  # histograms are filled block by block: nothing grows with the number of frames
VALUES_AT_ONCE = 2**20  # nor with the square of the number of atoms


@dataclass(frozen=True, kw_only=True)
class Bins:
    """The histogram of one kind of quantity: `n` bins of `width` from `start`, in `unit`."""

    start: float
    width: float
    n: int
    unit: str


# Distances beyond 100 Angstrom are counted as outside. 0.02 Angstrom is a third of the thermal width of the narrowest
# bond (O-H at 300 K: 0.07); a bin of a tenth of it would only add the noise of counting.
BINS: dict[Kind, Bins] = {
    "distance": Bins(start=0.0, width=0.02, n=5000, unit="Å"),
    "angle": Bins(start=0.0, width=2.0, n=90, unit="°"),
    "dihedral": Bins(start=-180.0, width=5.0, n=72, unit="°"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Distribution:
    """A histogram on the bins of its kind, in the order of time cut into two halves.

    Args:
        kind: which bins, see `BINS`.
        half_counts: values in each bin in the first and in the second half of the frames, [2, n].
        n_outside: values in no bin.
        mean: of all values, in the unit of the bins; None for dihedrals, whose mean depends on where the circle is cut.
        std: standard deviation, likewise.
    """

    kind: Kind
    half_counts: NDArray[np.int64]
    n_outside: int
    mean: float | None
    std: float | None

    @property
    def bins(self) -> Bins:
        """Its bins."""
        return BINS[self.kind]

    @property
    def n_values(self) -> int:
        """Number of values, those outside included."""
        return int(self.half_counts.sum()) + self.n_outside

    @property
    def centers(self) -> Array:
        """Middle of each bin, [n]."""
        return np.asarray(self.bins.start + self.bins.width * (np.arange(self.bins.n) + 0.5), dtype=np.float64)

    @property
    def density(self) -> Array:
        """Probability density, [n], per unit; it integrates to 1 less the share outside."""
        return np.asarray(self.half_counts.sum(axis=0) / (self.n_values * self.bins.width))

    @property
    def half_gap(self) -> float:
        """Distance (see `density_gap`) between the first and the second half; NaN where one of them is empty."""
        first, second = self.half_counts
        if not (first.any() and second.any()):
            return float("nan")
        return float(np.abs(first / first.sum() - second / second.sum()).sum())

    def filled(self) -> slice:
        """The bins from the first to the last that holds a value."""
        used = np.flatnonzero(self.half_counts.sum(axis=0))
        return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, bins from the first to the last that holds a value."""
        kept = self.filled()
        return {
            "unit": self.bins.unit,
            "first_center": float(self.centers[kept][0]) if kept.stop else None,
            "bin_width": self.bins.width,
            "density": self.density[kept].tolist(),
            "mean": self.mean,
            "std": self.std,
            "n_values": self.n_values,
            "n_outside": self.n_outside,
        }


def density_gap(one: Distribution, other: Distribution) -> float:
    """Integral of the absolute difference of two densities, 0 (equal) to 2 (nothing in common), dimensionless.

    Half of it is the share of values that would have to move. For pair distances this is the *h(r) MAE*.

    Raises:
        InputError: distributions of different kinds, or without values.
    Source: Fu et al., Forces are not enough (2023), arXiv:2210.07237: the integral over r of |<h(r)> - <h'(r)>|,
        with h(r) normalised to 1. Differences from it: bins of 0.02 Angstrom up to 100 Angstrom.
    """
    if one.kind != other.kind:
        raise InputError(
            f"distributions differ: one of kind {one.kind} cannot be compared with one of kind {other.kind}"
        )
    if one.n_values == 0 or other.n_values == 0:
        raise InputError("a distribution without values cannot be compared; give at least one frame")
    outside = abs(one.n_outside / one.n_values - other.n_outside / other.n_values)
    return float(np.abs(one.density - other.density).sum() * one.bins.width) + outside


def sampling_gap(one: Distribution, other: Distribution) -> float:
    """The gap that finite sampling alone makes between two distributions, judged by the halves of each.

    With noise c / sqrt(n) in each, halves of n frames differ by 2 c / sqrt(n): half of that belongs to the whole. It
    counts slow motion too, if it is seen: a barrier that is crossed once makes the halves differ. NaN for one frame.
    """
    return float(np.hypot(0.5 * one.half_gap, 0.5 * other.half_gap))


def pair_distance_distribution(positions: Array) -> Distribution:
    """h(r): the distances of all pairs of atoms in all frames, positions [T, N, 3], Angstrom, unwrapped, N >= 2.

    Raises:
        InputError: fewer than two atoms, or no frame.
    """
    _check(positions)
    pairs = all_pairs(positions.shape[1])
    histogram = Histogram("distance", n_frames=len(positions))
    for block in _parts(positions, n_pairs=len(pairs)):
        histogram.update(bond_lengths(block, pairs))
    return histogram.result()


def structure_distributions(
    positions: Array, *, atomic_numbers: NDArray[np.integer[Any]], pairs: NDArray[np.int64]
) -> dict[str, Distribution]:
    """Pair distances, and each type of bond, angle and dihedral: `bond C-H`, `angle C-O-H`, `dihedral H-C-C-O`.

    Atoms count by element: the hydrogens of a methyl group change places, and a short run need not know it.

    Args:
        positions: [T, N, 3], Angstrom, unwrapped.
        atomic_numbers: [N].
        pairs: bonds, [M, 2]; `remul_md.structures.topology.bond_pairs` finds them in one frame.
    Raises:
        InputError: fewer than two atoms, no frame, shapes that do not fit.
    """
    if positions.ndim == 3 and len(atomic_numbers) != positions.shape[1]:
        raise InputError(f"positions {positions.shape} need {positions.shape[1]} elements, got {len(atomic_numbers)}")
    return streamed_distributions([positions], n_frames=len(positions), atomic_numbers=atomic_numbers, pairs=pairs)


def streamed_distributions(
    blocks: Iterable[Array],
    *,
    n_frames: int,
    atomic_numbers: NDArray[np.integer[Any]],
    pairs: NDArray[np.int64],
) -> dict[str, Distribution]:
    """As `structure_distributions`, for frames that are given out some at a time.

    Args:
        blocks: positions of consecutive frames, each [T, N, 3], Angstrom, unwrapped.
        n_frames: of all blocks together.
        atomic_numbers, pairs: as `structure_distributions`.
    Raises:
        InputError: as `structure_distributions`.
    """
    histograms = StructureHistograms(atomic_numbers, pairs, n_frames=n_frames)
    n_pairs = len(atomic_numbers) * (len(atomic_numbers) - 1) // 2
    for positions in blocks:
        _check(positions)
        for part in _parts(positions, n_pairs=n_pairs):
            histograms.update(part)
    return histograms.result()


def _parts(positions: Array, *, n_pairs: int) -> Iterator[Array]:
    """Some frames at a time, so that nothing grows with their number or with the square of the number of atoms."""
    step = max(1, min(FRAMES_AT_ONCE, VALUES_AT_ONCE // max(n_pairs, 1)))
    for start in range(0, len(positions), step):
        yield positions[start : start + step]


class Histogram:
    """Collects a `Distribution` from consecutive frames of a run whose length is known.

    Args:
        kind: which bins, see `BINS`.
        n_frames: of the whole run.
    """

    def __init__(self, kind: Kind, *, n_frames: int) -> None:
        self._kind, self._n_frames, self._n_seen = kind, n_frames, 0
        self._counts = np.zeros((2, BINS[kind].n), dtype=np.int64)
        self._n_outside, self._n_values, self._total, self._squares = 0, 0, 0.0, 0.0
        self._shift: float | None = None

    def update(self, values: Array) -> None:
        """Add the values of the next frames, [T, P], in the unit of the bins."""
        before = min(max(self._n_frames // 2 - self._n_seen, 0), len(values))
        for half, rows in ((0, values[:before]), (1, values[before:])):
            if rows.size:
                self._add(rows.ravel(), half)
        self._n_seen += len(values)

    def _add(self, values: Array, half: int) -> None:
        bins = BINS[self._kind]
        if self._shift is None:
            self._shift = float(values[0])  # a sum of squares about 0 would lose digits
        places = np.floor((values - bins.start) / bins.width).astype(np.int64)
        if self._kind != "distance":
            places = np.minimum(places, bins.n - 1)  # 180 degrees itself belongs to the last bin
        inside = places < bins.n
        self._n_outside += int((~inside).sum())
        self._counts[half] += np.bincount(places[inside], minlength=bins.n)
        self._n_values += len(values)
        self._total += float((values - self._shift).sum())
        self._squares += float(((values - self._shift) ** 2).sum())

    def result(self) -> Distribution:
        """The distribution of all values so far."""
        mean = std = None
        if self._kind != "dihedral" and self._shift is not None:
            n_values, total = self._n_values, self._total
            mean = self._shift + total / n_values
            std = float(np.sqrt(max(self._squares / n_values - (total / n_values) ** 2, 0.0)))
        counts = self._counts.copy()
        return Distribution(kind=self._kind, half_counts=counts, n_outside=self._n_outside, mean=mean, std=std)


class StructureHistograms:
    """Collects `structure_distributions` from consecutive frames of a run whose length is known.

    Args:
        atomic_numbers: [N].
        pairs: bonds, [M, 2].
        n_frames: of the whole run.
    """

    def __init__(self, atomic_numbers: NDArray[np.integer[Any]], pairs: NDArray[np.int64], *, n_frames: int) -> None:
        from ase.data import chemical_symbols

        symbols = [chemical_symbols[number] for number in atomic_numbers]
        self._found = {PAIR_DISTANCES: (Histogram("distance", n_frames=n_frames), all_pairs(len(symbols)))}
        self._measures: dict[str, Measure] = {PAIR_DISTANCES: bond_lengths}
        kinds: tuple[tuple[str, Kind, int, Measure], ...] = (
            ("bond", "distance", 2, bond_lengths),
            ("angle", "angle", 3, bond_angles),
            ("dihedral", "dihedral", 4, dihedral_angles),
        )
        for word, kind, length, measure in kinds:
            by_type: dict[str, list[list[int]]] = {}
            for chain in bonded_chains(pairs, length=length).tolist():
                names = [symbols[atom] for atom in chain]
                by_type.setdefault(f"{word} {'-'.join(min(names, names[::-1]))}", []).append(chain)
            for name in sorted(by_type):
                chains = np.array(by_type[name], dtype=np.int64)
                self._found[name] = (Histogram(kind, n_frames=n_frames), chains)
                self._measures[name] = measure

    def update(self, positions: Array) -> None:
        """Add the next frames, [T, N, 3], Angstrom, unwrapped."""
        for name, (histogram, chains) in self._found.items():
            histogram.update(self._measures[name](positions, chains))

    def result(self) -> dict[str, Distribution]:
        """The distributions of all frames so far."""
        return {name: histogram.result() for name, (histogram, _) in self._found.items()}


def _check(positions: Array) -> None:
    if positions.ndim != 3 or positions.shape[2] != 3 or len(positions) == 0 or positions.shape[1] < 2:
        raise InputError(f"positions {positions.shape} must be [T, N, 3] with at least one frame and two atoms")
    if not np.isfinite(positions).all():
        frame = int(np.argmin(np.isfinite(positions).all(axis=(1, 2))))
        raise InputError(f"positions of frame {frame} are not finite; cut the trajectory before it")
