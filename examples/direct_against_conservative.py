"""The two kinds of forces of one potential, side by side: agreement, speed, and what they do to the energy.

    python examples/direct_against_conservative.py [POTENTIAL] [--structure ethanol] [--length-ps 1]

The potential has both heads, as the shipped ones have and those from `remul-md train --set train.forces=both` or
`remul-md distill`. Conservative forces are minus the gradient of the energy, so NVE keeps the total energy. Direct
forces are read off the network in about half the time, and nothing holds the energy.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from ase import units
from ase.md.verlet import VelocityVerlet

from remul_md import InputError, RemulCalculator, energy_drift, initial_velocities, read_structure

TIMESTEP_FS = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "potential", nargs="?", default="ethanol", help="a *.pt file or a shipped name, with both heads"
    )
    parser.add_argument("--structure", default="ethanol", help="a file or a packaged molecule")
    parser.add_argument("--length-ps", type=float, default=1.0)
    options = parser.parse_args()
    start = read_structure(options.structure)
    generator = np.random.default_rng(0)
    velocities = initial_velocities(start.positions, start.get_masses(), temperature_K=300.0, generator=generator)
    try:
        heads = {head: RemulCalculator(options.potential, forces=head) for head in ("conservative", "direct")}
        forces = {head: calculator.get_forces(start) for head, calculator in heads.items()}
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    gap = 1000.0 * np.abs(forces["direct"] - forces["conservative"]).mean()
    print(f"direct and conservative forces differ by {gap:.1f} meV/A at the start")
    for head, calculator in heads.items():
        atoms = start.copy()
        atoms.calc = calculator
        atoms.set_velocities(velocities / units.fs)  # Angstrom/fs to ASE's unit
        total: list[float] = []  # eV per atom
        dynamics = VelocityVerlet(atoms, timestep=TIMESTEP_FS * units.fs)
        dynamics.attach(lambda atoms=atoms, total=total: total.append(atoms.get_total_energy() / len(atoms)))
        n_steps, begin = round(1000.0 * options.length_ps / TIMESTEP_FS), time.process_time()
        dynamics.run(n_steps)
        per_step_ms = 1000.0 * (time.process_time() - begin) / n_steps
        drift = energy_drift(1e-3 * TIMESTEP_FS * np.arange(len(total)), np.array(total))
        low, high = drift.ci95_meV_per_atom_ps
        print(f"{head:12} {per_step_ms:.1f} ms a step, ", end="")
        print(f"drift {drift.slope_meV_per_atom_ps:+.3f} [{low:+.3f}, {high:+.3f}] meV/atom/ps")


if __name__ == "__main__":
    main()
