"""Calculators by name: GFN2-xTB for cheap labels, PBE for good ones, or whatever a user's factory makes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from remul_md.errors import InputError
from remul_md.labels.field import Field, check_field
from remul_md.labels.xtb import require_tblite, xtb_calculator

if TYPE_CHECKING:
    from ase.calculators.calculator import BaseCalculator

    from remul_md.structures.frames import Frames

XTB, PBE = "xtb", "pbe"


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """A method that labels geometries.

    Args:
        name: as it stands beside every figure of what was trained on its labels.
        version: package and version that compute them, or "" where only the user knows.
        neutral_only: whether it takes every molecule for neutral, whatever charge it states.
        make: a new ASE calculator; one without a past gives the same labels again, whatever was labelled before. Of a
            source by name it can be sent to another process.
        conditions: what else decides the labels, JSON-able: `field_V_per_A`, `spin`.
        figures: further numbers that its `results` hold and that are kept with each label.
    """

    name: str
    version: str
    make: Callable[[], BaseCalculator]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    figures: tuple[str, ...] = ()
    neutral_only: bool = False

    def require_charges(self, frames: Frames) -> None:
        """Refuse charged molecules for a method that would label them as neutral ones.

        Raises:
            InputError: a frame with a charge.
        """
        if self.neutral_only and frames.charge is not None and frames.charge.any():
            index = int(np.argmax(frames.charge != 0))
            raise InputError(
                f"{frames.name}: frame {index} has the total charge {int(frames.charge[index]):+d}; {self.name} is set "
                "up for neutral molecules here, give MODULE:FACTORY of a calculator with the charge"
            )


def label_source(method: str, *, spin: int | None = None, field_V_per_A: Field | None = None) -> LabelSource:
    """The source of labels of this name; nothing is computed yet.

    Args:
        method: "xtb" is GFN2-xTB of neutral molecules by tblite, "pbe" is PBE/def2-SVP of neutral molecules and atoms
            by PySCF (`remul_md.labels.pbe`); else MODULE:FACTORY, see `imported_calculator`.
        spin: unpaired electrons, for "pbe" only; see `PBECalculator`.
        field_V_per_A: a uniform electric field (x, y, z), volt/Angstrom, for "pbe" and "xtb".
    Raises:
        InputError: tblite or PySCF is not installed, the factory makes no calculator, an option that is out of range
            or not one of this method.
    """
    given = {} if spin is None else {"spin": spin}
    conditions: dict[str, Any] = dict(given)
    if field_V_per_A is not None:
        conditions["field_V_per_A"] = list(check_field(field_V_per_A))
    if conditions and (method not in (XTB, PBE) or (given and method != PBE)):
        raise InputError(
            f"{next(iter(conditions))}={next(iter(conditions.values()))} cannot be handed to {method}; spin is an "
            "option of pbe, a field of pbe and xtb: a factory of your own (MODULE:FACTORY) sets its own"
        )
    if method == PBE:
        from remul_md.labels.pbe import PBECalculator, require_pyscf

        PBECalculator(spin=spin)  # what is out of range is refused before data are read
        return LabelSource(
            name="PBE/def2-SVP",
            version=require_pyscf(),
            make=partial(PBECalculator, spin=spin, field_V_per_A=field_V_per_A),
            conditions=conditions,
            figures=("spin_squared",),
            neutral_only=True,
        )
    if method != XTB:
        imported_calculator(method)  # what cannot work is refused before data are read
        return LabelSource(name=method, version="", make=partial(imported_calculator, method))
    return LabelSource(
        name="GFN2-xTB",
        version=require_tblite(),
        make=partial(xtb_calculator, field_V_per_A=field_V_per_A),
        conditions=conditions,
        neutral_only=True,
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
