"""What the ASE calculator costs over the bare model, and compiled: median of interleaved calls, positions changed.

python benchmarks/calculator_overhead.py [POTENTIAL] [--structure ethanol] [--calls 500] [--device cpu] [--json FILE]

Of a potential with both heads its direct forces are timed, too.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from remul_md import RemulCalculator
from remul_md.datasets.structure_source import read_structure
from remul_md.structures.frames import frames_from_atoms
from remul_md.structures.neighbors import build_batch, neighbor_pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("potential", nargs="?", default="ethanol")
    parser.add_argument("--structure", default="ethanol")
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    atoms = read_structure(options.structure)
    calculator = RemulCalculator(options.potential, device=options.device)
    atoms.calc = calculator
    model = calculator.potential.model
    batch = build_batch(frames_from_atoms([atoms]), cutoff=calculator.potential.cutoff).to(options.device)
    start, rng = atoms.get_positions(), np.random.default_rng(0)
    arms = {"compiled": RemulCalculator(calculator.potential, device=options.device, compile=True)}
    if calculator.potential.provenance.trained_forces == "both":
        arms |= {
            name: RemulCalculator(calculator.potential, device=options.device, forces="direct", compile=compile)
            for name, compile in (("direct", False), ("direct_compiled", True))
        }
    others = {name: atoms.copy() for name in arms}
    for name, other in others.items():
        other.calc = arms[name]
    seconds: dict[str, list[float]] = {name: [] for name in ("calculator", "model", "neighbor_list", *arms)}

    def timed(name: str, call: object) -> None:
        began = time.perf_counter()
        call()  # type: ignore[operator]
        seconds[name].append(time.perf_counter() - began)

    for _ in range(options.calls + 20):
        positions = start + rng.normal(scale=0.01, size=start.shape)
        atoms.positions[:] = positions
        moved = replace(batch, positions=torch.from_numpy(positions).to(options.device))
        timed("calculator", atoms.get_forces)
        for name, other in others.items():
            other.positions[:] = positions
            timed(name, other.get_forces)
        timed("model", lambda moved=moved: model(moved, forces="conservative").forces.cpu().numpy())
        timed("neighbor_list", lambda p=positions: neighbor_pairs(p, cutoff=calculator.potential.cutoff))
    medians = {name: 1000.0 * float(np.median(values[20:])) for name, values in seconds.items()}
    ratio = medians["calculator"] / (medians["model"] + medians["neighbor_list"])
    print(f"{options.structure}, {options.device}, float32, 1 thread, {options.calls} interleaved calls, median ms:")
    for name, value in medians.items():
        print(f"  {name:15} {value:.3f}")
    print(f"  calculator / (model + neighbor list) = {ratio:.2f}")
    if options.json:
        result = {"median_ms": medians, "ratio": ratio, "calls": options.calls, "torch": torch.__version__}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
