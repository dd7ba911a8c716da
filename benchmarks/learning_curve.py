"""Error against the number of training frames, with and without pretraining on cheap labels, at equal training steps.

Every run has the steps of the preset in all: with pretraining, a share of them is spent on cheap labels, and the time
of labelling comes on top; both are in the file of results. A seed decides the frames, the weights, the order and the
sampled geometries; smaller training sets lie within larger ones, and the validation frames are the same.

python benchmarks/learning_curve.py --run-dir FOLDER [--preset ethanol] [--set SECTION.KEY=VALUE ...]
    [--frames 50 100 200 500 950] [--methods scratch pretrained] [--seeds 0] [--share 0.5] [--method xtb]
    [--n-test 1000] [--json results/learning_curve.json] [--plots docs/images]

Runs that are finished are not repeated, and one that was stopped goes on, so the same command resumes. A rehearsal of
a minute: --frames 20 40 --n-test 50 --set train.n_steps=300 --set train.warmup_steps=50 --set pretrain.n_labels=400
--set model.width=32 --set model.n_layers=2 --json FILE --plots FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from script import run_script, told_command

from remul_md.analysis.accuracy import evaluate_potential
from remul_md.datasets import read_frames
from remul_md.datasets.registry import ENTRIES
from remul_md.errors import InputError
from remul_md.files import read_json, write_json
from remul_md.studies.figures import plain_numbers, style, write_panels
from remul_md.studies.record import provenance
from remul_md.training.config import RunConfig, load_config
from remul_md.training.run_folder import prepare_run
from remul_md.training.train import train_potential

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parent.parent
METHODS = ("scratch", "pretrained")
ROW = "learning_curve_row.json"
HINT = "choose another file, then run the same command again: finished runs are kept"


def run_config(options: argparse.Namespace, method: str, *, n_train: int, seed: int) -> RunConfig:
    """The preset with these frames and this seed; both methods have its steps in all."""
    of_pretraining = [override for override in options.set if override.startswith("pretrain.")]
    chosen = [override for override in options.set if not override.startswith("pretrain.")]
    chosen += [f"data.n_train={n_train}", f"data.split_seed={seed}", f"train.seed={seed}"]
    config = load_config(options.preset, overrides=chosen)
    if method == "scratch":
        return config
    n_steps = config.train.n_steps
    n_cheap = round(options.share * n_steps)
    chosen += [f"pretrain.method={options.method}", f"pretrain.seed={seed}", f"pretrain.n_steps={n_cheap}"]
    return load_config(options.preset, overrides=[*chosen, f"train.n_steps={n_steps - n_cheap}", *of_pretraining])


def finished_run(options: argparse.Namespace, method: str, *, n_train: int, seed: int) -> dict[str, Any]:
    """Train and evaluate, or read what was found before; refuses a folder of other options."""
    config = run_config(options, method, n_train=n_train, seed=seed)
    folder = options.run_dir / f"{method}-{n_train}-{seed}"
    case = {"method": method, "n_train": n_train, "seed": seed, "test": options.test, "n_test": options.n_test}
    if (folder / ROW).is_file():
        prepare_run(folder, config, resume=True)
        row = read_json(folder / ROW, hint="remove it, and the run is evaluated again")
        if all(row[key] == value for key, value in case.items()):
            return row
    print(f"{folder.name}: training", flush=True)
    potential = train_potential(config, run_dir=folder, resume=True)
    frames = read_frames(options.test)
    test = frames.select(range(min(options.n_test, len(frames))))
    figures = evaluate_potential(potential, test, progress=True).to_json()
    record = potential.provenance
    cheap = record.data.get("pretraining", {})
    row = {
        **case,
        "n_frames_tested": len(test),
        "pretraining": record.pretraining,
        "n_steps": config.train.n_steps + int(cheap.get("n_steps", 0)),
        "labelling_seconds": cheap.get("labelling_seconds", 0.0),
        "training_seconds": record.seconds + cheap.get("training_seconds", 0.0),
        "best_step": record.metrics["best_step"],
        **{name: figures[name] for name in ("force_mae_original", "force_mae_rotated", "energy_mae_rotated")},
        "rotational_spread": figures["rotational_spread"],
    }
    write_json(folder / ROW, row, hint=HINT)
    return row


def draw(axes: Axes, rows: list[dict[str, Any]], title: str) -> None:
    """Force MAE in rotated orientations against training frames: mean, lowest and highest of the seeds."""
    for index, method in enumerate(METHODS):
        sizes = sorted({row["n_train"] for row in rows if row["method"] == method})
        if not sizes:
            continue
        found = [
            np.array([row["force_mae_rotated"] for row in rows if (row["method"], row["n_train"]) == (method, size)])
            for size in sizes
        ]
        means = np.array([values.mean() for values in found])
        reach = [means - [values.min() for values in found], [values.max() for values in found] - means]
        told = next(row["pretraining"] for row in rows if row["method"] == method)
        label = f"pretrained on {told}" if told else "from scratch"
        axes.errorbar(sizes, means, yerr=reach if len(found[0]) > 1 else None, capsize=3, label=label, **style(index))
    axes.set(xscale="log", yscale="log", xlabel="training frames", ylabel="force MAE in rotated orientations, meV/Å")
    plain_numbers(axes)
    axes.set_xticks(sorted({row["n_train"] for row in rows}))
    axes.set_xticks([], minor=True)
    axes.set_title(title, fontsize=9, loc="left")


def run(options: argparse.Namespace, given: list[str]) -> None:
    """All sizes, methods and seeds; the file of results is written after each run."""
    if not 0.0 < options.share < 1.0:
        raise InputError(f"--share must lie between 0 and 1, got {options.share:g}")
    source = run_config(options, "scratch", n_train=options.frames[0], seed=options.seeds[0]).data.resolved_source
    if options.test is None:
        if source not in ENTRIES:
            raise InputError(f"--test is needed: {source} has no test frames of its own")
        options.test = source.replace("train", "test")
    # No name of a folder of this machine goes into the results.
    told = {str(options.run_dir): "FOLDER", str(options.json): options.json.name, str(options.plots): "FOLDER"}
    command = told_command("learning_curve", given, told)
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        for n_train in options.frames:
            for method in options.methods:
                rows.append(finished_run(options, method, n_train=n_train, seed=seed))
                config = run_config(options, options.methods[-1], n_train=n_train, seed=seed).model_dump(mode="json")
                write_json(options.json, {**provenance(command, n_jobs=1), "config": config, "runs": rows}, hint=HINT)
    name = f"learning_curve_{source.split('/')[1] if source in ENTRIES else Path(source).stem}"
    title = f"{source}, {rows[0]['n_steps']:,} steps in all"
    write_panels(options.plots, {name: partial(draw, rows=rows, title=title)})
    print("| frames | seed | method | force MAE, original / rotated | labelling, min | training, min |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['n_train']} | {row['seed']} | {row['pretraining'] or 'from scratch'} "
            f"| {row['force_mae_original']:.1f} / {row['force_mae_rotated']:.1f} "
            f"| {row['labelling_seconds'] / 60:.1f} | {row['training_seconds'] / 60:.1f} |"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--preset", default="ethanol")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--frames", nargs="+", type=int, default=[50, 100, 200, 500, 950])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--share", type=float, default=0.5, help="of the steps that pretraining takes")
    parser.add_argument("--method", default="xtb", help="xtb, or MODULE:FACTORY of an ASE calculator")
    parser.add_argument("--test", help="test frames; default: those that belong to the training frames")
    parser.add_argument("--n-test", type=int, default=1000)
    parser.add_argument("--json", type=Path, default=ROOT / "results" / "learning_curve.json")
    parser.add_argument("--plots", type=Path, default=ROOT / "docs" / "images")
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
