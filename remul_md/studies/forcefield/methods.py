"""What is compared, and the options of the study: everything that decides its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from remul_md.datasets.registry import ENTRIES
from remul_md.dynamics import MDOptions
from remul_md.studies.options import check_distinct, check_names, study_config
from remul_md.training.config import PUBLISHED, RunConfig, validated_config

BETAS = (0.01, 0.1, 1.0, 10.0, 100.0)
STEPS_TO_VALIDATE = 20
Budget = Literal["steps", "time"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way of training.

    Args:
        label: in tables and pictures.
        cost: methods with the same word here cost the same a step, which is measured once for all of them.
        model: kind of model.
        train: the options of `TrainConfig` in which the methods differ.
    """

    label: str
    cost: str
    model: Literal["transformer", "painn"] = "transformer"
    train: Mapping[str, Any] = field(default_factory=dict)


def _remul(beta: float) -> Method:
    return Method(label=f"REMUL, beta = {beta:g}", cost="two orientations", train={"alpha": 1.0, "beta": beta})


def _consistent(beta: float) -> Method:
    options = {"alpha": 1.0, "beta": beta, "consistency_target": "prediction", "first_orientation": "random"}
    return Method(label=f"augmentation + consistency, beta = {beta:g}", cost="two orientations", train=options)


METHODS: dict[str, Method] = {
    "plain": Method(label="plain", cost="one orientation", train={"alpha": 1.0, "beta": 0.0}),
    "augmentation": Method(label="augmentation", cost="one orientation", train={"alpha": 0.0, "beta": 1.0}),
    "augmentation-2": Method(
        label="2-orientation augmentation", cost="two orientations", train={"alpha": 0.0, "beta": 1.0, "n_rotated": 2}
    ),
    **{f"remul-{beta:g}": _remul(beta) for beta in BETAS},
    "remul-gradual": Method(
        label="REMUL, gradual",
        cost="two orientations, balanced",
        train={"alpha": 1.0, "beta": 1.0, "weighting": "gradual"},
    ),
    "remul-one-forward": Method(
        label="REMUL, one forward",
        cost="one orientation",
        train={"alpha": 1.0, "beta": 1.0, "estimator": "one-forward"},
    ),
    **{f"consistent-{beta:g}": _consistent(beta) for beta in (1.0, 10.0)},
    "painn": Method(label="PaiNN (equivariant)", cost="painn", model="painn", train={"alpha": 1.0, "beta": 0.0}),
}
# The second orientation costs a half more or so; methods with it set the wall time that all others may use.
REFERENCE_COST = "two orientations"


# What decides which runs there are, but not the numbers of one: a study that has begun can be extended by them.
LISTS = (
    *("molecules", "methods", "seeds", "budgets"),
    *("grid_methods", "grid_molecules", "grid_widths", "grid_frames"),
)


class ForceFieldConfig(BaseModel):
    """Options of the force-field study; the defaults are the full study."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    molecules: tuple[str, ...] = Field(("ethanol", "aspirin", "salicylic"), min_length=1, description="of rMD17")
    methods: tuple[str, ...] = Field(tuple(METHODS), description="names of what is compared")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="of weights, order and orientations")
    budgets: tuple[Budget, ...] = Field(("steps", "time"), min_length=1, description="equal steps; equal wall time")
    n_steps: int = Field(
        10_000, ge=10, description="optimiser steps at equal steps, and of two-orientation methods always"
    )
    n_train: int = Field(950, ge=1, description="training frames")
    n_validation: int = Field(50, ge=1, description="frames that choose the weights, in rotated orientations")
    batch_size: int = Field(8, ge=1, description="frames a step; each is seen in one or two orientations")
    width: int = Field(128, ge=1, description="of the transformer")
    n_layers: int = Field(3, ge=1, description="of the transformer")
    n_heads: int = Field(8, ge=1, description="of the transformer")
    painn_width: int = Field(128, ge=1, description="of the equivariant control")
    optimizer: Literal["muon", "adamw"] = Field("muon", description="of all methods")
    weight_decay: float = Field(0.05, ge=0, description="of all methods")
    learning_rate: float = Field(6e-3, gt=0, description="peak of the schedule, transformer")
    painn_learning_rate: float = Field(6e-3, gt=0, description="peak of the schedule, equivariant control")
    grid_methods: tuple[str, ...] = Field(("augmentation", "remul-1"), description="methods of the grid of sizes")
    grid_molecules: tuple[str, ...] = Field(("ethanol",), description="molecules of the grid")
    grid_widths: tuple[int, ...] = Field((64, 128, 256), description="widths of the grid; empty: no grid")
    grid_frames: tuple[int, ...] = Field((50, 200, 950), description="training frames of the grid")
    n_test: int = Field(1000, ge=2, description="test frames")
    n_draws: int = Field(8, ge=2, description="rotations of each test frame")
    nve_ps: float = Field(5.0, gt=0, description="length of the NVE run of each potential")
    equilibrate_ps: float = Field(2.0, ge=0, description="Langevin dynamics before it")
    temperature_K: float = Field(300.0, gt=0, description="of the NVE run")
    compile: bool = Field(False, description="compile training steps; not those of the gradual method")
    device: str = Field("cpu", description="cpu, cuda or cuda:N")

    @field_validator("methods", "grid_methods")
    @classmethod
    def _known_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_names(value, METHODS, kind="method")
        return value

    @field_validator("molecules", "grid_molecules")
    @classmethod
    def _known_molecules(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = sorted({name.split("/")[1] for name in ENTRIES if name.startswith("rmd17/")})
        check_names(value, known, kind="molecule")
        return value

    @model_validator(mode="after")
    def _runs_are_possible(self) -> ForceFieldConfig:
        check_distinct(self, LISTS)
        if not self.methods and not self.grid_widths:
            raise ValueError("methods and grid_widths are both empty, so nothing would be run; give one of them")
        for method in (*self.methods, *self.grid_methods):
            self.run_config(self.molecules[0], method, seed=0)
        for width in self.grid_widths:
            self.run_config(self.molecules[0], self.grid_methods[0], seed=0, width=width)
        self.md_options(seed=0)
        return self

    def run_config(
        self,
        molecule: str,
        method: str,
        *,
        seed: int,
        n_steps: int | None = None,
        width: int | None = None,
        n_train: int | None = None,
    ) -> RunConfig:
        """Options of one run: the recipe of the demo, in all but what the method changes.

        Args:
            molecule: of rMD17, train split 01.
            method: name of a method.
            seed: of weights, order of the frames and orientations.
            n_steps, width, n_train: instead of the study's.
        Raises:
            InputError: sizes that do not fit, as `RunConfig`.
        """
        chosen, steps = METHODS[method], n_steps or self.n_steps
        if chosen.model == "painn":
            model: dict[str, Any] = {"kind": "painn", "width": width or self.painn_width}
        else:
            model = {"width": width or self.width, "n_layers": self.n_layers, "n_heads": self.n_heads}
        train = {
            "seed": seed,
            "n_steps": steps,
            "batch_size": self.batch_size,
            "optimizer": self.optimizer,
            "weight_decay": self.weight_decay,
            "learning_rate": self.painn_learning_rate if chosen.model == "painn" else self.learning_rate,
            "warmup_steps": min(200, steps // 10),
            "validate_every": max(1, steps // STEPS_TO_VALIDATE),
            "device": self.device,
            # GradNorm needs a gradient of each loss, the compiled step has one of their sum.
            "compile": self.compile and chosen.train.get("weighting") != "gradual",
            "monitor_share": 1.0,  # the steps are never thinned out: methods are compared at the same ones
            **PUBLISHED,
            **chosen.train,
        }
        data = {"molecule": molecule, "n_train": n_train or self.n_train, "n_validation": self.n_validation}
        return validated_config({"data": data, "model": model, "train": train}, origin=f"method {method}")

    def md_options(self, *, seed: int) -> MDOptions:
        """Options of the NVE run of each potential."""
        return MDOptions(
            temperature_K=self.temperature_K, length_ps=self.nve_ps, equilibrate_ps=self.equilibrate_ps, seed=seed
        )


# About an hour on 2 cores: one molecule, four methods, one seed, no grid. Recipe, model, frames and steps stay.
QUICK: dict[str, Any] = {
    "molecules": ["ethanol"],
    "methods": ["plain", "augmentation", "augmentation-2", "remul-1"],
    "seeds": [0],
    "grid_widths": [],
}
PRESETS: dict[str, dict[str, Any]] = {"default": {}, "quick": QUICK}


def forcefield_config(preset: str = "default", *, overrides: Sequence[str] = ()) -> ForceFieldConfig:
    """Options of the study from a preset and `key=value` overrides; see `study_config`."""
    return study_config(ForceFieldConfig, PRESETS, preset, overrides=overrides)
