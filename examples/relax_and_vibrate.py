"""Relax a molecule and compute its vibrations with a potential; any other ASE calculator goes the same way.

    python examples/relax_and_vibrate.py [POTENTIAL] [--structure ethanol]

The energy of a free molecule does not change when it moves or turns as a whole. Translations are exactly 0;
rotations are 0 where the energy does not depend on the orientation: exactly with symmetry="exact", else nearly.
`remul-md vibrations` does the same from the command line.
"""

from __future__ import annotations

import argparse

from remul_md import RemulCalculator, read_structure, vibrations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("potential", nargs="?", default="ethanol", help="a *.pt file or a shipped name")
    parser.add_argument("--structure", default="ethanol", help="a file or a packaged molecule")
    parser.add_argument("--fmax", type=float, default=1e-3, help="eV/Angstrom")
    parser.add_argument("--max-steps", type=int, default=200)
    options = parser.parse_args()

    atoms = read_structure(options.structure)
    # Finite differences and tight convergence want float64; it costs little for a molecule.
    atoms.calc = RemulCalculator(options.potential, dtype="float64")
    found = vibrations(atoms, fmax_eV_per_A=options.fmax, max_steps=options.max_steps)
    print(f"energy {found.energy:.4f} eV, {'relaxed' if found.relaxed else 'NOT relaxed'}")
    print("translations, 1/cm:", *(f"{value:.2f}" for value in found.modes.translations_per_cm))
    print("rotations, 1/cm:", *(f"{value:.2f}" for value in found.modes.rotations_per_cm))
    print("vibrations, 1/cm:", *(f"{value:.0f}" for value in found.modes.vibrations_per_cm))


if __name__ == "__main__":
    main()
