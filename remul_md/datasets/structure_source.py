"""One starting structure from a file or a name."""

from __future__ import annotations

import codecs
import io
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from remul_md.datasets.read import read_frames
from remul_md.datasets.readers.xyz import read_xyz
from remul_md.datasets.registry import ENTRIES
from remul_md.errors import InputError
from remul_md.files import text_encoding

if TYPE_CHECKING:
    from ase import Atoms

PACKAGED_MOLECULES = tuple(name.split("/")[1] for name in ENTRIES if name.startswith("rmd17/") and "train" in name)


def read_structure(source: str | Path, *, ignore_cell: bool = False) -> Atoms:
    """A structure to start from, without a calculator.

    Args:
        source: a file that ASE reads (its last structure), else a packaged molecule such as `ethanol` (its frame of
            lowest energy in rmd17/ethanol/train-01), else a data set with a frame number, `rmd17/ethanol/test-01:17`.
        ignore_cell: leave out cell and periodicity: formats such as PDB and POSCAR put every molecule into a box.
    Raises:
        InputError: no such file or name, a file without a structure, a frame number out of range.
    """
    atoms = _structure(source)
    if ignore_cell:
        atoms.set_cell(None)
        atoms.pbc = False
    return atoms


def _structure(source: str | Path) -> Atoms:
    path = Path(source)
    if path.is_file():
        return _last_structure(path)
    name, _, number = str(source).partition(":")
    if name in PACKAGED_MOLECULES and not number:
        frames = read_frames(f"rmd17/{name}/train-01")
        assert frames.energy is not None
        return frames.atoms(int(np.argmin(frames.energy)))
    try:
        frames = read_frames(name)
    except InputError as error:
        raise InputError(
            f"structure {str(source)!r} is no file, no packaged molecule ({', '.join(PACKAGED_MOLECULES)}) "
            f"and no data set: {error}"
        ) from error
    if not number:
        number = "0"
    if not number.isdigit() or int(number) >= len(frames):
        raise InputError(f"{source}: frame {number!r} is not there; {name} holds frames 0 to {len(frames) - 1}")
    return frames.atoms(int(number))


def _last_structure(path: Path) -> Atoms:
    try:
        if path.suffix.lower() in (".xyz", ".extxyz"):
            (atoms,) = deque(read_xyz(path), maxlen=1)
        else:
            atoms = _read_any(path)
    except Exception as error:  # ASE raises many types for files it cannot read
        what = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: ASE cannot read a structure from it ({what})") from error
    atoms.calc = None
    return atoms


def _read_any(path: Path) -> Atoms:
    """The last structure of a file in any format of ASE, which opens text as the locale says: where that fails, or the
    text has a mark of its encoding, it is decoded here.
    """
    from ase.io import read
    from ase.io.formats import filetype, ioformats

    with path.open("rb") as file:
        marked = file.read(3).startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not marked:
        try:
            return cast("Atoms", read(path, index=-1, do_not_split_by_at_sign=True))
        except UnicodeDecodeError:
            pass
    # A byte that is no text stands in a comment or a name; where it matters the parser stumbles over it.
    text, kind = path.read_text(encoding=text_encoding(path), errors="backslashreplace"), filetype(str(path))
    stream = io.BytesIO(text.encode()) if ioformats[kind].isbinary else io.StringIO(text)
    return cast("Atoms", read(stream, index=-1, format=kind))
