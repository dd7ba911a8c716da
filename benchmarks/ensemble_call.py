"""What one call of an ensemble costs against calls of its members in turn: interleaved, median, energy + forces.

python benchmarks/ensemble_call.py [--members 3] [--structure ethanol] [--copies 1 16] [--calls 100] [--device cpu]
    [--json FILE]

The members are untrained models of the default size: speed does not depend on what the weights are. On the CPU the
time of this process counts, which a busy machine does not change; on a GPU the wall time.
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
from script import run_script

from remul_md.datasets.structure_source import read_structure
from remul_md.models import build_model, model_config
from remul_md.models.ensemble import stacked_states
from remul_md.structures.frames import frames_from_atoms
from remul_md.structures.neighbors import build_batch


def run(options: argparse.Namespace, _: list[str]) -> None:
    """One call against calls in turn, for each number of copies."""
    atoms = read_structure(options.structure)
    species = tuple(sorted(set(atoms.numbers.tolist())))
    members = [build_model("transformer", {"species": species}) for _ in range(options.members)]
    kind, shared = model_config(members[0])
    scales = [shared.pop("energy_scale")] * options.members
    config = {"member_kind": kind, "member_options": shared, "energy_scales": tuple(scales)}
    ensemble: Any = build_model("ensemble", config)
    ensemble.member.model.load_state_dict(stacked_states(members))
    for model in (*members, ensemble):
        model.eval().requires_grad_(False).to(options.device)
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    rows = []
    for copies in options.copies:
        frames = frames_from_atoms([atoms] * copies)
        batch = build_batch(frames, cutoff=members[0].config.cutoff).to(options.device)

        def together(batch=batch) -> torch.Tensor:  # type: ignore[no-untyped-def]
            return ensemble(batch, forces="conservative").forces.cpu()

        def in_turn(batch=batch) -> torch.Tensor:  # type: ignore[no-untyped-def]
            return torch.stack([member(batch, forces="conservative").forces for member in members]).mean(0).cpu()

        assert torch.allclose(together(), in_turn(), atol=1e-6)
        seconds: dict[str, list[float]] = {"together": [], "in_turn": []}
        ways: dict[str, Callable[[], torch.Tensor]] = {"together": together, "in_turn": in_turn}
        for _ in range(options.calls + 10):
            for name, call in ways.items():
                began = clock()
                call()
                seconds[name].append(clock() - began)
        medians = {name: 1000.0 * float(np.median(values[10:])) for name, values in seconds.items()}
        rows.append({"copies": copies, "median_ms": medians, "ratio": medians["together"] / medians["in_turn"]})
        print(
            f"{copies} x {options.structure}: {options.members} members in one call {medians['together']:.1f} ms, "
            f"in turn {medians['in_turn']:.1f} ms, ratio {rows[-1]['ratio']:.2f}"
        )
    if options.json:
        result = {
            "command": f"python benchmarks/ensemble_call.py --members {options.members} "
            f"--structure {options.structure} --calls {options.calls} --device {options.device}",
            "clock": clock.__name__,
            "rows": rows,
            "torch": torch.__version__,
            "machine": f"{platform.system()} {platform.machine()}, one thread",
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--structure", default="ethanol")
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    run_script(parser, run)


if __name__ == "__main__":
    main()
