"""Relax a molecule and compute its vibrations with a potential: two tools of ASE, one calculator.

    python examples/relax_and_vibrate.py [POTENTIAL] [--structure ethanol]

The six lowest modes are translations and rotations. Translations are exactly 0; rotations are as near to 0 as the
potential has learned them, so they are a test of it.
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np
from ase import Atoms, units
from ase.optimize import BFGS
from ase.vibrations import Vibrations

from remul_md import RemulCalculator
from remul_md.datasets.structure_source import read_structure


def relax(atoms: Atoms, *, fmax: float, max_steps: int) -> bool:
    """Relax in place until no force is larger than `fmax`, eV/Angstrom."""
    return bool(BFGS(atoms, logfile="-").run(fmax=fmax, steps=max_steps))


def wavenumbers(atoms: Atoms) -> np.ndarray:
    """Harmonic wavenumbers in 1/cm, ascending; negative ones are imaginary."""
    with tempfile.TemporaryDirectory() as folder:
        analysis = Vibrations(atoms, delta=0.01, name=f"{folder}/vibrations")
        analysis.run()
        energies = np.asarray(analysis.get_energies(), dtype=complex)
    return np.sort(np.where(energies.imag > 0, -energies.imag, energies.real)) / units.invcm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("potential", nargs="?", default="ethanol", help="a *.pt file or a shipped name")
    parser.add_argument("--structure", default="ethanol", help="a file or a packaged molecule")
    parser.add_argument("--fmax", type=float, default=0.01, help="eV/Angstrom")
    parser.add_argument("--max-steps", type=int, default=200)
    options = parser.parse_args()

    atoms = read_structure(options.structure)
    # Finite differences and tight convergence want float64; it costs little for a molecule.
    atoms.calc = RemulCalculator(options.potential, dtype="float64")
    converged = relax(atoms, fmax=options.fmax, max_steps=options.max_steps)
    print(f"energy {atoms.get_potential_energy():.4f} eV, {'relaxed' if converged else 'NOT relaxed'}")
    print("wavenumbers, 1/cm:", *(f"{value:.0f}" for value in wavenumbers(atoms)))


if __name__ == "__main__":
    main()
