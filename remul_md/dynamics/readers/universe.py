"""Trajectories that MDAnalysis reads with a topology: DCD, XTC, TRR, NetCDF and others, in the units of this package.

MDAnalysis gives Angstrom, ps and kJ/mol/Angstrom, whatever the file has. Energies are in none of these files.
"""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remul_md.datasets.readers.ends import check_netcdf_end
from remul_md.dynamics.trajectory import TrajectoryArrays, block_length
from remul_md.errors import InputError

logger = logging.getLogger(__name__)

PER_PS = 1e-3  # Angstrom/ps in Angstrom/fs


def count_universe(path: Path, topology: str | Path) -> int:
    """Number of frames.

    Raises:
        InputError: files that cannot be read, or do not fit each other.
    """
    check_netcdf_end(path)
    trajectory = _universe(path, topology).trajectory
    if rest := _unread_bytes(path, trajectory):
        logger.warning(
            "%s: its last %d bytes are a frame that is not whole; %d whole frames are read", path, rest, len(trajectory)
        )
    return len(trajectory)


def read_universe(
    path: Path, topology: str | Path, *, frame_interval_fs: float | None = None
) -> Iterator[TrajectoryArrays]:
    """Frames some at a time; see `remul_md.dynamics.read.open_trajectory`.

    Elements come from the topology; masses too where it states them, else they are the standard ones. A box makes
    the system periodic, but for dumps of LAMMPS, which say along which axes it is.

    Args:
        path: trajectory.
        topology: its atoms.
        frame_interval_fs: between frames, for formats without times.
    Raises:
        InputError: files that cannot be read, a topology without elements, no times, frames that differ in what
            they hold.
    """
    from ase import units

    universe = _universe(path, topology)
    trajectory = universe.trajectory
    numbers = elements_of(universe.atoms, name=str(topology))
    masses = _masses(universe.atoms, numbers)
    kj_per_mol = units.kJ / units.mol
    n_frames, step = len(trajectory), block_length(len(numbers))
    timed = _has_times(trajectory, path=path)
    if not timed and frame_interval_fs is None:
        raise InputError(
            f"{path}: its format carries no time; give the time between frames, frame_interval_fs (--frame-interval-fs)"
        )
    periodic = _frame(trajectory, 0, path=path).dimensions is not None
    pbc = _boundaries(path) if periodic else np.zeros(3, dtype=bool)
    for start in range(0, n_frames, step):
        size = min(step, n_frames - start)
        values: dict[str, Any] = {key: np.empty((size, len(numbers), 3)) for key in ("positions", "momenta", "forces")}
        cell, time_ps = np.zeros((size, 3, 3)), np.empty(size)
        for place in range(size):
            frame = _frame(trajectory, start + place, path=path)
            if (frame.dimensions is not None) != periodic:
                raise InputError(f"{path}: frame {start + place} differs from frame 0 in having a box; cut it there")
            values["positions"][place] = frame.positions
            for key, there, source in (
                ("momenta", frame.has_velocities, "velocities"),
                ("forces", frame.has_forces, "forces"),
            ):
                if not there:
                    values[key] = None
                elif values[key] is not None:
                    values[key][place] = getattr(frame, source)
            if periodic:
                cell[place] = frame.triclinic_dimensions
            time_ps[place] = frame.time if timed else 1e-3 * frame_interval_fs * (start + place)  # type: ignore[operator]
        yield TrajectoryArrays(
            positions=values["positions"],
            atomic_numbers=numbers,
            masses=masses,
            time_ps=time_ps,
            pbc=pbc,
            cell=cell,
            momenta=None if values["momenta"] is None else PER_PS * values["momenta"] * masses[:, None],
            forces=None if values["forces"] is None else kj_per_mol * values["forces"],
        )


def _universe(path: Path, topology: str | Path) -> Any:
    if not Path(topology).is_file():
        raise InputError(f"topology {str(topology)!r} does not exist; give a file with the elements, such as a PDB")
    import MDAnalysis

    # Of a topology without charges, masses and so on: what is needed is checked here.
    with warnings.catch_warnings(action="ignore"):
        try:
            # MDAnalysis goes by the ending, and dumps have many.
            dump = {"format": "LAMMPSDUMP"} if path.is_file() and _head(path).startswith(b"ITEM:") else {}
            return MDAnalysis.Universe(str(topology), str(path), to_guess=(), **dump)
        except Exception as error:  # its readers raise many kinds at a broken file
            raise InputError(f"cannot read {str(path)!r} with the topology {str(topology)!r}: {error}") from error


def _unread_bytes(path: Path, trajectory: Any) -> int:
    """Bytes behind the last frame that MDAnalysis gives: it leaves out a frame that is cut off, without a word."""
    size, n_frames = path.stat().st_size, len(trajectory)
    kind = type(trajectory).__name__
    if kind == "DCDReader":
        file = trajectory._file
        whole = file._header_size + file._firstframesize + (n_frames - 1) * file._framesize
        return int(size - whole) if n_frames else 0
    if kind in ("XTCReader", "TRRReader"):
        last = int(trajectory._xdr.offsets[-1])
        return max(size - last - _xdr_frame_bytes(path, last), 0)
    if kind == "DumpReader":
        with path.open("rb") as handle:
            whole = sum(len(line) for line in islice(handle, n_frames * (trajectory.n_atoms + 9)))
            handle.seek(-1, 2)
            if whole == size and handle.read(1) != b"\n":
                logger.warning("%s: the last line has no end; if the file was cut off there, its number is wrong", path)
        return size - whole
    return 0


def _xdr_frame_bytes(path: Path, place: int) -> int:
    """Length of the frame of an XTC or TRR file that begins at `place`; layout as in xdrfile (GROMACS)."""
    with path.open("rb") as handle:
        handle.seek(place)
        head = handle.read(96).ljust(96, b"\0")
    magic, n_atoms = struct.unpack(">ii", head[:8])
    if magic == 1993:  # TRR: sizes of box, virial, pressure, positions, velocities and forces; then time and lambda
        _, _, box, virial, pressure, _, _, *vectors, n_atoms = struct.unpack(">11i", head[24:68])
        real = (box // 9) or max(vectors) // (3 * n_atoms)
        return 76 + 2 * real + box + virial + pressure + sum(vectors)
    if n_atoms <= 9:  # XTC compresses larger ones only
        return 56 + 12 * n_atoms
    large = magic == 2023
    (n_bytes,) = struct.unpack(">q" if large else ">i", head[88 : 96 if large else 92])
    return (96 if large else 92) + -(-int(n_bytes) // 4) * 4


def _frame(trajectory: Any, index: int, *, path: Path) -> Any:
    """A frame as MDAnalysis has it.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return trajectory[index]
    except Exception as error:  # its readers raise many kinds at a broken frame
        raise InputError(
            f"{path}: frame {index} of {len(trajectory)} cannot be read ({error}); it is cut off or corrupt, or two "
            "files were joined: leave it out"
        ) from error


def _boundaries(path: Path) -> NDArray[np.bool_]:
    """Along which axes a system with a box is periodic, [3]: all, unless a dump of LAMMPS says otherwise."""
    head = _head(path)
    if head.startswith(b"ITEM:"):
        bounds = next((line.split() for line in head.splitlines() if line.startswith(b"ITEM: BOX BOUNDS")), [])
        flags = [word for word in bounds[3:] if len(word) == 2 and set(word) <= set(b"pfsm")]
        if len(flags) == 3:
            return np.array([flag == b"pp" for flag in flags])
    return np.ones(3, dtype=bool)


def _head(path: Path) -> bytes:
    with path.open("rb") as handle:
        return handle.read(4096)


def elements_of(atoms: Any, *, name: str) -> NDArray[np.int64]:
    """Atomic numbers, [N], of an MDAnalysis AtomGroup.

    Args:
        atoms: the group.
        name: of its topology, for the message.
    Raises:
        InputError: an atom without an element.
    """
    from ase.data import atomic_numbers

    symbols = [str(symbol).capitalize() for symbol in getattr(atoms, "elements", [])]
    unknown = sorted({symbol for symbol in symbols if symbol not in atomic_numbers})
    if not symbols or unknown:
        raise InputError(
            f"{name!r} has no element for every atom ({', '.join(map(repr, unknown)) or 'none at all'}); "
            "give a topology with them, such as a PDB file with columns 77-78 filled"
        )
    return np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.int64)


def _masses(atoms: Any, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Those of the topology where it states them, else the standard ones, [N], amu."""
    from ase.data import atomic_masses

    stated = getattr(atoms, "masses", None)
    return np.asarray(atomic_masses[numbers] if stated is None else stated, dtype=np.float64)


def _has_times(trajectory: Any, *, path: Path) -> bool:
    """Whether the file says when its frames were; MDAnalysis warns and counts in ps where it does not."""
    with warnings.catch_warnings(record=True, action="always") as said:
        for index in (0, len(trajectory) - 1):
            _frame(trajectory, index, path=path).time  # noqa: B018 (the warning is what is asked for)
    return not any("no dt information" in str(warning.message) for warning in said)
