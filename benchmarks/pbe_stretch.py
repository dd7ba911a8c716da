"""An O-H bond of ethanol pulled off: the labels of `remul-md label pbe` against published ones of the same level.

    python benchmarks/pbe_stretch.py test_H_removal.xyz --distances 1.0 1.7 2.2 3.0 --output OUT.json

The file is that of davkovacs/BOTNet-datasets (dataset_ethanol, commit 29e6d467): PBE/def2-SVP energies, eV. The
restricted energy is computed beside for comparison; eight minutes on a core that others use, too.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import ase.io
import numpy as np

from remul_md._version import __version__
from remul_md.files import write_json
from remul_md.labels import pbe


def measured(atoms: Any) -> dict[str, Any]:
    """One geometry: its label, the published energy, and the restricted energy, eV."""
    published = float(atoms.get_potential_energy())
    structure = atoms.copy()
    structure.pbc = False
    structure.calc = pbe.PBECalculator()
    started = time.perf_counter()
    energy = float(structure.get_potential_energy())
    seconds = time.perf_counter() - started
    from ase import units

    restricted = structure.calc._method("RKS", pbe._molecule(structure, spin=0))
    restricted.kernel()
    return {
        "distance_A": float(atoms.info["OH_dist"]),
        "published_eV": published,
        "label_eV": energy,
        "spin_squared": structure.calc.results["spin_squared"],
        "restricted_eV": float(restricted.e_tot) * units.Hartree,
        "restricted_converged": bool(restricted.converged),
        "largest_force_eV_per_A": float(np.abs(structure.get_forces()).max()),
        "seconds": seconds,
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Labels along an O-H bond that is pulled off.")
    parser.add_argument("frames", type=Path)
    parser.add_argument("--distances", type=float, nargs="+", required=True, help="Angstrom; the nearest frames.")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    frames = ase.io.read(options.frames, index=":")
    lengths = np.array([atoms.info["OH_dist"] for atoms in frames])
    rows = []
    for distance in options.distances:
        rows.append(measured(frames[int(np.abs(lengths - distance).argmin())]))
        print(rows[-1], flush=True)
    command = shlex.join(["python", "benchmarks/pbe_stretch.py", options.frames.name, *sys.argv[2:]])
    content = {"version": __version__, "pyscf": pbe.require_pyscf(), "command": command, "rows": rows}
    write_json(options.output, content, hint="choose another --output")


if __name__ == "__main__":
    main()
