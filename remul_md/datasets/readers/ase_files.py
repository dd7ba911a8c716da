"""Reader of what ASE reads: extended xyz, ASE databases and ASE trajectories, of any composition and cell."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from remul_md.datasets.file_options import FileOptions
from remul_md.datasets.readers.ends import check_database_end, check_traj_end
from remul_md.datasets.readers.xyz import read_xyz
from remul_md.datasets.units import FIELD
from remul_md.errors import InputError
from remul_md.files import read_text
from remul_md.structures.frames import Frames, frames_from_atoms, real_numbers

if TYPE_CHECKING:
    from ase import Atoms

logger = logging.getLogger(__name__)

FORMATS = {".xyz": "extxyz", ".extxyz": "extxyz", ".db": "db", ".json": "json", ".traj": "traj"}
DEFAULT_UNITS = ("eV", "Angstrom")  # ASE's convention; extxyz itself names no units
_ENERGY_KEYS, _FORCES_KEYS = ("energy",), ("forces", "force")


def read_ase(path: Path, options: FileOptions, *, with_labels: bool = True) -> Frames:
    """Frames of an extxyz file, an ASE database or an ASE trajectory, in eV and Angstrom.

    Args:
        path: the file; its suffix (a key of `FORMATS`) says the format.
        options: units, by default eV, Angstrom and energy / length; names of the label entries, by default `energy`,
            and `forces`, else `force`.
        with_labels: False leaves energies and forces alone.
    Raises:
        InputError: the file cannot be parsed, a label asked for by key is missing, a label that only some frames have.
    """
    units = options.units(DEFAULT_UNITS)
    structures = _structures(path)
    frames = frames_from_atoms(structures, name=path.name)
    energies, forces = None, None
    if with_labels:
        energy_keys = (options.energy_key,) if options.energy_key else _ENERGY_KEYS
        forces_keys = (options.forces_key,) if options.forces_key else _FORCES_KEYS
        energies = _labels(structures, keys=energy_keys, option="energy_key", path=path)
        forces = _labels(structures, keys=forces_keys, option="forces_key", path=path)
    logger.info("read %d frames from %s (%s; %s)", len(frames), path, FORMATS[path.suffix.lower()], units)
    return replace(
        frames,
        positions=frames.positions * units.to_angstrom,
        cell=None if frames.cell is None else frames.cell * units.to_angstrom,
        energy=None if energies is None else _energy_array(energies, path=path) * units.to_eV,
        forces=None if forces is None else _forces_array(forces, frames=frames, path=path) * units.to_eV_per_angstrom,
        field_V_per_A=_fields(structures, path=path) if with_labels else None,
    )


def entries_of_first(path: Path) -> set[str]:
    """Names of all that could be a label in the first frame of a file.

    Raises:
        InputError: the file cannot be parsed, or holds no frame.
    """
    kind = FORMATS[path.suffix.lower()]
    try:
        atoms = next(_READ[kind](path))
    except Exception as error:  # as in `_structures`
        raise InputError(f"{path}: cannot be read as {kind} ({type(error).__name__}: {error})") from error
    return {str(key) for key in _entries(atoms)}


def _structures(path: Path) -> list[Atoms]:
    kind = FORMATS[path.suffix.lower()]
    structures: list[Atoms] = []
    try:
        structures.extend(_READ[kind](path))
    except Exception as error:  # ASE's parsers raise whatever their code runs into, from IndexError to StopIteration
        known = isinstance(error, InputError)  # says what is wrong by itself
        what = str(error) if known else f"{type(error).__name__}: {error}"
        guess = "mend it there" if known else "it is truncated, corrupt or another format"
        raise InputError(
            f"{path}: cannot be read as {kind} after {len(structures)} good frames ({what}); {guess}"
        ) from error
    return structures


def _read_database(path: Path) -> Iterator[Atoms]:
    """Rows of an SQLite database."""
    import sqlite3

    from ase.db import connect

    check_database_end(path)
    # Rows that a damaged page no longer names are left out by SQLite in silence.
    with closing(sqlite3.connect(path)) as database:
        ((found,),) = database.execute("PRAGMA quick_check(1)").fetchall()
    if found != "ok":
        raise InputError(f"SQLite finds it damaged: {found}")
    # ase.io.read leaves out key-value pairs and data, where labels of other methods are kept
    for row in connect(path, type="db").select():
        yield _with_entries(row)


def _read_json(path: Path) -> Iterator[Atoms]:
    """Rows of a JSON database."""
    from ase.db import connect

    rows = list(connect(path, type="json").select())
    held = sorted(int(key) for key in json.loads(read_text(path)) if key.isdigit())
    listed = sorted(int(row.id) for row in rows)
    if listed != held:  # only listed rows are given, and row 1 alone if there is no list
        raise InputError(f"it holds {len(held)} rows, its list 'ids' names {len(listed)}: {listed[:9]}")
    for row in rows:
        yield _with_entries(row)


def _with_entries(row: Any) -> Atoms:
    """A row as ASE gives it, with its data and its key-value pairs as the entries of the frame."""
    atoms: Atoms = row.toatoms()
    atoms.info = {**row.key_value_pairs, **row.data}
    return atoms


def _read_traj(path: Path) -> Iterator[Atoms]:
    """Frames of an ASE trajectory."""
    from ase.io.trajectory import TrajectoryReader

    check_traj_end(path)
    with TrajectoryReader(str(path)) as reader:
        yield from reader


_READ: dict[str, Callable[[Path], Iterator[Atoms]]] = {
    "extxyz": read_xyz,
    "db": _read_database,
    "json": _read_json,
    "traj": _read_traj,
}


def _labels(
    structures: Sequence[Atoms], *, keys: Sequence[str], option: str, path: Path
) -> list[NDArray[np.float64]] | None:
    """The first of `keys` that a frame has, for all frames, or None if no frame has any and none was asked for."""
    found = [key for key in keys if any(key in _entries(atoms) for atoms in structures)]
    present = sorted({str(key) for atoms in structures for key in _entries(atoms)})
    if not found:
        if keys in (_ENERGY_KEYS, _FORCES_KEYS):
            logger.warning("%s: no %s found among %s; name it with %s if it is there", path, keys[0], present, option)
            return None
        raise InputError(f"{path}: no entry {keys[0]!r} in any frame, found {present}; set {option} to one of them")
    values = []
    for index, atoms in enumerate(structures):
        entries = _entries(atoms)
        if found[0] not in entries:
            raise InputError(
                f"{path}: frame {index} has no {found[0]!r}, other frames have; remove the frames without labels"
            )
        try:
            values.append(real_numbers(entries[found[0]]))
        except ValueError as error:
            raise InputError(
                f"{path}: {found[0]!r} of frame {index} is {entries[found[0]]!r}, which is no number"
            ) from error
    return values


def _entries(atoms: Atoms) -> dict[str, Any]:
    """All that could be a label of a frame, by key.

    Results are taken as stored: `Atoms.get_forces` would set the forces on constrained atoms to zero.
    """
    entries: dict[str, Any] = {}
    for source in (
        atoms.info,
        {key: value for key, value in atoms.arrays.items() if key not in ("numbers", "positions")},
        getattr(atoms.calc, "results", {}),
    ):
        entries.update({key: value for key, value in source.items() if value is not None})
    return entries


def _fields(structures: Sequence[Atoms], *, path: Path) -> NDArray[np.float64] | None:
    """The electric field of each frame, [B, 3], V/Angstrom, where any frame names one."""
    found = [_entries(atoms).get(FIELD) for atoms in structures]
    if all(value is None for value in found):
        return None
    for index, value in enumerate(found):
        try:
            fits = value is not None and real_numbers(value).shape == (3,)
        except ValueError:
            fits = False
        if not fits:
            raise InputError(
                f"{path}: {FIELD} of frame {index} is {value!r}; it is the electric field of the labels, three numbers "
                "in each frame: give it to all, or name the entry otherwise"
            )
    return np.array([real_numbers(value) for value in found])


def _energy_array(energies: Sequence[NDArray[np.float64]], *, path: Path) -> NDArray[np.float64]:
    for index, energy in enumerate(energies):
        if energy.size != 1:
            raise InputError(f"{path}: energy of frame {index} has shape {energy.shape}, expected one number")
    return np.array([energy.item() for energy in energies], dtype=np.float64)


def _forces_array(forces: Sequence[NDArray[np.float64]], *, frames: Frames, path: Path) -> NDArray[np.float64]:
    for index, (frame_forces, n_atoms) in enumerate(zip(forces, frames.n_atoms, strict=True)):
        if frame_forces.shape != (n_atoms, 3):
            raise InputError(
                f"{path}: forces of frame {index} have shape {frame_forces.shape}, expected {(int(n_atoms), 3)}"
            )
    return np.concatenate(forces)
