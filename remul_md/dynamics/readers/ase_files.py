"""Trajectories that ASE reads: `.traj` and extended XYZ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from remul_md.dynamics.trajectory import TrajectoryArrays, frame_arrays
from remul_md.errors import InputError

ASE_FRAMES_AT_ONCE = 64  # an Atoms object takes some 10 kB


def count_traj(path: Path) -> int:
    """Number of frames of an ASE trajectory."""
    from ase.io.trajectory import TrajectoryReader

    with _reading(path), TrajectoryReader(str(path)) as reader:
        return len(reader)


def count_xyz(path: Path) -> int:
    """Frames of an XYZ file without parsing their atoms: a hundredth of the time."""
    n_frames = 0
    with _reading(path), path.open() as handle:
        while (line := handle.readline()).strip():
            for _ in range(int(line) + 1):
                handle.readline()
            n_frames += 1
    return n_frames


def read_ase(path: Path, form: str, *, frame_interval_fs: float | None) -> Iterator[TrajectoryArrays]:
    """Frames some at a time; `form` is the name that ASE gives the format."""
    from ase.io import iread

    reader = iter(iread(str(path), index=":", format=form))
    first, head = 0, None
    while True:
        with _reading(path):
            frames = list(islice(reader, ASE_FRAMES_AT_ONCE))
        if not frames:
            return
        head = frames[0] if head is None else head
        yield frame_arrays(frames, name=str(path), frame_interval_fs=frame_interval_fs, first=first, head=head)
        first += len(frames)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # ASE's readers raise many kinds at a broken file
        raise InputError(f"cannot read {str(path)!r}: {error or type(error).__name__}") from error
