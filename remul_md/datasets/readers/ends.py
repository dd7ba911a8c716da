"""Whether a file goes on after what its reader reads: several formats count their frames at the beginning and then look
no further, so that of two files joined by `cat` half is read, and nothing is said.
"""

from __future__ import annotations

import re
import struct
import zipfile
from pathlib import Path

from remul_md.errors import InputError

_ULM, _SQLITE, _HDF5 = b"- of Ulm", b"SQLite format 3\x00", b"\x89HDF\r\n\x1a\n"
_NETCDF = re.compile(rb"CDF[\x01\x02].{4}\x00\x00\x00\x0a", re.DOTALL)  # with the tag of its list of dimensions
_PIECE, _OVERLAP = 2**24, 64


def check_traj_end(path: Path) -> None:
    """Refuse an ASE trajectory behind which another one stands.

    Raises:
        InputError: with the place where the other begins.
    """
    with path.open("rb") as file:
        if file.read(8) != _ULM:
            return  # not what this is about
        file.seek(32)
        n_items, table = struct.unpack("<qq", file.read(16))
        if not 0 < 8 * n_items + table <= path.stat().st_size or n_items < 1:
            return  # empty, cut, or of a big-endian machine: its reader says the rest
        file.seek(table + 8 * (n_items - 1))
        (last,) = struct.unpack("<q", file.read(8))
        file.seek(last)
        (length,) = struct.unpack("<q", file.read(8))
    _refuse_second(path, re.compile(re.escape(_ULM)), after=last + 8 + length)


def check_database_end(path: Path) -> None:
    """Refuse an SQLite database behind which another one stands.

    Raises:
        InputError: with the place where the other begins.
    """
    with path.open("rb") as file:
        head = file.read(100)
    if head.startswith(_SQLITE) and len(head) == 100:
        (page_size,), (n_pages,) = struct.unpack(">H", head[16:18]), struct.unpack(">I", head[28:32])
        size = n_pages * (65536 if page_size == 1 else page_size)
        _refuse_second(path, re.compile(re.escape(_SQLITE)), after=max(size, 100))


def check_npz_begin(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse an archive in front of which something stands: only what its table at the end names is read.

    Raises:
        InputError: with how much it is.
    """
    first = min((member.header_offset for member in archive.infolist()), default=0)
    if first > 0:
        raise InputError(f"{path}: {first} bytes before its arrays are not read; were two files joined? Split them")


def check_hdf5_end(path: Path) -> None:
    """Refuse an HDF5 file behind which another one stands.

    Raises:
        InputError: with the place where the other begins.
    """
    with path.open("rb") as file:
        head = file.read(64)
    places = {0: 40, 1: 44, 2: 28, 3: 28}  # of the end in the superblock, by its version
    if head.startswith(_HDF5) and len(head) == 64 and head[8] in places:
        (end,) = struct.unpack("<Q", head[places[head[8]] : places[head[8]] + 8])
        _refuse_second(path, re.compile(re.escape(_HDF5)), after=end)


def check_netcdf_end(path: Path) -> None:
    """Refuse a NetCDF file behind which another one stands.

    Raises:
        InputError: with the place where the other begins.
    """
    with path.open("rb") as file:
        begin = file.read(12)
    if _NETCDF.match(begin):
        _refuse_second(path, _NETCDF, after=len(begin))


def _refuse_second(path: Path, magic: re.Pattern[bytes], *, after: int) -> None:
    """Look for the beginning of another file of this kind behind `after`, a piece at a time."""
    if after >= path.stat().st_size:
        return
    with path.open("rb") as file:
        file.seek(after)
        place, kept = after, b""
        while piece := file.read(_PIECE):
            if found := magic.search(kept + piece):
                raise InputError(
                    f"{path}: another file begins at byte {place - len(kept) + found.start()}, whose frames would not "
                    "be read; were two files joined? Split them"
                )
            place, kept = place + len(piece), piece[-_OVERLAP:]
