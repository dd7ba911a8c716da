"""What a step of training costs, so that arms can be given equal wall time and still be decided by their seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from remul_md.config import RunConfig
from remul_md.training.compiled import compile_losses
from remul_md.training.fit import new_state, train_step
from remul_md.training.schedule import shuffled
from remul_md.training.train import prepare_training

N_WARM = 3


def step_seconds(configs: Mapping[str, RunConfig], *, n_rounds: int = 20) -> dict[str, float]:
    """Median seconds of one training step by each config, measured in turns.

    On the CPU the time that this process computes, which other work on the machine changes little; on CUDA wall time.

    Args:
        configs: name -> options of a run; the data are read and the model is built as for training.
        n_rounds: steps of each that count, after `N_WARM` that do not.
    """
    steps = {name: _step_of(config) for name, config in configs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in configs}
    for turn in range(N_WARM + n_rounds):
        for name, (step, clock) in steps.items():
            began = clock()
            step()
            if turn >= N_WARM:
                seconds[name].append(clock() - began)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def _step_of(config: RunConfig) -> tuple[Callable[[], None], Callable[[], float]]:
    prepared = prepare_training(config)
    state = new_state(prepared.model, config.train)
    device = next(prepared.model.parameters()).device
    batch_of = shuffled(prepared.source, config.train)
    compiled = None
    if config.train.compile:
        compiled = compile_losses(prepared.model, batch_of, prepared.objective, progress=False)

    def step() -> None:
        chosen = batch_of(state.step)
        train_step(state, chosen, objective=prepared.objective, config=config.train, compiled=compiled)

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            return time.perf_counter()
        return time.process_time()

    return step, clock


def steps_for_equal_time(n_steps: int, *, reference_s: float, own_s: float) -> int:
    """Steps that take as long as `n_steps` of the reference arm; a multiple of 10, at least 10."""
    return max(10, 10 * round(n_steps * reference_s / own_s / 10))
