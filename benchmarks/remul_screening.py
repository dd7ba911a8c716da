"""Which training makes a trained potential symmetric for the least: candidates of equal computing time from one base.

The base is a potential trained by rotation augmentation on 900 of the 1,000 frames of train split 01. Each candidate
trains it on for the time of --n-steps of its first one, at a peak learning rate of 5e-4, and is measured on the other
100 frames: errors rotated and as they stand, rotational spread, equivariance percent, net torque. No test frame is
read. A step of every candidate is timed in turns before the first run, and one whose step costs more gets as many
fewer; the times stand in FOLDER/costs-HEAD.json and in the results. Finished runs are not repeated and stopped ones
go on; candidates may be added.

The base:
remul-md train demo-ethanol --run-dir FOLDER/base-0 --set data.n_train=900 --set data.n_validation=100 \\
    --set train.alpha=0 --set train.compile=true

python benchmarks/remul_screening.py --base FOLDER/base-0/potential.pt --run-dir FOLDER
    [--forces conservative] [--labels FILE.npz] [--candidates NAME ...] [--seeds 0] [--n-steps 1600]
    [--unlabelled FILE] [--json results/remul_screening.json]

With --forces direct the direct head is trained alone, by the conservative forces of the base in --labels (the file
labels.npz of `remul-md distill`), and is measured on its held-out frames beside.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from script import run_script, told_command
from torch import Tensor

from remul_md.analysis.accuracy import evaluate_potential
from remul_md.datasets import read_frames
from remul_md.files import read_json, write_json
from remul_md.potentials.potential import Potential, load_potential
from remul_md.structures.batch import Batch, BatchStore, concatenate
from remul_md.studies.record import provenance
from remul_md.symmetry.rotations import rotate_batch
from remul_md.symmetry.turns import first_orientation, rotated_labels
from remul_md.training.config import PUBLISHED, RunConfig, load_config
from remul_md.training.fit import fit, new_state, train_step
from remul_md.training.objectives import PotentialObjective, labels
from remul_md.training.prepare import PreparedTraining, prepare_training
from remul_md.training.unlabelled import partly_labelled_batches
from remul_md.training.validation import VALIDATION_COLUMNS, RotatedValidation

ROOT = Path(__file__).resolve().parent.parent
AUGMENTATION = ["train.alpha=0", "train.beta=1"]
CONSISTENCY = [
    "train.alpha=1",
    "train.first_orientation=random",
    "train.consistency_target=prediction",
    "train.equivariance_from=0",
]
REMUL = ["train.alpha=1", *(f"train.{name}={value}" for name, value in PUBLISHED.items())]
CANDIDATES: dict[str, list[str]] = {
    "augmentation": AUGMENTATION,
    "augmentation, 2 orientations": [*AUGMENTATION, "train.n_rotated=2"],
    "consistency": CONSISTENCY,
    "consistency, beta 0.3": [*CONSISTENCY, "train.beta=0.3"],
    "consistency, beta 3": [*CONSISTENCY, "train.beta=3"],
    "consistency, beta 10": [*CONSISTENCY, "train.beta=10"],
    "consistency, last half": [*CONSISTENCY, "train.equivariance_from=0.5"],
    "consistency, a quarter of the batch": CONSISTENCY,
    "consistency, raw directions alone, beta 10": [
        *CONSISTENCY,
        "train.beta=10",
        "train.trained=raw-directions",
        "train.weight_decay=0",
    ],
    "consistency, own dynamics too": [*CONSISTENCY, "train.unlabelled_batch_size=4"],
    "torque 1": [*AUGMENTATION, "train.torque_weight=1"],
    "torque 10": [*AUGMENTATION, "train.torque_weight=10"],
    "torque 100": [*AUGMENTATION, "train.torque_weight=100"],
    "squared torque 1e4": [*AUGMENTATION, "train.torque_weight=1e4"],
    "consistency + torque 10": [*CONSISTENCY, "train.torque_weight=10"],
    "REMUL, beta 0.1": [*REMUL, "train.beta=0.1"],
    "REMUL, beta 1": REMUL,
    "REMUL, beta 10": [*REMUL, "train.beta=10"],
    "REMUL, gradual": [*REMUL, "train.weighting=gradual"],
}
QUARTER, SQUARED = "consistency, a quarter of the batch", "squared torque 1e4"
OWN = "consistency, own dynamics too"
N_WARM = 3
TOLD = ("step_seconds", "force_mae_rotated", "rotational_spread", "equivariance_percent", "net_torque_rms_meV")


class QuarterObjective(PotentialObjective):
    """Consistency on the first quarter of each batch; its frames are in random order."""

    def losses(self, model: Any, batch: Any, drawn: Sequence[Tensor]) -> dict[str, Tensor]:
        """The task's loss on all frames in their first orientation, consistency with a second one on a quarter."""
        (rotations,), n, few = drawn, batch.n_systems, max(1, batch.n_systems // 4)
        quarter = BatchStore(batch).select(np.arange(few))
        out = model(
            concatenate([rotate_batch(batch, rotations[0]), rotate_batch(quarter, rotations[1, :few])]),
            forces=self.forces,
            create_graph=True,
        )
        first, some = first_orientation(out, n), first_orientation(out, few)
        second = replace(
            some,
            energy=out.energy[n:],
            forces=None if out.forces is None else out.forces[batch.n_atoms :],
            direct_forces=None if out.direct_forces is None else out.direct_forces[batch.n_atoms :],
            atomic_energies=None,
        )
        onward = (rotations[1, :few] @ rotations[0, :few].mT).unsqueeze(0)
        wanted = rotated_labels(labels(batch, forces=self.forces), rotations[:1])
        return {
            "task": self.gap(first, wanted).mean(),
            "equivariance": self.gap(second, rotated_labels(some, onward)).mean(),
        }


class SquaredTorqueObjective(PotentialObjective):
    """The net torque by its square."""

    def net_torque(self, prediction: Any, batch: Batch) -> Tensor:
        """Squared length of the net torque of each system, [B], in squared units of force_scale x 1 Angstrom."""
        return super().net_torque(prediction, batch).square()


KINDS = {QUARTER: QuarterObjective, SQUARED: SquaredTorqueObjective}


def run_config(options: argparse.Namespace, name: str, *, seed: int, n_steps: int) -> RunConfig:
    """The options of a candidate."""
    if options.forces == "direct":
        n_frames = len(read_frames(options.labels, allow_implausible=True))
        data = [f"data.source={options.labels}", "data.allow_implausible=true"]
        data += [f"data.n_train={n_frames - 100}", "data.n_validation=100"]
        head = ["train.forces=direct", "train.trained=direct-head", "train.batch_size=16"]
    else:
        data = ["data.molecule=ethanol", "data.n_train=900", "data.n_validation=100"]
        head = ["train.forces=conservative", "train.batch_size=8"]
    own = [f"data.unlabelled={options.unlabelled}"] if name == OWN else []
    more = [f"train.seed={seed}", f"train.n_steps={n_steps}", "train.warmup_steps=50", "train.device=cpu"]
    more += [f"train.learning_rate={options.learning_rate}", "train.monitor_per_decade=0"]
    more += [f"train.validate_every={n_steps}"]  # the last weights are what is compared
    return load_config(None, overrides=[*data, *head, *more, *own, *CANDIDATES[name]])


def prepared_for(options: argparse.Namespace, name: str, config: RunConfig) -> tuple[PreparedTraining, Any, Any]:
    """What a candidate trains, its objective, and the batch of each step."""
    prepared = prepare_training(config, origin=load_potential(options.base))
    kind = KINDS.get(name, PotentialObjective)
    objective = kind(**{key: getattr(prepared.objective, key) for key in prepared.objective.__dataclass_fields__})
    batch_of = prepared.batches
    if prepared.unlabelled is not None:
        cutoff = load_potential(options.base).cutoff
        batch_of = partly_labelled_batches(
            prepared.batches,
            prepared.unlabelled,
            cutoff=cutoff,
            device=prepared.validation.positions.device,
            config=config.train,
        )
    return prepared, objective, batch_of


def costs_of(options: argparse.Namespace) -> dict[str, float]:
    """Computing time of a step of each candidate, seconds; missing ones are timed in turns with the first."""
    file = options.run_dir / f"costs-{options.forces}.json"
    known: dict[str, float] = read_json(file, hint="remove it, and all steps are timed again") if file.is_file() else {}
    first = next(iter(CANDIDATES))
    missing = [name for name in options.candidates if name not in known]
    if not missing:
        return known
    steps: dict[str, Any] = {}
    for name in {first: 0, **dict.fromkeys(missing)}:
        config = run_config(options, name, seed=0, n_steps=1000)
        prepared, objective, batch_of = prepared_for(options, name, config)
        steps[name] = (new_state(prepared.model, config.train), batch_of, objective, config.train)
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(N_WARM + options.n_rounds):
        for name, (state, batch_of, objective, config) in steps.items():
            began = time.process_time()
            train_step(state, batch_of(state.step), objective=objective, config=config)
            found[name].append(time.process_time() - began)
    seconds = {name: float(np.median(values[N_WARM:])) for name, values in found.items()}
    scale = known.get(first, seconds[first]) / seconds[first]  # the machine may be busier than it was for the others
    known |= {name: value * scale for name, value in seconds.items() if name not in known}
    for name in missing:  # the steps that were timed are the late ones
        share = run_config(options, name, seed=0, n_steps=1000).train.equivariance_from
        known[name] = share * known[first] + (1.0 - share) * known[name]
    write_json(file, known, hint="choose another --run-dir")
    return known


def measured(options: argparse.Namespace, potential: Potential, config: RunConfig) -> dict[str, float]:
    """Figures of a potential on frames that no candidate was trained on."""
    frames = read_frames("rmd17/ethanol/train-01")
    split = load_potential(options.base).provenance.data["split"]
    sets = {"": frames.select(np.array(split["validation"]))}
    if options.forces == "direct":
        held_out = read_frames(Path(options.labels).with_name("held-out.npz"), allow_implausible=True)
        sets["own_dynamics_"] = held_out.select(np.unique(np.linspace(0, len(held_out) - 1, 200).astype(int)))
    found: dict[str, float] = {}
    for prefix, chosen in sets.items():
        accuracy = evaluate_potential(potential, chosen, forces=options.forces)
        found |= {
            f"{prefix}force_mae_rotated": accuracy.force_mae_rotated,
            f"{prefix}force_mae": accuracy.force_mae_original,
            f"{prefix}rotational_spread": accuracy.rotational_spread,
            f"{prefix}rotational_error": accuracy.rotational_error,
            f"{prefix}equivariance_percent": accuracy.equivariance_percent,
            f"{prefix}net_torque_rms_meV": 1000.0 * (accuracy.net_torque_rms_eV or 0.0),
            f"{prefix}force_mae_exact": accuracy.force_mae_exact,
            f"{prefix}energy_mae_rotated": accuracy.energy_mae_rotated,
            f"{prefix}equivariance_percent_energy": accuracy.equivariance_percent_energy,
        }
    return found


def finished_run(options: argparse.Namespace, name: str, *, seed: int, costs: dict[str, float]) -> dict[str, Any]:
    """Train on, or go on, or read what was found before."""
    n_steps = round(options.n_steps * costs[next(iter(CANDIDATES))] / costs[name])
    label = name.replace(",", "").replace(" ", "-").replace("+", "and")
    folder = options.run_dir / f"{options.forces}-{label}-{seed}"
    case = {"candidate": name, "forces": options.forces, "seed": seed, "n_steps": n_steps}
    if (folder / "row.json").is_file():
        row: dict[str, Any] = read_json(folder / "row.json", hint="remove it, and the run is done again")
        if all(row.get(key) == value for key, value in case.items()):
            return row
    print(f"{folder.name}: {n_steps} steps", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    config = run_config(options, name, seed=seed, n_steps=n_steps)
    prepared, objective, batch_of = prepared_for(options, name, config)
    result = fit(
        prepared.model,
        batch_of,
        objective=objective,
        validate=RotatedValidation(prepared.validation, forces=options.forces),
        config=config.train,
        run_dir=folder,
        fingerprint=f"{case}",
        validation_columns=[column for column in VALIDATION_COLUMNS if column != "score"],
        resume=True,
        progress=options.progress,
        early=prepared.objective.without_equivariance() if config.train.equivariance_from > 0 else None,
    )
    model = result.model.eval().requires_grad_(False)
    potential = replace(load_potential(options.base), model=model, reference_energies=prepared.reference_energies)
    row = {**case, "step_seconds": costs[name], "seconds": result.seconds, **measured(options, potential, config)}
    write_json(folder / "row.json", row, hint="choose another --run-dir")
    return row


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Time of a step, then all candidates and seeds; the file of results is written after each run."""
    if options.candidates is None:
        options.candidates = [name for name in CANDIDATES if name != OWN or options.unlabelled]
    told = {str(options.run_dir): "FOLDER", str(options.base): "BASE", str(options.labels): "FILE.npz"}
    told |= {str(options.unlabelled): "FILE", str(options.json): options.json.name}
    command = told_command("remul_screening", given, told)
    options.run_dir.mkdir(parents=True, exist_ok=True)
    costs = costs_of(options)
    for name in options.candidates:
        print(f"{name}: {1000 * costs[name]:.0f} ms a step", flush=True)
    if options.time_only:
        return
    base = load_potential(options.base)
    found: dict[str, Any] = read_json(options.json, hint="--json") if options.json.is_file() else {}
    rows: list[dict[str, Any]] = []
    before = {"candidate": "before", "n_steps": 0, "step_seconds": 0.0}
    before |= measured(options, base, run_config(options, "augmentation", seed=0, n_steps=1000))
    for seed in options.seeds:
        for name in options.candidates:
            rows.append(finished_run(options, name, seed=seed, costs=costs))
            entry = {**provenance(command, n_jobs=1), "before": before, "runs": rows}
            write_json(options.json, {**found, options.forces: entry}, hint="--json")
    for row in (before, *rows):
        print(f"{row['candidate']}: " + ", ".join(f"{key} {row[key]:.3f}" for key in TOLD))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="potential of the ethanol split it records")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--forces", default="conservative", choices=["conservative", "direct"])
    parser.add_argument("--labels", type=Path, help="own dynamics with labels, for the direct head")
    parser.add_argument("--unlabelled", type=Path, help=f"geometries for {OWN!r}")
    parser.add_argument("--candidates", nargs="+", default=None, choices=CANDIDATES, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--n-steps", type=int, default=1600, help="of augmentation; the others get equal time")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--n-rounds", type=int, default=15, help="steps of each candidate that are timed")
    parser.add_argument("--time-only", action="store_true", help="stop after timing the steps")
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--json", type=Path, default=ROOT / "results" / "remul_screening.json")
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
