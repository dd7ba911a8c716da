"""Writing files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from remul_md.errors import InputError


def write_atomically(path: Path, payload: Any) -> None:
    """`torch.save` through a temporary file beside the target, flushed to disk, then renamed.

    Raises:
        InputError: the disk is full or the folder cannot be written; the previous file is still whole.
    """
    import torch

    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            torch.save(payload, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        with contextlib.suppress(OSError):  # a folder that is a file has nothing to unlink either
            temporary.unlink()
        raise InputError(f"{path}: cannot be written ({error}); free space or choose another folder") from error
