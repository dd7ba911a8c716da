"""Ethanol where no training frame is: a bond pulled off and pressed together, two stretched normal modes.

    python benchmarks/beyond_the_data.py ethanol RUN/potential.pt --json results/beyond_the_data.json --plot OUT.png

Energies of the potentials beside published ones of PBE/def2-SVP (`data/extrapolation_ethanol`), each less its value in
the frame of lowest reference energy.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from script import run_script

from remul_md import RemulCalculator
from remul_md.analysis.drawing import INK, SERIES, drawn_panels
from remul_md.files import write_json
from remul_md.outputs import save_picture
from remul_md.studies.record import provenance

DATA = Path(str(resources.files("remul_md.data.extrapolation_ethanol")))
CURVES = {"H_removal": "OH_dist", "norm_mode_874": "displacement", "norm_mode_3005": "displacement"}
JUDGED = (0.675, 3.0)  # Angstrom: where the O-H curve is held to the reference
RISES_FROM = 1.2


def curve(name: str, potentials: Sequence[str], *, symmetry: str | None) -> dict[str, Any]:
    """The reference and every potential along one curve, eV above the frame of lowest reference energy."""
    frames = ase.io.read(DATA / f"{name}.xyz", index=":")
    frames.sort(key=lambda atoms: atoms.info[CURVES[name]])
    reference = np.array([atoms.get_potential_energy() for atoms in frames])
    lowest = int(np.argmin(reference))
    found: dict[str, Any] = {
        "coordinate": [float(atoms.info[CURVES[name]]) for atoms in frames],
        "reference_eV": (reference - reference[lowest]).tolist(),
        "potentials_eV": {},
    }
    for potential in potentials:
        calculator = RemulCalculator(potential, symmetry=symmetry, device="cpu")
        energies = []
        for atoms in frames:
            molecule = atoms.copy()
            molecule.pbc, molecule.cell = False, None
            molecule.calc = calculator
            energies.append(float(molecule.get_potential_energy()))
        found["potentials_eV"][potential] = (np.array(energies) - energies[lowest]).tolist()
    return found


def figures_of(found: dict[str, Any], potential: str) -> dict[str, float]:
    """Errors along the curves of one potential, eV; depth of wells on the way out."""
    figures = {}
    for name, rows in found.items():
        error = np.array(rows["potentials_eV"][potential]) - np.array(rows["reference_eV"])
        figures[f"{name}_rmse_eV"] = float(np.sqrt(np.mean(error**2)))
    rows = found["H_removal"]
    distance, energy = np.array(rows["coordinate"]), np.array(rows["potentials_eV"][potential])
    error = np.abs(energy - np.array(rows["reference_eV"]))
    judged = (distance >= JUDGED[0]) & (distance <= JUDGED[1])
    rising = energy[(distance >= RISES_FROM) & (distance <= JUDGED[1])]
    figures["H_removal_largest_error_to_3_A_eV"] = float(error[judged].max())
    figures["H_removal_deepest_fall_to_3_A_eV"] = float((np.maximum.accumulate(rising) - rising).max())
    return figures


def plot(found: dict[str, Any], path: Path) -> None:
    """One panel a curve."""
    with drawn_panels(len(found), n_columns=len(found), inches=(12.0, 3.8)) as (figure, places):
        for axes, (name, rows) in zip(places, found.items(), strict=True):
            axes.plot(rows["coordinate"], rows["reference_eV"], "o", ms=4, color=INK, label="PBE/def2-SVP")
            for color, (potential, energies) in zip(SERIES[1:], rows["potentials_eV"].items(), strict=False):
                axes.plot(rows["coordinate"], energies, color=color, label=Path(potential).name)
            axes.set(title=name.replace("norm_", "normal ").replace("_", " "), ylabel="energy, eV")
            axes.set_xlabel("O-H distance, Å" if name == "H_removal" else "displacement")
        axes.legend()
        save_picture(figure, path)


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Measure, print and write."""
    found = {name: curve(name, options.potentials, symmetry=options.symmetry) for name in CURVES}
    figures = {potential: figures_of(found, potential) for potential in options.potentials}
    for potential, values in figures.items():
        print(potential, {name: round(value, 3) for name, value in values.items()})
    if options.plot is not None:
        plot(found, options.plot)
    if options.json is not None:
        command = shlex.join(["python", "benchmarks/beyond_the_data.py", *given])
        content = {**provenance(command, n_jobs=1), "figures": figures, "curves": found}
        write_json(options.json, content, hint="choose another --json")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Ethanol where no training frame is.")
    parser.add_argument("potentials", nargs="+", help="files or shipped names")
    parser.add_argument("--symmetry", choices=("exact", "relaxed"), help="mode of the potentials")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="a picture, such as .png")
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
