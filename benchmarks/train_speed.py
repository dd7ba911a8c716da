"""Training steps a second, uncompiled and compiled, on packaged molecules with the default model.

Both kinds of steps alternate and the ratio is the median of the ratios of neighbours. On a CPU the clock is the CPU
time of the process, so that other work on the machine counts little; on a GPU it is the time between synchronisations.

python benchmarks/train_speed.py [--molecules ethanol aspirin] [--forces conservative direct direct-head]
    [--batch-sizes 8 16] [--methods augmented REMUL] [--steps 30] [--device cuda] [--json FILE]

With --json, rows that the file holds of the same case are replaced and the others kept, so cases may be run apart.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loss_cost import METHODS, N_WARM, step_of
from script import run_script, told_command

from remul_md import __version__

CASE = ("molecule", "forces", "batch_size", "method", "device")


def speed(case: dict[str, Any], *, n_steps: int, command: str) -> dict[str, Any]:
    """ms a step of both kinds, their ratio, and how long the first compiled step took."""
    clock: Callable[[], float] = time.process_time if case["device"] == "cpu" else time.perf_counter
    options = {"forces": case["forces"], "device": case["device"], "batch_size": case["batch_size"]}
    eager, compiled = (step_of(case["method"], case["molecule"], **options, compiled=which) for which in (False, True))
    began = time.perf_counter()
    compiled()
    first_s = time.perf_counter() - began
    ms: dict[str, list[float]] = {"eager": [], "compiled": []}
    for turn in range(N_WARM + n_steps):
        for name, step in (("eager", eager), ("compiled", compiled)):
            began = clock()
            step()
            if turn >= N_WARM:
                ms[name].append(1000.0 * (clock() - began))
    ratios = np.array(ms["eager"]) / np.array(ms["compiled"])
    return {
        **case,
        "eager_ms": float(np.median(ms["eager"])),
        "compiled_ms": float(np.median(ms["compiled"])),
        "ratio": float(np.median(ratios)),
        "ratio_quartiles": [float(value) for value in np.quantile(ratios, [0.25, 0.75])],
        "first_step_s": first_s,
        "steps": n_steps,
        "command": command,
    }


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Put rows into the file in place of those of the same case."""
    old = json.loads(path.read_text())["rows"] if path.is_file() else []
    new = {tuple(row[name] for name in CASE): row for row in [*old, *rows]}
    content = {
        "versions": {"remul-md": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": {"threads": torch.get_num_threads(), "processor": platform.machine()},
        "rows": list(new.values()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Time of a step, uncompiled and compiled, for each case; a table."""
    told = {str(options.json): options.json.name} if options.json else {}  # no folder of this machine in the results
    command = told_command("train_speed", given, told)
    print(
        "| molecule | forces | batch | method | uncompiled, ms | compiled, ms | ratio |\n|---|---|---|---|---|---|---|"
    )
    for values in product(options.molecules, options.forces, options.batch_sizes, options.methods):
        case = dict(zip(CASE, (*values, options.device), strict=True))
        row = speed(case, n_steps=options.steps, command=command)
        print(
            f"| {row['molecule']} | {row['forces']} | {row['batch_size']} | {row['method']} | {row['eager_ms']:.0f} "
            f"| {row['compiled_ms']:.0f} | {row['ratio']:.2f} |",
            flush=True,
        )
        if options.json:
            write_rows(options.json, [row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--molecules", nargs="+", default=["ethanol", "aspirin"])
    parser.add_argument("--forces", nargs="+", default=["conservative", "direct"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[8, 16])
    parser.add_argument("--methods", nargs="+", default=["augmented", "REMUL"], choices=[*METHODS])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    run_script(parser, run)


if __name__ == "__main__":
    main()
