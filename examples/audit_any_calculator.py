"""Is a calculator fit for dynamics? Audit any ASE calculator, and see a fault found.

    python examples/audit_any_calculator.py [--report audit.html] [--only gradient --only rotation]

`remul-md audit ase.calculators.emt:EMT --structure FILE` does the same from the command line.
"""

from __future__ import annotations

import argparse

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.cluster import Octahedron

from remul_md import run_audit, write_audit_report


class CarelessEMT(Calculator):
    """Effective medium theory with forces 1 % too large, as a wrong unit factor would make them."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        honest = self.atoms.copy()
        honest.calc = EMT()
        self.results = {"energy": honest.get_potential_energy(), "forces": 1.01 * honest.get_forces()}


def cluster() -> Atoms:
    """Six atoms of copper; every structure of ASE will do."""
    return Octahedron("Cu", 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", help="write an HTML page for the second calculator")
    parser.add_argument("--only", action="append", help="make this check only; may be repeated")
    options = parser.parse_args()
    for calculator in (EMT(), CarelessEMT()):
        atoms = cluster()
        atoms.calc = calculator
        result = run_audit(atoms, only=options.only)
        print(f"{result.calculator} on {result.formula}: {'passed' if result.passed else 'FAILED'}")
        for check in result.checks:
            print(f"  {'ok' if check.passed else 'NO':3} {check.name:13} {check.why}")
    if options.report:
        print(f"wrote {write_audit_report(result, options.report)}")


if __name__ == "__main__":
    main()
