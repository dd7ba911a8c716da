"""Throughput of replicas against their number: `remul-md md --replicas N`, and torch-sim's own velocity Verlet.

python benchmarks/replicas.py [POTENTIAL] [--structure ethanol] [--replicas 1 4 16 64] [--steps 200]
    [--compile] [--json FILE]

With --compile the same with compiled forces, too. A line for each N: atom * steps / s by the clock, and by the CPU time
of the process. On one thread and an idle machine both are the same; on a shared one the clock counts what others do,
too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from ase import Atoms
from script import run_script

from remul_md import RemulCalculator
from remul_md.datasets.structure_source import read_structure
from remul_md.dynamics import MDOptions
from remul_md.dynamics.replicas import run_replicas

TIMESTEP_FS = 0.5


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def with_replicas(calculator: RemulCalculator, atoms: Atoms, *, n_replicas: int, n_steps: int) -> tuple[float, float]:
    """`remul-md md --replicas N`: logs, frames and checkpoints as in every run."""
    chosen = MDOptions(length_ps=n_steps * TIMESTEP_FS / 1000.0, equilibrate_ps=0.0, timestep_fs=TIMESTEP_FS)
    start = atoms.copy()
    start.calc = calculator
    evaluate = calculator.copies(start, n_copies=n_replicas)
    evaluate(start.get_positions()[None].repeat(n_replicas, axis=0))  # the first call of a shape is slow
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run.traj"
        return timed(
            lambda: run_replicas(start, chosen, n_replicas=n_replicas, output=output, evaluate=evaluate, progress=False)
        )


def with_torch_sim(calculator: RemulCalculator, atoms: Atoms, *, n_replicas: int, n_steps: int) -> tuple[float, float]:
    import torch_sim
    from remul_md.calculators.torch_sim import RemulTorchSimModel

    model = RemulTorchSimModel(calculator.potential, device=str(calculator.potential.device))
    timestep = torch.tensor(TIMESTEP_FS / 1000.0 * torch_sim.units.MetalUnits.time, dtype=torch.float64)
    init, step = torch_sim.nve(model, dt=timestep, kT=torch.tensor(0.0259, dtype=torch.float64), seed=0)
    state = init(torch_sim.io.atoms_to_state([atoms] * n_replicas, model.device, model.dtype))

    def run() -> None:
        nonlocal state
        for _ in range(n_steps):
            state = step(state)
        state.positions.cpu()

    return timed(run)


def run(options: argparse.Namespace, _: list[str]) -> None:
    """Speed for each number of replicas; a table."""
    atoms = read_structure(options.structure)
    calculator = RemulCalculator(options.potential, device=options.device)
    ways = {"remul-md md --replicas": calculator}
    if options.compile:
        compiled = RemulCalculator(calculator.potential, device=options.device, compile=True)
        ways["remul-md md --replicas --compile"] = compiled
    rows = []
    print(f"{options.structure}, {options.device}, float32, 1 thread, {options.steps} steps, atom*steps/s (CPU time):")
    for n_replicas in options.replicas:
        seconds = {
            name: with_replicas(way, atoms, n_replicas=n_replicas, n_steps=options.steps) for name, way in ways.items()
        }
        seconds["torch-sim nve"] = with_torch_sim(calculator, atoms, n_replicas=n_replicas, n_steps=options.steps)
        work = n_replicas * len(atoms) * options.steps
        for name, (wall, cpu) in seconds.items():
            row = {"name": name, "replicas": n_replicas, "atom_steps_per_s": work / wall}
            rows.append({**row, "atom_steps_per_cpu_s": work / cpu})
            print(f"  {name:34} N = {n_replicas:4}  {work / wall:8.0f}  ({work / cpu:8.0f})", flush=True)
    if options.json:
        command = f"python benchmarks/replicas.py {options.potential} --steps {options.steps} --device {options.device}"
        command += " --compile" * options.compile
        facts = {
            "command": command,
            "threads": 1,
            "dtype": "float32",
            "structure": options.structure,
            "device": options.device,
            "steps": options.steps,
        }
        result = {**facts, "n_atoms": len(atoms), "torch": torch.__version__, "rows": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("potential", nargs="?", default="ethanol")
    parser.add_argument("--structure", default="ethanol")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="compiled forces, too: minutes for each N, once")
    parser.add_argument("--json", type=Path)
    run_script(parser, run)


if __name__ == "__main__":
    main()
