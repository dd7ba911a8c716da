"""Loss against compute, size and data: a transformer and GATr on rigid bodies without a floor.

Every model has five sizes and is trained at each budget of nominal operations, so that a larger one sees less. Told are
the law L(N, D) = L_inf + A N^-a + B D^-b of each (Huber on log L, bootstrap over runs), how well the largest budget is
predicted from the smaller ones, the best size at each budget, and the loss against the number of different scenes at
one budget, with and without rotations. The loss is the squared error of held-out scenes over that of standing still.

A run is a file in the folder and is done once, cheap ones first; a call that was killed goes on, one with more budgets
adds to it. `--finished` trains nothing and tells of what is there.

python benchmarks/scaling.py RUN [--size quick] [--budgets 1e10 2e10 4e10 8e10] [--json FILE] [--plot FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from script import run_script, told_command

from remul_md.analysis.drawing import SERIES, SOFT, drawn_panels
from remul_md.errors import InputError
from remul_md.files import owned
from remul_md.outputs import save_picture
from remul_md.studies.figures import MARKERS, plain_numbers
from remul_md.studies.jobs import fingerprint_of, read_json, write_json
from remul_md.studies.lab import Job, study_options
from remul_md.studies.models.faces import CORNERS
from remul_md.studies.particles import TokenObjective, Tokens, mean_squared_error
from remul_md.studies.record import provenance
from remul_md.studies.rigid_bodies import read_scenes, write_scenes
from remul_md.studies.scaling import (
    N_PARAMETERS,
    Law,
    Runs,
    best_size,
    bootstrap,
    exponent,
    fit_law,
    intervals,
    nominal_flops,
)
from remul_md.studies.tasks.rigidbodies import SEEDS, TASK, RigidBodyOptions, baselines, tokens_of
from remul_md.training.fit import new_state, train_step
from remul_md.training.schedule import shuffled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CASE = "free"
MODELS = {"transformer": "transformer", "gatr": "GATr"}
WAYS = (("transformer", "plain"), ("transformer", "augmentation"), ("gatr", "plain"))


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is run: options of the study, sizes of the networks, budgets, and the sweep over different scenes.

    Args:
        options: KEY=VALUE of the study of rigid bodies.
        transformers: width and blocks, rising.
        gatrs: multivectors, scalars and blocks, rising.
        budgets: nominal operations of a training.
        n_scenes: training scenes.
        uniques: numbers of different scenes, at `unique_budget`, the networks in the middle of the sizes.
    """

    options: tuple[str, ...]
    transformers: tuple[tuple[int, int], ...]
    gatrs: tuple[tuple[int, int, int], ...]
    budgets: tuple[float, ...]
    n_scenes: int
    uniques: tuple[int, ...]
    unique_budget: float


SIZES = {
    "quick": Size(
        options=(
            *("kinds=[box, tetrahedron]", "batch_size=16", "n_heads=4", "n_test=500"),
            *("learning_rate=5e-3", "gatr_learning_rate=5e-3"),
        ),
        transformers=((24, 1), (24, 2), (48, 2), (64, 3), (96, 3)),
        gatrs=((2, 8, 1), (2, 16, 2), (4, 16, 2), (4, 32, 2), (8, 32, 2)),
        budgets=(1e10, 2e10, 4e10, 8e10),
        n_scenes=2000,
        uniques=(20, 100, 500, 2000),
        unique_budget=2e10,
    ),
    "paper": Size(
        options=("batch_size=64", "n_heads=8", "n_test=1000", "device=cuda"),
        transformers=((128, 4), (192, 6), (256, 8), (384, 10), (512, 12)),
        gatrs=((8, 32, 4), (8, 64, 6), (16, 64, 8), (16, 128, 10), (24, 192, 12)),
        budgets=(1e14, 1e15, 1e16),
        n_scenes=200_000,
        uniques=(100, 1000, 10_000, 200_000),
        unique_budget=1e15,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: model and number of its size, operations, method, and how many different scenes it sees."""

    model: str
    number: int
    budget: float
    method: str
    n_scenes: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.model}-{self.number}-{self.budget:.2g}-{self.method}-{self.n_scenes}"


def planned(size: Size, budgets: Sequence[float]) -> list[Run]:
    """All runs, cheap ones first; those at all scenes of the sweep are runs of the grid."""
    grid = [
        Run(model=model, number=number, budget=budget, method="plain", n_scenes=size.n_scenes)
        for budget in sorted(budgets)
        for model in MODELS
        for number in range(len(size.transformers))
    ]
    middle = len(size.transformers) // 2
    sweep = [
        Run(model=model, number=middle, budget=size.unique_budget, method=method, n_scenes=n)
        for n in size.uniques
        for model, method in WAYS
    ]
    of_grid = {*grid}
    return sorted({*grid, *sweep}, key=lambda run: (run.budget, run not in of_grid, run.name))


def study(size: Size, run: Run) -> RigidBodyOptions:
    """The options of the study for a run."""
    if run.model == "gatr":
        channels, scalars, layers = size.gatrs[run.number]
        own = [f"gatr_channels={channels}", f"gatr_scalars={scalars}", f"gatr_layers={layers}"]
    else:
        width, layers = size.transformers[run.number]
        own = [f"width={width}", f"n_layers={layers}"]
    return study_options(TASK, size="default", overrides=[*size.options, *own])


def train(size: Size, run: Run, *, source: Tokens, test: Tokens) -> dict[str, Any]:
    """Train as the study does, but keep the last weights: the schedule ends at 0 and nothing was chosen."""
    options = study(size, run)
    chosen = source.select(slice(run.n_scenes))
    model = options.model(run.model, chosen, seed=0).to(options.device)
    a_token, n_faces = nominal_flops(model), chosen.positions.shape[1] // CORNERS
    n_steps = round(run.budget / (a_token * n_faces * options.batch_size))
    if n_steps < 10:
        return {**asdict(run), "name": run.name, "n_steps": n_steps, "skipped": "fewer than 10 steps"}
    job = Job(case=CASE, model=run.model, method=run.method, seed=0, budgets=("steps",), n_steps=n_steps)
    config = options.train_config(job).model_copy(update={"ema_decay": 0.0})
    state, batch_of, objective = new_state(model, config), shuffled(chosen, config), TokenObjective(config)
    began = time.process_time()
    for step in range(n_steps):
        train_step(state, batch_of(step), objective=objective, config=config)
    seconds = time.process_time() - began
    few = chosen.select(slice(len(test)))
    return {
        **asdict(run),
        "name": run.name,
        "size": list(size.gatrs[run.number] if run.model == "gatr" else size.transformers[run.number]),
        "n_weights": sum(weight.numel() for weight in model.parameters()),
        "flops_a_token": a_token,
        "flops_a_token_of_weights": nominal_flops(model, of_weights=True),
        "n_steps": n_steps,
        "n_tokens": n_steps * n_faces * options.batch_size,
        "epochs": n_steps * options.batch_size / run.n_scenes,
        "train_mse": mean_squared_error(state.model, few),
        "test_mse": mean_squared_error(state.model, test),
        "seconds": round(seconds, 2),
    }


def all_runs(size: Size, options: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """What every run gave that is finished, and the baselines of the test scenes."""
    folder: Path = options.run_dir
    first = study(size, planned(size, options.budgets)[0])
    numbers = {"train": size.n_scenes, "test": first.n_test}
    tokens = {}
    with owned(folder, folder=True):
        for part, n in numbers.items():
            file = folder / f"scenes-{part}.h5"
            write_scenes(file, n_scenes=n, seed=SEEDS[part], options=first.scenes(CASE), n_jobs=options.jobs)
            tokens[part] = tokens_of(read_scenes(file)).to(first.device)
        found = []
        for run in planned(size, options.budgets):
            file = folder / f"{run.name}.json"
            fingerprint = fingerprint_of(study(size, run).decisive, asdict(run))
            if not file.is_file() and not options.finished:
                row = train(size, run, source=tokens["train"], test=tokens["test"])
                write_json(file, {"fingerprint": fingerprint, **row})
                shown = row.get("skipped") or f"{row['test_mse']:.3g} m², {row['seconds']:.0f} s"
                print(f"{run.name}: {shown}", flush=True)
            if file.is_file():
                row = read_json(file)
                if row.pop("fingerprint") != fingerprint:
                    raise InputError(f"{file}: is of other options, or of another version; choose another RUN")
                found.append(row)
    return [row for row in found if "skipped" not in row], baselines(tokens["test"])


def as_runs(rows: Sequence[Mapping[str, Any]], *, unit: float) -> Runs:
    """The runs as the law takes them; losses over `unit`."""
    columns = {"n_weights": "n_weights", "n_tokens": "n_tokens", "losses": "test_mse"}
    arrays = {name: np.array([row[key] for row in rows], dtype=np.float64) for name, key in columns.items()}
    arrays["losses"] = arrays["losses"] / unit
    return Runs(**arrays)


def told(rows: Sequence[Mapping[str, Any]], *, unit: float, n_draws: int) -> dict[str, Any]:
    """What the runs of one model on all scenes say."""
    budgets = sorted({row["budget"] for row in rows})
    best, lowest = {}, {}
    for budget in budgets:
        of = sorted((row for row in rows if row["budget"] == budget), key=lambda row: row["n_weights"])
        sizes, losses = ([row[key] for row in of] for key in ("n_weights", "test_mse"))
        best[f"{budget:.2g}"] = best_size(sizes, losses) if len(of) > 2 else None
        lowest[f"{budget:.2g}"] = min(losses) / unit
    known = {float(budget): size for budget, size in best.items() if size is not None}
    found: dict[str, Any] = {
        "n_runs": len(rows),
        "best_size": best,
        "allocation_exponent": exponent([*known], [*known.values()]),
        "lowest_loss": lowest,
        "compute_exponent": exponent([float(budget) for budget in lowest], [*lowest.values()]),
    }
    earlier = [row for row in rows if row["budget"] < budgets[-1]]
    held_out = [row for row in rows if row["budget"] == budgets[-1]]
    if len(rows) > N_PARAMETERS:
        laws = bootstrap(as_runs(rows, unit=unit), n_draws=n_draws, seed=0)
        found["law"], found["intervals"] = asdict(fit_law(as_runs(rows, unit=unit))), intervals(laws)
    if len(earlier) > N_PARAMETERS:
        unseen = as_runs(held_out, unit=unit)
        predicted = fit_law(as_runs(earlier, unit=unit))(unseen.n_weights, unseen.n_tokens)
        found["held_out"] = {
            "budget": budgets[-1],
            "n_weights": unseen.n_weights.tolist(),
            "measured": unseen.losses.tolist(),
            "predicted": predicted.tolist(),
            "mean_error": float(np.abs(predicted / unseen.losses - 1.0).mean()),
        }
    return found


def look(place: int) -> dict[str, Any]:
    """Colour and marker."""
    return {"color": SERIES[place % len(SERIES)], "marker": MARKERS[place % len(MARKERS)], "ms": 4, "lw": 1.2}


def draw(path: Path, rows: Sequence[Mapping[str, Any]], found: Mapping[str, Any], *, size: Size, unit: float) -> None:
    """IsoFLOP curves of both models with their laws, lowest loss and best size by budget, loss by different scenes."""
    grid = [row for row in rows if row["method"] == "plain" and row["n_scenes"] == size.n_scenes]
    with drawn_panels(4, n_columns=2, inches=(10.5, 8.0)) as (figure, places):
        for axes, (model, label) in zip(places, MODELS.items(), strict=False):
            own = [row for row in grid if row["model"] == model]
            _iso_flops(axes, own, found[model], unit)
            axes.set_title(f"{label}: each curve one budget, nominal FLOPs; dashed: the law", fontsize=8, loc="left")
        for model, label in MODELS.items():
            lowest = found[model]["lowest_loss"]
            place = WAYS.index((model, "plain"))
            places[2].plot([float(budget) for budget in lowest], [*lowest.values()], label=label, **look(place))
        places[2].set(xscale="log", yscale="log", xlabel="nominal FLOPs", ylabel="lowest loss of five sizes")
        low, high = places[2].get_ylim()
        places[2].set_ylim(low / 1.3, high * 1.3)  # so that some round number is seen
        places[2].set_title("loss over that of standing still", fontsize=8, loc="left")
        _by_scenes(places[3], rows, size, unit)
        for axes in places:
            axes.yaxis.set_minor_formatter(_plain_minor(axes))
            axes.legend(fontsize=7)
        save_picture(figure, path)


def _plain_minor(axes: Axes) -> Any:
    scale = axes.xaxis.get_major_formatter()
    plain_numbers(axes)
    minor = axes.yaxis.get_minor_formatter()
    axes.xaxis.set_major_formatter(scale)
    axes.xaxis.set_minor_formatter("")
    return minor


def _iso_flops(axes: Axes, own: Sequence[Mapping[str, Any]], found: Mapping[str, Any], unit: float) -> None:
    law = Law(**found["law"]) if "law" in found else None
    for place, budget in enumerate(sorted({row["budget"] for row in own})):
        of = sorted((row for row in own if row["budget"] == budget), key=lambda row: row["n_weights"])
        x = np.array([row["n_weights"] for row in of])
        axes.plot(x, [row["test_mse"] / unit for row in of], label=f"{budget:.2g}", **look(place))
        if law is not None:
            predicted = law(x, [row["n_tokens"] for row in of])
            axes.plot(x, predicted, ls="--", lw=0.8, color=SERIES[place % len(SERIES)])
    axes.set(xscale="log", yscale="log", xlabel="weights", ylabel="loss over that of standing still")


def _by_scenes(axes: Axes, rows: Sequence[Mapping[str, Any]], size: Size, unit: float) -> None:
    middle = len(size.transformers) // 2
    for place, (model, method) in enumerate(WAYS):
        of = [
            row
            for row in rows
            if (row["model"], row["method"], row["number"]) == (model, method, middle)
            and row["budget"] == size.unique_budget
        ]
        of.sort(key=lambda row: row["n_scenes"])
        if of:
            x, label = [row["n_scenes"] for row in of], MODELS[model] + ("" if method == "plain" else f", {method}")
            axes.plot(x, [row["test_mse"] / unit for row in of], label=label, **look(place))
    axes.axhline(1.0, color=SOFT, lw=0.9, ls=":")
    axes.set(xscale="log", yscale="log", xlabel="different scenes", ylabel="loss over that of standing still")
    axes.set_title(f"{size.unique_budget:.2g} nominal FLOPs, the size in the middle", fontsize=8, loc="left")


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Run what is missing, fit, and write."""
    size = SIZES[options.size]
    options.budgets = options.budgets or [*size.budgets]
    rows, without = all_runs(size, options)
    unit = without["no motion"]
    grid = [row for row in rows if row["method"] == "plain" and row["n_scenes"] == size.n_scenes]
    found = {
        model: told([row for row in grid if row["model"] == model], unit=unit, n_draws=options.draws)
        for model in MODELS
        if any(row["model"] == model for row in grid)
    }
    for model, each in found.items():
        print(f"{MODELS[model]}: {json.dumps(each)}")
    if options.plot is not None:
        draw(options.plot, rows, found, size=size, unit=unit)
    if options.json is not None:
        names = {str(options.run_dir): "RUN", str(options.json): "FILE", str(options.plot): "PLOT"}
        content = {
            **provenance(told_command("scaling", given, names), n_jobs=1),
            "options": asdict(size),
            "baselines": without,
            "seconds": round(sum(row["seconds"] for row in rows), 1),
            "found": found,
            "runs": rows,
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, metavar="RUN")
    parser.add_argument("--size", choices=[*SIZES], default="quick")
    parser.add_argument("--budgets", type=float, nargs="+", help="nominal operations; default: those of the size")
    parser.add_argument("--finished", action="store_true", help="train nothing, tell of the runs that are there")
    parser.add_argument("--draws", type=int, default=100, help="of the bootstrap")
    parser.add_argument("--jobs", type=int, default=1, help="processes that make scenes")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
