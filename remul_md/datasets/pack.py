"""Make the packaged data: `python -m remul_md.datasets.pack FILE... --output-dir DIR`.

Takes rMD17 split files as published (sha256 checked against the registry) and keeps what training and testing need,
in the original layout and unit (kcal/mol), so that one reader serves both.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from remul_md.datasets.readers.npz import load_arrays
from remul_md.datasets.registry import ENTRIES
from remul_md.errors import InputError
from remul_md.files import replace_atomically
from remul_md.outputs import check_no_input

# float32 resolves 5e-7 Angstrom and 1e-5 kcal/mol/Angstrom here; energies of 4e5 kcal/mol need float64
PACKED_TYPES = {
    "nuclear_charges": np.uint8,
    "coords": np.float32,
    "energies": np.float64,
    "forces": np.float32,
    "old_indices": np.int32,
}


def pack(source: Path, *, output_dir: Path) -> Path:
    """Write the packaged form of one published rMD17 file; returns the new file, of the same name.

    Args:
        source: the file as published.
        output_dir: an existing folder.
    Raises:
        InputError: a file that is not registered or differs from the published one, or lies in `output_dir`.
    """
    known = {entry.file_name: entry for entry in ENTRIES.values() if entry.layout == "rMD17"}
    if source.name not in known:
        raise InputError(f"{source}: no registered rMD17 file has this name; expected one such as {next(iter(known))}")
    found = hashlib.sha256(source.read_bytes()).hexdigest()
    if found != known[source.name].sha256:
        raise InputError(
            f"{source}: sha256 is {found}, expected {known[source.name].sha256}; "
            f"`remul-md data fetch {known[source.name].name}` gets the published file"
        )
    arrays = load_arrays(source)
    target = output_dir / source.name
    packed: dict[str, Any] = {key: arrays[key].astype(kind) for key, kind in PACKED_TYPES.items()}
    check_no_input([target], [source])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **packed)
    try:
        replace_atomically(target, buffer.getvalue())
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error}); choose another --output-dir") from error
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack all files of the command line; prints the table of data/rmd17/README.md."""
    parser = argparse.ArgumentParser(description="Make the packaged rMD17 files from the published ones.")
    parser.add_argument("files", nargs="+", type=Path, help="rmd17_<molecule>_<train|test>_01.npz")
    parser.add_argument("--output-dir", required=True, type=Path)
    options = parser.parse_args(arguments)
    try:
        for source in options.files:
            target = pack(source, output_dir=options.output_dir)
            digest = hashlib.sha256(target.read_bytes()).hexdigest()
            print(f"| {target.name} | {target.stat().st_size} | `{digest}` |")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
