"""What a method says when it cannot label one geometry, though it may label the next."""

from __future__ import annotations

from ase.calculators.calculator import SCFError

from remul_md.errors import InputError


class NotConverged(InputError, SCFError):
    """The electrons of this geometry were not found; labels of the others are still good."""
