"""Ethanol in a uniform electric field: labels, training, dynamics, and what the field leaves unchanged.

    python examples/molecule_in_a_field.py OUTPUT_DIR [--field-V-per-A 0.5] [--n-frames 1000] [--n-steps 3000]

Needs tblite (`pip install "remul-md[xtb]"`). The field lies along z: rotations about z leave the energy as it is,
others do not, so the molecule keeps the z component of its angular momentum alone. Ten seconds of labels, then some ten
minutes of training on one thread.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
from ase import units

from remul_md import (
    InputError,
    MDOptions,
    RemulCalculator,
    analyze_trajectory,
    load_config,
    read_frames,
    run_md,
    train_potential,
)

HBAR = units._hbar * units.J * units.second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--field-V-per-A", dest="field", type=float, default=0.5)
    parser.add_argument("--n-frames", type=int, default=1000)
    parser.add_argument("--n-steps", type=int, default=3000)
    parser.add_argument("--length-ps", type=float, default=2.0)
    parser.add_argument("--equilibrate-ps", type=float, default=0.5)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    options = parser.parse_args()
    folder = options.output_dir
    folder.mkdir(exist_ok=True)
    labels = folder / "labels.npz"
    # 1. Labels: the orientation counts, so each geometry gets one of its own.
    command = [Path(sys.executable).with_name("remul-md"), "label", "xtb", "rmd17/ethanol/train-01", labels, "--resume"]
    command += ["--every", str(1000 // options.n_frames), "--random-orientations", "1"]
    if subprocess.run([*command, "--field-V-per-A", "0", "0", str(options.field)], check=False).returncode:
        raise SystemExit(1)
    try:
        # 2. Training: frames are rotated about the field only; the labels of other orientations are not known.
        frames = read_frames(labels)
        n_validation = len(frames) // 10
        overrides = [f"data.source={labels}", f"data.n_train={len(frames) - n_validation}"]
        overrides += [f"data.n_validation={n_validation}", f"train.n_steps={options.n_steps}"]
        overrides += ["train.alpha=0", "train.group=SO3", "train.axis=[0, 0, 1]", *options.set]
        potential = train_potential(load_config(None, overrides=overrides), run_dir=folder / "run")
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    metrics = potential.provenance.metrics
    print(f"taught {potential.group} in a field of {potential.provenance.fields_V_per_A[0]} V/A")
    print(
        f"force MAE {metrics['validation_force_mae_meV_per_A']:.1f} meV/A rotated about z, "
        f"direction load {metrics['direction_load']:.1f}"
    )
    # 3. Dynamics at constant energy, from a frame of the data; the molecule rotates.
    atoms = frames.atoms(len(frames) - 1)
    atoms.calc = RemulCalculator(potential)
    chosen = MDOptions(length_ps=options.length_ps, equilibrate_ps=options.equilibrate_ps)
    run = run_md(atoms, chosen, output=folder / "run.traj")
    # 4. Analysis about the field: rotations, mirrors, torque and angular momentum.
    analysis = analyze_trajectory(run.trajectory, atoms=atoms, axis=potential.provenance.axis)
    for verdict in analysis.verdicts:
        word = {True: "yes", False: "NO", None: "undecided"}[verdict.passed]
        print(f"{verdict.name}: {word}, {verdict.value:.3g} {verdict.unit}".rstrip())
    momenta = np.array([frame.get_angular_momentum() for frame in ase.io.read(run.trajectory, ":")]) / HBAR
    for name, first, change in zip("xyz", momenta[0], np.abs(momenta - momenta[0]).max(axis=0), strict=True):
        print(f"L_{name} {first:.2f} hbar at the start, changes by up to {change:.2g}")


if __name__ == "__main__":
    main()
