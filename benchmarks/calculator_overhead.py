"""What the ASE calculator costs over the bare model, and compiled: median of interleaved calls, positions changed.

python benchmarks/calculator_overhead.py [POTENTIAL] [--structure ethanol] [--calls 500] [--device cpu] [--json FILE]

Of a potential with both heads its direct forces are timed, too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from script import run_script

from remul_md import RemulCalculator
from remul_md.datasets.structure_source import read_structure
from remul_md.structures.frames import frames_from_atoms
from remul_md.structures.neighbors import build_batch, neighbor_pairs

N_WARM = 20
Call = Callable[[NDArray[np.float64]], object]


def forces_of(calculator: RemulCalculator, atoms: Atoms) -> Call:
    """Forces of a copy of `atoms` at other positions, as a user's program asks for them: on the CPU when it returns."""
    own = atoms.copy()
    own.calc = calculator

    def forces_at(positions: NDArray[np.float64]) -> object:
        own.positions[:] = positions
        return own.get_forces()

    return forces_at


def medians_in_turns(calls: Mapping[str, Call], start: NDArray[np.float64], *, n_calls: int) -> dict[str, float]:
    """Median milliseconds of functions of positions, each called at the same slightly displaced ones."""
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(N_WARM + n_calls):
        positions = start + rng.normal(scale=0.01, size=start.shape)
        for name, call in calls.items():
            began = time.perf_counter()
            call(positions)
            seconds[name].append(time.perf_counter() - began)
    return {name: 1000.0 * float(np.median(values[N_WARM:])) for name, values in seconds.items()}


def run(options: argparse.Namespace, _: list[str]) -> None:
    """All ways of asking for forces, in turn; a table."""
    atoms = read_structure(options.structure)
    calculator = RemulCalculator(options.potential, device=options.device)
    potential, model = calculator.potential, calculator.potential.model
    batch = build_batch(frames_from_atoms([atoms]), cutoff=potential.cutoff).to(options.device)

    def bare_model(positions: NDArray[np.float64]) -> object:
        moved = replace(batch, positions=torch.from_numpy(positions).to(options.device))
        return model(moved, forces="conservative").forces.cpu().numpy()

    calls: dict[str, Call] = {
        "calculator": forces_of(calculator, atoms),
        "model": bare_model,
        "neighbor_list": lambda positions: neighbor_pairs(positions, cutoff=potential.cutoff),
        "compiled": forces_of(RemulCalculator(potential, device=options.device, compile=True), atoms),
    }
    if potential.provenance.trained_forces == "both":
        for name, compiled in (("direct", False), ("direct_compiled", True)):
            other = RemulCalculator(potential, device=options.device, forces="direct", compile=compiled)
            calls[name] = forces_of(other, atoms)
    medians = medians_in_turns(calls, atoms.get_positions(), n_calls=options.calls)
    ratio = medians["calculator"] / (medians["model"] + medians["neighbor_list"])
    print(f"{options.structure}, {options.device}, float32, 1 thread, {options.calls} interleaved calls, median ms:")
    for name, value in medians.items():
        print(f"  {name:15} {value:.3f}")
    print(f"  calculator / (model + neighbor list) = {ratio:.2f}")
    if options.json:
        result = {"median_ms": medians, "ratio": ratio, "calls": options.calls, "torch": torch.__version__}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("potential", nargs="?", default="ethanol")
    parser.add_argument("--structure", default="ethanol")
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    run_script(parser, run)


if __name__ == "__main__":
    main()
