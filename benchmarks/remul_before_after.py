"""What training on with consistency made of the shipped potentials: both heads, before and after, on validation frames.

The frames are the 50 of train split 01 that none of these weights was trained on; no test frame is read.

python benchmarks/remul_before_after.py --before FOLDER --after FOLDER [--molecules ethanol ...]
    [--json results/remul_before_after.json]

Both folders hold NAME.pt; one that is missing in either is left out.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from remul_md.analysis.accuracy import evaluate_potential
from remul_md.datasets import read_frames
from remul_md.files import write_json
from remul_md.potentials.potential import Potential, load_potential
from remul_md.structures.frames import Frames
from remul_md.studies.record import provenance

ROOT = Path(__file__).resolve().parent.parent
MOLECULES = ("aspirin", "benzene", "ethanol", "malonaldehyde", "naphthalene", "salicylic", "toluene")


def validation_frames(potential: Potential, molecule: str) -> Frames:
    """The frames of train split 01 that chose the weights and did not train them."""
    frames = read_frames(f"rmd17/{molecule}/train-01")
    return frames.select(np.array(potential.provenance.data["split"]["validation"]))


def figures(potential: Potential, frames: Frames, *, forces: Any) -> dict[str, float]:
    """Errors and symmetry of one head, meV/Angstrom and meV."""
    found = evaluate_potential(potential, frames, forces=forces, n_draws=16)
    return {
        "force_mae_rotated": found.force_mae_rotated,
        "rotational_spread": found.rotational_spread,
        "rotational_error": found.rotational_error,
        "equivariance_percent": found.equivariance_percent,
        "net_torque_rms_meV": 1000.0 * (found.net_torque_rms_eV or 0.0),
        "force_mae_exact": found.force_mae_exact,
        "direction_load": found.direction_load,
        "energy_mae_rotated": found.energy_mae_rotated,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, required=True)
    parser.add_argument("--molecules", nargs="+", default=list(MOLECULES), choices=MOLECULES)
    parser.add_argument("--forces", nargs="+", default=["conservative", "direct"], choices=["conservative", "direct"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names = {str(options.before): "BEFORE", str(options.after): "AFTER"}
    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "benchmarks/remul_before_after.py", *(names.get(part, part) for part in given)])
    rows: list[dict[str, Any]] = []
    for molecule in options.molecules:
        files = [folder / f"{molecule}.pt" for folder in (options.before, options.after)]
        if not all(file.is_file() for file in files):
            continue
        before, after = (load_potential(file) for file in files)
        frames = validation_frames(before, molecule)
        for forces in options.forces:
            heads = [one.provenance.trained_forces for one in (before, after)]
            if any(head not in (forces, "both") for head in heads):
                continue  # a head that was not trained
            row: dict[str, Any] = {"molecule": molecule, "forces": forces}
            for name, potential in (("before", before), ("after", after)):
                row[name] = figures(potential, frames, forces=forces) | {"sha256": potential.sha256}
            rows.append(row)
            for name in ("before", "after"):
                told = ", ".join(f"{key} {value:.3f}" for key, value in row[name].items() if key != "sha256")
                print(f"{molecule} {forces} {name}: {told}", flush=True)
    if options.json is not None:
        write_json(options.json, {**provenance(command, n_jobs=1), "runs": rows}, hint="--json")


if __name__ == "__main__":
    main()
