"""Ethanol in a uniform electric field: what the wrong group costs, and a network that cannot break the symmetry.

    python benchmarks/molecule_in_a_field.py --run-dir FOLDER --n-train 900 --json results/molecule_in_a_field.json

Labels are GFN2-xTB in a field along z (tblite), geometries those of split 01 of rMD17, each in a random orientation,
or with --n-orientations K in K orientations for training and in all for testing.
What is in the folder already is kept: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from script import run_script

from remul_md.analysis.accuracy import evaluate_potential
from remul_md.datasets import read_frames
from remul_md.files import read_json, write_json
from remul_md.labels.field import in_random_orientations
from remul_md.labels.sources import label_source
from remul_md.potentials.potential import load_potential
from remul_md.studies.record import provenance
from remul_md.symmetry.rotations import fixed_rotations
from remul_md.training.config import PUBLISHED

N_VALIDATION = 100
ABOUT_Z = ("train.group=SO3", "train.axis=[0,0,1]")
AS_IT_STANDS = ("train.beta=0", "train.first_orientation=original", *ABOUT_Z)
# REMUL as published: the frame as it stands and one in a random orientation of the wrong group, both against labels.
REMUL = ("train.alpha=1", *(f"train.{name}={value}" for name, value in PUBLISHED.items() if name != "beta"))
# The rotated orientations of a step (train.alpha, beta, group), and the network; exact_told reads the field vector.
METHODS: dict[str, tuple[str, ...]] = {
    "about_z": ("train.alpha=0", *ABOUT_Z),
    "none": AS_IT_STANDS,
    "all": ("train.alpha=0",),
    "exact": ("model.symmetry=exact", *AS_IT_STANDS),
    "exact_told": ("model.symmetry=exact", "model.field_input=true", *AS_IT_STANDS),
    **{f"beta_{beta:g}": (*REMUL, f"train.beta={beta:g}") for beta in (0.01, 0.1, 1, 10)},
}
KEPT = ("force_mae_original", "force_mae_rotated", "force_rmse_original", "energy_mae_original", "direction_load")
KEPT += ("force_mae_exact", "rotational_error", "mirror_error", "n_frames")


def remul_md(*arguments: str, folder: Path) -> str:
    """Run a command of the package in a folder; it as text."""
    subprocess.run([Path(sys.executable).with_name("remul-md"), *arguments], cwd=folder, check=True)
    return shlex.join(["remul-md", *arguments])


def labelled(folder: Path, field: float, *, n_orientations: int | None) -> list[str]:
    """Training and test labels, made where they are missing; the commands."""
    commands = []
    for name, source, options in (("train", "train-01", ()), ("test", "test-01", ("--every", "3"))):
        seed = {"train": "1", "test": "2"}[name]
        command = ["label", "xtb", f"rmd17/ethanol/{source}", f"{name}.npz", *options]
        command += ["--field-V-per-A", "0", "0", f"{field:g}", "--random-orientations", seed]
        if n_orientations is not None and name == "train":  # the molecule is tested in all orientations
            command += ["--n-orientations", f"{n_orientations}"]
        if not (folder / f"{name}.npz").exists():
            remul_md(*command, "--resume", folder=folder)
        commands.append(shlex.join(["remul-md", *command]))
    return commands


def trained(folder: Path, method: str, *, n_train: int, n_steps: int, further: Sequence[str] = ()) -> dict[str, Any]:
    """Train a method where its potential is missing, and test it; figures in meV and meV/Angstrom."""
    name = f"{method}_{n_train}"
    sets = ["data.source=train.npz", f"data.n_train={n_train}", f"data.n_validation={N_VALIDATION}"]
    sets += [
        "train.monitor_per_decade=0",
        "train.validate_every=250",
        f"train.n_steps={n_steps}",
        *METHODS[method],
        *further,
    ]
    command = ["train", "--run-dir", name, *(part for each in sets for part in ("--set", each))]
    if not (folder / name / "potential.pt").exists():
        remul_md(*command, "--resume", folder=folder)
    potential = load_potential(folder / name / "potential.pt")
    made = potential.provenance
    steps = made.config["train"]["n_steps"]
    if steps != n_steps:
        raise SystemExit(f"error: {folder / name} holds a run of {steps} steps, {n_steps} were asked for")
    found = evaluate_potential(potential, read_frames(folder / "test.npz"), axis=(0.0, 0.0, 1.0)).to_json()
    return {
        "method": method,
        "n_train": n_train,
        "n_steps": n_steps,
        "seconds": made.seconds,
        "validation_force_mae": made.metrics["validation_force_mae_meV_per_A"],
        **{key: found[key] for key in KEPT},
        "command": shlex.join(["remul-md", *command]),
    }


def field_blind_limit(folder: Path, field: float, *, n_frames: int = 50) -> dict[str, float]:
    """Error left to the best model that cannot know the direction of the field, meV/Angstrom.

    Such a model gives, in the frame of the molecule, one force for all orientations; the best for squared errors is the
    mean over them, taken here over the 24 rotations of the cube, which is exact up to degree 3 of the dependence.
    """
    source = label_source("xtb", field_V_per_A=(0.0, 0.0, field))
    frames = in_random_orientations(read_frames(folder / "test.npz", with_labels=False), seed=3)
    cube = fixed_rotations("octahedral").numpy()
    errors = []
    for index in np.linspace(0, len(frames) - 1, n_frames).round().astype(int):
        atoms = frames.atoms(int(index))
        atoms.calc = source.make()
        places, forces = atoms.get_positions(), []
        for rotation in cube:
            atoms.set_positions(places @ rotation.T)
            forces.append(atoms.get_forces() @ rotation)
        errors.append(np.array(forces) - np.mean(forces, axis=0))
    return {
        "mae": 1e3 * float(np.mean([np.abs(error).mean() for error in errors])),
        "rmse": 1e3 * float(np.sqrt(np.mean([np.square(error).mean() for error in errors]))),
        "n_frames": n_frames,
    }


def main(arguments: list[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, required=True, help="Labels and runs; one folder for each field.")
    parser.add_argument("--field-V-per-A", dest="field", type=float, default=0.5)
    parser.add_argument(
        "--n-orientations", type=int, help="Training frames in so few orientations; a folder and file of its own."
    )
    parser.add_argument("--n-train", type=int, nargs="+", default=[900], help="Training frames, at most 900.")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--n-steps", type=int, default=1000)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="For every run.")
    parser.add_argument("--json", type=Path, required=True, help="Rows of other runs in this file are kept.")
    run_script(parser, study, arguments)


def study(options: argparse.Namespace, given: list[str]) -> None:
    """Label, train, test and write."""
    options.run_dir.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    labels = labelled(options.run_dir, options.field, n_orientations=options.n_orientations)
    content: dict[str, Any] = {"rows": []}
    if options.json.exists():
        content = read_json(options.json, hint="give a file of this script, or a new one")
    if "field_blind_limit" not in content:
        content["field_blind_limit"] = field_blind_limit(options.run_dir, options.field)
    command = shlex.join(["python", "benchmarks/molecule_in_a_field.py", "--run-dir", "FOLDER", *_others(given)])
    held = content.get("n_orientations")
    if content["rows"] and held != options.n_orientations:
        raise SystemExit(f"error: {options.json} holds runs with --n-orientations {held}; give another --json")
    content |= {
        "n_orientations": options.n_orientations,
        "field_V_per_A": options.field,
        "labels": labels,
        **provenance(command, n_jobs=1),
    }
    for n_train in options.n_train:
        for method in options.methods:
            row = trained(options.run_dir, method, n_train=n_train, n_steps=options.n_steps, further=options.set)
            same = (method, n_train, options.n_steps)
            rest = [old for old in content["rows"] if (old["method"], old["n_train"], old["n_steps"]) != same]
            content["rows"] = [*rest, row]
            print(f"{method:9} {n_train:4} {row['force_mae_original']:6.1f} meV/A", flush=True)
            write_json(options.json, content, hint="choose another --json")
    print(f"{time.perf_counter() - began:.0f} s")


def _others(arguments: list[str]) -> list[str]:
    """The command line without folders, which tell nothing elsewhere."""
    place = arguments.index("--run-dir")
    others = [*arguments[:place], *arguments[place + 2 :]]
    return [
        Path(each).name if before == "--json" else each for before, each in zip(["", *others], others, strict=False)
    ]


if __name__ == "__main__":
    main()
