"""`read_trajectory` and `open_trajectory`: one function for every format of trajectories."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from remul_md.dynamics.readers.ase_files import blocks_of, count_traj, count_xyz, traj_frames, xyz_frames
from remul_md.dynamics.trajectory import TrajectoryArrays, TrajectoryFile, joined
from remul_md.errors import InputError


def read_trajectory(path: str | Path, *, frame_interval_fs: float | None = None) -> TrajectoryArrays:
    """Read a whole trajectory: `.traj`, `.xyz`/`.extxyz` (eV, Angstrom, as ASE writes it) or `.h5md`/`.h5`.

    Args:
        path: what is there already; a file that is still being written gives the frames that are complete.
        frame_interval_fs: time between frames, for files whose frames carry no `info["time_ps"]`, or a wrong one: it is
            used instead of what the file states, with a note.
    Raises:
        InputError: missing, unreadable or empty file, another extension, frames that are not of one system, no times.
    """
    return joined(list(open_trajectory(path, frame_interval_fs=frame_interval_fs).blocks()))


def open_trajectory(
    path: str | Path,
    *,
    topology: str | Path | None = None,
    frame_interval_fs: float | None = None,
    ignore_cell: bool = False,
) -> TrajectoryFile:
    """A trajectory file that is read some frames at a time; formats as `read_trajectory`.

    Args:
        path: of the file.
        topology: elements of the atoms for what carries none, such as a PDB file: MDAnalysis then reads `path`
            (DCD, XTC, TRR, NetCDF and others).
        frame_interval_fs: as `read_trajectory`.
        ignore_cell: leave out box and periodicity: many programs put every molecule into a box.
    Raises:
        InputError: missing, unreadable or empty file, another extension.
    """
    source = Path(path)
    if frame_interval_fs is not None and not (np.isfinite(frame_interval_fs) and frame_interval_fs > 0.0):
        raise InputError(f"frame_interval_fs must be > 0, got {frame_interval_fs}")
    if not source.is_file():
        raise InputError(f"trajectory {str(source)!r} does not exist; give a .traj, .extxyz or .h5md file")
    if topology is not None:
        from remul_md.dynamics.readers.universe import count_universe, read_universe

        n_frames = count_universe(source, topology)
        read = partial(read_universe, source, topology, frame_interval_fs=frame_interval_fs)
    elif source.suffix in (".h5md", ".h5"):
        from remul_md.dynamics.readers.h5md import count_h5md, read_h5md

        n_frames, read = count_h5md(source), partial(read_h5md, source)
    elif source.suffix == ".traj":
        n_frames = count_traj(source)
        read = partial(blocks_of, traj_frames, source, frame_interval_fs=frame_interval_fs)
    elif source.suffix in (".xyz", ".extxyz"):
        n_frames = count_xyz(source)
        read = partial(blocks_of, xyz_frames, source, frame_interval_fs=frame_interval_fs)
    else:
        raise InputError(
            f"{str(source)!r}: extension {source.suffix!r} is no trajectory; use .traj, .extxyz or .h5md, or give the "
            "elements of its atoms in a topology file (--topology) for what MDAnalysis reads"
        )
    if n_frames == 0:
        raise InputError(f"{source}: holds no frame")
    return TrajectoryFile(
        name=str(source), n_frames=n_frames, read=read, frame_interval_fs=frame_interval_fs, ignore_cell=ignore_cell
    )
