"""Is broken symmetry the easier part of a loss? T and s2 at the same weights along a training.

Of each: its value, the norm of its gradient, the largest and the smallest eigenvalue of its Hessian and its trace; and
the cosine of the two gradients. Measured on held-out systems, always the same in the same random orientations, at the
weights of training, not at their average. The share of the trace that the largest eigenvalue has says how few
directions carry the curvature; the largest eigenvalue over the value of the loss does not depend on its unit.

python benchmarks/conditioning.py --json FILE [--task flow] [--case ethanol] [--method augmentation] [--steps 1000]
    [--seeds 0 1 2]

The file is written after each seed; the same command goes on with those that are missing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from script import run_script, told_command
from torch import Tensor, nn

from remul_md.errors import InputError
from remul_md.files import read_json, write_json
from remul_md.studies.curvature import gradient_and_product, spectrum
from remul_md.studies.lab import Job, study_options
from remul_md.studies.learn import Particles
from remul_md.studies.particles import TOKEN_TURN, Tokens
from remul_md.studies.record import provenance
from remul_md.studies.report import mean_and_deviation
from remul_md.studies.tasks import find_task
from remul_md.symmetry.evaluate import rotated_back
from remul_md.symmetry.measures import twirl_statistics
from remul_md.symmetry.rotations import random_rotations
from remul_md.training.fit import new_state, train_step
from remul_md.training.schedule import log_spaced, shuffled

PARTS = ("twirled", "spread")


def parts_of_loss(model: nn.Module, tokens: Tokens, rotations: Tensor) -> dict[str, Tensor]:
    """T and s2 a coordinate, means over the systems, with a graph to the weights; rotations [K, B, 3, 3]."""
    back = torch.stack(rotated_back(model, tokens, turn=TOKEN_TURN, rotations=rotations))
    found = twirl_statistics(back.flatten(2), tokens.targets.flatten(1))
    return {name: each.mean() / tokens.targets[0].numel() for name, each in zip(PARTS, found, strict=True)}


def measured(loss: Callable[[str], Tensor], model: nn.Module, *, n_lanczos: int, n_traces: int) -> dict[str, Any]:
    """Gradients and curvature of both parts at the weights as they are."""
    weights, row, gradients = [*model.parameters()], {}, []
    for name in PARTS:
        gradient, product = gradient_and_product(partial(loss, name), weights)
        generator = torch.Generator().manual_seed(0)
        found = spectrum(product, gradient, n_lanczos=n_lanczos, n_traces=n_traces, generator=generator)
        gradients.append(gradient)
        with torch.no_grad():
            value = loss(name).item()
        row[name] = {"value": value, "gradient_norm": gradient.norm().item(), **vars(found)}
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0).item()
    total = sum(row[name]["value"] for name in PARTS)
    return {**row, "gradient_cosine": cosine, "percent": 100.0 * row["spread"]["value"] / total}


def along_training(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Rows at steps that are spread evenly over the logarithm, before the first one too."""
    task = find_task(options.task)
    runner: Particles[Any] = task.runner  # type: ignore[assignment]
    chosen = study_options(task, size=options.size, methods=[options.method], seeds=[seed])
    job = Job(
        case=options.case,
        model="transformer",
        method=options.method,
        seed=seed,
        budgets=("steps",),
        n_steps=options.steps,
    )
    config, splits = chosen.train_config(job), runner.load(chosen, job.case, job.seed)
    state = new_state(chosen.model(job.model, splits.train, seed=job.seed), config)
    batch_of, objective = shuffled(splits.train, config), runner.objective(chosen, config, False)
    watched = splits.validation.select(slice(options.systems))
    rotations = random_rotations(options.draws * len(watched), generator=torch.Generator().manual_seed(1))
    rotations = rotations.view(options.draws, len(watched), 3, 3)

    def loss(name: str) -> Tensor:
        return parts_of_loss(state.model, watched, rotations)[name]

    rows, wanted = [], {0, *log_spaced(options.steps, per_decade=options.per_decade)}
    while True:
        if state.step in wanted:
            began = time.process_time()
            row = measured(loss, state.model, n_lanczos=options.lanczos, n_traces=options.traces)
            rows.append({"step": state.step, **row, "seconds": round(time.process_time() - began, 1)})
            shown = {name: "{value:.3g} largest {largest:.3g} trace {trace:.3g}".format(**row[name]) for name in PARTS}
            print(f"seed {seed}, step {state.step}: {row['percent']:.2g} %, {shown}", flush=True)
        if state.step == options.steps:
            n_weights = sum(weight.numel() for weight in state.model.parameters())
            return {"seed": seed, "n_weights": n_weights, "rows": rows}
        train_step(state, batch_of(state.step), objective=objective, config=config)


def table(content: dict[str, Any]) -> str:
    """By step; the largest eigenvalue over the trace where the trace of every seed is three standard errors above 0."""
    titles = ["step", "percent", "T", "s²", "cosine of gradients", "largest of T", "of s²", "trace of T", "of s²"]
    titles += ["largest / trace, T", "s²"]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for rows in zip(*(each["rows"] for each in content["runs"]), strict=True):
        cells = [str(rows[0]["step"]), mean_and_deviation([row["percent"] for row in rows])]
        cells += [mean_and_deviation([row[part]["value"] for row in rows]) for part in PARTS]
        cells.append(mean_and_deviation([row["gradient_cosine"] for row in rows]))
        cells += [
            mean_and_deviation([row[part][name] for row in rows]) for name in ("largest", "trace") for part in PARTS
        ]
        for part in PARTS:
            known = all(row[part]["trace"] > 3.0 * row[part]["trace_error"] for row in rows)
            cells.append(
                mean_and_deviation([row[part]["largest"] / row[part]["trace"] for row in rows]) if known else ""
            )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Measure, and write what was found after each seed."""
    asked = {name: value for name, value in vars(options).items() if name not in ("json", "seeds")}
    runs: list[dict[str, Any]] = []
    if options.json.is_file():
        hint = "give a file of this script, or a new one"
        earlier = read_json(options.json, hint=hint)
        if earlier["options"] != asked:
            raise InputError(f"{options.json}: was made with {earlier['options']}, not {asked}; {hint}")
        runs = earlier["runs"]
    for seed in options.seeds:
        if seed not in [each["seed"] for each in runs]:
            runs = sorted([*runs, along_training(options, seed)], key=lambda each: each["seed"])
            command = told_command("conditioning", given, {str(options.json): "FILE"})
            content = {**provenance(command, n_jobs=1), "options": asked, "runs": runs}
            write_json(options.json, content, hint="choose another --json")
    print(table({"runs": runs}))


def main(arguments: list[str] | None = None) -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="flow", choices=["flow", "nbody", "charged", "mocap"])
    parser.add_argument("--case", default="ethanol")
    parser.add_argument("--method", default="augmentation")
    parser.add_argument("--size", default="quick")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--per-decade", type=int, default=2)
    parser.add_argument("--systems", type=int, default=48)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--lanczos", type=int, default=20)
    parser.add_argument("--traces", type=int, default=20)
    parser.add_argument("--json", type=Path, required=True, help="Seeds in this file are kept.")
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
