"""Trajectories that ASE reads: `.traj` and extended XYZ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from remul_md.datasets.readers import xyz
from remul_md.datasets.readers.ends import check_traj_end
from remul_md.dynamics.recording import writing
from remul_md.dynamics.trajectory import TrajectoryArrays, frame_arrays
from remul_md.errors import InputError
from remul_md.files import written_beside

if TYPE_CHECKING:
    from ase import Atoms
    from ase.io.trajectory import TrajectoryReader

ASE_FRAMES_AT_ONCE = 64  # an Atoms object takes some 10 kB


def count_traj(path: Path) -> int:
    """Number of frames of an ASE trajectory.

    Raises:
        InputError: as all readers here: whatever ASE cannot read.
    """
    with _reading(path), _opened(path) as reader:
        check_traj_end(path)
        return len(reader)


def traj_frames(path: Path) -> Iterator[Atoms]:
    """Frames of an ASE trajectory, one at a time."""
    with _reading(path), _opened(path) as reader:
        yield from reader


def count_xyz(path: Path) -> int:
    """Number of frames of an extended XYZ file, without parsing their atoms: a hundredth of the time."""
    with _reading(path):
        return xyz.count_xyz(path)


def xyz_frames(path: Path) -> Iterator[Atoms]:
    """Frames of an extended XYZ file, one at a time."""
    with _reading(path):
        yield from xyz.read_xyz(path)


def export_extxyz(trajectory: Path, output: Path) -> None:
    """Copy an ASE trajectory to extended XYZ, frame by frame: positions, momenta and forces to eight decimals.

    Args:
        trajectory: `.traj`; not modified.
        output: replaced at once when it is complete.
    Raises:
        InputError: a trajectory that cannot be read, an output that cannot be written.
    """
    from ase.io.extxyz import write_extxyz

    with writing(output), written_beside(output) as temporary, temporary.open("w", encoding="utf-8") as handle:
        for frame in traj_frames(trajectory):
            write_extxyz(handle, [frame])


def blocks_of(
    frames_of: Callable[[Path], Iterator[Atoms]], path: Path, *, frame_interval_fs: float | None
) -> Iterator[TrajectoryArrays]:
    """Frames of a file some at a time.

    Args:
        frames_of: gives the frames one at a time: `traj_frames` or `xyz_frames`.
        path: of the file.
        frame_interval_fs: between frames, for files without times.
    Raises:
        InputError: as `frames_of` and `frame_arrays`.
    """
    frames = frames_of(path)
    first, head = 0, None
    while some := list(islice(frames, ASE_FRAMES_AT_ONCE)):
        head = some[0] if head is None else head
        yield frame_arrays(some, name=str(path), frame_interval_fs=frame_interval_fs, first=first, head=head)
        first += len(some)


def _opened(path: Path) -> TrajectoryReader:
    # Not `ase.io.iread`, which takes what follows an @ in a name for the number of a frame.
    from ase.io.trajectory import TrajectoryReader

    return TrajectoryReader(str(path))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # ASE's readers raise many kinds at a broken file
        if isinstance(error, InputError):  # says what is wrong by itself
            raise InputError(f"cannot read {str(path)!r}: {error}") from error
        what = f"{type(error).__name__}: {error}; it is truncated, corrupt or another format"
        raise InputError(f"cannot read {str(path)!r}: {what}") from error
