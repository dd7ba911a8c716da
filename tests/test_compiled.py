"""Compiled training beside the uncompiled reference: the same losses and gradients, runs that repeat and resume."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from potentials import molecule_frames, random_model
from torch import Tensor, nn

from remul_md.datasets import read_frames
from remul_md.errors import InputError
from remul_md.models import MODELS, operations
from remul_md.models.operations import gather_neighbors
from remul_md.models.painn import PainnConfig
from remul_md.potentials.compilation import require_compiler
from remul_md.structures.batch import Batch, BatchStore
from remul_md.structures.neighbors import build_batch
from remul_md.training import fit as trainer
from remul_md.training.checkpoint import TrainState, read_checkpoint, read_metrics
from remul_md.training.compiled import MAX_SHAPES, CompiledLosses, compile_losses, shape_of
from remul_md.training.config import RunConfig, TrainConfig, validated_config
from remul_md.training.fit import train_step
from remul_md.training.objectives import make_objective
from remul_md.training.schedule import shuffled
from remul_md.training.train import train_potential
from remul_md.training.unlabelled import PartlyLabelled
from remul_md.training.weighting import make_weighting

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
]  # compiling takes seconds of CPU time, minutes where others have the cores
TINY = {"width": 8, "n_layers": 1, "n_heads": 2, "pair_width": 6, "n_radial": 5, "n_tensors": 3, "max_degree": 2}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Rows:
    """Inputs [N, 4] and wanted outputs [N]: a batch that has nothing to do with molecules."""

    x: Tensor
    y: Tensor
    unused: Tensor | None = None


class TwoBiases(nn.Module):
    """A line with two biases, whose gradients are one and the same expression, and a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -1.0, 0.25, 2.0]))
        self.first, self.second = nn.Parameter(torch.tensor(0.125)), nn.Parameter(torch.tensor(-0.75))
        self.idle = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.first + self.second


class RowsObjective:
    """A loss, and the same one on shaken inputs."""

    def draw(self, batch: Rows, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (0.1 * torch.randn(batch.x.shape, generator=generator),)

    def losses(self, model: nn.Module, batch: Rows, drawn: Any) -> dict[str, Tensor]:
        return {
            "task": (model(batch.x) - batch.y).square().mean(),
            "equivariance": (model(batch.x + drawn[0]) - batch.y).abs().mean(),
        }

    def __call__(self, model: nn.Module, batch: Rows, generator: torch.Generator) -> dict[str, Tensor]:
        return self.losses(model, batch, self.draw(batch, generator))


def rows(n: int, *, seed: int = 0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    return Rows(x=torch.randn(n, 4, generator=generator), y=torch.randn(n, generator=generator))


def train_state(model: nn.Module, config: TrainConfig) -> TrainState:
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, fused=True)
    return TrainState(model, average, optimizer, torch.Generator().manual_seed(3), make_weighting(config))


def both_ways(
    model: nn.Module,
    objective: Any,
    batches: list[Any],
    config: TrainConfig,
    *,
    shapes: list[Any] | None = None,
    check_first: bool = False,
    say: Callable[[str], None] = print,
) -> tuple[list[dict[str, Tensor]], TrainState, TrainState]:
    """Steps on the same batches, uncompiled and compiled: how far each logged number differs, and both states."""
    plain, fast = (train_state(copy.deepcopy(model), config) for _ in range(2))
    known = [shape_of(batches[0])] if shapes is None else shapes
    compiled = CompiledLosses(fast.model, objective, shapes=known, say=say)
    pairs = []
    for batch in batches:
        wanted = train_step(plain, batch, objective=objective, config=config)
        found = train_step(fast, batch, objective=objective, config=config, compiled=compiled)
        assert list(found) == list(wanted)
        assert not any(value.requires_grad for value in found.values())
        if check_first and not pairs:
            assert_same_gradients(fast, plain)
        pairs.append({name: (found[name] - wanted[name]).abs() / (1e-6 + wanted[name].abs()) for name in wanted})
    return pairs, plain, fast


def assert_same_gradients(one: TrainState, other: TrainState) -> None:
    """To float32 rounding, relative to the largest entry of each."""
    found, wanted = gradients(one), gradients(other)
    for name, expected in wanted.items():
        value = found[name]
        assert (value is None) == (expected is None), name
        if value is not None and expected is not None:
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item() + 1e-8)


def gradients(state: TrainState) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in state.model.named_parameters()}


def ethanol_store(model_cutoff: float = 5.0) -> BatchStore:
    frames = read_frames("rmd17/ethanol/train-01").select(range(20))
    assert frames.energy is not None
    batch = build_batch(frames, cutoff=model_cutoff)
    energy = torch.from_numpy(frames.energy - frames.energy.mean()).float()
    assert batch.forces is not None
    return BatchStore(replace(batch, energy=energy, forces=batch.forces.float()))


def test_equal_gradients_are_clipped_once_and_idle_parameters_left_alone() -> None:
    """Two outputs of a compiled function may be one tensor: clipping in place would scale it twice."""
    config = TrainConfig(alpha=0.5, beta=3.0, max_grad_norm=0.25, warmup_steps=2, n_steps=50)
    differences, plain, fast = both_ways(TwoBiases(), RowsObjective(), [rows(7)], config)
    assert max(value.item() for value in differences[0].values()) < 1e-5
    assert_same_gradients(fast, plain)
    found = gradients(fast)
    assert found["idle"] is None
    norm = torch.cat([value.flatten() for value in found.values() if value is not None]).norm()
    assert norm.item() == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize("weighting", ["linear", "cosine"])
def test_weights_are_inputs_of_the_compiled_step(weighting: Any) -> None:
    config = TrainConfig(alpha=0.5, beta=3.0, weighting=weighting, ramp_steps=9, warmup_steps=2, n_steps=12)
    differences, plain, fast = both_ways(TwoBiases(), RowsObjective(), [rows(7, seed=k) for k in range(12)], config)
    assert max(value.item() for step in differences for value in step.values()) < 1e-4
    assert fast.step == plain.step == 12
    assert not torch.equal(fast.model.weight, TwoBiases().weight)  # type: ignore[arg-type]


def test_a_batch_of_unknown_shape_takes_the_uncompiled_step() -> None:
    config = TrainConfig(warmup_steps=2, n_steps=50)
    batches = [rows(7), rows(5, seed=1), rows(7, seed=2)]
    said: list[str] = []
    differences, plain, fast = both_ways(
        TwoBiases(), RowsObjective(), batches[1:2], config, shapes=[shape_of(rows(7))], say=said.append
    )
    assert not said  # nothing was compiled
    assert all(value == 0 for value in differences[0].values())
    assert torch.equal(plain.model.weight, fast.model.weight)  # type: ignore[arg-type]
    differences, *_ = both_ways(TwoBiases(), RowsObjective(), batches, config, say=said.append)
    assert len(said) == 2  # once, for the shape that came twice
    assert max(value.item() for step in differences for value in step.values()) < 1e-5


class Unlike:
    """Systems of 3 to 8 rows, as molecules of different sizes."""

    def __len__(self) -> int:
        return 12

    def select(self, indices: NDArray[np.int64], /) -> Rows:
        return rows(3 + int(indices[0]) % 6)


def test_the_shapes_of_a_run_are_those_of_its_first_batches(caplog: pytest.LogCaptureFixture) -> None:
    """So a resumed run, which starts with other batches, compiles the same ones."""
    config = TrainConfig(batch_size=1, seed=4)
    batches = shuffled(Unlike(), config)
    found = [compile_losses(TwoBiases(), batches, RowsObjective(), progress=False) for _ in range(2)]
    known = [[n for n in range(2, 10) if compiled.knows(rows(n))] for compiled in found]
    assert known[0] == known[1]
    assert len(known[0]) == MAX_SHAPES
    assert "batches of different shapes" in caplog.text
    caplog.clear()
    objective = make_objective(config, force_scale=1.1)
    same = compile_losses(random_model(), shuffled(ethanol_store(), config), objective, progress=False)
    assert same.knows(ethanol_store().select([3]))
    assert not same.knows(ethanol_store().select([3, 4]))
    assert not caplog.text


class DisplacementModel(operations.PairModel):
    """The smallest conservative model with all that training differentiates: gathers, pair sums, an embedding.

    It reads displacements, and none of the terms stand under it that the models of the package have.
    """

    def __init__(self, config: PainnConfig) -> None:
        super().__init__(config)
        self.pair, self.out = nn.Linear(3, config.width), nn.Linear(config.width, 1)

    def outputs(self, displacements: Tensor, batch: Batch, /, *, direct: bool) -> tuple[Tensor, Tensor | None]:
        pairs = torch.tanh(self.pair(displacements)) * batch.neighbor_mask.unsqueeze(-1)
        of_neighbor = gather_neighbors(self.species(self.species_index[batch.atomic_numbers]), batch)
        return self.out(torch.tanh((of_neighbor * pairs).sum(1))).squeeze(-1) * self.config.energy_scale, None


def displacement_model() -> DisplacementModel:
    """For ethanol, with the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        return DisplacementModel(PainnConfig(species=(1, 6, 8), cutoff=5.0, width=6, n_layers=1, n_radial=3))


METHODS: list[dict[str, Any]] = [
    {"alpha": 0.7, "beta": 1.3},
    {"estimator": "one-forward", "force_loss": "mse"},
    {"consistency_target": "prediction", "first_orientation": "random", "torque_weight": 0.4},
]


@pytest.mark.parametrize("options", METHODS, ids=["paired", "one-forward", "consistency and torque"])
def test_compiled_steps_agree_with_uncompiled_ones(options: dict[str, Any]) -> None:
    """The gradient of one step to float32 rounding, and the losses of 20 steps."""
    config = TrainConfig(**options, batch_size=5, warmup_steps=2, n_steps=50, learning_rate=1e-2)
    objective, store, rng = make_objective(config, force_scale=1.1), ethanol_store(), np.random.default_rng(2)
    batches: list[Batch] = [store.select(rng.choice(20, 5, replace=False)) for _ in range(20)]
    differences, plain, _ = both_ways(displacement_model(), objective, batches, config, check_first=True)
    assert max(value.item() for value in differences[0].values()) < 1e-5
    assert max(value.item() for step in differences for value in step.values()) < 1e-3
    first = displacement_model()
    moved = [(p - q).abs().max().item() for p, q in zip(first.parameters(), plain.model.parameters(), strict=True)]
    assert max(moved) > 0.05  # training went somewhere


def run_config(*, model: dict[str, Any] = TINY, **train: Any) -> RunConfig:
    steps = {"n_steps": 14, "batch_size": 5, "warmup_steps": 2, "validate_every": 7, "log_every": 4, "device": "cpu"}
    return validated_config(
        {
            "data": {"molecule": "ethanol", "n_train": 17, "n_validation": 5},
            "model": model,
            "train": steps | {"checkpoint_every": 4, "compile": True} | train,
        },
        origin="test",
    )


def weights_of(folder: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = read_checkpoint(folder / "checkpoint.pt")["model"]
    return weights


def test_a_compiled_run_repeats_and_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compiled anew at each start, with steps in between that are watched and therefore not compiled."""
    # One forward a step, which compiles in half the time.
    method: dict[str, Any] = {"equivariance_from": 0.0, "estimator": "one-forward"}
    config, step, calls = run_config(**method), trainer.train_step, list[bool]()

    def kept_at_9(state: Any, *arguments: Any, **options: Any) -> Any:
        if len(calls) == 9:  # what a process killed here would leave; a run stopped here would be compiled once more
            shutil.copytree(tmp_path / "whole", tmp_path / "cut")
        calls.append(options["compiled"].knows(arguments[0]) and not options["diagnose"])
        return step(state, *arguments, **options)

    monkeypatch.setattr(trainer, "train_step", kept_at_9)
    train_potential(config, run_dir=tmp_path / "whole", progress=True)
    shown = capsys.readouterr().err
    assert shown.count("compiling the training step") == 1
    assert re.search(r"compiled in \d+ s", shown)
    assert 0 < sum(calls) < 14  # both kinds of steps took place
    assert 0 < sum(calls[8:]) < 6  # and will be taken again
    assert read_checkpoint(tmp_path / "cut" / "checkpoint.pt")["step"] == 8
    monkeypatch.undo()
    torch.compiler.reset()
    train_potential(config, run_dir=tmp_path / "cut", progress=False, resume=True)
    whole = weights_of(tmp_path / "whole")
    for key, weight in weights_of(tmp_path / "cut").items():
        assert torch.equal(weight, whole[key]), key
    train_potential(run_config(compile=False, **method), run_dir=tmp_path / "plain", progress=False)
    plain = read_metrics(tmp_path / "plain" / "metrics.csv")
    found = read_metrics(tmp_path / "whole" / "metrics.csv")
    assert found[-1]["validation_force_mae"] == pytest.approx(plain[-1]["validation_force_mae"], rel=1e-3)
    assert any(not torch.equal(weight, whole[key]) for key, weight in weights_of(tmp_path / "plain").items())


def test_late_losses_are_compiled_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A graph of the steps with one orientation, another of those with two; both agree with the uncompiled run."""
    # Two graphs of a model of the package take two minutes; the test above compiles the transformer. A config names
    # rows of the table that stood there when it was imported, so another model takes the place of one.
    monkeypatch.setitem(MODELS, "painn", (PainnConfig, DisplacementModel))
    late: dict[str, Any] = {"model": {"kind": "painn", "width": 4, "n_layers": 1, "n_radial": 3}}
    late |= {
        "equivariance_from": 0.5,
        "consistency_target": "prediction",
        "first_orientation": "random",
        "log_every": 1,
    }
    train_potential(run_config(**late), run_dir=tmp_path / "compiled", progress=True)
    assert capsys.readouterr().err.count("compiling the training step") == 2
    train_potential(run_config(**late, compile=False), run_dir=tmp_path / "plain", progress=False)
    found, wanted = (read_metrics(tmp_path / name / "metrics.csv") for name in ("compiled", "plain"))
    assert ["equivariance" in row for row in found] == [False] * 7 + [True] * 7
    assert all(row["equivariance"] > 1e-3 * row["loss"] for row in found[7:])  # the second graph's term counts
    for row, expected in zip(found, wanted, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-3)


def test_gradual_weights_are_refused() -> None:
    message = "train.compile=true compiles one gradient of both losses, train.weighting=gradual needs one of each"
    with pytest.raises(InputError, match=re.escape(message)):
        run_config(weighting="gradual")


def test_a_missing_compiler_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"C\+\+ compiler.*'no-such-compiler'"):
        train_potential(run_config(), run_dir=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("CXX", sys.executable)
    require_compiler(torch.device("cpu"), option="train.compile=true")


BROKEN = """
from test_compiled import RowsObjective, TwoBiases, rows
import torch
from remul_md.errors import InputError
from remul_md.training.compiled import CompiledLosses, shape_of
compiled = CompiledLosses(TwoBiases(), RowsObjective(), shapes=[shape_of(rows(7))])
try:
    compiled(rows(7), torch.Generator(), {"task": 1.0, "equivariance": 1.0, "torque": 0.0})
except InputError as error:
    print("refused:", error)
"""


def test_a_compiler_that_fails_is_named(tmp_path: Path) -> None:
    """In a process of its own, because torch reads the name of the compiler when it is imported."""
    environment = {**os.environ, "CXX": "false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", BROKEN],
        env=environment,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert "refused: the training step could not be compiled" in done.stdout, done.stdout + done.stderr
    assert "leave train.compile off" in done.stdout


def test_batches_in_batches_are_inputs_too() -> None:
    """Labelled frames beside unlabelled ones: no tensor of the first batch may be left in the graph."""
    config = TrainConfig(
        consistency_target="prediction", unlabelled_batch_size=2, warmup_steps=2, n_steps=50, max_grad_norm=1e3
    )
    store, rng = ethanol_store(), np.random.default_rng(5)
    batches = []
    for _ in range(3):
        chosen = rng.choice(20, 5, replace=False)
        systems = replace(store.select(chosen), energy=None, forces=None)
        batches.append(PartlyLabelled(systems=systems, labelled=store.select(chosen[:3])))
    assert dict(shape_of(batches[0]))["labelled.energy"] == (3,)
    assert "systems.energy" not in dict(shape_of(batches[0]))
    differences, *_ = both_ways(displacement_model(), make_objective(config, force_scale=1.1), batches, config)
    assert max(value.item() for step in differences for value in step.values()) < 1e-4


def test_what_cannot_be_compiled_is_refused() -> None:
    with pytest.raises(InputError, match=r"objective .*not function"):
        CompiledLosses(TwoBiases(), lambda model, batch, generator: {}, shapes=[])
    with pytest.raises(InputError, match="dataclasses, got tuple"):
        shape_of((torch.zeros(3), torch.zeros(2)))
    batch = build_batch(molecule_frames(), cutoff=5.0)
    assert dict(shape_of(batch))["positions"] == (12, 3)
    assert "cell" not in dict(shape_of(batch))
