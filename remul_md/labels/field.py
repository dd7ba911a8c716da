"""A uniform electric field in which labels are computed: its form, and GFN2-xTB in one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from remul_md.errors import InputError

if TYPE_CHECKING:
    from ase.calculators.calculator import BaseCalculator

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


def xtb_in_field(field_V_per_A: Field) -> BaseCalculator:
    """GFN2-xTB of tblite in a uniform field (x, y, z), volt/Angstrom; a positive charge is pushed along it."""
    from ase import units
    from tblite import library
    from tblite.ase import TBLite, _create_api_calculator

    # tblite's own option hands its library a numpy array where that wants a pointer to three doubles.
    components = [component * units.Bohr / units.Hartree for component in check_field(field_V_per_A)]
    pointer = library.ffi.new("double[3]", components)

    class InField(TBLite):
        """With the field in every calculation."""

        def _check_api_calculator(self, system_changes: Any) -> None:
            super()._check_api_calculator(system_changes)
            if self._xtb is None:
                own: Any = self
                self._xtb = _create_api_calculator(own.atoms, own.parameters)
                self._xtb.add("electric-field", pointer)

    calculator: BaseCalculator = InField(method="GFN2-xTB", verbosity=0)
    return calculator
