"""What one call of an ensemble costs against calls of its members in turn, and compiled: interleaved, energy + forces.

python benchmarks/ensemble_call.py [--members 3] [--structure ethanol] [--copies 1 16] [--calls 100] [--device cpu]
    [--no-compile] [--json FILE]

The members are untrained models of the default size: speed does not depend on what the weights are. On the CPU the
time of this process counts, which a busy machine does not change; on a GPU the wall time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from script import run_script, told_command

from remul_md.datasets.structure_source import read_structure
from remul_md.files import write_json
from remul_md.models import build_model
from remul_md.potentials.compiled import CompiledPotential
from remul_md.potentials.domain import domain_of
from remul_md.potentials.ensemble import make_ensemble, members_of
from remul_md.potentials.potential import Potential
from remul_md.potentials.provenance import Provenance
from remul_md.structures.frames import Frames, frames_from_atoms
from remul_md.structures.moving_systems import MovingSystems
from remul_md.studies.record import provenance

WARM_UP = 10  # calls that are not counted


def untrained_ensemble(frames: Frames, *, n_members: int) -> Potential:
    """Members with other random weights."""
    species = tuple(sorted(set(frames.atomic_numbers.tolist())))
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.pt" for number in range(n_members)]
        for number, file in enumerate(files):
            torch.manual_seed(number)
            Potential(
                model=build_model("transformer", {"species": species}).eval().requires_grad_(False),
                reference_energies=torch.zeros(len(species), dtype=torch.float64),
                domain=domain_of(frames),
                provenance=Provenance(trained_forces="conservative"),
            ).save(file)
        return make_ensemble(files)


def run(options: argparse.Namespace, given: list[str]) -> None:
    """The ways beside each other, for each number of copies."""
    atoms = read_structure(options.structure)
    ensemble = untrained_ensemble(frames_from_atoms([atoms]), n_members=options.members).to(device=options.device)
    members = members_of(ensemble)
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    rows: list[dict[str, Any]] = []
    for copies in options.copies:
        systems = MovingSystems(
            frames_from_atoms([atoms] * copies), cutoff=ensemble.cutoff, device=torch.device(options.device)
        )
        batch = systems.at(torch.from_numpy(np.concatenate([atoms.positions] * copies)))

        def together(batch: Any = batch) -> Any:
            return ensemble.predict(batch).forces

        def in_turn(batch: Any = batch) -> Any:
            return torch.stack([member.predict(batch).forces for member in members]).mean(0)

        ways: dict[str, Callable[[], Any]] = {"together": together, "in_turn": in_turn}
        if options.compile:
            compiled = CompiledPotential(ensemble, batch, forces="conservative", say=print)
            ways["compiled"] = lambda batch=batch, compiled=compiled: compiled.predict(batch.positions).forces
        assert all(torch.allclose(way(), together(), atol=1e-5) for way in ways.values())
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.calls + WARM_UP):
            for name, call in ways.items():
                began = clock()
                call().cpu()
                seconds[name].append(clock() - began)
        medians = {name: 1000.0 * float(np.median(values[WARM_UP:])) for name, values in seconds.items()}
        rows.append({"copies": copies, "median_ms": medians})
        told = ", ".join(f"{name.replace('_', ' ')} {value:.1f} ms" for name, value in medians.items())
        print(f"{copies} x {options.structure}, {options.members} members: {told}")
    if options.json:
        command = told_command("ensemble_call", given, {str(options.json): options.json.name})
        content = {**provenance(command, n_jobs=1), "clock": clock.__name__, "members": options.members, "rows": rows}
        write_json(options.json, content, hint="choose another --json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--structure", default="ethanol")
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=Path)
    run_script(parser, run)


if __name__ == "__main__":
    main()
