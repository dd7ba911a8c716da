"""How losses look around what training found, and how curved they are there: plain, REMUL, EGNN and GATr.

Elhag et al. (2024), arXiv:2410.17878, draw loss surfaces of a transformer taught by REMUL and of GATr and call the
first smoother. Their directions, grid and normalisation were not found. Ours are those of Li et al. (2018),
arXiv:1712.09913: two random directions, in which every row of a weight matrix has the length of that row of the network
(and biases and other vectors stay), and a grid from -1 to 1. The point in the middle is the moving average of the
weights at the end of a run by the engine (`remul-md study nbody --size quick`), on the training systems of the run.

Two losses: the task loss, in the orientations of the data, and the equivariance loss, against rotated labels in fixed
random orientations. Curvature: the largest eigenvalues of the Hessian of each by Lanczos steps with products of the
Hessian and a vector, in float64.

Finished runs in the folders of studies are read, as long as all options are the same that the study knew and that
decide a training; those that are in none are made in the first folder.

python benchmarks/loss_surfaces.py [--task nbody] [--runs plain remul egnn gatr] [--seeds 0 ...] [--set KEY=VALUE ...]
    [--points 17] [--lanczos 15] [--run-dir DIR ...] [--json FILE] [--plot PNG]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from script import run_script, told_command
from torch import Tensor, nn

from remul_md.outputs import save_picture
from remul_md.studies.curvature import gradient_and_product, lanczos
from remul_md.studies.jobs import read_json
from remul_md.studies.lab import CONFIG, RESULT, Job, run_job, study_options
from remul_md.studies.learn import ParticleOptions
from remul_md.studies.particles import Tokens, rotate_tokens, squared_error
from remul_md.studies.record import provenance
from remul_md.studies.tasks import find_task
from remul_md.symmetry.rotations import random_rotations
from remul_md.training.checkpoint import read_checkpoint
from remul_md.training.fit import CHECKPOINT

RUNS = {
    "plain": ("transformer", "plain", "transformer, plain"),
    "remul": ("transformer", "remul-1", "transformer, REMUL, beta = 1"),
    "egnn": ("egnn", "plain", "EGNN"),
    "gatr": ("gatr", "plain", "GATr"),
}
DIRECTION_SEEDS, ROTATION_SEED, LANCZOS_SEED = (1, 2), 3, 4
N_EIGENVALUES = 3
MEASURED_AFTERWARDS = {"task", "n_test", "n_draws", "n_draw_systems"}  # no weight depends on them
Loss = Callable[[nn.Module], Tensor]
Array = NDArray[np.float64]


def losses_of(tokens: Tokens) -> dict[str, Loss]:
    """The task loss, and the equivariance loss in one fixed random orientation of each system."""
    drawn = random_rotations(len(tokens), generator=torch.Generator().manual_seed(ROTATION_SEED)).unsqueeze(0)
    rotated = rotate_tokens(tokens, drawn)
    return {
        "task": lambda model: squared_error(model(tokens), tokens.targets).mean(),
        "equivariance": lambda model: squared_error(model(rotated), rotated.targets).mean(),
    }


def filter_normalised(parameters: Sequence[Tensor], *, seed: int) -> list[Tensor]:
    """A random direction: each row of a matrix as long as that row of the parameters, vectors left alone.

    Source: Li et al. (2018), arXiv:1712.09913, section 4.
    """
    generator = torch.Generator().manual_seed(seed)
    direction = []
    for parameter in parameters:
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
        if parameter.ndim < 2:
            direction.append(torch.zeros_like(parameter))
            continue
        rows, lengths = drawn.flatten(1), parameter.detach().flatten(1).norm(dim=1, keepdim=True)
        direction.append((rows / rows.norm(dim=1, keepdim=True) * lengths).view_as(parameter))
    return direction


def surface(model: nn.Module, loss: Loss, directions: Sequence[Sequence[Tensor]], steps: Array) -> Array:
    """The loss at all sums of two directions, [first, second]; the parameters are put back."""
    parameters = [*model.parameters()]
    middle = [parameter.detach().clone() for parameter in parameters]
    found = np.empty((len(steps), len(steps)))
    with torch.no_grad():
        for i, first in enumerate(steps):
            for j, second in enumerate(steps):
                for parameter, at, one, other in zip(parameters, middle, *directions, strict=True):
                    parameter.copy_(at + float(first) * one + float(second) * other)
                found[i, j] = loss(model).item()
        for parameter, at in zip(parameters, middle, strict=True):
            parameter.copy_(at)
    return found


def top_eigenvalues(model: nn.Module, loss: Loss, *, n_steps: int) -> list[float]:
    """The largest eigenvalues of the Hessian by `n_steps` Lanczos steps, largest first; each from below."""
    gradient, product = gradient_and_product(lambda: loss(model), [*model.parameters()])
    start = torch.randn(len(gradient), generator=torch.Generator().manual_seed(LANCZOS_SEED), dtype=torch.float64)
    return lanczos(product, start.to(gradient), n=n_steps)[::-1][:N_EIGENVALUES]


def holds_run(folder: Path, job: Job, options: ParticleOptions) -> bool:
    """Whether a study has finished this job, with the options of today as far as they existed then."""
    if not (folder / job.name / RESULT).is_file() or not (folder / CONFIG).is_file():
        return False
    before, now = read_json(folder / CONFIG), options.decisive
    return all(now.get(key) == value for key, value in before.items() if key not in MEASURED_AFTERWARDS)


def trained(
    task: Any, name: str, options: ParticleOptions, folders: Sequence[Path], *, seed: int
) -> tuple[nn.Module, Tokens]:
    """The averaged weights at the end of a run, in float64, and the systems it was trained with."""
    kind, method, _ = RUNS[name]
    job = Job(case=options.cases[0], model=kind, method=method, seed=seed, budgets=("steps",), n_steps=options.n_steps)
    tokens = task.runner.load(options, job.case, seed).train
    folder = next((each for each in folders if holds_run(each, job, options)), folders[0])
    if not holds_run(folder, job, options):
        run_job(task, options, job, str(folder))  # a finished run is read
    model = options.model(kind, tokens, seed=seed)
    model.load_state_dict(read_checkpoint(folder / job.name / CHECKPOINT)["average"])
    double = {
        name: getattr(tokens, name).double() for name in ("scalars", "positions", "velocities", "pairs", "targets")
    }
    return model.double().eval(), Tokens(**double)


def curvature(model: nn.Module, tokens: Tokens, *, n_lanczos: int) -> dict[str, Any]:
    """Both losses where training ended, and the largest eigenvalues of their Hessians."""
    return {
        name: {"at_the_minimum": loss(model).item(), "top_eigenvalues": top_eigenvalues(model, loss, n_steps=n_lanczos)}
        for name, loss in losses_of(tokens).items()
    }


def explored(model: nn.Module, tokens: Tokens, *, steps: Array, n_lanczos: int) -> dict[str, Any]:
    """The curvature of both losses, and their surfaces."""
    directions = [filter_normalised([*model.parameters()], seed=seed) for seed in DIRECTION_SEEDS]
    found: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    found |= curvature(model, tokens, n_lanczos=n_lanczos)
    # Float32 is enough for pictures, and half as dear.
    single = Tokens(**{field: getattr(tokens, field).float() for field in vars(tokens)})
    model.float()
    for name, loss in losses_of(single).items():
        values = surface(model, loss, [[d.float() for d in each] for each in directions], steps)
        found[name]["surface"] = [[float(f"{value:.5g}") for value in row] for row in values]
    return found


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Contours of the task loss above and of the equivariance loss below, all on one logarithmic scale.

    It ends at the highest loss of the first network: EGNN's explodes, and all else would be of one colour. It begins at
    the lowest equivariance loss: in the middle the task loss of a network that knows its data by heart is thousands of
    times lower.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    rows, steps = found["runs"], np.array(found["grid"])
    kinds = ("task", "equivariance")
    values = {(name, kind): np.array(row[kind]["surface"]) for name, row in rows.items() for kind in kinds}
    lowest, highest = min(values[name, "equivariance"].min() for name in rows), values[next(iter(rows)), "task"].max()
    levels = np.geomspace(lowest, highest, 25)
    figure = Figure(figsize=(3.3 * len(rows) + 0.8, 6.4), layout="constrained")
    places: Any = figure.subplots(2, len(rows), squeeze=False, sharex=True, sharey=True)
    for column, name in enumerate(rows):
        for line, kind in enumerate(kinds):
            axes = places[line, column]
            shown = {"levels": levels, "norm": LogNorm(lowest, highest), "extend": "both"}
            drawn = axes.contourf(steps, steps, values[name, kind].T, **shown)
            axes.plot(0.0, 0.0, "w+")
            axes.set_title(f"{RUNS[name][2]}\n{kind} loss", fontsize=9)
    figure.supxlabel("first direction, filter-normalised", fontsize=9)
    figure.supylabel("second direction", fontsize=9)
    bar = figure.colorbar(drawn, ax=places, format="%.1e", ticks=np.geomspace(lowest, highest, 6))
    bar.set_label("mean squared error a coordinate")
    save_picture(figure, path, dpi=130)


def table(found: Mapping[str, Any]) -> str:
    """Losses at the minima, and the two largest eigenvalues of their Hessians; one row a seed."""
    lines = [
        "| network, method | seed | loss, 1e-3 | largest eigenvalue | next | rotated loss, 1e-3 | largest | next |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, drawn in found["runs"].items():
        for seed, row in {str(found["seeds"]["run"]): drawn, **drawn["other_seeds"]}.items():
            cells = [RUNS[name][2], seed]
            for kind in ("task", "equivariance"):
                first, second, *_ = row[kind]["top_eigenvalues"]
                cells += [f"{1e3 * row[kind]['at_the_minimum']:.3g}", f"{first:.3g}", f"{second:.3g}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Train what is not trained yet, look around, write and draw."""
    task: Any = find_task(options.task)
    first, *others = options.seeds
    chosen = study_options(task, size="quick", seeds=options.seeds, overrides=options.set)
    with tempfile.TemporaryDirectory() as scratch:
        folders = options.run_dir or [Path(scratch)]
        steps = np.linspace(-1.0, 1.0, options.points)
        runs = {}
        for name in options.runs:
            model, tokens = trained(task, name, chosen, folders, seed=first)
            runs[name] = explored(model, tokens, steps=steps, n_lanczos=options.lanczos)
            runs[name]["other_seeds"] = {
                str(seed): curvature(*trained(task, name, chosen, folders, seed=seed), n_lanczos=options.lanczos)
                for seed in others
            }
            print(f"{name}: {runs[name]['task']['top_eigenvalues']}", flush=True)
    told = {str(path): path.name for path in (*(options.run_dir or ()), options.json, options.plot) if path}
    content = {
        **provenance(told_command("loss_surfaces", given, told), n_jobs=1),
        "task": task.name,
        "case": chosen.cases[0],
        "n_steps": chosen.n_steps,
        "directions": "random, filter-normalised: rows of matrices as long as the network's, vectors left alone",
        "seeds": {
            "run": first,
            "directions": DIRECTION_SEEDS,
            "rotations": ROTATION_SEED,
            "lanczos": LANCZOS_SEED,
        },
        "lanczos_steps": options.lanczos,
        "grid": [float(value) for value in steps],
        "runs": runs,
    }
    if options.json:
        options.json.write_text(json.dumps(content) + "\n")
    if options.plot:
        draw(content, options.plot)
    print(table(content))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="nbody", choices=("nbody", "charged", "mocap"), help="its first case")
    parser.add_argument("--runs", nargs="+", default=[*RUNS], choices=RUNS)
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="options of the task, such as n_steps=500"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of runs; only the first is drawn")
    parser.add_argument("--points", type=int, default=17, help="of the grid, in each direction")
    parser.add_argument("--lanczos", type=int, default=15, help="steps")
    parser.add_argument("--run-dir", type=Path, nargs="+", help="the runs; gone on with if they are there")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    run_script(parser, run)


if __name__ == "__main__":
    main()
