"""A uniform electric field in which labels are computed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from remul_md.errors import InputError

Field = Sequence[float]
# Far above any field in which a molecule holds its electrons; a laboratory's strongest are near 1 V/Angstrom.
MAX_FIELD_V_PER_A = 10.0


def check_field(field_V_per_A: Field) -> tuple[float, float, float]:
    """Three numbers, volt/Angstrom.

    Raises:
        InputError: not three finite numbers, or a field that strips any molecule of its electrons.
    """
    values = tuple(float(value) for value in field_V_per_A)
    if len(values) != 3 or not all(map(math.isfinite, values)):
        raise InputError(f"a field has three components in V/Angstrom, got {list(field_V_per_A)}")
    if math.hypot(*values) > MAX_FIELD_V_PER_A:
        raise InputError(
            f"a field of {math.hypot(*values):.3g} V/Angstrom ionises every molecule; give it in V/Angstrom, "
            f"at most {MAX_FIELD_V_PER_A:g}"
        )
    return values[0], values[1], values[2]
