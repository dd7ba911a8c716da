"""Writing files that are either whole or not there, by one process at a time; JSON with messages that say what to do;
the cache folder.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import json
import logging
import os
import re
import secrets
import signal
import socket
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from remul_md.errors import InputError

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "REMUL_MD_CACHE"
LEFTOVER = re.compile(r"\.(?P<name>.+)\.\d+-[0-9a-f]{8}\.part")
CANNOT_LOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextlib.contextmanager
def owned(path: Path, *, folder: bool = False, also: Iterable[Path] = ()) -> Iterator[None]:
    """This process alone writes a file or a folder as long as the block runs; it may ask again inside, in one thread.

    The lock is the kernel's, on a hidden file beside the output (in it, if it is a folder) that says who holds it; it
    is free again however the process ends. What a killed owner left half-written is removed.

    Args:
        path: the file, or the folder, which is made.
        folder: it is a folder; folders in it are not its own.
        also: files that are written together with `path`.
    Raises:
        InputError: another process owns it, or its folder cannot be written.
    """
    import filelock

    place = path if folder else path.parent
    made = not place.exists()
    try:
        place.mkdir(parents=True, exist_ok=True)
        # Resolved: however an output is spelt, it has one lock.
        file = place.resolve() / (".lock" if folder else f".{path.name}.lock")
        lock = filelock.FileLock(file, timeout=0, is_singleton=True, fallback_to_soft=False)
        lock.acquire()
        locked = True
    except filelock.Timeout:
        raise InputError(
            f"{path}: is being written by {_owner_in(file)}; wait until it has ended, or choose another output"
        ) from None
    except OSError as error:
        if error.errno not in CANNOT_LOCK:
            raise InputError(f"{path}: cannot be written ({error}); free space or choose another output") from error
        locked = False
    if not locked:
        _warn_of_no_locks(place.resolve())
        yield
        return
    first = lock.lock_counter == 1
    try:
        if first:
            with contextlib.suppress(OSError):  # on a full disk nobody is told who it is, and that is all
                file.write_text(json.dumps(_this_process()))
            _remove_leftovers(place, None if folder else {path.name, *(each.name for each in also)})
        yield
    finally:
        if first:  # while it is held: who has opened it meanwhile finds that it is gone, and tries again
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
                if made:  # and nothing came into it
                    place.rmdir()
        lock.release()


def _this_process() -> dict[str, Any]:
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": now}


def _owner_in(file: Path) -> str:
    """Who holds a lock, as far as its file says it: the owner may not have written it yet."""
    try:
        owner = json.loads(file.read_text())
        return f"process {owner['pid']} on {owner['host']}, since {owner['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


@lru_cache
def _warn_of_no_locks(folder: Path) -> None:
    """Once for a folder."""
    logger.warning("%s: its file system cannot lock files; see to it that no two processes write one output", folder)


def _remove_leftovers(folder: Path, names: Collection[str] | None) -> None:
    """Temporary files of killed processes: of these files, or of all in the folder."""
    for file in folder.glob(".*.part"):
        found = LEFTOVER.fullmatch(file.name)
        if found and (names is None or found["name"] in names):
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A temporary file in the same folder that takes the place of `path` at the end of the block, if that ends well.

    Raises:
        OSError: the disk is full or the folder cannot be written; the previous file is still whole.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # a folder that is a file has nothing to unlink either
            temporary.unlink(missing_ok=True)


def replace_atomically(path: Path, content: bytes) -> None:
    """Replace a file at once: whoever reads it finds the old or the new content, never a part of one.

    Written to a temporary file beside it, flushed to disk, then renamed; what did not fit is removed again.

    Raises:
        OSError: the disk is full or the folder cannot be written; the previous file is still whole.
    """
    with written_beside(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def text_encoding(path: Path) -> str:
    """How a text file is encoded: UTF-16 if it begins with its mark, else UTF-8 with or without one; never as the
    locale says, so that a file means the same everywhere.

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        OSError: the file cannot be read.
        InputError: bytes that are no text in its encoding, as in Latin-1.
    """
    try:
        return path.read_text(encoding=text_encoding(path))
    except UnicodeDecodeError as error:
        odd = error.object[error.start : error.end]
        raise InputError(
            f"{path}: byte {error.start} is {odd!r}, which is no UTF-8; if it is text, save it as UTF-8"
        ) from error


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
            path.write_text(text, encoding="utf-8")
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
        content = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); {hint}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected a JSON object; {hint}")
    return content


def changed_values(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a record of before says otherwise than `now`, a line for each key of `now`; a missing key counts as None.

    A file is its content: where the record of `name` has the same `name_sha256`, how the file is spelt says nothing.
    """
    same = {key for key in now if now.get(f"{key}_sha256") and now[f"{key}_sha256"] == before.get(f"{key}_sha256")}
    return [
        f"{key} was {before.get(key)!r}, now {value!r}"
        for key, value in now.items()
        if before.get(key) != value and key not in same
    ]


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
