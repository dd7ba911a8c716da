"""The trainer on a linear model: schedule, order, averaging, stopping, and metrics that resume without a gap."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from remul_md.errors import InputError
from remul_md.training.checkpoint import read_checkpoint, read_metrics
from remul_md.training.config import TrainConfig
from remul_md.training.fit import (
    CHECKPOINT,
    FitResult,
    TrainState,
    fit,
    learning_rate,
    train_step,
)
from remul_md.training.schedule import frame_order, monitored_steps
from remul_md.training.weighting import GRADIENT_COLUMNS, make_weighting

Pairs = tuple[Tensor, Tensor]
N_ROWS = 23
TRUTH = torch.tensor([0.5, -1.5, 2.0, 0.25])


class Table:
    """Rows x, y = x . TRUTH + 0.75 + noise: a source that has nothing to do with molecules."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(N_ROWS, 4, generator=generator)
        self.y = self.x @ TRUTH + 0.75 + 0.01 * torch.randn(N_ROWS, generator=generator)
        self.asked: list[list[int]] = []

    def __len__(self) -> int:
        return N_ROWS

    def select(self, indices: NDArray[np.int64], /) -> Pairs:
        self.asked.append(indices.tolist())
        return self.x[indices], self.y[indices]


def linear() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return nn.Linear(4, 1)


def objective(model: nn.Module, batch: Pairs, generator: torch.Generator) -> dict[str, Tensor]:
    """The task's loss, and one on noisy inputs, so that the generator matters."""
    x, y = batch
    shaken = x + 0.1 * torch.randn(x.shape, generator=generator)
    return {
        "task": (model(x)[:, 0] - y).square().mean(),
        "equivariance": (model(shaken)[:, 0] - y).square().mean(),
    }


def validate_on(table: Table) -> Callable[[nn.Module], dict[str, float]]:
    def validate(model: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            error = (model(table.x)[:, 0] - table.y).abs().mean().item()
        return {"mae": error, "score": error}

    return validate


def config(**options: Any) -> TrainConfig:
    defaults = {
        "n_steps": 40,
        "warmup_steps": 4,
        "batch_size": 7,
        "learning_rate": 0.05,
        "weight_decay": 0.01,
        "ema_decay": 0.8,
        "validate_every": 15,
        "checkpoint_every": 6,
        "log_every": 4,
        "equivariance_from": 0.0,
        "beta": 1.0,
    }
    return TrainConfig(**(defaults | options))


def run(folder: Path, options: TrainConfig, **changes: Any) -> FitResult[Pairs]:
    folder.mkdir(exist_ok=True)
    table = Table()
    chosen: dict[str, Any] = {
        "objective": objective,
        "validate": validate_on(table),
        "fingerprint": "one run",
        "validation_columns": ["mae"],
        "progress": False,
    } | changes
    model = chosen.pop("model", None)
    return fit(linear() if model is None else model, table, config=options, run_dir=folder, **chosen)


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The rows of the metrics as text, without the seconds, which no two runs share."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def state_of(folder: Path) -> dict[str, Any]:
    payload = read_checkpoint(folder / CHECKPOINT)
    payload.pop("seconds")
    return payload


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Equal bit for bit, through dicts and lists."""
    assert type(one) is type(other), where
    if isinstance(one, Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same(left, right, f"{where}[{index}]")
    else:
        assert one == other, where


class Shared(nn.Module):
    """Two layers, so that there is a matrix on which gradient norms are balanced."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(6)
            self.shared_matrix = nn.Parameter(0.5 * torch.randn(5, 4))
            self.head = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(x @ self.shared_matrix.T))
        return out


class StopHereError(Exception):
    """Stands for whatever ends a process."""


def stopping_at(call: int, losses: Callable[..., dict[str, Tensor]] | None = None) -> Callable[..., dict[str, Tensor]]:
    n_calls, wrapped = 0, losses or objective

    def interrupted(model: nn.Module, batch: Pairs, generator: torch.Generator) -> dict[str, Tensor]:
        nonlocal n_calls
        n_calls += 1
        if n_calls == call:
            raise StopHereError
        return wrapped(model, batch, generator)

    return interrupted


def test_learning_rate_rises_linearly_then_falls_as_half_a_cosine() -> None:
    options = config(n_steps=104, warmup_steps=4, learning_rate=0.02)
    rates = [learning_rate(step, options) for step in range(105)]
    assert rates[:4] == pytest.approx([0.005, 0.01, 0.015, 0.02])
    assert rates[4] == 0.02
    assert rates[54] == pytest.approx(0.01)  # half way down
    assert rates[29] == pytest.approx(0.01 * (1 + math.sqrt(0.5)))
    assert all(a > b for a, b in pairwise(rates[4:]))
    assert rates[103] > 0
    assert rates[104] == pytest.approx(0, abs=1e-18)
    assert learning_rate(0, config(warmup_steps=0)) == 0.05


def test_frame_order_is_an_endless_run_of_permutations() -> None:
    orders = [frame_order(step, n_frames=N_ROWS, batch_size=7, seed=3) for step in range(N_ROWS)]
    epochs = np.concatenate(orders).reshape(7, N_ROWS)  # 23 batches of 7 are 7 passes over 23 frames
    assert (np.sort(epochs, axis=1) == np.arange(N_ROWS)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 7
    for step in (16, 3, 22, 0):  # whatever was asked before
        assert (frame_order(step, n_frames=N_ROWS, batch_size=7, seed=3) == orders[step]).all()
    assert (frame_order(0, n_frames=N_ROWS, batch_size=7, seed=4) != orders[0]).any()


def test_a_batch_may_be_larger_than_the_data() -> None:
    found = frame_order(0, n_frames=3, batch_size=11, seed=0)
    assert np.bincount(found, minlength=3).min() >= 3


@pytest.fixture
def state() -> TrainState:
    model, average = linear(), linear()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    return TrainState(model, average.requires_grad_(False), optimizer, generator, make_weighting(config()))


def test_steps_on_one_batch_reduce_its_loss(state: TrainState) -> None:
    batch = Table().select(np.arange(7))
    losses = [train_step(state, batch, objective=objective, config=config(n_steps=200)) for _ in range(150)]
    assert losses[-1]["task"] < 0.02 * losses[0]["task"]
    assert not any(value.requires_grad for value in losses[0].values())
    assert state.step == 150


def test_the_loss_is_weighted_and_its_gradient_clipped(state: TrainState) -> None:
    batch = Table().select(np.arange(7))
    options = config(alpha=0.25, beta=3.0, max_grad_norm=0.125)
    state.weighting = make_weighting(options)
    out = train_step(state, batch, objective=objective, config=options)
    assert out["loss"].item() == pytest.approx(0.25 * out["task"].item() + 3.0 * out["equivariance"].item(), rel=1e-6)
    gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
    norm = torch.cat([g.flatten() for g in gradients]).norm().item()
    assert norm == pytest.approx(0.125, rel=1e-4)
    assert out["grad_norm"].item() > 1.0  # as it was before clipping


def test_the_average_follows_the_weights_with_a_growing_memory(state: TrainState) -> None:
    batch = Table().select(np.arange(7))
    expected = state.average.weight.detach().clone()  # type: ignore[operator]
    for step in range(60):
        train_step(state, batch, objective=objective, config=config(n_steps=200, ema_decay=0.8))
        decay = min(0.8, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * state.model.weight.detach()  # type: ignore[operator]
        torch.testing.assert_close(state.average.weight, expected, rtol=1e-5, atol=1e-6)
    assert (state.average.weight - state.model.weight).abs().max() > 1e-4  # type: ignore[operator]


def test_fit_learns_something_that_is_no_molecule(tmp_path: Path) -> None:
    result = run(tmp_path, config(n_steps=400, validate_every=100, checkpoint_every=100, log_every=50))
    weight = result.model.weight.detach()[0]  # type: ignore[operator]
    torch.testing.assert_close(weight, TRUTH, atol=0.03, rtol=0)
    assert result.best_score < 0.03
    assert result.last_step == 400
    assert result.best_step % 100 == 0
    assert (tmp_path / CHECKPOINT).is_file()
    assert list((tmp_path / "tensorboard").iterdir())


def test_the_best_average_is_returned_and_patience_stops_the_run(tmp_path: Path) -> None:
    """Scores fall twice, then rise: with a patience of 3, the run ends after the fifth validation."""
    scores, seen = [5.0, 3.0, 4.0, 3.0, 3.5, 1.0], []

    def validate(model: nn.Module) -> dict[str, float]:
        seen.append(model.weight.detach().clone())  # type: ignore[operator]
        return {"mae": scores[len(seen) - 1], "score": scores[len(seen) - 1]}

    result = run(tmp_path, config(n_steps=1000, validate_every=5, patience=3), validate=validate)
    assert (len(seen), result.last_step) == (5, 25)
    assert (result.best_step, result.best_score) == (10, 3.0)
    assert torch.equal(result.model.weight, seen[1])  # type: ignore[arg-type]
    assert not torch.equal(seen[1], seen[4])


def early_objective(model: nn.Module, batch: Pairs, generator: torch.Generator) -> dict[str, Tensor]:
    """The task's loss alone, and no random number."""
    x, y = batch
    return {"task": (model(x)[:, 0] - y).square().mean()}


def test_losses_of_symmetry_set_in_after_their_share_of_the_steps(tmp_path: Path) -> None:
    options = config(equivariance_from=0.65, log_every=1)
    run(tmp_path, options, early=early_objective)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert ["equivariance" in row for row in rows] == [False] * 26 + [True] * 14
    assert all(row["loss"] == pytest.approx(row["task"]) for row in rows[:26])
    assert all(row["loss"] == pytest.approx(row["task"] + row["equivariance"]) for row in rows[26:])
    with pytest.raises(InputError, match=r"train\.equivariance_from=0\.65"):
        run(tmp_path / "other", options)


def test_weights_from_before_the_losses_of_symmetry_are_not_kept(tmp_path: Path) -> None:
    """The best score comes before: without symmetry there is less to give way to."""
    scores = iter([1.0, 2.0, 4.0, 3.0])
    result = run(
        tmp_path,
        config(equivariance_from=0.5, validate_every=10),
        early=early_objective,
        validate=lambda model: dict.fromkeys(("mae", "score"), next(scores)),
    )
    assert (result.best_step, result.best_score) == (40, 3.0)


# At the first step with two losses, whose checkpoint is of the time with one, and later.
@pytest.mark.parametrize("call", [1, 7])
def test_late_losses_resume_bit_for_bit(tmp_path: Path, call: int) -> None:
    options = config(equivariance_from=0.65)
    stages = {"early": early_objective, "objective": objective}
    run(tmp_path / "whole", options, **stages)
    with pytest.raises(StopHereError):
        run(tmp_path / "cut", options, early=early_objective, objective=stopping_at(call))
    run(tmp_path / "cut", options, resume=True, **stages)
    assert_same(state_of(tmp_path / "cut"), state_of(tmp_path / "whole"))
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")


def test_metrics_have_a_row_for_every_log_checkpoint_and_validation(tmp_path: Path) -> None:
    run(tmp_path, config())
    rows = rows_of(tmp_path)
    weights = ["alpha", "beta", "grad_norm", *GRADIENT_COLUMNS]
    assert list(rows[0]) == ["step", "learning_rate", "loss", "task", "equivariance", "torque", *weights, "mae"]
    steps = [int(row["step"]) for row in rows]
    assert steps == [s for s in range(1, 41) if s % 4 == 0 or s % 6 == 0 or s % 15 == 0 or s == 40]
    assert [int(row["step"]) for row in rows if row["mae"]] == [15, 30, 40]
    numbers = read_metrics(tmp_path / "metrics.csv")
    assert numbers[3]["learning_rate"] == pytest.approx(learning_rate(11, config()))
    assert "mae" not in numbers[0]
    seconds = [row["seconds"] for row in numbers]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


def test_a_row_holds_the_mean_since_the_row_before(tmp_path: Path) -> None:
    losses = []

    def watched(model: nn.Module, batch: Pairs, generator: torch.Generator) -> dict[str, Tensor]:
        found = objective(model, batch, generator)
        losses.append(found["task"].item())
        return found

    run(tmp_path, config(), objective=watched)
    start = 0
    for row in read_metrics(tmp_path / "metrics.csv"):
        stop = int(row["step"])
        assert row["task"] == pytest.approx(np.mean(losses[start:stop]), rel=1e-5)
        start = stop


# Before any checkpoint, between two, right after one, and where the rows in the file are ahead of the checkpoint.
@pytest.mark.parametrize(("call", "optimizer"), [(3, "muon"), (17, "adamw"), (19, "muon"), (36, "adamw")])
def test_an_interrupted_run_resumes_bit_for_bit(tmp_path: Path, call: int, optimizer: str) -> None:
    options = config(optimizer=optimizer)
    whole = run(tmp_path / "whole", options)
    with pytest.raises(StopHereError):
        run(tmp_path / "cut", options, objective=stopping_at(call))
    (tmp_path / "cut" / ".checkpoint.pt.part").write_bytes(b"half a checkpoint")
    resumed = run(tmp_path / "cut", options, resume=True)
    assert_same(state_of(tmp_path / "cut"), state_of(tmp_path / "whole"))
    assert_same(dict(resumed.model.state_dict()), dict(whole.model.state_dict()))
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    assert resumed.seconds > 0


def test_balanced_weights_and_the_monitor_resume_bit_for_bit(tmp_path: Path) -> None:
    options = config(weighting="gradual", alpha=0.5, monitor_share=1.0, batch_size=11)
    watched: list[int] = []

    def monitor(model: nn.Module) -> dict[str, float]:
        watched.append(1)
        return {"size": sum(float(p.detach().abs().sum()) for p in model.parameters())}

    watch = {"monitor": monitor, "monitor_columns": ["size"]}
    run(tmp_path / "whole", options, model=Shared(), **watch)
    steps = sorted(monitored_steps(options))
    assert len(watched) == len(steps) > 3
    with pytest.raises(StopHereError):
        run(tmp_path / "cut", options, model=Shared(), objective=stopping_at(19), **watch)
    run(tmp_path / "cut", options, model=Shared(), resume=True, **watch)
    assert_same(state_of(tmp_path / "cut"), state_of(tmp_path / "whole"))
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    both = [(tmp_path / name / "symmetry.csv").read_text() for name in ("cut", "whole")]
    assert both[0] == both[1]
    assert [row["step"] for row in read_metrics(tmp_path / "cut" / "symmetry.csv")] == steps
    rows = read_metrics(tmp_path / "whole" / "metrics.csv")
    assert [row["alpha"] + row["beta"] for row in rows] == pytest.approx([1.5] * len(rows), rel=1e-6)
    assert len({row["beta"] for row in rows}) == len(rows)
    assert state_of(tmp_path / "whole")["weighting"].keys() == {"weights", "initial"}


def test_a_ramp_of_beta_is_in_the_rows_and_needs_no_state(tmp_path: Path) -> None:
    run(tmp_path, config(weighting="cosine", alpha=0.5))
    rows = read_metrics(tmp_path / "metrics.csv")
    betas = [row["beta"] for row in rows]
    assert betas == sorted(set(betas))
    assert {row["alpha"] for row in rows} == {0.5}
    assert state_of(tmp_path)["weighting"] == {}


def test_gradual_needs_a_matrix_to_balance_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.weighting=gradual needs Linear\.shared_matrix"):
        run(tmp_path, config(weighting="gradual"))


def test_patience_and_seconds_go_on_counting_after_an_interruption(tmp_path: Path) -> None:
    scores = iter([2.0, 3.0, 3.0, 1.0])

    def validate(model: nn.Module) -> dict[str, float]:
        return {"mae": (score := next(scores)), "score": score}

    options = config(n_steps=100, validate_every=10, checkpoint_every=10, patience=2)
    with pytest.raises(StopHereError):
        run(tmp_path, options, validate=validate, objective=stopping_at(25))
    before = read_checkpoint(tmp_path / CHECKPOINT)["seconds"]
    assert before > 0
    result = run(tmp_path, options, validate=validate, resume=True)
    assert (result.last_step, result.best_step, result.best_score) == (30, 10, 2.0)
    assert result.seconds > before
    seconds = [row["seconds"] for row in read_metrics(tmp_path / "metrics.csv")]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("torn", ["3", "30,0.01,0.2", "4,0.05,0.2,0.1,0.1,1.0,"])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, torn: str) -> None:
    """A step that lost its last digits must not pass for an earlier one."""
    run(tmp_path / "whole", config())
    with pytest.raises(StopHereError):
        run(tmp_path / "cut", config(), objective=stopping_at(29))
    with (tmp_path / "cut" / "metrics.csv").open("a") as file:
        file.write(torn)
    run(tmp_path / "cut", config(), resume=True)
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    first = run(tmp_path, config())
    before = (tmp_path / "metrics.csv").read_bytes(), (tmp_path / CHECKPOINT).read_bytes()
    again = run(tmp_path, config(), resume=True)
    assert_same(dict(again.model.state_dict()), dict(first.model.state_dict()))
    assert ((tmp_path / "metrics.csv").read_bytes(), (tmp_path / CHECKPOINT).read_bytes()) == before
    assert (again.best_step, again.best_score) == (first.best_step, first.best_score)


def test_the_seed_decides_the_run_and_no_global_state(tmp_path: Path) -> None:
    first = run(tmp_path / "a", config(seed=1))
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    before = torch.get_rng_state()
    second = run(tmp_path / "b", config(seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    other = run(tmp_path / "c", config(seed=2))
    assert_same(dict(first.model.state_dict()), dict(second.model.state_dict()))
    assert not torch.equal(first.model.weight, other.model.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "first_call"), [(math.nan, 14), (math.inf, 15)])
def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(
    tmp_path: Path, value: float, first_call: int
) -> None:
    n_calls = 0

    def diverging(model: nn.Module, batch: Pairs, generator: torch.Generator) -> dict[str, Tensor]:
        nonlocal n_calls
        n_calls += 1
        losses = objective(model, batch, generator)
        return losses if n_calls < first_call else {name: loss * value for name, loss in losses.items()}

    message = rf"the loss is {value} at step 15; lower the learning rate \(now 0.05\) or look for wrong labels"
    with pytest.raises(InputError, match=message):
        run(tmp_path, config(), objective=diverging)
    payload = state_of(tmp_path)
    assert payload["step"] == 12
    assert all(torch.isfinite(weight).all() for weight in payload["model"].values())


def test_a_validation_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nan at step 15; lower the learning rate"):
        run(tmp_path, config(), validate=lambda model: {"mae": math.nan, "score": math.nan})


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path, config())
    with pytest.raises(InputError, match=r"another config or data; .*--run-dir"):
        run(tmp_path, config(), resume=True, fingerprint="another")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run(tmp_path, config())
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"checkpoint\.pt: is damaged .*\(\w+\)"):
        run(tmp_path, config(), resume=True)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="holds a list, expected a checkpoint"):
        run(tmp_path, config(), resume=True)
    with pytest.raises(InputError, match=r"no checkpoint; .*without --resume"):
        read_checkpoint(tmp_path / "none.pt")
