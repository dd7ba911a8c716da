"""Does the energy rise where a bond is pulled out? Every bond of the molecules of shipped potentials, to 2.5 Angstrom.

    python benchmarks/bond_curves.py ethanol aspirin --json FILE

From the minimum of the potential nearest to the packaged structure; one side of the bond moves, all else is rigid. Told
are the deepest second minimum and the deepest fall of the energy below what it was nearer in, whether a minimum ends
it before 2.5 Angstrom or not. There is no reference: PBE rises all the way.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.optimize import BFGS
from numpy.typing import NDArray
from script import run_script, told_command

from remul_md import RemulCalculator
from remul_md.analysis.audit.curves import other_minima
from remul_md.analysis.audit.paths import scan_paths
from remul_md.datasets.structure_source import read_structure
from remul_md.files import write_json
from remul_md.studies.record import provenance

END_A, STEP_A = 2.5, 0.02
RIPPLE_EV = 1e-3  # shallower minima are left out


def figures(distances: NDArray[np.float64], energies: NDArray[np.float64]) -> dict[str, float]:
    """Deepest second minimum between the ends, and deepest fall, eV; `distances` begin at the minimum."""
    wells = other_minima(distances, energies, start=float(distances[0]), min_depth=RIPPLE_EV)
    inside = [depth for place, depth, _ in wells if place < distances[-1]]
    falls = np.maximum.accumulate(energies) - energies
    return {
        "well_eV": max(inside, default=0.0),
        "fall_eV": float(falls.max()),
        "fall_at_A": float(distances[int(falls.argmax())]),
    }


def bonds(name: str) -> dict[str, dict[str, float]]:
    """Figures of every bond of a molecule, by its label."""
    molecule = read_structure(name)
    molecule.calc = RemulCalculator(name, device="cpu")
    BFGS(molecule, logfile=None).run(fmax=0.005, steps=500)
    found = {}
    for path in (path for path in scan_paths(molecule) if path.kind == "bond"):
        distances = np.arange(path.start, END_A + 1e-6, STEP_A)
        energies = []
        for distance in distances:
            molecule.positions = path.place(float(distance))
            with warnings.catch_warnings(action="ignore"):  # it says that a bond is broken
                energies.append(float(molecule.get_potential_energy()))
        found[path.label] = figures(distances, np.array(energies))
    return found


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Measure, print and write."""
    rows: dict[str, dict[str, Any]] = {}
    for name in options.potentials:
        rows[name] = bonds(name)
        bond, deepest = max(rows[name].items(), key=lambda row: row[1]["fall_eV"])
        well = max(row["well_eV"] for row in rows[name].values())
        fall = f"{1e3 * deepest['fall_eV']:.0f} meV ({bond}, at {deepest['fall_at_A']:.2f} Å)"
        print(f"{name}: deepest second minimum {1e3 * well:.0f} meV, deepest fall {fall}", flush=True)
    command = told_command("bond_curves", given, {str(options.json): "FILE"})
    write_json(options.json, {**provenance(command, n_jobs=1), "potentials": rows}, hint="choose another --json")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Does the energy rise where a bond is pulled out?")
    parser.add_argument("potentials", nargs="+", help="shipped names, as ethanol")
    parser.add_argument("--json", type=Path, required=True)
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
