"""What cheap labels of stretched bonds are worth: GFN2-xTB beside PBE on the packaged geometries.

    python benchmarks/difference_labels.py ethanol toluene --json FILE

Twice: what stretching changes by GFN2-xTB, added to the PBE labels of the frame that the geometry was made from
(`remul-md label xtb ... --differences`), and GFN2-xTB itself, less its mean offset in the training frames. Root mean
square differences from the PBE labels of `data/stretched`, by how far the bond is from its usual length.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from script import run_script, told_command

from remul_md.datasets import read_frames
from remul_md.datasets.registry import stretched_file
from remul_md.errors import InputError
from remul_md.files import write_json
from remul_md.labels.calculated import calculate_labels
from remul_md.labels.differences import difference_labels
from remul_md.labels.sources import label_source
from remul_md.labels.stretched import stretched_bonds
from remul_md.structures.frames import Frames
from remul_md.structures.topology import bond_lengths, bond_pairs
from remul_md.studies.record import provenance

SEED = 0  # of the packaged geometries
N_OFFSET = 50  # training frames that the mean offset is taken over
# Of the bond: times its usual length below 1, else Angstrom.
RANGES = {"squeezed": (0.0, 0.0), "to 2.05 Å": (0.0, 2.05), "to 2.65 Å": (2.05, 2.65), "to 3 Å": (2.65, 3.01)}


def changed_lengths(frames: Frames, starts: Frames) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of the bond that was changed: its length, Angstrom, and how many times its length in the start that is."""
    numbers = frames.frame_numbers(0)
    lengths, shares = [], []
    for index in range(len(frames)):
        bonds = bond_pairs(numbers, starts.frame_positions(index))
        found = bond_lengths(frames.frame_positions(index), bonds)
        share = found / bond_lengths(starts.frame_positions(index), bonds)
        changed = int(np.abs(np.log(share)).argmax())
        lengths.append(found[changed])
        shares.append(share[changed])
    return np.array(lengths), np.array(shares)


def compared(molecule: str) -> dict[str, Any]:
    """Figures of a molecule, by way and range: number of geometries, eV, eV/Angstrom."""
    train = read_frames(f"rmd17/{molecule}/train-01")
    right = read_frames(stretched_file(molecule), allow_implausible=True, require=("energy", "forces"))
    made, numbers = stretched_bonds(train, seed=SEED)
    if not np.array_equal(made.positions, right.positions):
        raise InputError(f"{molecule}: its packaged geometries are not those of seed {SEED}; label them anew")
    starts, source = train.select(numbers), label_source("xtb")
    some = train.select(np.linspace(0, len(train) - 1, N_OFFSET).astype(int))
    with tempfile.TemporaryDirectory() as folder:
        added = difference_labels(made, starts, source, partial=Path(folder) / "differences").frames
        alone = calculate_labels(made, source, partial=Path(folder) / "alone").frames
        known = calculate_labels(some, source, partial=Path(folder) / "some").frames
    assert alone.energy is not None
    alone.energy[:] -= (known.energy - some.energy).mean()
    lengths, shares = changed_lengths(made, starts)
    ranges = {}
    for name, (low, high) in RANGES.items():
        chosen = shares < 1.0 if name == "squeezed" else (shares > 1.0) & (lengths > low) & (lengths <= high)
        row: dict[str, Any] = {"n": int(chosen.sum())}
        for way, frames in (("differences", added), ("alone", alone)):
            off = (frames.energy - right.energy)[chosen]
            force = (frames.forces - right.forces).reshape(len(right), -1)[chosen]
            row[way] = {
                "energy_rms_eV": float(np.sqrt(np.mean(off**2))),
                "energy_mean_eV": float(off.mean()),
                "force_rms_eV_per_A": float(np.sqrt(np.mean(force**2))),
            }
        ranges[name] = row
    return ranges


def table(content: dict[str, Any]) -> str:
    """Root mean square energies by range, and forces to 2.05 Angstrom."""
    lines = [
        "| | " + " | ".join(f"energy, {name}" for name in RANGES) + " | forces, to 2.05 Å | GFN2-xTB itself |",
        "|---" * (len(RANGES) + 3) + "|",
    ]
    for molecule, ranges in content["molecules"].items():
        cells = [f"{ranges[name]['differences']['energy_rms_eV']:.2f}" for name in RANGES]
        cells += [f"{ranges['to 2.05 Å'][way]['force_rms_eV_per_A']:.2f}" for way in ("differences", "alone")]
        lines.append(f"| {molecule} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Measure, print and write."""
    content = {
        **provenance(told_command("difference_labels", given, {str(options.json): "FILE"}), n_jobs=1),
        "molecules": {molecule: compared(molecule) for molecule in options.molecules},
    }
    print(table(content))
    write_json(options.json, content, hint="choose another --json")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="What cheap labels of stretched bonds are worth.")
    parser.add_argument("molecules", nargs="+", help="of rMD17, with packaged labels of stretched bonds, as ethanol")
    parser.add_argument("--json", type=Path, required=True)
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
