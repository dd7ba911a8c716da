"""What each choice of the recipe is worth: one option changed at a time, equal computing time, validation folds.

A fold is 900 training and 100 validation frames of train split 01, drawn by the seed, which also decides weights, order
and orientations; methods of one seed are paired. No test frame is read. Before the first run a step of every method is
timed, in turns, and a method whose step costs more than the recipe's gets as many fewer; the times are kept in
FOLDER/costs.json. Methods that change numbers and no work, such as the learning rate, have the recipe's cost: timings
differ by a tenth.

python benchmarks/ablations.py --run-dir FOLDER [--preset ethanol] [--set SECTION.KEY=VALUE ...] [--methods NAME ...]
    [--seeds 0 1] [--n-steps 2000] [--json results/ablations_ethanol.json]

Finished runs are not repeated and stopped ones go on, so the same command resumes; methods may be added later.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from script import run_script, told_command

from remul_md.files import read_json, write_json
from remul_md.studies.record import provenance
from remul_md.training.config import RunConfig, load_config
from remul_md.training.step_cost import step_seconds
from remul_md.training.train import train_potential

ROOT = Path(__file__).resolve().parent.parent
RECIPE = "recipe"
ADAMW = ["train.optimizer=adamw", "train.learning_rate=2e-3", "train.weight_decay=0.01"]
REMUL = ["train.alpha=1.0", "train.beta=1.0"]
# The control knows other sizes, so the model section of the preset is left behind.
OTHER_MODELS = {
    "painn": ["model.kind=painn"],
    "painn, adamw": ["model.kind=painn", *ADAMW],
}
METHODS: dict[str, list[str]] = {
    RECIPE: [],
    "adamw": ADAMW,
    "learning rate 2e-3": ["train.learning_rate=2e-3"],
    "learning rate 8e-3": ["train.learning_rate=8e-3"],
    "weight decay 0.01": ["train.weight_decay=0.01"],
    "weight decay 0.2": ["train.weight_decay=0.2"],
    "batch 4": ["train.batch_size=4"],
    "batch 16": ["train.batch_size=16"],
    "harmonics to degree 1": ["model.max_degree=1"],
    "harmonics to degree 2": ["model.max_degree=2"],
    "16 tensor features": ["model.n_tensors=16"],
    "48 tensor features": ["model.n_tensors=48"],
    "2 layers": ["model.n_layers=2"],
    "4 layers": ["model.n_layers=4"],
    "width 96": ["model.width=96"],
    "width 192": ["model.width=192"],
    "4 heads": ["model.n_heads=4"],
    "8 radial functions": ["model.n_radial=8"],
    "32 radial functions": ["model.n_radial=32"],
    "cutoff 4.5": ["model.cutoff=4.5"],
    "average of 100 steps": ["train.ema_decay=0.99"],
    "average of 3,000 steps": ["train.ema_decay=0.9997"],
    "energy weight 0": ["train.energy_weight=0.0"],
    "energy weight 0.1": ["train.energy_weight=0.1"],
    "squared force error": ["train.force_loss=mse"],
    "original orientation only": ["train.alpha=1.0", "train.beta=0.0"],
    "REMUL, beta 1": REMUL,
    "two rotated orientations": ["train.n_rotated=2"],
    "direct forces first": [],
    **OTHER_MODELS,
}
# Options that change numbers within a step, and nothing of what it computes.
FREE = ("learning_rate", "weight_decay", "ema_decay", "energy_weight", "force_loss")
# What a method is trained by for `FIRST_SHARE` of its time, before its own options; both stages have a whole schedule.
FIRST_STAGES: dict[str, list[str]] = {"direct forces first": ["train.forces=direct"]}
FIRST_SHARE = 1 / 3
STAGE = ": first stage"


def run_config(
    options: argparse.Namespace, method: str, *, seed: int, n_steps: int, more: Sequence[str] = ()
) -> RunConfig:
    """The preset on a fold, with one choice changed."""
    fold = ["data.n_train=900", "data.n_validation=100", f"data.split_seed={seed}", f"train.seed={seed}"]
    steps = [f"train.n_steps={n_steps}", f"train.validate_every={max(1, n_steps // 4)}", "train.device=cpu"]
    config = load_config(options.preset, overrides=[*fold, *steps, *options.set, *METHODS[method], *more])
    warmup = min(config.train.warmup_steps, n_steps // 4)
    return config.model_copy(update={"train": config.train.model_copy(update={"warmup_steps": warmup})})


def first_stage(method: str) -> str:
    """Name under which the cost of a step of the first stage of a method is kept."""
    return method + STAGE


def costs_as_the_recipe(method: str) -> bool:
    """Whether a step of the method computes what one of the recipe does, with other numbers."""
    free = tuple(f"train.{key}=" for key in FREE)
    return method not in FIRST_STAGES and all(override.startswith(free) for override in METHODS[method])


def costs_of(options: argparse.Namespace) -> dict[str, float]:
    """Computing time of a step of each method, seconds; methods that have none yet are timed in turns with the
    recipe."""
    file = options.run_dir / "costs.json"
    known: dict[str, float] = read_json(file, hint="remove it, and all steps are timed again") if file.is_file() else {}
    timed_methods = [method for method in options.methods if method == RECIPE or not costs_as_the_recipe(method)]
    more = dict.fromkeys(timed_methods, ()) | {
        first_stage(method): FIRST_STAGES[method] for method in options.methods if method in FIRST_STAGES
    }
    missing = [name for name in more if name not in known]
    if missing:
        print(f"timing the steps of {len(missing)} methods", flush=True)
        timed = {
            name: run_config(options, name.split(STAGE)[0], seed=0, n_steps=options.n_steps, more=more[name])
            for name in {RECIPE: 0, **dict.fromkeys(missing)}
        }
        found = step_seconds(timed, n_rounds=options.n_rounds)
        # Relative to the recipe timed beside them: the machine may be busier than it was for the others.
        scale = known.get(RECIPE, found[RECIPE]) / found[RECIPE]
        known |= {method: found[method] * scale for method in missing}
        known.setdefault(RECIPE, found[RECIPE])
        write_json(file, known, hint="choose another --run-dir")
    return known | {method: known[RECIPE] for method in options.methods if costs_as_the_recipe(method)}


def finished_run(options: argparse.Namespace, method: str, *, seed: int, costs: Mapping[str, float]) -> dict[str, Any]:
    """Train, or go on, or read what was found before."""
    seconds, budget = costs[method], options.n_steps * costs[RECIPE]
    folder = options.run_dir / f"{method.replace(' ', '-').replace(',', '').replace('/', 'by')}-{seed}"
    row_file = folder / "ablation_row.json"
    share = FIRST_SHARE if method in FIRST_STAGES else 0.0
    n_first = round(share * budget / costs[first_stage(method)]) if share else 0
    n_steps = round((1.0 - share) * budget / seconds)
    case = {"method": method, "seed": seed, "n_steps": n_steps, "n_first_steps": n_first}
    if row_file.is_file():
        row: dict[str, Any] = read_json(row_file, hint="remove it, and the run is done again")
        if all(row.get(key) == value for key, value in case.items()):
            return row
    print(f"{folder.name}: {n_steps} steps", flush=True)
    origin, more = None, []
    if n_first:
        first = run_config(options, method, seed=seed, n_steps=n_first, more=FIRST_STAGES[method])
        train_potential(first, run_dir=folder / "first", resume=True, progress=options.progress)
        origin = folder / "first" / "potential.pt"
        more = [f"train.fine_tuning_learning_rate={first.train.learning_rate}"]
    config = run_config(options, method, seed=seed, n_steps=n_steps, more=more)
    potential = train_potential(config, run_dir=folder, init_from=origin, resume=True, progress=options.progress)
    last = potential.provenance.metrics["history"][-1]
    row = {
        **case,
        "step_seconds": seconds,
        "n_parameters": sum(parameter.numel() for parameter in potential.model.parameters()),
        "force_mae_rotated": last["validation_force_mae"],
        "energy_mae_rotated": last["validation_energy_mae"],
        "training_loss": last["loss"],
    }
    write_json(row_file, row, hint="choose another --run-dir")
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of a Markdown table, best first: each method with the difference from the recipe, paired by seed."""
    of_recipe = {row["seed"]: row for row in rows if row["method"] == RECIPE}
    lines = []
    for method in {row["method"]: 0 for row in rows}:
        mine = [row for row in rows if row["method"] == method]
        error = np.array([row["force_mae_rotated"] for row in mine])
        ratio = np.array(
            [
                row["force_mae_rotated"] / of_recipe[row["seed"]]["force_mae_rotated"]
                for row in mine
                if row["seed"] in of_recipe
            ]
        )
        each = ", ".join(f"{value:.1f}" for value in error)
        energy = np.mean([row["energy_mae_rotated"] for row in mine])
        steps = f"{mine[0]['n_first_steps']} + {mine[0]['n_steps']}" if mine[0]["n_first_steps"] else mine[0]["n_steps"]
        relative = mine[0]["step_seconds"] / next(iter(of_recipe.values()))["step_seconds"]
        lines.append(
            (
                error.mean(),
                f"| {method} | {relative:.2f} | {steps} | {mine[0]['n_parameters'] / 1e6:.2f} | {each} "
                f"| {ratio.mean():.2f} | {energy:.2f} |",
            )
        )
    head = "| method | cost of a step | steps | parameters, M | force MAE of each fold | over the recipe | energy MAE |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *(line for _, line in sorted(lines))])


def run(options: argparse.Namespace, given: list[str]) -> None:
    """All methods and seeds; the file of results is written after each run."""
    options.methods = list(dict.fromkeys([RECIPE, *options.methods]))
    told = {str(options.run_dir): "FOLDER", str(options.json): options.json.name}
    command = told_command("ablations", given, told)
    options.run_dir.mkdir(parents=True, exist_ok=True)
    costs = costs_of(options)
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        for method in options.methods:
            rows.append(finished_run(options, method, seed=seed, costs=costs))
            config = run_config(options, RECIPE, seed=0, n_steps=options.n_steps).model_dump(mode="json")
            write_json(options.json, {**provenance(command, n_jobs=1), "recipe": config, "runs": rows}, hint="--json")
    print(table(rows))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--preset", default="ethanol")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--n-steps", type=int, default=2000, help="of the recipe; the other methods get equal time")
    parser.add_argument("--n-rounds", type=int, default=30, help="steps of each method that are timed")
    parser.add_argument("--progress", action="store_true", help="a bar for each run")
    parser.add_argument("--json", type=Path, default=ROOT / "results" / "ablations_ethanol.json")
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
