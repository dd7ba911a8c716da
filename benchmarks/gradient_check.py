"""Are the forces minus the gradient of the energy? Central differences in float64 over all atoms of some frames.

python benchmarks/gradient_check.py [POTENTIAL] [--data rmd17/ethanol/test-01] [--frames 20] [--step 1e-4] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from remul_md import RemulCalculator, read_frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("potential", nargs="?", default="ethanol")
    parser.add_argument("--data", default="rmd17/ethanol/test-01")
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--step", type=float, default=1e-4, help="displacement, Angstrom")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    frames = read_frames(options.data)
    calculator = RemulCalculator(options.potential, device="cpu", dtype="float64", forces="conservative")
    worst, squares = 0.0, []
    for index in np.linspace(0, len(frames) - 1, options.frames).astype(int):
        atoms = frames.atoms(index)
        atoms.calc = calculator
        forces = atoms.get_forces()
        squares.append(np.square(forces).mean())
        for atom, axis in np.ndindex(forces.shape):
            energies = []
            for sign in (1, -1):
                atoms.positions[atom, axis] += sign * options.step
                energies.append(atoms.get_potential_energy())
                atoms.positions[atom, axis] -= sign * options.step
            numeric = -(energies[0] - energies[1]) / (2 * options.step)
            worst = max(worst, abs(numeric - forces[atom, axis]))
    rms = float(np.sqrt(np.mean(squares)))
    print(f"{options.frames} frames of {options.data}: largest deviation {worst:.2e} eV/Angstrom,")
    print(f"RMS force {rms:.3f} eV/Angstrom, ratio {worst / rms:.1e}")
    if options.json:
        result = {"largest_deviation_eV_per_A": worst, "rms_force_eV_per_A": rms, "ratio": worst / rms}
        options.json.write_text(
            json.dumps(result | {"frames": options.frames, "step_A": options.step}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
