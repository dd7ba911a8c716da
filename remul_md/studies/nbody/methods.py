"""What is compared, and the options of the study: everything that decides its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from remul_md.studies.nbody.models import BodyTransformerConfig, EgnnConfig
from remul_md.studies.options import check_distinct, check_names, study_config
from remul_md.training.config import PUBLISHED, TrainConfig

BETAS = (0.01, 0.1, 1.0, 10.0, 100.0)
STEPS_TO_VALIDATE = 20


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way of training: a model, and the options of `TrainConfig` in which the methods differ."""

    label: str
    model: Literal["transformer", "egnn"] = "transformer"
    train: Mapping[str, Any] = field(default_factory=dict)


METHODS: dict[str, Method] = {
    "plain": Method(label="plain", train={"alpha": 1.0, "beta": 0.0}),
    "augmentation": Method(label="augmentation", train={"alpha": 0.0, "beta": 1.0}),
    "augmentation-2": Method(label="2-orientation augmentation", train={"alpha": 0.0, "beta": 1.0, "n_rotated": 2}),
    **{
        f"remul-{beta:g}": Method(label=f"REMUL, beta = {beta:g}", train={"alpha": 1.0, "beta": beta}) for beta in BETAS
    },
    "remul-gradual": Method(label="REMUL, gradual", train={"alpha": 1.0, "beta": 1.0, "weighting": "gradual"}),
    "remul-one-forward": Method(
        label="REMUL, one forward", train={"alpha": 1.0, "beta": 1.0, "estimator": "one-forward"}
    ),
    "egnn": Method(label="EGNN (equivariant)", model="egnn", train={"alpha": 1.0, "beta": 0.0}),
}


class NBodyConfig(BaseModel):
    """Options of the N-body study; the defaults are the study's default size."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    methods: tuple[str, ...] = Field(tuple(METHODS), min_length=1, description="names of what is compared")
    seeds: tuple[int, ...] = Field(
        (0, 1, 2), min_length=1, description="of weights, orientations and the training systems"
    )
    orientations: Literal["limited", "haar"] = Field(
        "limited", description="training orientations: up to 10 degrees, or all"
    )
    n_train: int = Field(100, ge=1, description="training systems, as in the paper")
    n_validation: int = Field(500, ge=2, description="validation systems, in training orientations")
    n_test: int = Field(5000, ge=2, description="test systems, each in an orientation of either test set")
    n_draws: int = Field(100, ge=2, description="rotations of each system behind E' (the paper's number)")
    n_draw_systems: int = Field(200, ge=2, description="test systems behind E'")
    width: int = Field(128, ge=1, description="of the transformer")
    n_layers: int = Field(4, ge=1, description="of the transformer")
    n_heads: int = Field(8, ge=1, description="of the transformer")
    egnn_width: int = Field(64, ge=1, description="of EGNN")
    egnn_layers: int = Field(4, ge=1, description="of EGNN")
    n_steps: int = Field(5000, ge=1, description="optimiser steps of every method")
    batch_size: int = Field(64, ge=1, description="systems a step; each is seen in 1 + n_rotated orientations")
    learning_rate: float = Field(3e-4, gt=0, description="peak of the schedule, transformer")
    egnn_learning_rate: float = Field(5e-4, gt=0, description="peak of the schedule, EGNN")
    device: str = Field("cpu", description="cpu, cuda or cuda:N")

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_names(value, METHODS, kind="method")
        return value

    @model_validator(mode="after")
    def _runs_are_possible(self) -> NBodyConfig:
        check_distinct(self, ("methods", "seeds"))
        self.transformer()
        self.egnn()
        self.train_config(self.methods[0], seed=self.seeds[0])
        return self

    def transformer(self) -> BodyTransformerConfig:
        """Sizes of the transformer."""
        return BodyTransformerConfig(width=self.width, n_layers=self.n_layers, n_heads=self.n_heads)

    def egnn(self) -> EgnnConfig:
        """Sizes of EGNN."""
        return EgnnConfig(width=self.egnn_width, n_layers=self.egnn_layers)

    def train_config(self, method: str, *, seed: int) -> TrainConfig:
        """Options of one run. Adam without weight decay and a loose clip, as the paper's code base trains."""
        chosen = METHODS[method]
        values: dict[str, Any] = {
            "seed": seed,
            "n_steps": self.n_steps,
            "batch_size": self.batch_size,
            "optimizer": "adamw",
            "learning_rate": self.egnn_learning_rate if chosen.model == "egnn" else self.learning_rate,
            "warmup_steps": min(100, self.n_steps // 10),
            "weight_decay": 0.0,
            "max_grad_norm": 10.0,
            "group": "SO3",
            "validate_every": max(1, self.n_steps // STEPS_TO_VALIDATE),
            "device": self.device,
            "n_threads": 1,
            "monitor_share": 1.0,  # the steps are never thinned out: methods are compared at the same ones
            **PUBLISHED,
            **chosen.train,
        }
        return TrainConfig(**values)


# What fits 15 minutes on 2 cores: four methods, two seeds, fewer test systems and draws. Model, data and steps stay.
QUICK: dict[str, Any] = {
    "methods": ["plain", "augmentation", "augmentation-2", "remul-1"],
    "seeds": [0, 1],
    "n_test": 1000,
    "n_draw_systems": 100,
}
PAPER: dict[str, Any] = {"width": 384, "n_layers": 10, "n_steps": 50_000, "n_validation": 5000, "device": "cuda"}
PRESETS: dict[str, dict[str, Any]] = {"default": {}, "quick": QUICK, "paper": PAPER}


def nbody_config(preset: str = "default", *, overrides: Sequence[str] = ()) -> NBodyConfig:
    """Options of the study from a preset and `key=value` overrides; see `study_config`."""
    return study_config(NBodyConfig, PRESETS, preset, overrides=overrides)
