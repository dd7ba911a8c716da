"""Five lines of molecular dynamics with ASE, then the number that says whether to trust them: the energy drift.

    python examples/nve_ethanol.py [POTENTIAL] [--length-ps 2]

`remul-md md` does the same with equilibration, files and resuming.
"""

from __future__ import annotations

import argparse

import numpy as np
from ase import units
from ase.md.verlet import VelocityVerlet

from remul_md import RemulCalculator, energy_drift, initial_velocities, read_structure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("potential", nargs="?", default="ethanol", help="a *.pt file or a shipped name")
    parser.add_argument("--length-ps", type=float, default=2.0)
    parser.add_argument("--temperature-K", type=float, default=300.0, dest="temperature_K")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    timestep_fs = 0.5
    time_ps: list[float] = []
    total_energy: list[float] = []  # eV per atom

    def record() -> None:
        time_ps.append(dynamics.get_time() / (1000.0 * units.fs))
        total_energy.append(atoms.get_total_energy() / len(atoms))

    atoms = read_structure("ethanol")
    atoms.calc = RemulCalculator(options.potential)
    # Half of this kinetic energy becomes potential energy, because the structure is near a minimum.
    velocities = initial_velocities(
        atoms.positions,
        atoms.get_masses(),
        temperature_K=options.temperature_K,
        generator=np.random.default_rng(options.seed),
    )
    atoms.set_velocities(velocities / units.fs)  # Angstrom/fs to ASE's unit
    dynamics = VelocityVerlet(atoms, timestep=timestep_fs * units.fs)
    dynamics.attach(record, interval=2)
    dynamics.run(round(1000.0 * options.length_ps / timestep_fs))

    drift = energy_drift(np.array(time_ps), np.array(total_energy))
    low, high = drift.ci95_meV_per_atom_ps
    print(f"drift {drift.slope_meV_per_atom_ps:+.4f} [{low:+.4f}, {high:+.4f}] meV/atom/ps over {time_ps[-1]:g} ps")
    print(f"fluctuation {drift.fluctuation_meV_per_atom:.4f} meV/atom, {len(time_ps)} energies")
    print(f"that adds up to {drift.change_meV_per_atom:+.4f} meV/atom in the run; the interval has slow waves in it")


if __name__ == "__main__":
    main()
