"""Extended XYZ, frame by frame: finds the frames and has ASE read each of them.

ASE's own loop over a file ends at the first blank line without a word, so that of joined files only the first part is
read; it leaves out columns that the comment line does not name, and puts all atoms at the origin where it names no
positions.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from remul_md.errors import InputError
from remul_md.files import text_encoding

if TYPE_CHECKING:
    from ase import Atoms

logger = logging.getLogger(__name__)

_COUNT = re.compile(r"[0-9]{1,12}")
_POSITIONS, _ELEMENTS = ("pos", "positions"), ("species", "symbols", "Z", "numbers")
_GEOMETRY = ("Properties", "Lattice", "pbc")  # entries of a comment line without which there is no geometry
_READ = ("energy", "forces", "momenta", "masses")  # what is read beside the geometry, where ASE can take it for such
_PLAIN = "species:S:1:pos:R:3"  # what a comment line without Properties means
_ENTRY = re.compile(r"""([^\s=]+)(?:\s*=\s*("[^"]*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|\S*))?""")
_ASIDE = "remul_md_aside_"  # before the name of a column that ASE must not take for one of its own
ISOTOPES = {"D": 2.01410177811, "T": 3.01604927791}  # amu, of hydrogen (AME2016)


@dataclass(frozen=True, kw_only=True)
class _Block:
    """The lines of one frame: count, comment, atoms, and the cell vectors (VEC1 ...) that some programs write."""

    number: int  # of the first line, counted from 1
    n_atoms: int
    lines: list[str]


def count_xyz(path: Path) -> int:
    """Number of frames of an extended XYZ file, without parsing their atoms.

    Raises:
        InputError: a line that should be a number of atoms and is none, or a frame that ends early.
    """
    return sum(1 for _ in _blocks(path))


def read_xyz(path: Path) -> Iterator[Atoms]:
    """The frames of an extended XYZ file, one at a time, as ASE reads them; blank lines between frames are skipped.

    A mark of UTF-8 at the start is skipped, too, and bytes that are no UTF-8 do no harm in a comment. D and T are
    hydrogen with the mass of the isotope. An entry or column that is not of the geometry never makes a frame
    unreadable: one that ASE would take for its own, and cannot, is kept in `info` or `arrays` as it stands.

    Raises:
        InputError: as `count_xyz`, columns that do not fit `Properties`, or what ASE cannot parse, with the line.
    """
    isotopes: set[str] = set()
    n_left_out, whole = 0, True
    for block in _blocks(path):
        atoms, n_behind, of_block = _parsed(block)
        if of_block - isotopes:
            isotopes |= of_block
            logger.warning(
                "%s: %s is read as H with the mass of the isotope; energies and forces of a potential do not know it",
                path, " and ".join(sorted(of_block)),
            )  # fmt: skip
        n_left_out, whole = max(n_left_out, n_behind), block.lines[-1].endswith("\n")
        yield atoms
    if n_left_out:
        logger.warning(
            "%s: up to %d columns behind the positions are left out; name them in Properties if they are needed",
            path, n_left_out,
        )  # fmt: skip
    if not whole:
        logger.warning("%s: the last line has no end; if the file was cut off there, its last number is wrong", path)


def _blocks(path: Path) -> Iterator[_Block]:
    with path.open(encoding=text_encoding(path), errors="backslashreplace") as handle:
        number, line = 1, handle.readline()
        while line:
            count = line.strip()
            if not count:
                number, line = number + 1, handle.readline()
                continue
            if not _COUNT.fullmatch(count) or int(count) == 0:
                raise InputError(f"line {number} is {_short(line)}, but a frame begins with its number of atoms")
            lines = [line, *islice(handle, int(count) + 1)]
            if len(lines) < int(count) + 2:
                raise InputError(
                    f"line {number} announces {count} atoms, the file ends after {max(len(lines) - 2, 0)} of them"
                )
            block = _Block(number=number, n_atoms=int(count), lines=lines)
            number, line = number + len(lines), handle.readline()
            while line.lstrip().startswith("VEC"):
                lines.append(line)
                number, line = number + 1, handle.readline()
            yield block


def _parsed(block: _Block) -> tuple[Atoms, int, set[str]]:
    """The frame, how many columns without a name an atom has at most, and which isotopes are called by a letter."""
    comment = block.lines[1].strip()
    has_vectors = len(block.lines) > block.n_atoms + 2  # what ASE then takes for a plain comment
    info = _entries_of(comment, block=block)
    properties = None if has_vectors else info.get("Properties")
    n_behind = _check_columns(block, properties)
    isotopes = _name_hydrogen(block, properties)
    try:
        atoms = _as_ase_reads(block, info)
    except Exception as error:  # ASE's parser raises whatever its code runs into, from KeyError to AttributeError
        atoms = _with_little(block, info, because=error)
    if isotopes and "masses" not in atoms.arrays:
        masses = atoms.get_masses()
        for atom, symbol in isotopes.items():
            masses[atom] = ISOTOPES[symbol]
        atoms.set_masses(masses)
    return atoms, n_behind, set(isotopes.values())


def _entries_of(comment: str, *, block: _Block) -> dict[str, Any]:
    """The entries of a comment line; one whose value ASE refuses is text, unless it is of the geometry."""
    from ase.io.extxyz import key_val_str_to_dict

    if not comment:
        return {}
    try:
        return dict(key_val_str_to_dict(comment))
    except Exception:  # some entry, and ASE does not say which
        found: dict[str, Any] = {}
        for match in _ENTRY.finditer(comment):
            name, value = match.group(1), match.group(2) or ""
            try:
                found |= key_val_str_to_dict(match.group(0))
            except Exception as error:
                if name in _GEOMETRY:
                    raise _unreadable(block, error) from error
                found[name] = value
        return found


def _as_ase_reads(block: _Block, info: dict[str, Any]) -> Atoms:
    from ase.io.extxyz import read_xyz as parse

    (atoms,) = parse(io.StringIO("".join(block.lines)), index=slice(None), properties_parser=lambda _: dict(info))
    return cast("Atoms", atoms)


def _with_little(block: _Block, info: dict[str, Any], *, because: Exception) -> Atoms:
    """The frame with all but what this package reads kept from ASE, then with all but the geometry, and the rest put
    beside it afterwards.

    Raises:
        InputError: it is the geometry that cannot be read, `because` of what ASE said first.
    """
    for read in (_READ, ()):
        parts = str(info.get("Properties", _PLAIN)).split(":")
        aside = [name for name in parts[::3] if name not in (*_POSITIONS, *_ELEMENTS, *read)]
        parts[::3] = [_ASIDE + name if name in aside else name for name in parts[::3]]
        given = {name: info[name] for name in (*_GEOMETRY, *read) if name in info} | {"Properties": ":".join(parts)}
        try:
            atoms = _as_ase_reads(block, given)
        except Exception:  # as before
            continue
        for name in aside:
            atoms.arrays[name] = atoms.arrays.pop(_ASIDE + name)
        atoms.info.update({name: value for name, value in info.items() if name not in given})
        return atoms
    raise _unreadable(block, because) from because


def _unreadable(block: _Block, error: Exception) -> InputError:
    return InputError(
        f"the frame of {block.n_atoms} atoms at line {block.number} cannot be parsed: {type(error).__name__}: {error}"
    )


def _name_hydrogen(block: _Block, properties: object) -> dict[int, str]:
    """Write H for D and T in the lines of a frame; which atoms they are.

    Raises:
        InputError: what is neither an element nor an isotope of hydrogen.
    """
    from ase.data import atomic_numbers

    parts = (_PLAIN if properties is None else str(properties)).split(":")
    column = 0
    for name, size in zip(parts[::3], parts[2::3], strict=True):
        if name in ("species", "symbols"):
            break
        column += int(size)
    else:
        return {}
    found = {}
    for atom in range(block.n_atoms):
        words = block.lines[2 + atom].split()
        symbol = words[column].capitalize()
        if symbol in ISOTOPES:
            found[atom] = symbol
            words[column] = "H"
            block.lines[2 + atom] = " ".join(words) + "\n"
        elif symbol not in atomic_numbers:
            line = f"line {block.number + 2 + atom} is {_short(block.lines[2 + atom])}"
            raise InputError(f"{line}, and {words[column]!r} is no element")
    return found


def _check_columns(block: _Block, properties: object) -> int:
    """How many columns without a name an atom has at most; with `Properties` all columns have one.

    Raises:
        InputError: a line with more or fewer columns.
    """
    try:
        n_named = _n_columns(_PLAIN if properties is None else str(properties))
    except InputError as error:
        raise InputError(f"line {block.number + 1}: {error}") from error
    lengths = [len(line.split()) for line in block.lines[2 : block.n_atoms + 2]]
    for place, length in enumerate(lengths):
        if length < n_named or (length > n_named and properties is not None):
            raise InputError(
                f"line {block.number + 2 + place} is {_short(block.lines[2 + place])}, {length} columns, but the frame "
                f"at line {block.number} has {n_named}"
            )
    return max(lengths) - n_named


@lru_cache(maxsize=64)
def _n_columns(properties: str) -> int:
    """Columns of an atom.

    Raises:
        InputError: no list of NAME:TYPE:COLUMNS, or one without elements and positions.
    """
    names, columns = properties.split(":")[::3], properties.split(":")[2::3]
    if len(properties.split(":")) % 3 or not all(_COUNT.fullmatch(count) for count in columns):
        raise InputError(f"Properties={properties} is no list of NAME:TYPE:COLUMNS")
    sizes = dict(zip(names, map(int, columns), strict=True))
    named = [[sizes[name] for name in spellings if name in sizes] for spellings in (_POSITIONS, _ELEMENTS)]
    if len(sizes) < len(names) or named[0] != [3] or not named[1] or set(named[1]) != {1}:
        raise InputError(f"Properties={properties} needs pos in 3 columns, species or Z in one, and no name twice")
    return sum(sizes.values())


def _short(line: str) -> str:
    text = line.strip()
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
