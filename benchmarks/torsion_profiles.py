"""Energies along rotatable bonds, beside PBE/def2-SVP: rigid rotations, 10 degrees apart.

    python benchmarks/torsion_profiles.py ethanol salicylic aspirin --run-dir FOLDER --json OUT.json --plot OUT.png

The structure is the minimum of the shipped potential nearest to the packaged one; the smaller side of each bond in no
ring is rotated once round. Where the training frames do not go round a bond, most of that is outside the data, and
where groups collide energies are far above those of 500 K: errors are told for all angles and for those within 1 eV of
the lowest. A molecule that is planar but for noise of the relaxation is made exactly so; then half of each round is the
mirror image of the other half, with the same energies. PBE takes 10 s (ethanol) to 4 minutes (aspirin) an angle of one
core. Labels are kept in the folder: the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.optimize import BFGS
from script import run_script, told_command

from remul_md import RemulCalculator
from remul_md.analysis.audit.paths import scan_paths
from remul_md.analysis.drawing import INK, SERIES, drawn_panels
from remul_md.datasets.structure_source import read_structure
from remul_md.files import read_json, write_json
from remul_md.labels.calculated import calculate_labels
from remul_md.labels.sources import LabelSource, label_source
from remul_md.outputs import save_picture
from remul_md.structures.frames import frames_from_atoms
from remul_md.studies.record import provenance

STEP_DEG = 10.0
NEAR_EV = 1.0  # 23 kT at 500 K: hardly any run comes higher
PLANAR_A = 0.02  # largest distance of an atom from the plane of a planar molecule; ethanol has 1.1


def rotated_bonds(minimum: Atoms) -> dict[str, tuple[list[float], list[Atoms]]]:
    """Angles and structures once round each rotatable bond, from the minimum on."""
    found = {}
    for path in scan_paths(minimum):
        if path.kind == "torsion":
            angles = path.start + np.arange(0.0, 360.0, STEP_DEG)
            structures = []
            for angle in angles:
                structures.append(minimum.copy())
                structures[-1].positions = path.place(float(angle))
            found[path.label.removeprefix("torsion ")] = (angles.tolist(), structures)
    return found


def planar_if_nearly(atoms: Atoms) -> Atoms:
    """The same structure, in its plane if no atom is farther from that than `PLANAR_A`."""
    center = atoms.positions.mean(0)
    normal = np.linalg.svd(atoms.positions - center)[2][2]
    heights = (atoms.positions - center) @ normal
    flat = atoms.copy()
    if np.abs(heights).max() < PLANAR_A:
        flat.positions -= np.outer(heights, normal)
    return flat


def first_alike(structures: Sequence[Atoms]) -> list[int]:
    """Of each the number of the first with the same distances between its atoms: the same structure, or mirrored."""
    distances, found = [atoms.get_all_distances() for atoms in structures], list[int]()
    for number, own in enumerate(distances):
        firsts = (first for first in sorted(set(found)) if np.allclose(distances[first], own, rtol=0.0, atol=1e-6))
        found.append(next(firsts, number))
    return found


def figures(reference: Sequence[float], energies: Sequence[float]) -> dict[str, float]:
    """Errors of energies above the first, the minimum, eV: over all angles, over those near it, and of the barrier."""
    wanted, found = np.array(reference), np.array(energies)
    off = found - wanted
    near = wanted < wanted.min() + NEAR_EV
    return {
        "rmse_eV": float(np.sqrt(np.mean(off**2))),
        "largest_error_eV": float(np.abs(off).max()),
        "share_within_1_eV": float(near.mean()),
        "rmse_within_1_eV_eV": float(np.sqrt(np.mean(off[near] ** 2))),
        "highest_reference_eV": float(wanted.max()),
        "highest_potential_eV": float(found.max()),
    }


def errors_by_domain(
    reference: Sequence[float], energies: Sequence[float], inside: Sequence[bool]
) -> dict[str, float | None]:
    """Largest error where the potential says that it is in its domain, and where not, eV; None: nowhere."""
    off, within = np.abs(np.array(energies) - np.array(reference)), np.array(inside)
    parts = {"largest_error_in_domain_eV": off[within], "largest_error_outside_eV": off[~within]}
    return {name: float(part.max()) if part.size else None for name, part in parts.items()}


def table(molecules: dict[str, Any]) -> str:
    """A row a bond and potential; how far it is rotated in the domain, the way round that is farther."""
    lines = [
        "| bond | barrier by PBE, meV | rotated by, in the domain | largest error there, meV | outside, meV |",
        "|---|---|---|---|---|",
    ]
    for name, found in molecules.items():
        for bond, row in found["bonds"].items():
            rotated = np.array(row["angle_deg"]) - row["angle_deg"][0]
            for potential in row["potentials"].values():
                inside = np.array(potential["in_domain"])
                reach = "all" if inside.all() else f"{rotated[: int(np.argmin(inside))].max():.0f}°"
                errors = (potential["largest_error_in_domain_eV"], potential["largest_error_outside_eV"])
                told = " | ".join("" if error is None else f"{float(f'{1e3 * error:.2g}'):g}" for error in errors)
                lines.append(f"| {name}, {bond} | {1e3 * potential['highest_reference_eV']:.0f} | {reach} | {told} |")
    return "\n".join(lines)


def compared(
    angles: list[float], reference: list[float], structures: Sequence[Atoms], calculators: dict[str, RemulCalculator]
) -> dict[str, Any]:
    """Energies of structures above the first, eV, by the reference and each potential, and what tells them apart."""
    row: dict[str, Any] = {"angle_deg": angles, "reference_eV": reference, "potentials": {}}
    for potential, calculator in calculators.items():
        found, inside = list[float](), list[bool]()
        for atoms in structures:
            atoms.calc = calculator
            found.append(float(atoms.get_potential_energy()))
            inside.append(bool(calculator.diagnostics["in_domain"]))
        above = (np.array(found) - found[0]).tolist()
        errors = {**figures(reference, above), **errors_by_domain(reference, above, inside)}
        row["potentials"][potential] = {"energy_eV": above, "in_domain": inside, **errors}
    return row


def profiles(name: str, potentials: Sequence[str], source: LabelSource, folder: Path) -> dict[str, Any]:
    """All rotatable bonds of a molecule; the first potential finds the minimum."""
    minimum = read_structure(name)
    minimum.calc = RemulCalculator(potentials[0], device="cpu")
    BFGS(minimum, logfile=None).run(fmax=0.002, steps=500)
    minimum = planar_if_nearly(minimum)
    bonds = rotated_bonds(minimum)
    every = [atoms for _, structures in bonds.values() for atoms in structures]
    alike = first_alike(every)
    labelled_once = sorted(set(alike))
    frames = frames_from_atoms([every[number] for number in labelled_once])
    labels = calculate_labels(frames, source, partial=folder / f"{name}.npz.part", progress=True)
    once = np.full(len(every), np.nan)
    once[[number for at, number in enumerate(labelled_once) if at not in labels.refused]] = labels.frames.energy
    energy = once[alike]
    calculators = {potential: RemulCalculator(potential, device="cpu") for potential in potentials}
    rows, at = {}, 0
    for bond, (angles, structures) in bonds.items():
        labelled = np.isfinite(energy[at : at + len(angles)])
        reference = energy[at : at + len(angles)][labelled]
        kept = [atoms for atoms, has_label in zip(structures, labelled, strict=True) if has_label]
        rows[bond] = compared(
            np.array(angles)[labelled].tolist(), (reference - reference[0]).tolist(), kept, calculators
        )
        at += len(angles)
    return {"minimum_A": minimum.positions.tolist(), "labels": dict(labels.provenance), "bonds": rows}


def plot(molecules: dict[str, Any], path: Path) -> None:
    """One panel a bond."""
    panels = [(name, bond, row) for name, found in molecules.items() for bond, row in found["bonds"].items()]
    columns = min(len(panels), 3)
    size = (4.2 * columns, 3.2 * (-(-len(panels) // columns)))
    with drawn_panels(len(panels), n_columns=columns, inches=size) as (figure, places):
        for axes, (name, bond, row) in zip(places, panels, strict=False):
            angle = np.array(row["angle_deg"]) - row["angle_deg"][0]
            axes.plot(angle, row["reference_eV"], "o", ms=4, color=INK, label="PBE/def2-SVP")
            for color, (potential, found) in zip(SERIES[1:], row["potentials"].items(), strict=False):
                axes.plot(angle, found["energy_eV"], color=color, label=Path(potential).name)
            axes.set(title=f"{name}, {bond}", xlabel="rotated by, degrees", ylabel="energy, eV")
        places[0].legend()
        save_picture(figure, path)


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Measure, print and write; molecules of an earlier call stay in the file."""
    source = label_source(options.labels)
    molecules: dict[str, Any] = {}
    if options.json.is_file():
        molecules = read_json(options.json, hint="give a file of this script, or a new one")["molecules"]
    options.run_dir.mkdir(parents=True, exist_ok=True)
    for name in options.molecules:
        molecules[name] = profiles(name, [name, *options.potentials], source, options.run_dir)
        for bond, row in molecules[name]["bonds"].items():
            for potential, found in row["potentials"].items():
                rmse, near, largest = (
                    f"{1e3 * found[key]:.2g}" for key in ("rmse_eV", "rmse_within_1_eV_eV", "largest_error_eV")
                )
                print(f"{name}, {bond}, {potential}: RMSE {rmse} meV, within 1 eV {near} meV, largest {largest} meV")
        command = told_command("torsion_profiles", given, {str(options.run_dir): "FOLDER"})
        write_json(
            options.json, {**provenance(command, n_jobs=1), "molecules": molecules}, hint="choose another --json"
        )
    if options.plot is not None:
        plot(molecules, options.plot)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Energies along rotatable bonds.")
    parser.add_argument("molecules", nargs="+", help="of rMD17, with a shipped potential, as ethanol")
    parser.add_argument("--potentials", nargs="+", default=[], help="further ones, files or names, for each molecule")
    parser.add_argument("--labels", default="pbe", help="method of the reference")
    parser.add_argument("--run-dir", type=Path, required=True, help="Labels are kept in it.")
    parser.add_argument("--json", type=Path, required=True, help="Other molecules in this file are kept.")
    parser.add_argument("--plot", type=Path, help="a picture, such as .png")
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
