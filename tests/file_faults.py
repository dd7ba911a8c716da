"""What happens to files: damage of bytes, of lines, of numbers, of arrays. Everything is drawn from a generator."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np

Fault = Callable[[bytes, np.random.Generator], bytes]


def place(content: bytes, rng: np.random.Generator) -> int:
    return int(rng.integers(len(content)))


def flipped_bits(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        damaged[place(content, rng)] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def cut_off(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: place(content, rng)]


def lost_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    start = place(content, rng)
    return content[:start] + content[start + int(rng.integers(1, 60)) :]


def repeated_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    start = place(content, rng)
    return content[: start + int(rng.integers(1, 60))] + content[start:]


def zeroed_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    start, length = place(content, rng), int(rng.integers(1, 40))
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def foreign_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    start = place(content, rng)
    return content[:start] + rng.bytes(int(rng.integers(1, 9))) + content[start:]


def bytes_behind(content: bytes, rng: np.random.Generator) -> bytes:
    return content + rng.bytes(int(rng.integers(1, 40)))


BYTES: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        flipped_bits, cut_off, lost_bytes, repeated_bytes, zeroed_bytes, foreign_bytes, bytes_behind
    )
}  # fmt: skip


# Lines of an xyz file. Each gives the new lines and the first and last line that it touched --------------------------

Lines = list[str]
LineFault = Callable[[Lines, np.random.Generator], tuple[Lines, int, int]]


def line_lost(lines: Lines, rng: np.random.Generator) -> tuple[Lines, int, int]:
    k = int(rng.integers(len(lines)))
    return lines[:k] + lines[k + 1 :], k, k


def line_twice(lines: Lines, rng: np.random.Generator) -> tuple[Lines, int, int]:
    k = int(rng.integers(len(lines)))
    return lines[: k + 1] + lines[k:], k, k


def lines_swapped(lines: Lines, rng: np.random.Generator) -> tuple[Lines, int, int]:
    k = int(rng.integers(len(lines) - 1))
    return [*lines[:k], lines[k + 1], lines[k], *lines[k + 2 :]], k, k + 1


def line_blank(lines: Lines, rng: np.random.Generator) -> tuple[Lines, int, int]:
    k = int(rng.integers(len(lines)))
    return [*lines[:k], "", *lines[k + 1 :]], k, k


def blank_line_between(lines: Lines, rng: np.random.Generator) -> tuple[Lines, int, int]:
    k = int(rng.integers(len(lines)))
    return [*lines[:k], " " * int(rng.integers(3)), *lines[k:]], k - 1, k


def lines_joined(lines: Lines, rng: np.random.Generator) -> tuple[Lines, int, int]:
    k = int(rng.integers(len(lines) - 1))
    return [*lines[:k], f"{lines[k]} {lines[k + 1]}", *lines[k + 2 :]], k, k + 1


def word_changed(lines: Lines, rng: np.random.Generator) -> tuple[Lines, int, int]:
    k = int(rng.integers(len(lines)))
    words = lines[k].split(" ")
    filled = [place for place, word in enumerate(words) if word]
    odd = ["nan", "inf", "-inf", "", "x", "1e400", "-7", "0", "1_0", "0x10", "999999999", "1,5", "0.1.2", "T", "é", '"']
    words[int(rng.choice(filled))] = str(rng.choice(odd))
    return [*lines[:k], " ".join(words), *lines[k + 1 :]], k, k


def word_lost(lines: Lines, rng: np.random.Generator) -> tuple[Lines, int, int]:
    k = int(rng.integers(len(lines)))
    words = lines[k].split()
    del words[int(rng.integers(len(words)))]
    return [*lines[:k], " ".join(words), *lines[k + 1 :]], k, k


def word_more(lines: Lines, rng: np.random.Generator) -> tuple[Lines, int, int]:
    k = int(rng.integers(len(lines)))
    words = lines[k].split()
    words.insert(int(rng.integers(len(words) + 1)), str(rng.choice(["0.5", "7", "C", "-1e-3"])))
    return [*lines[:k], " ".join(words), *lines[k + 1 :]], k, k


def key_renamed(lines: Lines, rng: np.random.Generator) -> tuple[Lines, int, int]:
    keys = [
        (k, match) for k, line in enumerate(lines) for match in re.finditer(r"\b(\w+)=|(?<=[=:])(\w+):[RSI]:", line)
    ]
    k, match = keys[int(rng.integers(len(keys)))]
    group = 1 if match.group(1) else 2
    name = str(
        rng.choice(["other", "Energy", "pos", "forces", "momenta", "masses", "Z", "stress", "pbc", "tags", "VEC1"])
    )
    return [*lines[:k], lines[k][: match.start(group)] + name + lines[k][match.end(group) :], *lines[k + 1 :]], k, k


LINES: dict[str, LineFault] = {
    fault.__name__: fault
    for fault in (
        line_lost, line_twice, lines_swapped, line_blank, blank_line_between, lines_joined, word_changed, word_lost,
        word_more, key_renamed,
    )
}  # fmt: skip


# Arrays of an npz file, or data sets of an HDF5 file ----------------------------------------------------------------


def changed_array(array: Any, rng: np.random.Generator) -> Any:
    """Another shape, type or value."""
    array = np.asarray(array)
    numbers = array.dtype.kind in "iuf"
    changes: list[Callable[[], Any]] = [
        lambda: array[:-1] if array.ndim else array,
        lambda: np.concatenate([array, array[-1:]]) if array.ndim else array,
        lambda: array.T,
        lambda: array[None],
        lambda: array[..., None],
        lambda: array.ravel(),
        lambda: array.ravel()[:0],
        lambda: array.ravel()[0] if array.size else array,
        lambda: array[..., :2] if array.ndim else array,
        lambda: array.astype(str),
        lambda: array.astype("S20") if numbers else array,
        lambda: array.astype(bool) if numbers else array,
        lambda: array.astype(complex) if numbers else array,
        lambda: array.astype(np.float32) if numbers else array,
        lambda: array.astype(np.float16) if numbers else array,
        lambda: array.astype(np.int8) if numbers else array,
        lambda: (array + 0.5) if numbers else array,
        lambda: -array if numbers and array.dtype.kind != "u" else array,
        lambda: array * 1e300 if numbers else array,
        lambda: np.zeros_like(array),
        lambda: np.full(array.shape, np.nan),
        lambda: np.where(np.arange(array.size).reshape(array.shape) == 1, np.inf, array) if numbers else array,
        lambda: np.zeros(array.shape, dtype=[("a", "f8"), ("b", "i4")]),
        lambda: np.array("kJ/mol"),
        lambda: np.array([b"\xff\xfe", b"eV"]),
        lambda: np.array(b"\xff"),
    ]
    with np.errstate(all="ignore"):
        return changes[int(rng.integers(len(changes)))]()


def npz_bytes(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
