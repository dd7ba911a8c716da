"""Writing files that are either whole or not there, JSON with messages that say what to do, and the cache folder."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from remul_md.errors import InputError

CACHE_VARIABLE = "REMUL_MD_CACHE"


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


def write_json(path: Path, content: Mapping[str, Any], *, hint: str) -> None:
    """Write a JSON object that is either whole or not there; the folder is made.

    Args:
        path: the file.
        content: JSON-able.
        hint: what to do where it cannot be written, the end of the message.
    Raises:
        InputError: the file cannot be written, or a number is NaN or infinite, which is no JSON.
    """
    try:
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    except ValueError as error:
        raise InputError(f"{path}: is not written, JSON knows no NaN and no infinity ({error}); {hint}") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # /dev/stdout for example: a rename would put a file in its place
            path.write_text(text)
        else:
            replace_atomically(path, text.encode())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error}); {hint}") from error


def read_json(path: Path, *, hint: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: the file.
        hint: where such a file comes from, the end of the message.
    Raises:
        InputError: missing, not JSON, or JSON that is no object.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); {hint}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected a JSON object; {hint}")
    return content


def changed_values(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a record of before says otherwise than `now`, a line for each key of `now`; a missing key counts as None."""
    return [f"{key} was {before.get(key)!r}, now {value!r}" for key, value in now.items() if before.get(key) != value]


def save_tensors(path: Path, payload: Any) -> None:
    """`torch.save` to a file that is either whole or not there.

    Raises:
        InputError: the disk is full or the folder cannot be written; the previous file is still whole.
    """
    import torch

    buffer = io.BytesIO()
    with _interrupts_deferred():
        torch.save(payload, buffer)
    try:
        replace_atomically(path, buffer.getvalue())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error}); free space or choose another folder") from error


@contextlib.contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Ctrl-C acts at the end of the block: pickling passes through `copyreg`, whose bare `except` may swallow it."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # no handler of Python runs here
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


def cache_directory() -> Path:
    """Folder of fetched data: the environment variable REMUL_MD_CACHE, else the user's cache of this system."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    import pooch

    return Path(pooch.os_cache("remul-md"))
