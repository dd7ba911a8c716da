"""What the networks of the particle tasks cost at the published sizes: a forward pass and a step of training.

Elhag et al. (2024), arXiv:2410.17878, claim up to 10 times the inference and 2.5 times the training speed of GATr for a
plain transformer. Here each network takes a batch of `nbody` (64 systems of 4) and `mocap` (12 of 31) in float32: the
transformer and GATr of the paper (`--size paper`), EGNN of 64 x 4 and our SE(3)-Transformer of degrees 0 and 1. A step
of training is the engine's: losses, gradient, clip, Adam, moving average. REMUL's step sees each system twice.

All networks take turns, uncompiled and compiled; on a CPU the clock is the computing time of the process. Compiled are
the blocks of a network (torch.compile), so that one compilation serves all blocks of one shape; what stands outside
them runs as it is. Compiling a step takes minutes of a busy CPU (several graphs of a block, forward and backward, each
of them C++ for a compiler); a network that is not done within the limit is told as that, and measured uncompiled.
Memory is the most that the tensors of an uncompiled step hold beyond weights and data.

python benchmarks/network_speed.py [--tasks nbody mocap] [--networks transformer gatr egnn se3] [--set KEY=VALUE ...]
    [--rounds 7] [--no-compile | --compile-limit 600] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from loss_cost import most_tensor_MiB
from script import run_script, told_command
from speed_tables import network_rows
from torch import nn

from remul_md.studies.lab import Job, study_options
from remul_md.studies.learn import ParticleOptions
from remul_md.studies.models.egnn import Egnn
from remul_md.studies.models.gatr import N_COMPONENTS, N_DISTANCE, N_MAPS, EquivariantLinear, Gatr
from remul_md.studies.models.se3 import N_KERNELS, RADIAL_WIDTH, Se3Transformer
from remul_md.studies.models.transformer import MLP_FACTOR, PlainTransformer
from remul_md.studies.particles import TokenObjective, Tokens
from remul_md.studies.record import provenance
from remul_md.studies.tasks import find_task
from remul_md.training.fit import new_state, train_step
from remul_md.training.step_cost import seconds_in_turns

NETWORKS = ("transformer", "gatr", "egnn", "se3")
REMUL = "transformer, REMUL"  # a step in two orientations


def forward_flops(model: nn.Module, tokens: Tokens) -> int:
    """Floating-point operations of the matrix products of a forward pass, two for a multiplication and addition."""
    n_systems, n, n_scalars = tokens.scalars.shape
    n_tokens, n_pairs, n_pair_features = n_systems * n, n_systems * n * n, tokens.pairs.shape[-1]
    if isinstance(model, PlainTransformer):
        width, depth = model.read.in_features, len(model.blocks)
        block = n_tokens * (4 + 2 * MLP_FACTOR) * width**2 + 2 * n_pairs * width
        return 2 * (n_tokens * width * (n_scalars + 6 + 3) + depth * block)
    if isinstance(model, Egnn):
        width, depth = model.embed.out_features, len(model.layers)
        pair = (2 * width + 1 + n_pair_features) * width + width**2 + width**2 + width
        token = width**2 + width + 2 * width**2 + width**2
        return 2 * (n_tokens * width * (n_scalars + 1) + depth * (n_pairs * pair + n_tokens * token))
    if isinstance(model, Se3Transformer):
        channels, depth = model.read.in_features, len(model.layers)
        n_weights = 2 * N_KERNELS * channels**2
        # Kernels on scalars (3 of them times 1 component) and on vectors (2 times 3, 1 of the dot product).
        pair = (1 + n_pair_features) * RADIAL_WIDTH + RADIAL_WIDTH * n_weights
        pair += 2 * channels**2 * (4 + 2 * 3) + 8 * channels
        token = channels**2 * (1 + 3 + 2 + 2 * 3 + 1)
        outside = n_tokens * channels * (n_scalars + 1 + 2 * 3 + 3)
        return 2 * (outside + depth * (n_pairs * pair + n_tokens * token))
    assert isinstance(model, Gatr)
    total = sum(_flops_of(linear, n_tokens) for linear in model.modules() if isinstance(linear, EquivariantLinear))
    for block in model.blocks:
        channels, n_wide = block.attention.channels, block.mlp.mix.n_out
        scalars = block.attention.key.to_scalars.out_features
        features = (7 + N_DISTANCE) * channels + scalars + N_COMPONENTS * channels + scalars
        total += 2 * n_pairs * block.attention.n_heads * features
        total += 2 * n_tokens * n_wide * N_COMPONENTS**3
    return total


def _flops_of(linear: EquivariantLinear, n_tokens: int) -> int:
    n_out, n_in, _ = linear.weight.shape
    scalars = linear.from_scalars.in_features * n_out
    if linear.to_scalars is not None:
        scalars += linear.to_scalars.in_features * linear.to_scalars.out_features
    matrix = n_out * n_in * N_MAPS * N_COMPONENTS**2  # made once for all tokens
    return 2 * (matrix + n_tokens * (n_in * n_out * N_COMPONENTS**2 + scalars))


class Case:
    """A network with a batch: `forward` and `step`, uncompiled or compiled."""

    def __init__(self, options: ParticleOptions, task: str, name: str, batch: Tokens, *, compiled: bool) -> None:
        kind, method = ("transformer", "remul-1") if name == REMUL else (name, "plain")
        job = Job(case=options.cases[0], model=kind, method=method, seed=0, budgets=("steps",), n_steps=options.n_steps)
        self.config, self.batch = options.train_config(job), batch
        self.state = new_state(options.model(kind, batch, seed=0).to(batch.positions.device), self.config)
        self.objective = TokenObjective(self.config)
        if compiled:
            blocks: Any = getattr(self.state.model, "blocks", None) or self.state.model.layers
            for block in blocks:
                block.compile(dynamic=False)

    def forward(self) -> None:
        """One pass without a graph."""
        with torch.no_grad():
            self.state.model(self.batch)

    def step(self) -> None:
        """One update of the weights."""
        train_step(self.state, self.batch, objective=self.objective, config=self.config)


class TooLong(BaseException):
    """A compilation that is given up: no `Exception`, which torch would wrap in its own."""


@contextmanager
def at_most(limit_s: float) -> Iterator[None]:
    """Raise `TooLong` in this thread once the block has taken that long by the clock."""

    def give_up(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def compile_seconds(case: Case, *, limit_s: float) -> dict[str, float] | None:
    """What the first forward pass and the first step take; None if both are not done within the limit."""
    try:
        with at_most(limit_s):
            return {what: _first(getattr(case, what)) for what in ("forward", "step")}
    except TooLong:
        return None


def measured(
    task_name: str, names: list[str], options: ParticleOptions, *, compile_limit_s: float, n_rounds: int
) -> list[dict[str, Any]]:
    """A row for each network: sizes, operations, memory, and median milliseconds of both kinds; limit 0: uncompiled."""
    task: Any = find_task(task_name)
    splits = task.runner.load(options, options.cases[0], 0)
    batch = splits.train.select(slice(options.batch_size))
    wanted = [*names, *([REMUL] if "transformer" in names else [])]
    kinds = ("eager", "compiled") if compile_limit_s > 0 else ("eager",)
    cases = {
        (name, kind): Case(options, task_name, name, batch, compiled=kind == "compiled")
        for name in wanted
        for kind in kinds
    }
    rows: dict[str, dict[str, Any]] = {}
    for name in wanted:
        case = cases[name, "eager"]
        rows[name] = {
            "task": task_name,
            "network": name,
            "batch": list(batch.positions.shape[:2]),
            "parameters": sum(p.numel() for p in case.state.model.parameters()),
            "forward_mflops": forward_flops(case.state.model, batch) / 1e6,
            "step_MiB": most_tensor_MiB(case.step),
            "eager": {},
            "compiled": {},
        }
        if compile_limit_s > 0:
            seconds = rows[name]["compile_s"] = compile_seconds(cases[name, "compiled"], limit_s=compile_limit_s)
            rows[name]["compile_limit_s"] = compile_limit_s
            print(f"{task_name}, {name}: compiled in {seconds or f'more than {compile_limit_s:g} s'}", flush=True)
            if seconds is None:
                del cases[name, "compiled"]
    for what in ("forward", "step"):
        calls: dict[str, Callable[[], None]] = {
            f"{name}|{kind}": getattr(case, what) for (name, kind), case in cases.items()
        }
        for key, seconds in seconds_in_turns(calls, on_cpu=True, n_rounds=n_rounds).items():
            name, kind = key.split("|")
            rows[name][kind][f"{what}_ms"] = 1000.0 * seconds
    return [*rows.values()]


def _first(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return round(time.perf_counter() - began, 1)


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Measure the tasks; a table; rows of other tasks that the file holds are kept."""
    told = {str(options.json): options.json.name} if options.json else {}
    rows: list[Any] = []
    for task_name in options.tasks:
        few = ["n_validation=10", "n_test=10", "device=cpu"]
        chosen: Any = study_options(find_task(task_name), size="paper", overrides=[*few, *options.set])
        rows += measured(
            task_name,
            options.networks,
            chosen,
            compile_limit_s=0.0 if options.no_compile else options.compile_limit,
            n_rounds=options.rounds,
        )
    print(network_rows(rows))
    if options.json:
        old = json.loads(options.json.read_text())["rows"] if options.json.is_file() else []
        kept = [row for row in old if row["task"] not in options.tasks]
        made_by = provenance(told_command("network_speed", given, told), n_jobs=1)
        command = made_by.pop("command")  # of each row, since tasks may be run apart
        rows = [*kept, *({**row, "command": command} for row in rows)]
        options.json.write_text(
            json.dumps({**made_by, "threads": 1, "dtype": "float32", "rows": rows}, indent=1) + "\n"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["nbody", "mocap"], choices=["nbody", "charged", "mocap"])
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS], choices=NETWORKS)
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="options of the tasks, such as width=24"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-compile", action="store_true", help="uncompiled only")
    parser.add_argument("--compile-limit", type=float, default=600.0, help="seconds, of each network")
    parser.add_argument("--json", type=Path)
    run_script(parser, run)


if __name__ == "__main__":
    main()
