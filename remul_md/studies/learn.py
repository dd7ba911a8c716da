"""A job of a particle task: read, build, fit, test; and the options that decide its numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn

from remul_md.errors import InputError
from remul_md.potentials.potential import resolve_device
from remul_md.studies.jobs import fingerprint_of
from remul_md.studies.lab import CalculatorFactory, Job, Task, validation_errors
from remul_md.studies.methods import ALL_GROUP, method_options
from remul_md.studies.models.egnn import Egnn
from remul_md.studies.models.gatr import Gatr
from remul_md.studies.models.gnn import Gnn
from remul_md.studies.models.se3 import Se3Transformer
from remul_md.studies.models.transformer import PlainTransformer
from remul_md.studies.options import StudyOptions
from remul_md.studies.particles import (
    SYMMETRY_FIGURES,
    TokenObjective,
    Tokens,
    mean_squared_error,
    rescaled,
    symmetry_figures,
)
from remul_md.training.checkpoint import SYMMETRY, read_checkpoint, read_metrics
from remul_md.training.config import PUBLISHED, TrainConfig
from remul_md.training.fit import CHECKPOINT, Objective, fit, new_state
from remul_md.training.schedule import shuffled
from remul_md.training.step_cost import next_step

PARTICLE_MODELS = {
    "transformer": "transformer",
    "egnn": "EGNN",
    "se3": "SE(3)-Transformer of degrees 0 and 1",
    "gatr": "GATr",
    "gnn": "GNN",
}
EXACT = frozenset({"egnn", "se3", "gatr"})
PERCENT_DRAWS = 8
N_WATCHED = 200  # validation systems whose symmetry is followed during training
STEPS_TO_VALIDATE = 20


class ParticleOptions(StudyOptions):
    """What all tasks of particles are asked: sizes of the networks, training, and how symmetry is measured."""

    axis: ClassVar[tuple[float, float, float] | None] = None  # of the methods that turn about one

    models: tuple[str, ...] = Field(("transformer",), min_length=1, description="networks")
    n_draws: int = Field(100, ge=2, description="rotations of each system behind E' (the paper's number)")
    n_draw_systems: int = Field(200, ge=2, description="test systems behind E'")
    width: int = Field(128, ge=1, description="of the transformer")
    n_layers: int = Field(4, ge=1, description="of the transformer")
    n_heads: int = Field(8, ge=1, description="of the transformer and of GATr")
    egnn_width: int = Field(64, ge=1, description="of EGNN")
    egnn_layers: int = Field(4, ge=1, description="of EGNN")
    se3_channels: int = Field(8, ge=1, description="of each degree of the SE(3)-Transformer")
    se3_layers: int = Field(4, ge=1, description="of the SE(3)-Transformer")
    gatr_channels: int = Field(8, ge=1, description="multivectors of GATr")
    gatr_scalars: int = Field(32, ge=1, description="scalar channels of GATr")
    gatr_layers: int = Field(4, ge=1, description="blocks of GATr")
    gnn_width: int = Field(64, ge=1, description="of the plain graph network")
    gnn_layers: int = Field(4, ge=1, description="of the plain graph network")
    n_steps: int = Field(5000, ge=10, description="optimiser steps at equal steps, and of the reference at equal time")
    batch_size: int = Field(64, ge=1, description="systems a step; each is seen in 1 + n_rotated orientations")
    learning_rate: float = Field(3e-4, gt=0, description="peak of the schedule, transformer")
    egnn_learning_rate: float = Field(5e-4, gt=0, description="peak of the schedule, EGNN")
    se3_learning_rate: float = Field(1e-3, gt=0, description="peak of the schedule, SE(3)-Transformer")
    gatr_learning_rate: float = Field(1e-3, gt=0, description="peak of the schedule, GATr")
    gnn_learning_rate: float = Field(5e-4, gt=0, description="peak of the schedule, the plain graph network")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="moving average of the weights; 0: the weights themselves")
    weights: Literal["best", "last"] = Field("best", description="tested: of the best validation, or the last ones")

    @model_validator(mode="after")
    def _heads_fit(self) -> ParticleOptions:
        if self.width % self.n_heads:
            raise ValueError(f"width must be divisible by n_heads, got {self.width} and {self.n_heads}")
        return self

    def train_config(self, job: Job) -> TrainConfig:
        """Options of one run. Adam without weight decay and a loose clip, as the papers' code bases train."""
        rates = {
            "transformer": self.learning_rate,
            "egnn": self.egnn_learning_rate,
            "se3": self.se3_learning_rate,
            "gatr": self.gatr_learning_rate,
            "gnn": self.gnn_learning_rate,
        }
        values: dict[str, Any] = {
            "seed": job.seed,
            "n_steps": job.n_steps,
            "batch_size": self.batch_size,
            "optimizer": "adamw",
            "learning_rate": rates[job.model],
            "warmup_steps": min(100, job.n_steps // 10),
            "weight_decay": 0.0,
            "ema_decay": self.ema_decay,
            "max_grad_norm": 10.0,
            "group": "SO3",
            "validate_every": max(1, job.n_steps // STEPS_TO_VALIDATE),
            "device": self.device,
            "n_threads": 1,
            "monitor_share": 1.0,  # the steps are never thinned out: methods are compared at the same ones
            **PUBLISHED,
            **method_options(job.method, axis=self.axis),
        }
        return TrainConfig(**values)

    def model(self, kind: str, example: Tokens, *, seed: int) -> nn.Module:
        """An untrained network for tokens like these; the same seed gives all methods the same weights to start from.

        Raises:
            InputError: no such network.
        """
        n_scalars, n_pair_features = example.scalars.shape[-1], example.pairs.shape[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if kind == "transformer":
                sizes = {"width": self.width, "n_layers": self.n_layers, "n_heads": self.n_heads}
                return PlainTransformer(n_scalars=n_scalars, **sizes)
            if kind == "gatr":
                sizes = {"n_channels": self.gatr_channels, "n_scalar_channels": self.gatr_scalars}
                return Gatr(n_scalars=n_scalars, **sizes, n_layers=self.gatr_layers, n_heads=self.n_heads)
            shared = {"n_scalars": n_scalars, "n_pair_features": n_pair_features}
            if kind == "egnn":
                return Egnn(**shared, width=self.egnn_width, n_layers=self.egnn_layers)
            if kind == "gnn":
                return Gnn(**shared, width=self.gnn_width, n_layers=self.gnn_layers)
            if kind == "se3":
                return Se3Transformer(**shared, n_channels=self.se3_channels, n_layers=self.se3_layers)
        raise InputError(f"model {kind!r} is unknown; choose one of {', '.join(PARTICLE_MODELS)}")


P = TypeVar("P", bound=ParticleOptions)


def labelled_objective(options: ParticleOptions, config: TrainConfig, early: bool) -> Objective[Tokens]:
    """REMUL on systems that have their labels already."""
    return TokenObjective(config, early=early)


def no_strata(tokens: Tokens) -> dict[str, NDArray[np.int64]]:
    """All systems are measured together."""
    return {}


def nothing_further(options: ParticleOptions, model: nn.Module, splits: Splits) -> dict[str, float]:
    """Errors and symmetry say all."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Data of a job; the error on each of the tests is a figure of that name, symmetry is measured on the first."""

    train: Tokens
    validation: Tokens
    tests: Mapping[str, Tokens]


@dataclass(frozen=True, kw_only=True)
class Particles(Generic[P]):
    """What a task of particles says of itself; a `Runner`.

    Args:
        load: (options, case, seed) -> data.
        baselines: what needs no learning: label -> mean squared error on the first test set.
        axis: rotations about it are those of the data, whose figures come first; None: all rotations.
        axes: about which symmetry is measured besides: end of the figures' names -> axis.
        length: unit of the lengths in the tokens, in that of the figures.
        objective: (options, config of the run, whether before `equivariance_from`) -> losses of a batch; draws labels
            where these are drawn anew in each step.
        strata: parts of the systems whose symmetry is measured on its own: end of the figures' names -> indices.
        further: (options, trained network, data) -> figures besides errors and symmetry.
    """

    load: Callable[[P, str, int], Splits]
    baselines: Callable[[Tokens], dict[str, float]]
    axis: tuple[float, float, float] | None = None
    axes: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    length: float = 1.0
    objective: Callable[[P, TrainConfig, bool], Objective[Tokens]] = labelled_objective
    strata: Callable[[Tokens], Mapping[str, NDArray[np.int64]]] = no_strata
    further: Callable[[P, nn.Module, Splits], Mapping[str, float]] = nothing_further

    def check(self, options: P, job: Job) -> TrainConfig:
        """Refuse a job that cannot be, before anything is read."""
        return options.train_config(job)

    def step(self, options: P, job: Job, study_dir: Path) -> Callable[[], None]:
        """A function that takes the next step of a job, without logs, validation and checkpoints."""
        config, splits = options.train_config(job), self.load(options, job.case, job.seed)
        source = splits.train.to(resolve_device(options.device))
        state = new_state(options.model(job.model, source, seed=job.seed).to(source.positions.device), config)
        objective = self.objective(options, config, False)
        return next_step(state, shuffled(source, config), objective=objective, config=config)

    def run(self, options: P, job: Job, folder: Path, calculator: CalculatorFactory | None) -> dict[str, Any]:
        """Train and test one job; see `Runner.run`."""
        config, device = options.train_config(job), resolve_device(options.device)
        splits = self.load(options, job.case, job.seed)
        model = options.model(job.model, splits.train, seed=job.seed).to(device)
        validation = splits.validation.to(device)
        watched, area = validation.select(slice(N_WATCHED)), self.length**2
        strata = {f"_{name}": watched.select(rows) for name, rows in self.strata(watched).items()}

        def validate(candidate: nn.Module) -> dict[str, float]:
            # In the training orientations: weights must not be chosen by the orientations a run is tested in.
            error = area * mean_squared_error(candidate, validation)
            return {"validation_mse": error, "score": error}

        def monitor(candidate: nn.Module) -> dict[str, float]:
            return {
                f"{name}{end}": value
                for end, tokens in {"": watched, **strata}.items()
                for name, value in rescaled(
                    symmetry_figures(candidate, tokens, n_draws=PERCENT_DRAWS, axis=self.axis), self.length
                ).items()
            }

        result = fit(
            model,
            splits.train.to(device),
            objective=self.objective(options, config, False),
            early=self.objective(options, config, True) if config.equivariance_from > 0 else None,
            validate=validate,
            validation_columns=("validation_mse",),
            monitor=monitor,
            monitor_columns=[f"{name}{end}" for end in ("", *strata) for name in SYMMETRY_FIGURES],
            config=config,
            run_dir=folder,
            fingerprint=fingerprint_of(options.decisive, job.case, job.model, config.model_dump(mode="json")),
            resume=True,
            progress=False,
        )
        tested = result.model
        if options.weights == "last":
            tested.load_state_dict(read_checkpoint(folder / CHECKPOINT)["average"])
        began = time.perf_counter()
        figures = {**self._figures(tested, splits, options), **self.further(options, tested, splits)}
        first = next(iter(splits.tests.values()))
        return {
            "n_parameters": sum(p.numel() for p in model.parameters()),
            "best_step": result.best_step,
            "train_seconds": round(result.seconds, 1),
            "test_seconds": round(time.perf_counter() - began, 1),
            "figures": figures,
            "baselines": {name: area * error for name, error in self.baselines(first).items()},
            "zero_error": area * splits.validation.targets.square().mean().item(),
            "history": [course(row, ends=[*strata]) for row in read_metrics(folder / SYMMETRY)],
            "learning": validation_errors(folder, "validation_mse"),
        }

    def _figures(self, model: nn.Module, splits: Splits, options: P) -> dict[str, float]:
        device = next(model.parameters()).device
        tests = {name: tokens.to(device) for name, tokens in splits.tests.items()}
        sets = {"train": splits.train.to(device), **tests}
        found = {name: self.length**2 * mean_squared_error(model, tokens) for name, tokens in sets.items()}
        first = next(iter(tests.values()))
        for end, axis in {"": self.axis, **self.axes}.items():
            measured = partial(symmetry_figures, model, axis=axis)
            figures = rescaled(measured(first, n_draws=PERCENT_DRAWS), self.length)
            fewer = first.select(slice(options.n_draw_systems))
            drawn = rescaled(measured(fewer, n_draws=options.n_draws, seed=1), self.length)
            figures["equivariance_norm"] = drawn["equivariance_norm"]
            figures["rotated"] = figures["twirled"] + figures["spread"]
            found |= {f"{name}{end}": value for name, value in figures.items()}
        for name, rows in self.strata(first).items():
            of_rows = symmetry_figures(model, first.select(rows), n_draws=PERCENT_DRAWS, axis=self.axis)
            figures = rescaled(of_rows, self.length)
            found |= {f"percent_{name}": figures["percent"], f"rotated_{name}": figures["twirled"] + figures["spread"]}
        return found


def course(row: Mapping[str, float], *, ends: Sequence[str] = ()) -> dict[str, float]:
    """A row of the symmetry during training, as the pictures take it; of the strata percent and error."""
    return {
        "step": row["step"],
        "percent": row["percent"],
        "error": row["twirled"] + row["spread"],
        "equivariance_norm": row["equivariance_norm"],
        **{f"percent{end}": row[f"percent{end}"] for end in ends},
        **{f"error{end}": row[f"twirled{end}"] + row[f"spread{end}"] for end in ends},
    }


@dataclass(frozen=True, kw_only=True)
class ParticleTask(Task[P]):
    """A task of particles; networks and methods are these, if it says nothing else."""

    models: Mapping[str, str] = field(default_factory=lambda: PARTICLE_MODELS)
    exact: frozenset[str] = EXACT
    methods: tuple[str, ...] = ALL_GROUP
