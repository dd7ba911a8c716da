"""Calculators that serve a potential to other programs, packaged as `remul_md.calculators`."""

from remul_md.calculators.ase import RemulCalculator

__all__ = ["RemulCalculator"]
