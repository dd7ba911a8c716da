"""What a plain network learns of the symmetry: with distances and without them, by gradients of an energy and directly.

    python benchmarks/plain_screening.py --run-dir FOLDER [--runs NAME ...] [--n-steps 2000] [--time-only]
        [--json results/plain_screening.json]

Each run trains `model.symmetry=none` on 900 of the 1,000 frames of ethanol's train split 01, every frame in a random
orientation, batches of 8, one thread, uncompiled, one seed, and is measured on the other 100; no test frame is read. A
step of every run is timed in turns before the first one trains (computing time, `costs` in the results). What is in the
folder already is kept: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from remul_md.analysis.accuracy import evaluate_potential
from remul_md.datasets import read_frames
from remul_md.files import read_json, write_json
from remul_md.potentials.potential import load_potential
from remul_md.studies.record import provenance
from remul_md.training.config import RunConfig, load_config
from remul_md.training.fit import new_state, train_step
from remul_md.training.schedule import shuffled
from remul_md.training.train import prepare_training, train_potential

ROOT = Path(__file__).resolve().parent.parent
GIVEN, ADAMW, DIRECT = "model.distances=true", "train.optimizer=adamw", "train.forces=direct"


def rate(value: float) -> str:
    return f"train.learning_rate={value:g}"


RUNS: dict[str, tuple[str, ...]] = {
    "distances, muon 6e-3": (GIVEN,),
    "distances, adamw 2e-3": (GIVEN, ADAMW, rate(2e-3)),
    "rank 1, muon 6e-3": (),
    "rank 1, muon 2e-3": (rate(2e-3),),
    "rank 1, adamw 2e-3": (ADAMW, rate(2e-3)),
    "rank 1, adamw 6e-4": (ADAMW, rate(6e-4)),
    "rank 4, muon 6e-3": ("model.rank=4",),
    "rank 4, adamw 2e-3": ("model.rank=4", ADAMW, rate(2e-3)),
    "direct, rank 1, muon 6e-3": (DIRECT,),
    "direct, rank 1, adamw 2e-3": (DIRECT, ADAMW, rate(2e-3)),
    "direct, rank 4, muon 6e-3": (DIRECT, "model.rank=4"),
    "direct, distances, muon 6e-3": (DIRECT, GIVEN),
}
KEPT = ("force_mae_original", "force_mae_rotated", "rotational_spread", "rotational_error", "equivariance_percent")
KEPT += ("force_mae_exact", "direction_load", "energy_mae_rotated")
N_WARM, N_TIMED = 3, 12


def run_config(name: str, *, n_steps: int) -> RunConfig:
    """The options of a run."""
    data = ["data.molecule=ethanol", "data.n_train=900", "data.n_validation=100"]
    train = ["train.alpha=0", f"train.n_steps={n_steps}", "train.monitor_per_decade=0", "train.device=cpu"]
    return load_config(None, overrides=["model.symmetry=none", *data, *train, *RUNS[name]])


def costs_of(names: Sequence[str]) -> dict[str, float]:
    """Computing time of a step of each run, seconds, taken in turns."""
    states: dict[str, Any] = {}
    for name in names:
        config = run_config(name, n_steps=2000)
        prepared = prepare_training(config)
        states[name] = (new_state(prepared.model, config.train), shuffled(prepared.source, config.train), prepared)
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(N_WARM + N_TIMED):
        for name, (state, batch_of, prepared) in states.items():
            config, began = run_config(name, n_steps=2000), time.process_time()
            train_step(state, batch_of(state.step), objective=prepared.objective, config=config.train)
            found[name].append(time.process_time() - began)
    return {name: float(np.median(values[N_WARM:])) for name, values in found.items()}


def trained(folder: Path, name: str, *, n_steps: int) -> dict[str, Any]:
    """Train a run where its potential is missing; its figures on the held-out frames, meV and meV/Angstrom."""
    config = run_config(name, n_steps=n_steps)
    place = folder / f"{name.replace(', ', '_').replace(' ', '-')}_{n_steps}"
    if not (place / "potential.pt").exists():
        train_potential(config, run_dir=place, resume=True, progress=False)
    potential = load_potential(place / "potential.pt")
    made = potential.provenance
    frames = read_frames("rmd17/ethanol/train-01").select(np.array(made.data["split"]["validation"]))
    found = evaluate_potential(potential, frames).to_json()
    assert frames.forces is not None
    return {
        "run": name,
        "options": list(RUNS[name]),
        "n_steps": n_steps,
        "seconds": made.seconds,
        "mean_force": 1e3 * float(np.abs(frames.forces).mean()),
        **{key: found[key] for key in KEPT},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, time, train and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=RUNS, metavar="NAME")
    parser.add_argument("--n-steps", type=int, default=2000)
    parser.add_argument("--time-only", action="store_true", help="stop after timing the steps")
    parser.add_argument("--json", type=Path, default=ROOT / "results" / "plain_screening.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    told = {str(options.run_dir): "FOLDER", str(options.json): options.json.name}
    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "benchmarks/plain_screening.py", *(told.get(part, part) for part in given)])
    content: dict[str, Any] = {"costs": {}, "rows": []}
    if options.json.exists():
        content = read_json(options.json, hint="give a file of this script, or a new one")
    content |= provenance(command, n_jobs=1)
    missing = [name for name in options.runs if name not in content["costs"]]
    content["costs"] |= costs_of(missing)
    write_json(options.json, content, hint="choose another --json")
    for name in options.runs:
        print(f"{name}: {1e3 * content['costs'][name]:.0f} ms a step", flush=True)
    if options.time_only:
        return
    for name in options.runs:
        row = trained(options.run_dir, name, n_steps=options.n_steps)
        same = (name, options.n_steps)
        content["rows"] = [*(old for old in content["rows"] if (old["run"], old["n_steps"]) != same), row]
        write_json(options.json, content, hint="choose another --json")
        print(f"{name}: {row['force_mae_rotated']:.1f} meV/A, load {row['direction_load']:.2f}", flush=True)


if __name__ == "__main__":
    main()
