"""Writing files that are either whole or not there."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

from remul_md.errors import InputError


def replace_atomically(path: Path, content: bytes) -> None:
    """Replace a file at once: whoever reads it finds the old or the new content, never a part of one.

    Written to a temporary file beside it, flushed to disk, then renamed; what did not fit is removed again.

    Raises:
        OSError: the disk is full or the folder cannot be written; the previous file is still whole.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # a folder that is a file has nothing to unlink either
            temporary.unlink()
        raise


def save_tensors(path: Path, payload: Any) -> None:
    """`torch.save` to a file that is either whole or not there.

    Raises:
        InputError: the disk is full or the folder cannot be written; the previous file is still whole.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(payload, buffer)
    try:
        replace_atomically(path, buffer.getvalue())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error}); free space or choose another folder") from error
