"""Trajectories as arrays: `.traj`, extended XYZ and H5MD, with one unit system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from remul_md.dynamics.momenta import Array, momenta_from_ase
from remul_md.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms


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


def read_trajectory(path: str | Path, *, frame_interval_fs: float | None = None) -> TrajectoryArrays:
    """Read a whole trajectory: `.traj`, `.xyz`/`.extxyz` (eV, Angstrom, as ASE writes it) or `.h5md`/`.h5`.

    Args:
        path: what is there already; a file that is still being written gives the frames that are complete.
        frame_interval_fs: time between frames, for files whose frames carry no `info["time_ps"]`.
    Raises:
        InputError: missing, unreadable or empty file, another extension, frames that are not of one system, no times,
            or times that contradict `frame_interval_fs`.
    """
    source = Path(path)
    if frame_interval_fs is not None and not (np.isfinite(frame_interval_fs) and frame_interval_fs > 0.0):
        raise InputError(f"frame_interval_fs must be > 0, got {frame_interval_fs}")
    if not source.is_file():
        raise InputError(f"trajectory {str(source)!r} does not exist; give a .traj, .extxyz or .h5md file")
    if source.suffix in (".h5md", ".h5"):
        from remul_md.dynamics.h5md import read_h5md

        return _checked(read_h5md(source), frame_interval_fs=frame_interval_fs, name=str(source))
    formats = {".traj": "traj", ".xyz": "extxyz", ".extxyz": "extxyz"}
    if source.suffix not in formats:
        raise InputError(f"{str(source)!r}: extension {source.suffix!r} is no trajectory; use .traj, .extxyz or .h5md")
    from ase.io import iread

    try:
        frames = list(iread(str(source), index=":", format=formats[source.suffix]))
    except Exception as error:  # ASE's readers raise many kinds at a broken file
        raise InputError(f"cannot read {str(source)!r}: {error or type(error).__name__}") from error
    arrays = frame_arrays(frames, name=str(source), frame_interval_fs=frame_interval_fs)
    return _checked(arrays, frame_interval_fs=frame_interval_fs, name=str(source))


def frame_arrays(
    frames: Sequence[Atoms], *, name: str, frame_interval_fs: float | None = None, first: int = 0
) -> TrajectoryArrays:
    """Arrays of some frames; what not all of them have is None.

    Args:
        frames: of one system, each with `info["time_ps"]` unless `frame_interval_fs` is given.
        name: of the file, for messages.
        frame_interval_fs: time between frames.
        first: number of the first of these frames in the file.
    Raises:
        InputError: no frame, frames of different systems, no times, values that are not finite.
    """
    if not frames:
        raise InputError(f"{name}: holds no frame")
    head = frames[0]
    for number, frame in enumerate(frames):
        if not (np.array_equal(frame.numbers, head.numbers) and np.array_equal(frame.pbc, head.pbc)):
            raise InputError(
                f"{name}: frame {first + number} is {frame.get_chemical_formula()}, the first is "
                f"{head.get_chemical_formula()} (or their order or pbc differ); a trajectory holds one system"
            )
    timed = [frame for frame in frames if "time_ps" in frame.info]
    if len(timed) == len(frames):
        time_ps = np.array([float(frame.info["time_ps"]) for frame in frames])
    elif timed:
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
    arrays = TrajectoryArrays(
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
    _require_finite(arrays, name=name, first=first)
    return arrays


def _require_finite(arrays: TrajectoryArrays, *, name: str, first: int) -> None:
    for key in ("positions", "time_ps", "momenta", "forces", "energy"):
        values = getattr(arrays, key)
        if values is not None and not np.isfinite(values).all():
            bad = int(np.argwhere(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))[0, 0])
            raise InputError(f"{name}: {key} of frame {first + bad} is not finite; cut the trajectory before it")


def _checked(arrays: TrajectoryArrays, *, frame_interval_fs: float | None, name: str) -> TrajectoryArrays:
    _require_finite(arrays, name=name, first=0)
    if len(arrays) > 1 and not (np.diff(arrays.time_ps) > 0.0).all():
        frame = int(np.argmin(np.diff(arrays.time_ps) > 0.0)) + 1
        raise InputError(
            f"{name}: time does not grow at frame {frame} ({arrays.time_ps[frame - 1]:g} to "
            f"{arrays.time_ps[frame]:g} ps); were two runs joined? Split them"
        )
    if frame_interval_fs is not None and len(arrays) > 1:
        steps_fs = 1000.0 * np.diff(arrays.time_ps)
        if np.abs(steps_fs - frame_interval_fs).max() > 1e-3 * frame_interval_fs:
            raise InputError(
                f"{name}: its frames are {steps_fs[0]:g} fs apart, frame_interval_fs says {frame_interval_fs:g}; "
                "leave frame_interval_fs out"
            )
    return arrays
