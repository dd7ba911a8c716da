"""What the rows of a field of `Frames`, `Batch` or `Prediction` belong to: `field(metadata={"rows": Rows(...)})`.

Selecting, repeating, joining, casting and turning go through all fields of a class and read what stands there, so a new
field touches its class and its reader only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal

Per = Literal["atom", "pair", "system"]
IndexOf = Literal["atom", "slot", "system"]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a field holds.

    Args:
        per: one row for each atom; for each atom, with a column for each of its K padded neighbours (pair); or for
            each system.
        index_of: of what the values are the numbers, which shift when rows move: atoms, slots (row * K + column) or
            systems; None for values that are no such numbers.
        turns: the last axis is a vector in space, so it turns with its system.
        label: something that a model is trained on, as against the geometry.
        zero_if_absent: None stands for zeros, so it can be joined with what has it.
        shape: of a row of numpy arrays, beyond the rows.
    """

    per: Per
    index_of: IndexOf | None = None
    turns: bool = False
    label: bool = False
    zero_if_absent: bool = False
    shape: tuple[int, ...] = ()


def row_fields(kind: type[Any]) -> dict[str, Rows]:
    """The fields of a dataclass that hold rows, by name and in their order."""
    return _row_fields(kind)  # type: ignore[arg-type]  # mypy takes classes for unhashable here


@cache
def _row_fields(kind: Any) -> dict[str, Rows]:
    return {field.name: field.metadata["rows"] for field in fields(kind) if "rows" in field.metadata}


def no_labels(kind: type[Any]) -> dict[str, Any]:
    """Every label of a dataclass as None, for `replace`."""
    return {name: None for name, rows in row_fields(kind).items() if rows.label}
