"""GFN2-xTB by tblite as an ASE calculator, alone or in a uniform electric field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from remul_md.labels.extras import require_package
from remul_md.labels.field import Field, check_field

if TYPE_CHECKING:
    from ase.calculators.calculator import BaseCalculator


def require_tblite() -> str:
    """Name and version of tblite.

    Raises:
        InputError: it is not installed; the extra is named.
    """
    return require_package("tblite", module="tblite.ase", need="GFN2-xTB needs tblite", extra="xtb")


def xtb_calculator(*, field_V_per_A: Field | None = None) -> BaseCalculator:
    """GFN2-xTB of a neutral molecule.

    Args:
        field_V_per_A: a uniform electric field (x, y, z), volt/Angstrom; a positive charge is pushed along it.
    Raises:
        InputError: no such field.
    """
    from tblite.ase import TBLite

    if field_V_per_A is None:
        plain: BaseCalculator = TBLite(method="GFN2-xTB", verbosity=0)
        return plain
    from ase import units
    from tblite import ase as module
    from tblite import library

    # tblite's own option hands its library a numpy array where that wants a pointer to three doubles.
    components = [component * units.Bohr / units.Hartree for component in check_field(field_V_per_A)]
    pointer = library.ffi.new("double[3]", components)
    create: Any = module._create_api_calculator

    class InField(TBLite):
        """With the field in every calculation."""

        def _check_api_calculator(self, system_changes: Any) -> None:
            super()._check_api_calculator(system_changes)
            if self._xtb is None:
                self._xtb = create(self.atoms, self.parameters)
                self._xtb.add("electric-field", pointer)

    in_field: BaseCalculator = InField(method="GFN2-xTB", verbosity=0)
    return in_field
