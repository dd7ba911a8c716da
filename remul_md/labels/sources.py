"""Calculators by name: GFN2-xTB for cheap labels, PBE for good ones, or whatever a user's factory makes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING

from remul_md.errors import InputError

if TYPE_CHECKING:
    from ase.calculators.calculator import BaseCalculator

XTB, PBE = "xtb", "pbe"


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """A method that labels geometries.

    Args:
        name: as it stands beside every figure of what was trained on its labels.
        version: package and version that compute them, or "" where only the user knows.
        make: a new ASE calculator; one without a past gives the same labels again, whatever was labelled before.
    """

    name: str
    version: str
    make: Callable[[], BaseCalculator]


def label_source(method: str) -> LabelSource:
    """The source of labels of this name; nothing is computed yet.

    Args:
        method: "xtb" is GFN2-xTB of neutral molecules by tblite, "pbe" is PBE/def2-SVP of neutral molecules with
            paired electrons by PySCF (`remul_md.labels.pbe`); else MODULE:FACTORY, see `imported_calculator`.
    Raises:
        InputError: tblite or PySCF is not installed, or the factory makes no calculator.
    """
    if method == PBE:
        from remul_md.labels.pbe import PBECalculator, require_pyscf

        return LabelSource(name="PBE/def2-SVP", version=require_pyscf(), make=PBECalculator)
    if method != XTB:
        imported_calculator(method)  # what cannot work is refused before data are read
        return LabelSource(name=method, version="", make=lambda: imported_calculator(method))
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise InputError(
            f'GFN2-xTB needs tblite, which cannot be imported ({error}); install it with `pip install "remul-md[xtb]"`'
        ) from error
    return LabelSource(
        name="GFN2-xTB",
        version=f"tblite {metadata.version('tblite')}",
        make=lambda: TBLite(method="GFN2-xTB", verbosity=0),
    )


def names_calculator(target: str) -> bool:
    """Whether a command is given a calculator by name or MODULE:FACTORY, and no potential; files come first."""
    return not Path(target).is_file() and (target in (XTB, PBE) or ":" in target)


def imported_calculator(target: str) -> BaseCalculator:
    """The ASE calculator that MODULE:FACTORY makes, as in ase.calculators.emt:EMT.

    Args:
        target: module, imported as `python -m` would from the working folder, and what is called without arguments.
    Raises:
        InputError: no such module or factory, a factory that fails, or one that makes no calculator.
    """
    module_name, _, factory_name = target.partition(":")
    sys.path.insert(0, "")  # the working folder, as for `python -m`
    try:
        factory = getattr(import_module(module_name), factory_name)
        calculator: BaseCalculator = factory()
    except Exception as error:  # a user's module raises whatever it raises
        raise InputError(
            f"{target}: {type(error).__name__}: {error}; MODULE:FACTORY names something that is called without "
            "arguments and returns an ASE calculator"
        ) from error
    finally:
        sys.path.remove("")
    if not hasattr(calculator, "get_potential_energy"):
        raise InputError(f"{target} made a {type(calculator).__name__}, which is no ASE calculator")
    return calculator
