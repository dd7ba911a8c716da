"""Trajectories as arrays in one unit system, whole or some frames at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from remul_md.dynamics.momenta import Array, momenta_from_ase
from remul_md.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

MAX_BLOCK_FRAMES = 256  # numpy's own cost of a call no longer counts then
MAX_BLOCK_ATOMS = 2**18  # of all frames of a block together: 6 MB an array
PER_FRAME = ("positions", "time_ps", "cell", "momenta", "forces", "energy")


@dataclass(frozen=True, kw_only=True, eq=False)
class TrajectoryArrays:
    """T frames of one system with N atoms, float64.

    Args:
        positions: [T, N, 3], Angstrom.
        atomic_numbers: [N].
        masses: [N], amu.
        time_ps: [T].
        pbc: periodic flags, [3].
        cell: lattice vectors as rows, [T, 3, 3], Angstrom; zeros without a cell.
        momenta: [T, N, 3], amu Angstrom/fs, or None.
        forces: [T, N, 3], eV/Angstrom, or None.
        energy: potential energy, [T], eV, or None.
    """

    positions: Array
    atomic_numbers: NDArray[np.int64]
    masses: Array
    time_ps: Array
    pbc: NDArray[np.bool_]
    cell: Array
    momenta: Array | None = None
    forces: Array | None = None
    energy: Array | None = None

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def n_frames(self) -> int:
        """T."""
        return len(self.positions)

    def blocks(self) -> Iterator[TrajectoryArrays]:
        """The frames, some at a time, as views."""
        step = block_length(len(self.masses))
        for start in range(0, len(self), step):
            yield self.part(slice(start, start + step))

    def part(self, chosen: slice | NDArray[np.int64]) -> TrajectoryArrays:
        """Some of the frames: views of a slice, copies of the frames with these numbers."""

        def chosen_of(field: str) -> Any:
            values = getattr(self, field)
            return None if values is None else values[chosen]

        return replace(self, **{field: chosen_of(field) for field in PER_FRAME})

    def atoms(self, index: int) -> Atoms:
        """Frame `index` as `ase.Atoms` with masses and momenta, without a calculator."""
        from ase import Atoms

        from remul_md.dynamics.momenta import momenta_to_ase

        return Atoms(
            numbers=self.atomic_numbers,
            positions=self.positions[index],
            masses=self.masses,
            cell=self.cell[index],
            pbc=self.pbc,
            momenta=None if self.momenta is None else momenta_to_ase(self.momenta[index]),
        )


def block_length(n_atoms: int) -> int:
    """Frames to read at once of a system of that many atoms: memory depends on neither length nor size."""
    return max(1, min(MAX_BLOCK_FRAMES, MAX_BLOCK_ATOMS // max(n_atoms, 1)))


class Frames(Protocol):
    """Frames of one system that are given out some at a time: a file, or arrays in memory."""

    @property
    def n_frames(self) -> int:
        """How many there are in all, >= 1."""
        ...

    def blocks(self) -> Iterator[TrajectoryArrays]:
        """All frames in order, some at a time; each call starts anew."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class TrajectoryFile:
    """A trajectory on disk that is read some frames at a time: memory does not grow with it.

    Args:
        name: of the file, for messages.
        n_frames: >= 1.
        read: gives the blocks as they stand in the file.
        frame_interval_fs: what the caller says, for files whose frames carry no time.
    """

    name: str
    n_frames: int
    read: Callable[[], Iterator[TrajectoryArrays]]
    frame_interval_fs: float | None

    def blocks(self) -> Iterator[TrajectoryArrays]:
        """All frames in order, some at a time. What only some blocks have (forces, momenta, energy) is given there.

        Raises:
            InputError: as `read_trajectory`, when the frame in question is reached.
        """
        first, last_ps = 0, None
        for block in self.read():
            _require_finite(block, name=self.name, first=first)
            times = block.time_ps if last_ps is None else np.concatenate([[last_ps], block.time_ps])
            _check_times(
                times, first=first - (len(times) - len(block)), interval=self.frame_interval_fs, name=self.name
            )
            first, last_ps = first + len(block), block.time_ps[-1]
            yield block
        if first != self.n_frames:
            raise InputError(f"{self.name}: {first} of its {self.n_frames} frames could be read; is it still written?")


def joined(blocks: Sequence[TrajectoryArrays]) -> TrajectoryArrays:
    """One trajectory of consecutive blocks of one system; what not all of them have is None.

    Raises:
        InputError: no block.
    """
    if not blocks:
        raise InputError("there is no block of frames to join; give at least one")

    def together(field: str) -> Any:
        parts = [getattr(block, field) for block in blocks]
        return None if any(part is None for part in parts) else np.concatenate(parts)

    return replace(blocks[0], **{field: together(field) for field in PER_FRAME})


def frame_arrays(
    frames: Sequence[Atoms],
    *,
    name: str,
    frame_interval_fs: float | None = None,
    first: int = 0,
    head: Atoms | None = None,
) -> TrajectoryArrays:
    """Arrays of some frames; what not all of them have is None.

    Args:
        frames: of one system, each with `info["time_ps"]` unless `frame_interval_fs` is given.
        name: of the file, for messages.
        frame_interval_fs: time between frames.
        first: number of the first of these frames in the file.
        head: first frame of the file, where that is not the first of these.
    Raises:
        InputError: no frame, frames of different systems, no times, values that are not finite.
    """
    if not frames:
        raise InputError(f"{name}: holds no frame")
    head = frames[0] if head is None else head
    for number, frame in enumerate(frames):
        if not (np.array_equal(frame.numbers, head.numbers) and np.array_equal(frame.pbc, head.pbc)):
            raise InputError(
                f"{name}: frame {first + number} is {frame.get_chemical_formula()}, the first is "
                f"{head.get_chemical_formula()} (or their order or pbc differ); a trajectory holds one system"
            )
    timed = [frame for frame in frames if "time_ps" in frame.info]
    if len(timed) == len(frames) and "time_ps" in head.info:
        time_ps = np.array([float(frame.info["time_ps"]) for frame in frames])
    elif timed or "time_ps" in head.info:
        raise InputError(f"{name}: {len(timed)} of {len(frames)} frames carry time_ps; give it to all or to none")
    elif frame_interval_fs is None:
        raise InputError(
            f"{name}: the frames carry no time (info['time_ps']); give the time between them, frame_interval_fs "
            "(--frame-interval-fs)"
        )
    else:
        time_ps = (first + np.arange(len(frames))) * frame_interval_fs / 1000.0
    results = [frame.calc.results if frame.calc is not None else {} for frame in frames]

    def labels(key: str) -> Array | None:
        if not all(key in result for result in results):
            return None
        return np.array([result[key] for result in results], dtype=np.float64)

    has_momenta = all(frame.has("momenta") for frame in frames)
    return TrajectoryArrays(
        positions=np.array([frame.get_positions() for frame in frames]),
        atomic_numbers=head.numbers.astype(np.int64),
        masses=head.get_masses(),
        time_ps=time_ps,
        pbc=head.pbc.copy(),
        cell=np.array([frame.cell.array for frame in frames]),
        momenta=momenta_from_ase(np.array([frame.get_momenta() for frame in frames])) if has_momenta else None,
        forces=labels("forces"),
        energy=labels("energy"),
    )


def _require_finite(arrays: TrajectoryArrays, *, name: str, first: int) -> None:
    for key in ("positions", "time_ps", "momenta", "forces", "energy"):
        values = getattr(arrays, key)
        if values is not None and not np.isfinite(values).all():
            bad = int(np.argwhere(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))[0, 0])
            raise InputError(f"{name}: {key} of frame {first + bad} is not finite; cut the trajectory before it")


def _check_times(time_ps: Array, *, first: int, interval: float | None, name: str) -> None:
    """Refuse times, ps, from frame `first` on that do not grow, or not by `interval`, fs."""
    steps_fs = 1000.0 * np.diff(time_ps)
    if not (steps_fs > 0.0).all():
        place = int(np.argmin(steps_fs > 0.0)) + 1
        raise InputError(
            f"{name}: time does not grow at frame {first + place} ({time_ps[place - 1]:g} to {time_ps[place]:g} ps); "
            "were two runs joined? Split them"
        )
    if interval is not None and np.abs(steps_fs - interval).max(initial=0.0) > 1e-3 * interval:
        raise InputError(
            f"{name}: its frames are {steps_fs[0]:g} fs apart, frame_interval_fs says {interval:g}; "
            "leave frame_interval_fs out"
        )
