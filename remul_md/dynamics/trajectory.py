"""Trajectories as arrays in one unit system, whole or some frames at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from remul_md.dynamics.momenta import Array, momenta_from_ase
from remul_md.errors import InputError
from remul_md.structures.frames import real_numbers

if TYPE_CHECKING:
    from ase import Atoms

logger = logging.getLogger(__name__)

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


class FrameStream(Protocol):
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
        frame_interval_fs: what the caller says: for files whose frames carry no time, and for those that carry a wrong
            one, since programs fill headers in units of their own.
        ignore_cell: take the system for isolated, whatever box the file has.
    """

    name: str
    n_frames: int
    read: Callable[[], Iterator[TrajectoryArrays]]
    frame_interval_fs: float | None
    ignore_cell: bool = False

    def blocks(self) -> Iterator[TrajectoryArrays]:
        """All frames in order, some at a time. What only some blocks have (forces, momenta, energy) is given there.

        Raises:
            InputError: as `read_trajectory`, when the frame in question is reached.
        """
        first, start_ps, last_ps = 0, 0.0, None
        for block in self.read():
            _check_block(block, name=self.name, first=first)
            if self.ignore_cell:
                block = replace(block, pbc=np.zeros(3, dtype=bool), cell=np.zeros_like(block.cell))
            if self.frame_interval_fs is not None:
                said: Array = 1e-3 * self.frame_interval_fs * (first + np.arange(len(block), dtype=np.float64))
                if first == 0 and not _note_other_times(block.time_ps, said, name=self.name):
                    start_ps = float(block.time_ps[0])
                said = np.asarray(start_ps + said, dtype=np.float64)
                if np.abs(block.time_ps - said).max() > 1e-6 * self.frame_interval_fs:
                    block = replace(block, time_ps=said)
            times = block.time_ps if last_ps is None else np.concatenate([[last_ps], block.time_ps])
            _check_times(times, first=first - (len(times) - len(block)), name=self.name)
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
        lacking = sum(part is None for part in parts)
        if 0 < lacking < len(parts):
            logger.warning(
                "only some blocks of frames have %s (%d of %d): left out", field, len(parts) - lacking, len(parts)
            )
        return None if lacking else np.concatenate(parts)

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
    _require_elements(head.numbers, name=name)  # before ASE looks up their symbols and masses
    for number, frame in enumerate(frames):
        if not _same_system(frame, head):
            _require_elements(frame.numbers, name=f"{name}, frame {first + number}")
            raise InputError(
                f"{name}: frame {first + number} is {frame.get_chemical_formula()}, the first is "
                f"{head.get_chemical_formula()} (or their order, masses or pbc differ); a trajectory holds one system"
            )

    def stacked(key: str, values: Sequence[Any], *shape: int) -> Array:
        return _stacked(values, shape, key=key, name=name, first=first)

    n_atoms = len(head)
    timed = [frame for frame in frames if "time_ps" in frame.info]
    if len(timed) == len(frames) and "time_ps" in head.info:
        time_ps = stacked("time_ps", [frame.info["time_ps"] for frame in frames])
    elif frame_interval_fs is not None:
        time_ps = np.asarray((first + np.arange(len(frames))) * frame_interval_fs / 1000.0, dtype=np.float64)
    elif timed or "time_ps" in head.info:
        raise InputError(f"{name}: {len(timed)} of {len(frames)} frames carry time_ps; give it to all or to none")
    else:
        raise InputError(
            f"{name}: the frames carry no time (info['time_ps']); give the time between them, frame_interval_fs "
            "(--frame-interval-fs)"
        )
    results = [frame.calc.results if frame.calc is not None else {} for frame in frames]

    def of_all(key: str, holders: Sequence[dict[str, Any]], *shape: int) -> Array | None:
        n_there = sum(key in holder for holder in holders)
        if n_there == len(holders):
            return stacked(key, [holder[key] for holder in holders], *shape)
        if n_there:
            logger.warning("%s: only some frames have %s (%d of %d): left out", name, key, n_there, len(holders))
        return None

    momenta = of_all("momenta", [frame.arrays for frame in frames], n_atoms, 3)
    return TrajectoryArrays(
        positions=np.array([frame.get_positions() for frame in frames]),
        atomic_numbers=head.numbers.astype(np.int64),
        masses=_stacked([head.get_masses()], (n_atoms,), key="masses", name=name, first=0)[0],
        time_ps=time_ps,
        pbc=head.pbc.copy(),
        cell=np.array([frame.cell.array for frame in frames]),
        momenta=None if momenta is None else momenta_from_ase(momenta),
        forces=of_all("forces", results, n_atoms, 3),
        energy=of_all("energy", results),
    )


def _same_system(frame: Atoms, head: Atoms) -> bool:
    masses, head_masses = frame.arrays.get("masses"), head.arrays.get("masses")
    if masses is None or head_masses is None:
        same_masses = masses is head_masses
    else:
        same_masses = np.array_equal(masses, head_masses)
    return same_masses and np.array_equal(frame.numbers, head.numbers) and np.array_equal(frame.pbc, head.pbc)


def _stacked(values: Sequence[Any], shape: tuple[int, ...], *, key: str, name: str, first: int) -> Array:
    """What each frame has of something, [T, *shape], float64."""
    arrays = []
    for number, value in enumerate(values):
        try:
            array = real_numbers(value)
        except ValueError as error:
            raise InputError(
                f"{name}: {key} of frame {first + number} is {str(value)[:60]!r}, which is no number; mend that frame"
            ) from error
        if array.shape != shape:
            raise InputError(
                f"{name}: {key} of frame {first + number} has shape {array.shape}, expected {shape}; mend that frame"
            )
        arrays.append(array)
    return np.array(arrays)


def _check_block(arrays: TrajectoryArrays, *, name: str, first: int) -> None:
    """Refuse what is not finite, no element or no mass.

    Args:
        arrays: some frames.
        name: of the file, for messages.
        first: number of the first of these frames in the file.
    Raises:
        InputError: with the frame or the atom.
    """
    if len(arrays.masses) == 0:
        raise InputError(f"{name}: its frames have no atoms")
    for key in PER_FRAME:
        values = getattr(arrays, key)
        if values is not None and not np.isfinite(values).all():
            bad = int(np.argwhere(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))[0, 0])
            raise InputError(f"{name}: {key} of frame {first + bad} is not finite; cut the trajectory before it")
    _require_elements(arrays.atomic_numbers, name=name)
    fine = np.isfinite(arrays.masses) & (arrays.masses > 0.0)
    if not fine.all():
        atom = int(np.argmin(fine))
        raise InputError(f"{name}: the mass of atom {atom} is {arrays.masses[atom]} amu; it must be > 0")


def _require_elements(atomic_numbers: NDArray[np.int64], *, name: str) -> None:
    fine = (atomic_numbers >= 1) & (atomic_numbers <= 118)
    if not fine.all():
        atom = int(np.argmin(fine))
        raise InputError(f"{name}: atom {atom} has the atomic number {atomic_numbers[atom]}; they run from 1 to 118")


def _note_other_times(stated_ps: Array, said_ps: Array, *, name: str) -> bool:
    """Whether a file states other times, ps, than the caller, whose are used: then it is said."""
    stated, said = np.diff(stated_ps), np.diff(said_ps)
    other = bool(len(stated)) and bool(np.abs(stated - said).max() > 1e-3 * said[0])
    if other:
        logger.warning(
            "note: %s states %g fs between its first frames; %g fs are used, as was asked for",
            name, 1e3 * stated[0], 1e3 * said[0],
        )  # fmt: skip
    return other


def _check_times(time_ps: Array, *, first: int, name: str) -> None:
    """Refuse times, ps, from frame `first` on that do not grow."""
    steps_fs = 1000.0 * np.diff(time_ps)
    if not (steps_fs > 0.0).all():
        place = int(np.argmin(steps_fs > 0.0)) + 1
        raise InputError(
            f"{name}: time does not grow at frame {first + place} ({time_ps[place - 1]:g} to {time_ps[place]:g} ps); "
            "were two runs joined? Split them, or give the time between frames (--frame-interval-fs)"
        )
