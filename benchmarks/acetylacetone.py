"""Acetylacetone, trained on 500 frames of 300 K and tested at 300 and at 600 K, beside published errors.

    python benchmarks/acetylacetone.py --run-dir FOLDER --methods exact --json OUT.json --plot OUT.png

Root mean square errors as the publication has them: energies in meV, components of forces in meV/Angstrom. Energies are
centred here (their mean error at 300 K taken off at both temperatures) and as they are. What is in the folder is kept:
the same command goes on where it was stopped. `data/acetylacetone` has the frames and their source.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from script import run_script, told_command

from remul_md.analysis.drawing import SERIES, drawn_panels
from remul_md.datasets import read_frames
from remul_md.files import read_json, write_json
from remul_md.outputs import save_picture
from remul_md.potentials.potential import load_potential
from remul_md.structures.neighbors import build_batch
from remul_md.studies.record import provenance

DATA = Path(str(resources.files("remul_md.data.acetylacetone")))
TEMPERATURES_K = (300, 600)
# arXiv:2206.07697, trained on the same 500 frames: RMSE at 300 K and at 600 K.
PUBLISHED = {
    "MACE": {"energy_meV": [0.9, 4.6], "force_meV_per_A": [5.1, 22.4]},
    "NequIP": {"energy_meV": [0.81, 6.04], "force_meV_per_A": [5.9, 27.8]},
    "BOTNet": {"energy_meV": [0.89, 6.2], "force_meV_per_A": [6.3, 29.8]},
}
# An exact network needs no rotations and no symmetry loss.
EXACT = ("model.symmetry=exact", "train.alpha=1", "train.beta=0", "train.first_orientation=original")
PRETRAINED = ("pretrain.method=xtb", "pretrain.n_labels=5000", "pretrain.n_steps=4000")
SHORT = ("train.n_steps=3000", "train.warmup_steps=100")
METHODS: dict[str, tuple[str, ...]] = {
    "relaxed": (),
    "exact": EXACT,
    "exact-pretrained": (*EXACT, *PRETRAINED, *SHORT),
    "exact-pretrained-5e-4": (*EXACT, *PRETRAINED, *SHORT, "train.fine_tuning_learning_rate=5e-4"),
    "exact-pretrained-2e-3": (*EXACT, *PRETRAINED, *SHORT, "train.fine_tuning_learning_rate=2e-3"),
    "exact-pretrained-full-rate": (*EXACT, *PRETRAINED, "train.fine_tuning_learning_rate=6e-3"),
}


def trained(folder: Path, method: str, *, further: Sequence[str]) -> Path:
    """The potential of a method, made where it is missing."""
    file = folder / method / "potential.pt"
    if not file.exists():
        sets = [f"data.source={DATA / 'train_300K.npz'}", "data.n_train=450", "data.n_validation=50"]
        sets += [f"data.isolated_atoms={DATA / 'isolated_atoms.xyz'}", "train.forces=conservative"]
        sets += ["train.monitor_per_decade=0", *METHODS[method], *further]
        command = ["train", "--run-dir", folder / method, *(part for each in sets for part in ("--set", each))]
        subprocess.run([Path(sys.executable).with_name("remul-md"), *command, "--resume"], check=True)
    return file


def errors(file: Path) -> dict[str, Any]:
    """Root mean square errors at each temperature, in the order of `TEMPERATURES_K`."""
    potential = load_potential(file)
    found: dict[str, Any] = {"energy_meV": [], "energy_centred_meV": [], "force_meV_per_A": []}
    offset = None
    for temperature in TEMPERATURES_K:
        frames = read_frames(DATA / f"test_{temperature}K.npz")
        assert frames.energy is not None
        assert frames.forces is not None
        energy, force = [], []
        for start in range(0, len(frames), 50):
            batch = build_batch(frames.select(range(start, min(start + 50, len(frames)))), cutoff=potential.cutoff)
            predicted = potential.predict(batch)
            energy.append(predicted.energy.double().numpy())
            force.append(predicted.of_head("conservative").double().numpy())
        off = np.concatenate(energy) - frames.energy
        offset = float(off.mean()) if offset is None else offset
        found["energy_meV"].append(rms_thousandths(off))
        found["energy_centred_meV"].append(rms_thousandths(off - offset))
        found["force_meV_per_A"].append(rms_thousandths(np.concatenate(force) - frames.forces))
    return found


def rms_thousandths(values: np.ndarray[Any, Any]) -> float:
    """Root mean square, times 1,000."""
    return 1e3 * float(np.sqrt(np.mean(values**2)))


def plot(rows: dict[str, Any], path: Path) -> None:
    """Force errors against the temperature of the test frames, published ones dashed."""
    with drawn_panels(1, n_columns=1, inches=(5.5, 4.0)) as (figure, (axes,)):
        colors = iter(SERIES)
        for name, row in rows.items():
            axes.plot(TEMPERATURES_K, row["force_meV_per_A"], "s-", label=name, color=next(colors))
        for name, row in PUBLISHED.items():
            axes.plot(TEMPERATURES_K, row["force_meV_per_A"], "o--", label=f"{name} (published)", color=next(colors))
        axes.set(xlabel="temperature of the test frames, K", ylabel="force RMSE, meV/Å", xticks=TEMPERATURES_K)
        axes.set_ylim(bottom=0.0)
        axes.legend()
        save_picture(figure, path)


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Train, test, print and write."""
    content: dict[str, Any] = {"rows": {}}
    if options.json.exists():
        content = read_json(options.json, hint="give a file of this script, or a new one")
    for method in options.methods:
        file = trained(options.run_dir, method, further=options.set)
        made = load_potential(file).provenance
        row = errors(file) | {"n_steps": made.config["train"]["n_steps"], "seconds": made.seconds}
        print(method, {name: np.round(value, 2).tolist() for name, value in row.items()}, flush=True)
        content["rows"][method] = row | {"set": [*METHODS[method], *options.set]}
    command = told_command("acetylacetone", given, {str(options.run_dir): "FOLDER"})
    content |= {"published": PUBLISHED, "temperatures_K": TEMPERATURES_K, **provenance(command, n_jobs=1)}
    write_json(options.json, content, hint="choose another --json")
    if options.plot is not None:
        plot(content["rows"], options.plot)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Acetylacetone, trained at 300 K and tested at 600 K.")
    parser.add_argument("--run-dir", type=Path, required=True, help="Runs are kept in it.")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["relaxed", "exact"])
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="For every run.")
    parser.add_argument("--json", type=Path, required=True, help="Rows of other methods in this file are kept.")
    parser.add_argument("--plot", type=Path, help="a picture, such as .png")
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
