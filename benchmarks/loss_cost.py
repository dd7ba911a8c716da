"""What the losses cost: time and peak memory of a training step, each method beside plain training.

Steps of all methods are interleaved, so that a busy machine slows all of them, and the ratio is the median of the
ratios of neighbouring steps. Memory is the most that the tensors of one step hold beyond model, optimiser and data.

python benchmarks/loss_cost.py [--molecules ethanol aspirin] [--forces conservative direct] [--steps 40] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from script import run_script, told_command

from remul_md import __version__
from remul_md.potentials.domain import domain_of
from remul_md.potentials.potential import Potential
from remul_md.potentials.provenance import Provenance
from remul_md.training.config import RunConfig
from remul_md.training.prepare import prepare_training
from remul_md.training.step_cost import N_WARM, training_step

BATCH_SIZE = 8
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"beta": 0.0},
    "augmented": {"alpha": 0.0},
    "one-forward REMUL": {"estimator": "one-forward"},
    "REMUL": {},
    "2-orientation": {"alpha": 0.0, "n_rotated": 2},
    "REMUL gradual": {"weighting": "gradual"},
}


def step_of(
    method: str, molecule: str, *, forces: str, device: str, batch_size: int = BATCH_SIZE, compiled: bool = False
) -> Callable[[], None]:
    """One training step of a method on packaged frames, with the model of the defaults.

    Forces "direct-head" are direct forces of which nothing but the head is trained.
    """
    train = {**METHODS[method], "forces": forces, "batch_size": batch_size, "device": device, "compile": compiled}
    if forces != "direct-head":
        return training_step(RunConfig.model_validate({"data": {"molecule": molecule}, "train": train}))
    train |= {"forces": "direct", "trained": "direct-head"}
    config = RunConfig.model_validate({"data": {"molecule": molecule}, "train": train})
    return training_step(config, origin=untrained(molecule))


def untrained(molecule: str) -> Potential:
    """A potential with the weights that training starts from: a step costs the same whatever they are."""
    prepared = prepare_training(RunConfig.model_validate({"data": {"molecule": molecule}, "train": {"device": "cpu"}}))
    return Potential(
        model=prepared.model,
        reference_energies=prepared.reference_energies,
        domain=domain_of(prepared.frames),
        provenance=Provenance(trained_forces="conservative"),
    )


def timed(molecule: str, *, forces: str, device: str, n_steps: int) -> dict[str, tuple[float, float]]:
    """Median ms of a step, and median ratio to the plain step of the same round, by method."""
    steps = {method: step_of(method, molecule, forces=forces, device=device) for method in METHODS}
    ms: dict[str, list[float]] = {method: [] for method in METHODS}
    for turn in range(N_WARM + n_steps):
        for method, step in steps.items():
            began = time.perf_counter()
            step()
            if turn >= N_WARM:
                ms[method].append(1000.0 * (time.perf_counter() - began))
    plain = np.array(ms["plain"])
    return {
        method: (float(np.median(values)), float(np.median(np.array(values) / plain))) for method, values in ms.items()
    }


def peak_MiB(method: str, molecule: str, *, forces: str, device: str) -> float:
    """Most tensor memory that a step holds beyond what was there before it (model, optimiser, data)."""
    step = step_of(method, molecule, forces=forces, device=device)
    for _ in range(N_WARM):
        step()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2.0**20
    return most_tensor_MiB(step)


def most_tensor_MiB(step: Callable[[], None]) -> float:
    """Most memory of tensors on the CPU that a call holds beyond what was there before it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    # Every allocation and release of a tensor, in order; the resident set of the process would hide most of them.
    events: Any = profile.profiler.kineto_results.events()
    sizes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return float(np.cumsum([n_bytes for _, n_bytes in sizes]).max()) / 2.0**20


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Time and memory of each method; a table."""
    rows = []
    print("| molecule | forces | method | ms a step | time | memory, MiB | memory |\n|---|---|---|---|---|---|---|")
    for molecule in options.molecules:
        for forces in options.forces:
            found = timed(molecule, forces=forces, device=options.device, n_steps=options.steps)
            memory = {method: peak_MiB(method, molecule, forces=forces, device=options.device) for method in METHODS}
            for method, (ms, ratio) in found.items():
                share = memory[method] / memory["plain"]
                rows.append(
                    {
                        "molecule": molecule,
                        "forces": forces,
                        "method": method,
                        "median_ms": ms,
                        "time_ratio": ratio,
                        "peak_MiB": memory[method],
                        "memory_ratio": share,
                    }
                )
                print(
                    f"| {molecule} | {forces} | {method} | {ms:.0f} | {ratio:.2f} "
                    f"| {memory[method]:.0f} | {share:.2f} |"
                )
    if options.json:
        content = {
            "command": told_command("loss_cost", given, {str(options.json): options.json.name}),
            "batch_size": BATCH_SIZE,
            "steps": options.steps,
            "versions": {"remul-md": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "machine": {"device": options.device, "threads": torch.get_num_threads(), "processor": platform.machine()},
            "rows": rows,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--molecules", nargs="+", default=["ethanol", "aspirin"])
    parser.add_argument("--forces", nargs="+", default=["conservative", "direct"])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    run_script(parser, run)


if __name__ == "__main__":
    main()
