"""`write_frames`: labelled geometries into a file that `read_frames` reads back, with a note of their origin."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remul_md.datasets.readers.npz import load_arrays
from remul_md.datasets.readers.xyz import read_xyz
from remul_md.datasets.units import FIELD
from remul_md.errors import InputError
from remul_md.files import replace_atomically
from remul_md.structures.frames import Frames

WRITTEN = (".extxyz", ".xyz", ".npz")


def check_written_format(path: Path) -> None:
    """Refuse a file name that `write_frames` cannot serve, before anything is computed for it.

    Raises:
        InputError: another ending, or no such folder.
    """
    if path.suffix.lower() not in WRITTEN:
        raise InputError(f"{path}: ending {path.suffix!r} cannot be written; use one of {', '.join(WRITTEN)}")
    if not path.parent.is_dir():
        raise InputError(f"{path}: folder {path.parent} is not there; make it first")


def write_frames(
    frames: Frames,
    path: str | Path,
    *,
    provenance: Mapping[str, Any],
    per_frame: Mapping[str, NDArray[np.float64]] | None = None,
) -> None:
    """Write labelled frames in eV and Angstrom, whole or not at all.

    extxyz takes everything; npz (the sGDML layout, with its units) takes frames of one molecule without a cell, and
    keeps every digit, where extxyz keeps 8 decimals of positions and forces.

    Args:
        frames: with energies and forces; a field is written with each frame.
        path: .extxyz, .xyz or .npz.
        provenance: JSON-able; a note in each frame of an extxyz file, or the array `provenance` of an npz.
        per_frame: further figures of the frames, each [B], by name.
    Raises:
        InputError: another ending, frames without labels, frames that an npz cannot hold, an unwritable file.
    """
    path = Path(path)
    check_written_format(path)
    if frames.energy is None or frames.forces is None:
        raise InputError(f"{frames.name}: has no energies or no forces to write")
    further = dict(per_frame or {})
    if path.suffix.lower() == ".npz":
        content = _npz(frames, path, provenance=provenance, further=further)
    else:
        content = _extxyz(frames, provenance=provenance, further=further)
    try:
        replace_atomically(path, content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error}); free space or choose another folder") from error


def written_provenance(path: Path) -> dict[str, Any]:
    """The note that `write_frames` left in a file.

    Raises:
        InputError: another ending, a file that cannot be read, or one without such a note.
    """
    check_written_format(path)
    if path.suffix.lower() == ".npz":
        note = load_arrays(path).get("provenance")
    else:
        note = next((atoms.info.get("provenance") for atoms in read_xyz(path)), None)
    try:
        found = note if isinstance(note, dict) else json.loads(str(note))  # ASE reads JSON in a comment line
        return dict(found)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: does not say what labelled it; give another output") from error


def _npz(
    frames: Frames, path: Path, *, provenance: Mapping[str, Any], further: Mapping[str, NDArray[np.float64]]
) -> bytes:
    assert frames.energy is not None
    assert frames.forces is not None
    n_frames, numbers = len(frames), frames.frame_numbers(0)
    one_molecule = len(frames.atomic_numbers) == n_frames * len(numbers) and bool(
        (frames.atomic_numbers.reshape(n_frames, -1) == numbers).all()
    )
    if not one_molecule or frames.cell is not None or frames.charge is not None:
        raise InputError(f"{path}: npz holds one neutral molecule without a cell, {frames.name} is more; write .extxyz")
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {
        "z": numbers,
        "R": frames.positions.reshape(n_frames, -1, 3),
        "E": frames.energy[:, None],
        "F": frames.forces.reshape(n_frames, -1, 3),
        "e_unit": np.array("eV"),
        "r_unit": np.array("Ang"),
        "provenance": np.array(json.dumps(provenance)),
        **({} if frames.field_V_per_A is None else {FIELD: frames.field_V_per_A}),
        **further,
    }
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _extxyz(frames: Frames, *, provenance: Mapping[str, Any], further: Mapping[str, NDArray[np.float64]]) -> bytes:
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io.extxyz import write_xyz

    assert frames.energy is not None
    assert frames.forces is not None
    note, structures = json.dumps(provenance), []
    for index, (start, n_atoms) in enumerate(zip(frames.first_atom, frames.n_atoms, strict=True)):
        atoms = frames.atoms(index)
        atoms.info |= {name: float(values[index]) for name, values in further.items()} | {"provenance": note}
        if frames.field_V_per_A is not None:
            atoms.info[FIELD] = frames.field_V_per_A[index]
        atoms.calc = SinglePointCalculator(
            atoms, energy=float(frames.energy[index]), forces=frames.forces[start : start + n_atoms]
        )
        structures.append(atoms)
    text = io.StringIO()
    write_xyz(text, structures)
    return text.getvalue().encode()
