"""What a step of training costs: for benchmarks, and to give ways of training equal time while the seed decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from remul_md.potentials.potential import Potential
from remul_md.training.checkpoint import TrainState
from remul_md.training.compiled import CompiledLosses, compile_losses
from remul_md.training.config import RunConfig, TrainConfig
from remul_md.training.fit import B, Objective, new_state, train_step
from remul_md.training.prepare import prepare_training

N_WARM = 3


def training_step(config: RunConfig, *, origin: Potential | None = None) -> Callable[[], None]:
    """A function that takes the next step of a run, without logs, validation and checkpoints.

    On CUDA it returns when the device is done.

    Args:
        config: options of the run.
        origin: potential whose weights it starts from; they are trained in place.
    Raises:
        InputError: see `prepare_training`.
    """
    prepared, options = prepare_training(config, origin=origin), config.train
    state, batch_of = new_state(prepared.model, options), prepared.batches
    compiled = None
    if options.compile:
        compiled = compile_losses(prepared.model, batch_of, prepared.objective, progress=False)
    return next_step(state, batch_of, objective=prepared.objective, config=options, compiled=compiled)


def next_step(
    state: TrainState,
    batch_of: Callable[[int], B],
    *,
    objective: Objective[B],
    config: TrainConfig,
    compiled: CompiledLosses | None = None,
) -> Callable[[], None]:
    """A function that takes the next step from a state; on CUDA it returns when the device is done.

    Args:
        state: changed in place.
        batch_of: step -> batch.
        objective: losses of a batch.
        config: options of the run.
        compiled: see `train_step`.
    """
    device = next(state.model.parameters()).device

    def step() -> None:
        train_step(state, batch_of(state.step), objective=objective, config=config, compiled=compiled)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def step_seconds(configs: Mapping[str, RunConfig], *, n_rounds: int = 20) -> dict[str, float]:
    """Median seconds of one training step by each config, measured in turns; see `seconds_in_turns`.

    Args:
        configs: name -> options of a run; the data are read and the model is built as for training.
        n_rounds: steps of each that count.
    """
    steps = {name: training_step(config) for name, config in configs.items()}
    on_cpu = all(config.train.device == "cpu" for config in configs.values())
    return seconds_in_turns(steps, on_cpu=on_cpu, n_rounds=n_rounds)


def seconds_in_turns(steps: Mapping[str, Callable[[], None]], *, on_cpu: bool, n_rounds: int = 20) -> dict[str, float]:
    """Median seconds of one call of each function, called in turns.

    Args:
        steps: name -> a function that takes a step of training.
        on_cpu: measure the time that this process computes, which other work on the machine changes little; else wall
            time.
        n_rounds: calls of each that count, after `N_WARM` that do not.
    """
    clock = time.process_time if on_cpu else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(N_WARM + n_rounds):
        for name, step in steps.items():
            began = clock()
            step()
            if turn >= N_WARM:
                seconds[name].append(clock() - began)
    return {name: float(np.median(values)) for name, values in seconds.items()}
