"""Files of a run: trajectory, logs, checkpoint and description; all of them survive a kill at any moment.

`run.traj`, `run.log.csv` and `run.equilibration.csv` only grow. A checkpoint records how long they were (and the
first bytes of the trajectory, where ASE counts the frames), so that a resumed run cuts off what was written after
the checkpoint and goes on. Checkpoint and description are written beside their place and moved there at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from remul_md.dynamics.momenta import Array
from remul_md.errors import InputError
from remul_md.files import read_json as read_object
from remul_md.files import replace_atomically
from remul_md.files import write_json as write_object

if TYPE_CHECKING:
    from ase import Atoms

LOG_COLUMNS = (
    "step",
    "time_ps",
    "potential_energy_eV",
    "kinetic_energy_eV",
    "total_energy_eV",
    "temperature_K",
    "momentum_x_amu_A_per_fs",
    "momentum_y_amu_A_per_fs",
    "momentum_z_amu_A_per_fs",
    "angular_momentum_x_amu_A2_per_fs",
    "angular_momentum_y_amu_A2_per_fs",
    "angular_momentum_z_amu_A2_per_fs",
)
THERMOSTAT_COLUMN = "thermostat_energy_eV"  # after the others, where the thermostat has one
# After the others in NVE: over the step that ends in this row (`remul_md.dynamics.shadow`), nan where none does. What
# is conserved may be told a step late; this needs no force that the run does not have, and no row waits for another.
SHADOW_COLUMN = "shadow_energy_eV"
OUTPUTS = (".traj", ".h5md", ".extxyz")
GO_ON = "choose another output, then go on with resume (what was written up to the last checkpoint is kept)"
TRAJECTORY_HEADER_BYTES = 48  # magic, tag, version, number of frames, where the table of frames stands


@dataclass(frozen=True, kw_only=True)
class OutputFiles:
    """Where the files of one run stand; all are named after the output."""

    trajectory: Path
    log: Path
    equilibration_log: Path
    description: Path
    checkpoint: Path
    h5md: Path | None
    topology: Path | None
    extxyz: Path | None

    @classmethod
    def for_output(cls, output: str | Path) -> OutputFiles:
        """Files for `run.traj`, `run.h5md` or `run.extxyz`; the latter two are copies made at the end.

        Raises:
            InputError: another extension.
        """
        path = Path(output)
        if path.suffix not in OUTPUTS:
            raise InputError(
                f"output {str(path)!r} must end in .traj (ASE), .h5md (MDAnalysis and others) or .extxyz (text)"
            )
        h5md = path if path.suffix == ".h5md" else None
        return cls(
            trajectory=path.with_suffix(".traj"),
            log=path.with_suffix(".log.csv"),
            equilibration_log=path.with_suffix(".equilibration.csv"),
            description=path.with_suffix(".json"),
            checkpoint=path.with_suffix(".checkpoint.npz"),
            h5md=h5md,
            topology=h5md.with_suffix(".topology.pdb") if h5md else None,
            extxyz=path if path.suffix == ".extxyz" else None,
        )

    def all(self) -> list[Path]:
        """Every file that a run of this name can have, the H5MD copy included: an old one must not pass for the new.

        An extxyz file is among them only where it was asked for: one of that name may well be the structure.
        """
        paths = [self.trajectory, self.log, self.equilibration_log, self.description, self.checkpoint]
        copies = [self.trajectory.with_suffix(suffix) for suffix in (".h5md", ".topology.pdb")]
        return [*paths, *copies, *([self.extxyz] if self.extxyz else [])]

    def existing(self) -> list[Path]:
        """Those that are there already."""
        return [path for path in self.all() if path.exists()]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses (no permission, full disk) into an InputError that names the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {str(path)!r}: {reason}; free space or {GO_ON}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """`replace_atomically`, with what the file system refuses said as an InputError."""
    with writing(path):
        replace_atomically(path, content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """`files.write_json` for the description of a run."""
    write_object(path, content, hint=f"free space or {GO_ON}")


def read_json(path: Path) -> dict[str, Any]:
    """`files.read_json` for the description of a run."""
    return read_object(path, hint="it is no description of a run, put back the one that `remul-md md` wrote")


def files_of(trajectory: str | Path) -> OutputFiles | None:
    """The files of the run whose trajectory this is; None for what no run of this package wrote under that name.

    An extxyz file belongs to a run only where the description of the run names it: others have files of that kind, too.
    """
    path = Path(trajectory)
    if path.suffix not in OUTPUTS:
        return None
    files = OutputFiles.for_output(path)
    if files.extxyz is None:
        return files
    described = files.trajectory.exists() and files.description.exists()
    return files if described and read_json(files.description).get("extxyz") == path.name else None


class Recording(Protocol):
    """Where a run writes its rows and frames."""

    def log(self, values: tuple[float, ...], *, production: bool, more: Mapping[str, float] | None = None) -> None:
        """A row of LOG_COLUMNS, and of the columns that only some runs have."""

    def frame(self, atoms: Atoms, *, energy: float, forces: Array, step: int, time_ps: float) -> None:
        """A frame."""

    def marks(self) -> dict[str, Any]:
        """How long the files are."""
        ...


class RowsInMemory:
    """The rows of production by the names of their columns; nothing else is kept and nothing written."""

    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []

    def column(self, name: str) -> Array:
        """The values of a column so far, [T]."""
        return np.array([row[name] for row in self._rows], dtype=np.float64)

    def log(self, values: tuple[float, ...], *, production: bool, more: Mapping[str, float] | None = None) -> None:
        """Keep a row of production."""
        if production:
            self._rows.append(dict(zip(LOG_COLUMNS, values, strict=True)) | dict(more or {}))

    def frame(self, atoms: Atoms, *, energy: float, forces: Array, step: int, time_ps: float) -> None:
        """Frames are not kept."""

    def marks(self) -> dict[str, Any]:
        """There is no file."""
        return {}


class Recorder:
    """The growing files of a run, open for appending. Use as a context manager."""

    def __init__(self, files: OutputFiles) -> None:
        self._files = files
        self._logs: dict[Path, IO[str]] = {}
        self._trajectory: Any = None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def log(self, values: tuple[float, ...], *, production: bool, more: Mapping[str, float] | None = None) -> None:
        """Append a row of LOG_COLUMNS, and `more` of the columns that only some runs have, the same in every row.

        Floats are written as the shortest text that reads back as the same float64.
        """
        more = more or {}
        path = self._files.log if production else self._files.equilibration_log
        with writing(path):
            if path not in self._logs:
                self._logs[path] = path.open("a", buffering=1, newline="\n", encoding="utf-8")
                if self._logs[path].tell() == 0:
                    self._logs[path].write(",".join((*LOG_COLUMNS, *more)) + "\n")
            self._logs[path].write(",".join(repr(value) for value in (*values, *more.values())) + "\n")

    def frame(self, atoms: Atoms, *, energy: float, forces: Array, step: int, time_ps: float) -> None:
        """Append a frame with its energy, eV, and forces, eV/Angstrom, as they were used by the integrator."""
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.io.trajectory import TrajectoryWriter

        frame = atoms.copy()
        frame.info = {"time_ps": time_ps, "step": step}
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=np.array(forces))
        with writing(self._files.trajectory):
            if self._trajectory is None:
                self._trajectory = TrajectoryWriter(str(self._files.trajectory), mode="a")
            self._trajectory.write(frame)

    def marks(self) -> dict[str, Any]:
        """Lengths of the files after everything so far has reached the disk; the checkpoint keeps them."""
        marks: dict[str, Any] = {"trajectory_header": ""}
        with writing(self._files.trajectory):
            if self._trajectory is not None:
                handle = self._trajectory.backend.fd
                handle.flush()
                os.fsync(handle.fileno())
            for log in self._logs.values():
                log.flush()
                os.fsync(log.fileno())
            for path in self._growing():
                marks[path.name] = path.stat().st_size if path.exists() else 0
            if self._files.trajectory.exists():
                with self._files.trajectory.open("rb") as handle:
                    marks["trajectory_header"] = handle.read(TRAJECTORY_HEADER_BYTES).hex()
        return marks

    def cut_back(self, marks: Mapping[str, Any]) -> None:
        """Take off what was written after the checkpoint whose marks these are.

        Raises:
            InputError: a file is gone or shorter than it was at the checkpoint.
        """
        for path in self._growing():
            length = int(marks[path.name])
            present = path.stat().st_size if path.exists() else 0
            if present < length:
                raise InputError(
                    f"cannot resume: {str(path)!r} has {present} bytes, at the checkpoint it had {length}; "
                    "put the file back or start anew under another output name"
                )
            if not path.exists():
                continue
            with writing(path):
                if length == 0:
                    path.unlink()
                    continue
                with path.open("r+b") as handle:
                    if path == self._files.trajectory:
                        handle.write(bytes.fromhex(marks["trajectory_header"]))
                    handle.truncate(length)

    def close(self) -> None:
        """Close the files; errors are not raised here, since every write before was checked."""
        handles = [*self._logs.values(), *([self._trajectory] if self._trajectory is not None else [])]
        for handle in handles:
            with suppress(OSError):
                handle.close()
        self._logs, self._trajectory = {}, None

    def _growing(self) -> tuple[Path, Path, Path]:
        return self._files.trajectory, self._files.log, self._files.equilibration_log
