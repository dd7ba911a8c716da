"""The one trainer: any model, any batch type, any losses by name.

A run is decided by its config alone: the order of the frames is a function of (seed, step), the rotated orientations
come from a generator that is checkpointed, and no global state is read. On the CPU a run that was killed and resumed
ends with the same bits as one that was not.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from remul_md.errors import InputError
from remul_md.files import save_tensors
from remul_md.progress import progress_bar, update_untimed
from remul_md.training.checkpoint import SYMMETRY, MetricsLog, TrainState, read_checkpoint
from remul_md.training.compiled import CompiledLosses, compile_losses
from remul_md.training.config import TrainConfig
from remul_md.training.optimizers import make_optimizer
from remul_md.training.schedule import Batches, Source, equivariance_step, learning_rate, monitored_steps, shuffled
from remul_md.training.weighting import GRADIENT_COLUMNS, gradient_diagnostics, make_weighting

B = TypeVar("B")
CHECKPOINT = "checkpoint.pt"


Objective = Callable[[Any, B, torch.Generator], dict[str, Tensor]]
Validate = Callable[[nn.Module], dict[str, float]]


def new_state(model: nn.Module, config: TrainConfig) -> TrainState:
    """The state before the first step; what the model has frozen (`requires_grad` off) is never touched."""
    average, generator = copy.deepcopy(model).requires_grad_(False), torch.Generator().manual_seed(config.seed)
    return TrainState(model, average, make_optimizer(model, config), generator, make_weighting(config))


@dataclass(frozen=True)
class FitResult(Generic[B]):
    """The averaged weights of the best validation, and where they were found."""

    model: nn.Module
    best_step: int
    best_score: float
    last_step: int
    seconds: float


def train_step(
    state: TrainState,
    batch: B,
    *,
    objective: Objective[B],
    config: TrainConfig,
    diagnose: bool = False,
    compiled: CompiledLosses | None = None,
) -> dict[str, Tensor]:
    """One optimiser update. Changes `state` in place; returns detached scalars; reads nothing back from the device.

    With `diagnose`, also the gradient norm of each loss and their cosine, which costs a backward for each; such a
    step is not compiled, nor one whose batch has a shape that `compiled` does not know.
    """
    diagnostics: dict[str, Tensor] = {}
    fixed = {"torque": config.torque_weight}  # no part of what is balanced or ramped
    if compiled is not None and not diagnose and compiled.knows(batch):
        weights = {**state.weighting({}, step=state.step, model=state.model), **fixed}
        total, losses = compiled(batch, state.generator, weights)
    else:
        losses = objective(state.model, batch, state.generator)
        diagnostics = gradient_diagnostics(losses, state.model) if diagnose else {}
        weights = {**state.weighting(losses, step=state.step, model=state.model), **fixed}
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        state.optimizer.zero_grad(set_to_none=True)
        total.backward()
    grad_norm = nn.utils.clip_grad_norm_(state.model.parameters(), config.max_grad_norm, error_if_nonfinite=False)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(state.step, config)
    state.optimizer.step()
    # A short memory at first: the early weights are not worth remembering.
    decay = min(config.ema_decay, (1 + state.step) / (10 + state.step))
    # Frozen weights stay out: even between equal numbers an interpolation makes 0.0 of -0.0.
    pairs = zip(state.average.parameters(), state.model.parameters(), strict=True)
    moving = [(mean, now) for mean, now in pairs if now.requires_grad]
    with torch.no_grad():
        torch._foreach_lerp_([mean for mean, _ in moving], [now for _, now in moving], 1.0 - decay)
    state.step += 1
    used = {"alpha": torch.as_tensor(weights["task"]), "beta": torch.as_tensor(weights["equivariance"])}
    found = {"loss": total, "grad_norm": grad_norm, **losses, **diagnostics, **used}
    return {name: value.detach() for name, value in found.items()}


def fit(
    model: nn.Module,
    source: Source[B] | Batches[B],
    *,
    objective: Objective[B],
    validate: Validate,
    config: TrainConfig,
    run_dir: Path,
    fingerprint: str,
    validation_columns: Sequence[str],
    monitor: Validate | None = None,
    monitor_columns: Sequence[str] = (),
    resume: bool = False,
    progress: bool = True,
    describe: Callable[[Mapping[str, float]], str] = lambda row: "",
    early: Objective[B] | None = None,
) -> FitResult[B]:
    """Train `model` in place and return the averaged weights with the best validation score.

    Args:
        model: on its device already.
        source: training data on the same device: systems that come in `frame_order`, or the batch of each step.
        objective: (model, batch, generator) -> losses named "task" and "equivariance".
        validate: model -> numbers with the key "score" (lower is better); called on the averaged weights.
        config: see `TrainConfig`.
        run_dir: an existing folder for checkpoint and metrics.
        fingerprint: what must not change between a run and its resumption.
        validation_columns: names that `validate` returns, for the head of the CSV.
        monitor: as `validate`, for `symmetry.csv`; called at `monitored_steps`.
        monitor_columns: names that `monitor` returns.
        resume: go on from the checkpoint in `run_dir`.
        progress: show a bar.
        describe: the figures shown beside the bar, from the last row of metrics.
        early: the objective before `config.equivariance_from`.
    Raises:
        InputError: `equivariance_from` without `early`, the loss is not finite, the checkpoint belongs to another run,
            the disk is full.
    """
    if config.equivariance_from > 0 and early is None:
        raise InputError(f"train.equivariance_from={config.equivariance_from:g} is not for this training; leave it out")
    device = next(model.parameters()).device
    state, batch_of = new_state(model, config), source if callable(source) else shuffled(source, config)
    if resume and (run_dir / CHECKPOINT).is_file():
        payload = read_checkpoint(run_dir / CHECKPOINT)
        if payload.get("fingerprint") != fingerprint:
            raise InputError(f"{run_dir}: the checkpoint belongs to another config or data; use a new --run-dir")
        state.load_payload(payload)
    columns = ["step", "learning_rate", "loss", "task", "equivariance", "torque", "alpha", "beta", "grad_norm"]
    columns += [*GRADIENT_COLUMNS, "seconds", *validation_columns]
    log = MetricsLog(run_dir, columns=columns, from_step=state.step)
    logs, monitored = [log], monitored_steps(config)
    if monitor is not None:
        logs += [MetricsLog(run_dir, columns=["step", *monitor_columns], from_step=state.step, file_name=SYMMETRY)]

    def stage(of: Objective[B]) -> tuple[Objective[B], CompiledLosses | None]:
        return of, compile_losses(model, batch_of, of, progress=progress) if config.compile else None

    late, first_late = stage(objective), equivariance_step(config)
    begun = late if early is None else stage(early)
    before, started, first = state.seconds, time.perf_counter(), state.step
    bar = progress_bar(shown=progress, total=config.n_steps, initial=state.step, unit="step")
    sums: dict[str, tuple[Tensor | float, int]] = {}  # since the last row: a sum on the device, and how many
    shown = ""
    try:
        while state.step < config.n_steps and not (config.patience and state.n_worse >= config.patience):
            due, (trained, compiled) = state.step + 1 in monitored, begun if state.step < first_late else late
            if state.step == first_late > 0:
                state.best_score, state.n_worse = math.inf, 0  # what was not trained for symmetry is not kept
            ready = 0 if compiled is None else compiled.n_compiled
            losses = train_step(
                state, batch_of(state.step), objective=trained, config=config, diagnose=due, compiled=compiled
            )
            for name, value in losses.items():
                total, n = sums.get(name, (0.0, 0))
                sums[name] = (total + value, n + 1)
            # What is compiled or loaded at first takes up to minutes, and no step after it does.
            if state.step == first + 1 or (compiled is not None and compiled.n_compiled > ready):
                update_untimed(bar)
            else:
                bar.update()
            last = state.step == config.n_steps
            state.seconds = before + time.perf_counter() - started
            validating = last or state.step % config.validate_every == 0
            saving = last or state.step % config.checkpoint_every == 0
            # A row at every checkpoint too: a resumed run then averages its losses over the same steps.
            if validating or saving or state.step % config.log_every == 0:
                row: dict[str, float] = {name: float(total) / n for name, (total, n) in sums.items()}
                sums = {}
                if not math.isfinite(row["loss"]):
                    raise InputError(
                        f"the loss is {row['loss']} at step {state.step}; lower the learning rate "
                        f"(now {config.learning_rate:g}) or look for wrong labels with `remul-md data show`"
                    )
                row |= {"step": state.step, "learning_rate": learning_rate(state.step - 1, config)}
                row["seconds"] = state.seconds
                if validating:
                    row |= validate(state.average)
                    _remember_best(state, row["score"])
                log.write({name: value for name, value in row.items() if name in columns})
                shown = describe(row) if validating else shown
                bar.set_postfix_str(f"loss {row['loss']:.3f}{'  ' if shown else ''}{shown}")
            if due and monitor is not None:
                logs[1].write({"step": state.step, **monitor(state.average)})
            if saving:
                save_tensors(run_dir / CHECKPOINT, state.to_payload(fingerprint))
    finally:
        bar.close()
        for each in logs:
            each.close()
    result = copy.deepcopy(state.average)
    result.load_state_dict(state.best_weights)
    return FitResult(result.to(device), state.best_step, state.best_score, state.step, state.seconds)


def _remember_best(state: TrainState, score: float) -> None:
    if not math.isfinite(score):
        raise InputError(f"the validation error is {score} at step {state.step}; lower the learning rate")
    if score < state.best_score:
        state.best_score, state.best_step, state.n_worse = score, state.step, 0
        state.best_weights = {name: value.detach().clone() for name, value in state.average.state_dict().items()}
    else:
        state.n_worse += 1
