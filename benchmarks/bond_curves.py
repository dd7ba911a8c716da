"""Does the energy rise where a bond is pulled out? Every bond of a potential's molecule, to 2.5 Angstrom.

    python benchmarks/bond_curves.py ethanol RUN/potential.pt --json FILE

From the minimum of the potential nearest to its training frame of lowest energy; the smaller side of the bond moves,
all else is rigid. Told are the deepest second minimum and the deepest fall of the energy below what it was nearer in,
whether a minimum ends it before 2.5 Angstrom or not. A bond in a ring is pulled to 1.35 times its length, and both its
atoms move with what hangs on them. There is no reference: energy rises until a bond is broken, if nothing else is near.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.optimize import BFGS
from numpy.typing import NDArray
from script import run_script, told_command

from remul_md import RemulCalculator, load_potential
from remul_md.analysis.audit.curves import other_minima
from remul_md.files import write_json
from remul_md.labels.stretched import STRETCHED_IN_RING, with_bond_length
from remul_md.structures.topology import bond_pairs, side_of_bond
from remul_md.studies.record import provenance

END_A, STEP_A = 2.5, 0.02
RING_SHARE = STRETCHED_IN_RING[-1]  # times its length: how far a bond in a ring is pulled
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
    """Figures of every bond of a potential's molecule, by its label."""
    potential = load_potential(name)
    domain = potential.domain
    molecule = Atoms(numbers=domain.reference_numbers, positions=domain.reference_positions)
    molecule.calc = RemulCalculator(potential, device="cpu")
    BFGS(molecule, logfile=None).run(fmax=0.005, steps=500)
    start, names = molecule.positions.copy(), [f"{symbol}{index}" for index, symbol in enumerate(molecule.symbols)]
    pairs = bond_pairs(molecule.numbers, start)
    found = {}
    for bond, (first, second) in enumerate(pairs.tolist()):
        length = float(np.linalg.norm(start[second] - start[first]))
        in_ring = first in side_of_bond(pairs, first, second)
        distances = np.arange(length, RING_SHARE * length if in_ring else END_A, STEP_A)
        energies = []
        for distance in distances:
            molecule.positions = with_bond_length(start, pairs, bond=bond, length=float(distance))
            with warnings.catch_warnings(action="ignore"):  # it says that a bond is broken
                energies.append(float(molecule.get_potential_energy()))
        found[f"{names[first]}-{names[second]}"] = figures(distances, np.array(energies))
    return found


def table(content: dict[str, Any]) -> str:
    """The worst bond of each potential."""
    lines = ["| potential | bonds | deepest second minimum, meV | deepest fall, meV |", "|---|---|---|---|"]
    for name, rows in content["potentials"].items():
        bond, deepest = max(rows.items(), key=lambda row: row[1]["fall_eV"])
        well = max(row["well_eV"] for row in rows.values())
        fall = f"{1e3 * deepest['fall_eV']:.0f}"
        if fall != "0":
            fall += f" ({bond}, at {deepest['fall_at_A']:.2f} Å)"
        lines.append(f"| {name} | {len(rows)} | {1e3 * well:.0f} | {fall} |")
    return "\n".join(lines)


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Measure, print and write."""
    rows = {Path(name).name: bonds(name) for name in options.potentials}
    told = {str(options.json): "FILE"} | {name: Path(name).name for name in options.potentials}
    content = {**provenance(told_command("bond_curves", given, told), n_jobs=1), "potentials": rows}
    print(table(content))
    write_json(options.json, content, hint="choose another --json")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Does the energy rise where a bond is pulled out?")
    parser.add_argument("potentials", nargs="+", help="files or shipped names")
    parser.add_argument("--json", type=Path, required=True)
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
