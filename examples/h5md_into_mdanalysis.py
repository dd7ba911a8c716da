"""A run in MDAnalysis: its own RMSD and dihedral analyses, and the net torque from this package.

    python examples/h5md_into_mdanalysis.py [POTENTIAL] [--length-ps 5] [--output ethanol.h5md]

H5MD holds positions, velocities, forces and energies; the topology beside it names the atoms.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import MDAnalysis
import numpy as np
from MDAnalysis.analysis.dihedrals import Dihedral
from MDAnalysis.analysis.rms import RMSD

from remul_md import InputError, MDOptions, RemulCalculator, mdanalysis, read_structure, run_md


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("potential", nargs="?", default="ethanol", help="a *.pt file or a shipped name")
    parser.add_argument("--length-ps", type=float, default=5.0)
    parser.add_argument("--equilibrate-ps", type=float, default=2.0)
    parser.add_argument("--output", type=Path, default=Path("ethanol.h5md"))
    options = parser.parse_args()
    atoms = read_structure("ethanol")
    try:
        atoms.calc = RemulCalculator(options.potential)
        chosen = MDOptions(length_ps=options.length_ps, equilibrate_ps=options.equilibrate_ps, frame_interval_fs=2.0)
        run_md(atoms, chosen, output=options.output)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a PDB file of a molecule lacks much of what that of a protein has
        universe = MDAnalysis.Universe(options.output.with_suffix(".topology.pdb"), options.output)
    rmsd = RMSD(universe, select="element C O").run().results.rmsd[:, 2]
    print(f"{len(rmsd)} frames; RMSD of the heavy atoms at most {rmsd.max():.3f} A")

    # Atoms of rMD17's ethanol: methyl C 1, C 0, O 2, H 8 of the hydroxyl. Near 180 degrees is trans, 60 and 300 gauche.
    hydroxyl = universe.atoms[[1, 0, 2, 8]]
    angles = Dihedral([hydroxyl]).run().results.angles[:, 0]
    counts, edges = np.histogram(angles % 360.0, bins=6, range=(0.0, 360.0))
    for count, low in zip(counts, edges, strict=False):
        print(f"dihedral C-C-O-H {low:3.0f} to {low + 60:3.0f} degrees: {count / len(angles):6.1%}")

    torque = mdanalysis.NetTorque(universe.atoms).run().results.net_torque_eV
    print(f"net torque {1000.0 * np.sqrt((torque**2).sum(axis=1).mean()):.2f} meV; 0 for exact rotational symmetry")
    drift = mdanalysis.EnergyDrift(universe.atoms).run().results.drift
    print(f"drift {drift.slope_meV_per_atom_ps:+.3f} meV/atom/ps")


if __name__ == "__main__":
    main()
