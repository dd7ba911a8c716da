"""What training on with consistency made of the shipped potentials: both heads, before and after, on validation frames.

The frames are the 50 of train split 01 that none of these weights was trained on; no test frame is read.

python benchmarks/remul_before_after.py --before FOLDER --after FOLDER [--molecules ethanol ...]
    [--json results/remul_before_after.json]

Both folders hold NAME.pt; one that is missing in either is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from script import run_script, told_command

from remul_md.files import write_json
from remul_md.potentials.potential import load_potential
from remul_md.studies.record import provenance
from remul_md.symmetry.measures import net_force_and_torque
from remul_md.training.config import load_config
from remul_md.training.monitor import SymmetryMonitor
from remul_md.training.prepare import prepare_training
from remul_md.training.validation import RotatedValidation

ROOT = Path(__file__).resolve().parent.parent
MOLECULES = ("aspirin", "benzene", "ethanol", "malonaldehyde", "naphthalene", "salicylic", "toluene")


def figures(file: Path, molecule: str, *, forces: Any) -> dict[str, Any]:
    """Errors and symmetry of one head on the validation frames of its training, meV/Angstrom and meV.

    Force MAE in 4 random orientations of each of the 50 frames, mirrored ones too; spread, rotational error and percent
    from 8 rotations of each of the first 32; net torque as the frames stand.
    """
    potential = load_potential(file)
    config = load_config(molecule, overrides=[f"train.forces={forces}", "train.monitor_share=1", "train.device=cpu"])
    prepared = prepare_training(config, origin=load_potential(file))
    batch, model = prepared.validation, potential.model
    errors = RotatedValidation(batch, forces=forces)(model)
    symmetry = SymmetryMonitor(batch, forces=forces, config=config.train)(model)
    predicted = model(batch, forces=forces)
    vectors = predicted.forces if forces == "conservative" else predicted.direct_forces
    _, torques = net_force_and_torque(vectors.detach(), batch)
    exact = RotatedValidation(batch, forces=forces)(potential.with_symmetry("exact").model)
    return {
        "force_mae_rotated": errors["validation_force_mae"],
        "energy_mae_rotated": errors["validation_energy_mae"],
        "force_mae_exact": exact["validation_force_mae"],
        "rotational_spread": symmetry["forces_s2"] ** 0.5,
        "rotational_error": symmetry["forces_rotational_error"],
        "equivariance_percent": symmetry["forces_percent"],
        "net_torque_rms_meV": 1000.0 * torques.square().sum(1).mean().sqrt().item(),
        "sha256": potential.sha256,
    }


def run(options: argparse.Namespace, given: list[str]) -> None:
    """All molecules and heads that both folders hold."""
    names = {str(options.before): "BEFORE", str(options.after): "AFTER"}
    command = told_command("remul_before_after", given, names)
    rows: list[dict[str, Any]] = []
    for molecule in options.molecules:
        files = [folder / f"{molecule}.pt" for folder in (options.before, options.after)]
        if not all(file.is_file() for file in files):
            continue
        for forces in options.forces:
            heads = [load_potential(file).provenance.trained_forces for file in files]
            if any(head not in (forces, "both") for head in heads):
                continue  # a head that was not trained
            row: dict[str, Any] = {"molecule": molecule, "forces": forces}
            for name, file in zip(("before", "after"), files, strict=True):
                row[name] = figures(file, molecule, forces=forces)
            rows.append(row)
            if options.json is not None:
                write_json(options.json, {**provenance(command, n_jobs=1), "runs": rows}, hint="--json")
            for name in ("before", "after"):
                told = ", ".join(f"{key} {value:.3f}" for key, value in row[name].items() if key != "sha256")
                print(f"{molecule} {forces} {name}: {told}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, required=True)
    parser.add_argument("--molecules", nargs="+", default=list(MOLECULES), choices=MOLECULES)
    parser.add_argument("--forces", nargs="+", default=["conservative", "direct"], choices=["conservative", "direct"])
    parser.add_argument("--json", type=Path)
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
