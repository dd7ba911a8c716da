"""Does a run visit the structures that a data set or another run does: `remul-md compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.distributions import (
    PAIR_DISTANCES,
    Distribution,
    density_gap,
    sampling_gap,
    streamed_distributions,
)
from remul_md.analysis.drawing import SERIES, drawn_panels
from remul_md.analysis.temperature import mean_temperature_K
from remul_md.analysis.verdicts import Verdict
from remul_md.datasets.file_options import FileOptions
from remul_md.errors import InputError
from remul_md.outputs import save_picture
from remul_md.structures.topology import bond_pairs, matching_orders

Array = NDArray[np.float64]

# Half of it, one pair distance in twenty, stands elsewhere: less than what a change of temperature by 200 K makes.
PAIR_DISTANCE_BOUND = 0.1
TEMPERATURE_SHARE = 0.1  # by which two temperatures may differ: the scatter of runs of small molecules
TRAJECTORIES = (".traj", ".h5md", ".h5")


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How far two distributions are apart.

    Args:
        name: which quantity, such as `pair distances` or `bond C-H`.
        gap: integral of the absolute difference of the densities, 0 to 2.
        sampling: what finite sampling alone would make of it; NaN if it cannot be told.
        mean_difference: mean of the first less mean of the second, in `unit`; None for dihedrals.
        unit: of the quantity.
    """

    name: str
    gap: float
    sampling: float
    mean_difference: float | None
    unit: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Distributions of two sets of frames and what lies between them.

    Args:
        one: of the trajectory, name -> distribution.
        other: of what it is compared with.
        n_frames: of both.
        gaps: of every quantity, pair distances first.
        verdict: on the pair distances.
        notes: what a reader has to know besides.
    """

    one: Mapping[str, Distribution]
    other: Mapping[str, Distribution]
    n_frames: tuple[int, int]
    gaps: tuple[Gap, ...]
    verdict: Verdict
    notes: tuple[str, ...] = ()

    @property
    def pair_distance_mae(self) -> float:
        """The h(r) MAE, dimensionless."""
        return self.gaps[0].gap

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; `h_r_mae` is the gap of the pair distances; null where sampling noise cannot be told."""
        rows = [asdict(gap) for gap in self.gaps]
        for row in rows:
            row["sampling"] = row["sampling"] if np.isfinite(row["sampling"]) else None
        return {
            "h_r_mae": self.pair_distance_mae,
            "h_r_mae_from_sampling": rows[0]["sampling"],
            "n_frames": list(self.n_frames),
            "gaps": rows,
            "distributions": {
                name: {"trajectory": self.one[name].to_json(), "reference": self.other[name].to_json()}
                for name in self.one
            },
            "verdict": asdict(self.verdict),
            "notes": list(self.notes),
        }


def compare_structures(
    positions: Array, reference: Array, *, atomic_numbers: NDArray[np.integer[Any]], bound: float = PAIR_DISTANCE_BOUND
) -> Comparison:
    """Compare the structures of two sets of frames of one molecule; bonds are those of the first reference frame.

    Args:
        positions: [T, N, 3], Angstrom, unwrapped.
        reference: [S, N, 3], Angstrom, the same atoms in the same order.
        atomic_numbers: [N].
        bound: of the verdict on the h(r) MAE, > 0.
    Raises:
        InputError: shapes that do not fit, no frames, a bound that is not > 0.
    """
    if not bound > 0.0:
        raise InputError(f"the bound of the h(r) MAE must be > 0, got {bound}; {PAIR_DISTANCE_BOUND} is the default")
    if positions.ndim != 3 or positions.shape[1:] != reference.shape[1:] or len(reference) == 0:
        raise InputError(f"positions {positions.shape} and reference {reference.shape} must be [T, N, 3] and [S, N, 3]")
    one = Geometries(atomic_numbers=atomic_numbers, n_frames=len(positions), blocks=lambda: iter([positions]))
    other = Geometries(atomic_numbers=atomic_numbers, n_frames=len(reference), blocks=lambda: iter([reference]))
    return _compare(one, other, bound=bound)


def compare_files(
    trajectory: str | Path,
    other: str | Path,
    *,
    options: FileOptions = FileOptions(),  # noqa: B008 (frozen)
    ignore_cell: bool = False,
) -> Comparison:
    """As `compare_structures`, for files: trajectories, or anything `remul_md.read_frames` reads.

    Of a trajectory, some frames at a time are in memory. The same molecule may be numbered in another order.

    Args:
        trajectory: the run.
        other: the reference.
        options: names and units of the data files among them; labels are read only if these say something of labels.
            Trajectories and registered data sets say their own.
    Raises:
        InputError: files that cannot be read, another molecule, periodic frames, fewer than two atoms.
    """
    run, reference = (
        open_geometries(source, options=options, ignore_cell=ignore_cell) for source in (trajectory, other)
    )
    run = _in_order_of(reference, run, names=(trajectory, other))
    found = _compare(run, reference, bound=PAIR_DISTANCE_BOUND)
    notes = _temperature_notes({str(trajectory): run.temperature_K, str(other): reference.temperature_K})
    return replace(found, notes=notes)


def _in_order_of(reference: Geometries, run: Geometries, *, names: tuple[str | Path, str | Path]) -> Geometries:
    """The run with its atoms in the order of the reference, as far as the bonds of the first frames tell it."""
    places = next(run.blocks())[0], next(reference.blocks())[0]
    order = next(
        matching_orders(
            run.atomic_numbers,
            bond_pairs(run.atomic_numbers, places[0]),
            reference_numbers=reference.atomic_numbers,
            reference_pairs=bond_pairs(reference.atomic_numbers, places[1]),
        ),
        None,
    )
    if order is None:
        if np.array_equal(run.atomic_numbers, reference.atomic_numbers):
            return run  # a bond has broken, and the comparison will say so
        from ase.symbols import Symbols

        raise InputError(
            f"{names[0]} holds {Symbols(run.atomic_numbers)}, {names[1]} holds {Symbols(reference.atomic_numbers)}, "
            "and their first frames are not one molecule; give the same molecule"
        )
    return replace(
        run,
        atomic_numbers=run.atomic_numbers[order],
        blocks=lambda: (block[:, order] for block in run.blocks()),
    )


def _temperature_notes(temperatures: Mapping[str, float | None]) -> tuple[str, ...]:
    """Whether both sets are of one temperature, as far as it is known; a file against itself needs no word."""
    unknown = [name for name, kelvin in temperatures.items() if kelvin is None]
    if len(temperatures) < 2 or len(unknown) == 2:
        return ()
    if unknown:
        return (f"The temperature of {unknown[0]} is not known; both have to be at one temperature.",)
    (first, one), (second, other) = ((name, kelvin or 0.0) for name, kelvin in temperatures.items())
    if abs(one - other) <= TEMPERATURE_SHARE * max(one, other):
        return ()
    return (
        f"The temperatures differ: {first} is at {one:.0f} K, {second} at {other:.0f} K. What lies between them may be "
        "that and no fault of the potential.",
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometries:
    """Positions of one molecule that are given out some frames at a time.

    Args:
        atomic_numbers: [N].
        n_frames: of all blocks together.
        blocks: positions of consecutive frames, each [T, N, 3], Angstrom; each call starts anew.
        temperature_K: of their momenta, or of the dynamics that a data set is from; None if that is not known.
    """

    atomic_numbers: NDArray[np.integer[Any]]
    n_frames: int
    blocks: Callable[[], Iterator[Array]]
    temperature_K: float | None = None


def open_geometries(
    source: str | Path,
    *,
    options: FileOptions = FileOptions(),  # noqa: B008 (frozen)
    ignore_cell: bool = False,
) -> Geometries:
    """The positions in a trajectory file or a data set; with `ignore_cell` of molecules that stand in a box, too.

    Args:
        source: the file, or the name of a data set.
        options: as `compare_files`.
    Raises:
        InputError: what cannot be read, frames of different molecules, periodic frames.
    """
    if Path(source).suffix in TRAJECTORIES:
        from remul_md.dynamics.read import open_trajectory

        frames = open_trajectory(source, ignore_cell=ignore_cell)
        first = next(frames.blocks())
        periodic = bool(first.pbc.any())
        found = Geometries(
            atomic_numbers=first.atomic_numbers,
            n_frames=frames.n_frames,
            blocks=lambda: (block.positions for block in frames.blocks()),
            temperature_K=mean_temperature_K(frames),
        )
    else:
        from remul_md.datasets import read_frames
        from remul_md.datasets.registry import ENTRIES

        chosen = options if Path(source).expanduser().is_file() else FileOptions()
        data = read_frames(source, **asdict(chosen), with_labels=chosen.about_labels)
        numbers = data.frame_numbers(0).astype(np.int64)
        n_frames, n_atoms = len(data), len(numbers)
        if (data.n_atoms != n_atoms).any() or (data.atomic_numbers.reshape(n_frames, -1) != numbers).any():
            raise InputError(
                f"{source}: its frames are not of one molecule in one order of atoms; select those that are"
            )
        positions, periodic = data.positions.reshape(n_frames, n_atoms, 3), bool(data.pbc.any())
        known = ENTRIES.get(str(source))
        found = Geometries(
            atomic_numbers=numbers,
            n_frames=n_frames,
            blocks=lambda: iter([positions]),
            temperature_K=None if known is None else known.temperature_K,
        )
    if periodic and not ignore_cell:
        raise InputError(
            f"{source}: is periodic; distances over images are not measured here, give isolated molecules "
            "(--ignore-cell where it is one in a box)"
        )
    return found


def _compare(one: Geometries, other: Geometries, *, bound: float) -> Comparison:
    pairs = bond_pairs(other.atomic_numbers, next(other.blocks())[0])
    found, reference = (
        streamed_distributions(side.blocks(), n_frames=side.n_frames, atomic_numbers=side.atomic_numbers, pairs=pairs)
        for side in (one, other)
    )
    gaps = []
    for name in found:
        means = found[name].mean, reference[name].mean
        gaps.append(
            Gap(
                name=name,
                gap=density_gap(found[name], reference[name]),
                sampling=sampling_gap(found[name], reference[name]),
                mean_difference=None if means[0] is None or means[1] is None else means[0] - means[1],
                unit=found[name].bins.unit,
            )
        )
    return Comparison(
        one=found,
        other=reference,
        n_frames=(one.n_frames, other.n_frames),
        gaps=tuple(gaps),
        verdict=_verdict(gaps[0], bound=bound),
    )


def _verdict(gap: Gap, *, bound: float) -> Verdict:
    assert gap.name == PAIR_DISTANCES
    noise = "unknown, there are too few frames" if np.isnan(gap.sampling) else f"{gap.sampling:.2g}"
    why = f"{50.0 * gap.gap:.2g} % of the pair distances stand elsewhere; finite sampling alone makes {noise}."
    passed: bool | None = gap.gap <= bound
    # Sampling only adds to the gap: beyond the bound by twice its share it is the structure.
    if not passed and not gap.gap > bound + 2.0 * gap.sampling:
        passed, why = None, f"{why} Too few frames to tell: run longer, or compare with more."
    return Verdict(
        name="structure as in the reference", passed=passed, value=gap.gap, threshold=bound, unit="", why=why
    )


def write_comparison_png(comparison: Comparison, path: str | Path, *, labels: tuple[str, str]) -> None:
    """One picture: h(r), bonds, angles and dihedrals, the trajectory drawn solid over the reference dashed.

    Args:
        comparison: what to draw.
        path: a .png file; its folder is made.
        labels: what the two sets are called.
    Raises:
        InputError: the file cannot be written.
    """
    groups = {"pair distances": "h(r)", "bond": "bonds", "angle": "angles", "dihedral": "dihedral angles"}
    panels = {
        title: names
        for word, title in groups.items()
        if (names := [name for name in comparison.one if name.startswith(word)])
    }
    size = (11.0, 3.6 * ((len(panels) + 1) // 2))
    with drawn_panels(len(panels), n_columns=min(len(panels), 2), inches=size) as (figure, places):
        for axes, (title, names) in zip(places, panels.items(), strict=True):
            for number, name in enumerate(names):
                one, other = comparison.one[name], comparison.other[name]
                shown = slice(
                    min(one.filled().start, other.filled().start), max(one.filled().stop, other.filled().stop)
                )
                look: dict[str, Any] = {"color": SERIES[number % len(SERIES)], "linewidth": 1.1}
                axes.plot(one.centers[shown], one.density[shown], label=name.split()[-1], **look)
                axes.plot(other.centers[shown], other.density[shown], "--", **look)
            unit = comparison.one[names[0]].bins.unit
            what = "distance" if unit == "Å" else "angle"
            axes.set(title=title, xlabel=f"{what} ({unit})", ylabel=f"density (1/{unit})")
            axes.set_ylim(bottom=0.0)
            if len(names) > 1:
                axes.legend(ncols=1 + len(names) // 7)
        figure.suptitle(
            f"solid: {labels[0]} ({comparison.n_frames[0]} frames); dashed: {labels[1]} ({comparison.n_frames[1]}); "
            f"h(r) MAE {comparison.pair_distance_mae:.3f}",
            fontsize=9.5,
        )
        save_picture(figure, path)
