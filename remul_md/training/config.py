"""The options of a training run: checked before any data is read, unknown keys refused with the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    create_model,
    model_validator,
)

from remul_md.errors import InputError
from remul_md.models import MODELS, model_config_type
from remul_md.symmetry.rotations import check_axis
from remul_md.training.data_config import DataConfig
from remul_md.training.pretrain_config import PretrainConfig
from remul_md.training.sections import apply_override, config_path, read_yaml

_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())
# Set from the training data, never by hand.
_FROM_DATA = ("species", "energy_scale")
_DEFAULT_KIND = next(iter(MODELS))
_PLAIN = "plain"  # what model.symmetry=none means where no kind is named
# REMUL as published, where the defaults of `TrainConfig` are the recipe: the frame as it stands and one rotated against
# its rotated label, in all steps.
PUBLISHED: dict[str, Any] = {
    "beta": 1.0,
    "first_orientation": "original",
    "consistency_target": "label",
    "equivariance_from": 0.0,
}


class TrainConfig(BaseModel):
    """How a potential is trained; lengths are steps, so a run does not depend on the speed of the machine."""

    model_config = _STRICT

    seed: int = Field(0, ge=0, description="seed of initialisation, order of the frames and rotated orientations")
    n_steps: int = Field(12_000, ge=1, description="optimiser steps")
    batch_size: int = Field(8, ge=1, description="frames a step; each is seen in 1 + n_rotated orientations")
    stretched_batch_size: int = Field(1, ge=1, description="frames of data.stretched beside them")
    stretched_half_weight_eV: float = Field(
        0.5, gt=0, description="energy above the highest training frame at which such a frame counts half"
    )
    unlabelled_batch_size: int = Field(0, ge=0, description="frames of data.unlabelled beside them")
    optimizer: Literal["muon", "adamw"] = Field("muon", description="muon: half the steps, each costs a little more")
    learning_rate: float = Field(6e-3, gt=0, description="peak of the schedule, fresh weights; 2e-3 suits adamw")
    fine_tuning_learning_rate: float = Field(
        1e-3, gt=0, description="peak where all weights come trained: --init-from, after pretraining"
    )
    warmup_steps: int = Field(200, ge=0, description="linear rise of the learning rate; then a cosine to 0")
    weight_decay: float = Field(0.05, ge=0, description="decoupled; without it muon lets weights grow")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="moving average of the weights; what is saved")
    max_grad_norm: float = Field(10.0, gt=0, description="the gradient is clipped to this norm")
    forces: Literal["conservative", "direct", "both"] = Field("conservative", description="which head is trained")
    trained: Literal["all", "direct-head", "raw-directions"] = Field(
        "all", description="all weights, or of --init-from the direct head alone, or what reads raw directions alone"
    )
    energy_weight: float = Field(0.02, ge=0, description="weight of the energy error, in units of RMS force x 1 A")
    alpha: float = Field(1.0, ge=0, description="weight of the loss on the original orientation")
    beta: float = Field(10.0, ge=0, description="weight of the equivariance loss; 0 switches it off")
    weighting: Literal["constant", "gradual", "linear", "cosine"] = Field(
        "constant", description="alpha and beta kept; balanced by GradNorm; or beta ramped from beta_start"
    )
    beta_start: float = Field(0.0, ge=0, description="beta at the first step of a linear or cosine ramp")
    ramp_steps: int | None = Field(None, ge=1, description="steps of the ramp; default: all")
    gradnorm_exponent: float = Field(1.5, ge=0, description="gradual: pull towards equal relative training rates")
    gradnorm_learning_rate: float = Field(0.025, gt=0, description="gradual: learning rate of alpha and beta")
    gradnorm_loss_floor: float = Field(1e-3, gt=0, description="gradual: initial losses below it count as it")
    estimator: Literal["paired", "one-forward"] = Field(
        "paired",
        description="original and rotated orientations of each frame, or one of them, drawn with odds alpha : beta",
    )
    n_rotated: int = Field(1, ge=1, description="rotated orientations of each frame and step")
    first_orientation: Literal["original", "random"] = Field(
        "random", description="orientation of the task's loss: as in the data, or drawn like the rotated ones"
    )
    group: Literal["O3", "SO3"] = Field("O3", description="group of the rotated orientations: with mirrors, or without")
    axis: tuple[float, float, float] | None = Field(None, description="turn about this axis only; O3: mirrors hold it")
    consistency_target: Literal["label", "prediction"] = Field("prediction", description="of rotated predictions")
    force_loss: Literal["l2", "mse"] = Field("l2", description="of an atom's force error: its length, or squared")
    torque_weight: float = Field(
        0.0, ge=0, description="weight of the net torque of conservative forces, in units of RMS force x 1 A"
    )
    equivariance_from: float = Field(
        0.8, ge=0, lt=1, description="share of the steps before which beta and torque_weight are left out"
    )
    monitor_per_decade: int = Field(6, ge=0, description="log-spaced measurements of symmetry; 0 switches them off")
    monitor_share: float = Field(0.05, gt=0, le=1, description="at most this share of the forwards of training")
    validate_every: int = Field(500, ge=1, description="steps between validations")
    patience: int | None = Field(None, ge=1, description="stop after this many validations without a better one")
    checkpoint_every: int = Field(250, ge=1, description="steps between checkpoints")
    log_every: int = Field(50, ge=1, description="steps between log lines")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    compile: bool = Field(False, description="compile losses and gradients: faster steps after minutes of compiling")
    n_threads: int = Field(1, ge=1, description="CPU threads; more gain nothing for small molecules and change bits")

    @model_validator(mode="before")
    @classmethod
    def _defaults_that_fit(cls, given: Any) -> Any:
        # The defaults are the recipe. Where one of its two losses is left out, or its weights move, what was not asked
        # for is as published.
        if not isinstance(given, Mapping):
            return given
        asked = {name: given.get(name, field.default) for name, field in cls.model_fields.items()}
        paired = asked["alpha"] != 0 and asked["beta"] != 0 and asked["estimator"] == "paired"
        differ = {
            "beta": not paired or asked["consistency_target"] == "label" or asked["weighting"] != "constant",
            "first_orientation": asked["alpha"] == 0 or asked["estimator"] != "paired",
            "consistency_target": not paired,
            "equivariance_from": not paired or asked["weighting"] != "constant",
        }
        return {name: PUBLISHED[name] for name, published in differ.items() if published} | dict(given)

    @model_validator(mode="after")
    def _some_loss(self) -> TrainConfig:
        if self.alpha == 0 and self.beta == 0:
            raise ValueError("train.alpha and train.beta are both 0, so nothing would be trained; give one > 0")
        if self.consistency_target == "prediction" and (self.alpha == 0 or self.beta == 0):
            raise ValueError(
                "train.consistency_target=prediction compares rotated orientations with the original: alpha, beta > 0"
            )
        if self.unlabelled_batch_size > 0 and self.consistency_target != "prediction":
            raise ValueError(
                f"train.unlabelled_batch_size={self.unlabelled_batch_size} needs train.consistency_target=prediction, "
                f"got {self.consistency_target}: frames without labels can only be held against predictions"
            )
        if self.first_orientation == "random" and self.alpha == 0:
            raise ValueError(
                "train.first_orientation=random has no effect without train.alpha > 0: all are rotated ones"
            )
        if self.warmup_steps >= self.n_steps:
            raise ValueError(
                f"train.warmup_steps ({self.warmup_steps}) must be smaller than train.n_steps ({self.n_steps})"
            )
        return self

    @model_validator(mode="after")
    def _weights_fit(self) -> TrainConfig:
        ramped = self.weighting in ("linear", "cosine")
        self._only_with("beta_start", ramped, "weighting linear or cosine")
        self._only_with("ramp_steps", ramped, "weighting linear or cosine")
        for name in ("gradnorm_exponent", "gradnorm_learning_rate", "gradnorm_loss_floor"):
            self._only_with(name, self.weighting == "gradual", "weighting gradual")
        if self.weighting != "constant" and (self.alpha == 0 or self.beta == 0):
            raise ValueError(
                f"train.weighting={self.weighting} shifts weight between two losses: alpha, beta > 0, "
                f"got {self.alpha:g} and {self.beta:g}"
            )
        if self.compile and self.weighting == "gradual":
            raise ValueError(
                "train.compile=true compiles one gradient of both losses, train.weighting=gradual needs one of each; "
                "choose constant, linear or cosine, or leave train.compile off"
            )
        if ramped and self.ramp_steps is not None and self.ramp_steps > self.n_steps:
            raise ValueError(f"train.ramp_steps ({self.ramp_steps}) is more than train.n_steps ({self.n_steps})")
        if self.estimator == "one-forward":
            self._one_forward()
        return self

    def _one_forward(self) -> None:
        if self.alpha == 0 or self.beta == 0:
            raise ValueError(
                "train.estimator=one-forward draws the orientation of a frame with odds alpha : beta, both > 0, "
                f"got {self.alpha:g} and {self.beta:g}; with one of them 0 the paired estimator has one forward too"
            )
        if self.weighting != "constant":
            raise ValueError(
                f"train.estimator=one-forward needs train.weighting=constant, got {self.weighting}: "
                "the odds of the orientations are fixed"
            )
        if self.first_orientation != "original":
            raise ValueError(
                "train.estimator=one-forward mixes original and rotated ones: train.first_orientation=original, "
                f"got {self.first_orientation}; where all are random, train.alpha=0 has one forward"
            )
        if self.n_rotated != 1 or self.consistency_target != "label":
            raise ValueError(
                "train.estimator=one-forward has one orientation of each frame: train.n_rotated=1 and "
                f"train.consistency_target=label, got {self.n_rotated} and {self.consistency_target}"
            )

    @model_validator(mode="after")
    def _torque_and_late_losses(self) -> TrainConfig:
        if self.torque_weight > 0 and self.forces == "direct":
            raise ValueError(
                f"train.torque_weight={self.torque_weight:g} needs conservative forces, whose net torque is the "
                "derivative of the energy with respect to rotation; got train.forces=direct"
            )
        if self.equivariance_from == 0:
            return self
        if self.alpha == 0 or (self.beta == 0 and self.torque_weight == 0):
            raise ValueError(
                f"train.equivariance_from={self.equivariance_from:g} starts with the loss of alpha alone and adds "
                "those of beta and torque_weight: alpha and one of these > 0, got "
                f"alpha={self.alpha:g}, beta={self.beta:g}, torque_weight={self.torque_weight:g}"
            )
        if self.weighting != "constant" or self.estimator != "paired":
            raise ValueError(
                "train.equivariance_from needs train.weighting=constant and train.estimator=paired, got "
                f"{self.weighting} and {self.estimator}: it switches a loss on, they shift weight between two"
            )
        return self

    @model_validator(mode="after")
    def _raw_directions_alone(self) -> TrainConfig:
        if self.trained == "raw-directions" and (
            self.weight_decay > 0 or self.compile or self.weighting == "gradual" or self.forces == "both"
        ):
            raise ValueError(
                "train.trained=raw-directions leaves all other weights their bits: it needs train.weight_decay=0, one "
                "kind of forces, no train.compile and no train.weighting=gradual"
            )
        return self

    @model_validator(mode="after")
    def _direct_head_alone(self) -> TrainConfig:
        if self.trained != "direct-head":
            return self
        if self.forces != "direct":
            raise ValueError(
                f"train.trained=direct-head trains no other forces: set train.forces=direct, got {self.forces}"
            )
        if self.weighting == "gradual":
            raise ValueError(
                "train.weighting=gradual balances gradients by a matrix that train.trained=direct-head does not train; "
                "choose constant, linear or cosine"
            )
        self._only_with("energy_weight", False, "trained=all: with the direct head alone the energies stay as they are")
        return self

    @model_validator(mode="after")
    def _orientations_fit(self) -> TrainConfig:
        if self.axis is not None:
            check_axis(self.axis)
        return self

    def fine_tunes(self, *, trained_weights: bool) -> bool:
        """Whether `fine_tuning_learning_rate` counts: all weights are trained on, and they come trained."""
        return trained_weights and self.trained == "all"

    def _only_with(self, name: str, used: bool, condition: str) -> None:
        # An option that would be ignored is a mistake; the resolved config of a run names all, at their defaults.
        if not used and getattr(self, name) != type(self).model_fields[name].default:
            raise ValueError(f"train.{name}={getattr(self, name)} has no effect without train.{condition}")


def _model_options(kind: str) -> type[BaseModel]:
    # The model's dataclass is the one place of names and defaults; pydantic only checks types and unknown keys.
    options: dict[str, Any] = {
        field.name: (type(field.default), field.default)
        for field in fields(model_config_type(kind))
        if field.name not in _FROM_DATA and field.default is not MISSING
    }
    # A kind without default stays in a dump without defaults, so runs of two kinds never look alike there.
    options["kind"] = (Literal[kind], kind if kind == _DEFAULT_KIND else ...)
    return create_model(f"{kind.capitalize()}Options", __config__=_STRICT, **options)


def _kind_of(section: Any) -> str:
    if isinstance(section, dict):
        return str(section.get("kind", _DEFAULT_KIND))
    return str(getattr(section, "kind", _DEFAULT_KIND))


_MODEL_OPTIONS = {kind: _model_options(kind) for kind in MODELS}
if TYPE_CHECKING:
    ModelOptions = BaseModel
else:
    # `kind` says which options there are; without it they are the transformer's.
    ModelOptions = Annotated[
        reduce(or_, (Annotated[options, Tag(kind)] for kind, options in _MODEL_OPTIONS.items())),
        Discriminator(_kind_of),
    ]


def model_section(kind: str, values: Mapping[str, Any]) -> BaseModel:
    """The section `model` of a config, from the sizes of a model of this kind; what the data decide is left out."""
    options = _MODEL_OPTIONS[kind]
    return options(kind=kind, **{name: value for name, value in values.items() if name in options.model_fields})


class RunConfig(BaseModel):
    """Everything that decides a training run."""

    model_config = _STRICT

    data: DataConfig = DataConfig()
    model: ModelOptions = _MODEL_OPTIONS[_DEFAULT_KIND]()
    pretrain: PretrainConfig = PretrainConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="before")
    @classmethod
    def _kind_of_no_symmetry(cls, given: Any) -> Any:
        section = given.get("model") if isinstance(given, Mapping) else None
        if isinstance(section, Mapping) and section.get("symmetry") == "none" and "kind" not in section:
            return {**given, "model": {**section, "kind": _PLAIN}}
        return given

    @model_validator(mode="after")
    def _pretraining_is_possible(self) -> RunConfig:
        if self.pretrain.method is not None:
            self.pretrain.stage_of(self.train)
        return self

    @model_validator(mode="after")
    def _model_ranges(self) -> RunConfig:
        # The dataclass checks its own ranges; the species of the data do not matter for them.
        options = self.model.model_dump()
        model_config_type(options.pop("kind"))(species=(1,), **options)
        return self

    @model_validator(mode="after")
    def _unlabelled_frames_and_their_number(self) -> RunConfig:
        source, size = self.data.unlabelled, self.train.unlabelled_batch_size
        if (source is not None) != (size > 0):
            raise ValueError(
                "data.unlabelled says which frames without labels and train.unlabelled_batch_size how many a step: "
                f"give both or none, got {source} and {size}"
            )
        return self


def load_config(path: str | Path | None, *, overrides: Sequence[str] = ()) -> RunConfig:
    """The options of a run from a YAML file (or a shipped preset's name) and `section.key=value` overrides.

    Args:
        path: file, name of a shipped preset, or None for the defaults.
        overrides: such as `train.beta=0.5`; values are YAML.
    Raises:
        InputError: missing file, broken YAML, unknown key (with the nearest known one), a value out of range,
            options that exclude each other.
    """
    values: dict[str, Any] = {} if path is None else read_yaml(config_path(path))
    for override in overrides:
        apply_override(values, override)
    return validated_config(values, origin="the config" if path is None else str(path))


def validated_config(values: dict[str, Any], *, origin: str) -> RunConfig:
    """`RunConfig` from plain values, with messages a user can act on."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{origin}: " + "; ".join(_explain(entry) for entry in error.errors())) from error


def dump_config(config: RunConfig, *, changed_only: bool = False) -> str:
    """The resolved options as YAML; `changed_only` leaves out those at their defaults."""
    return yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=changed_only), sort_keys=False)


def _explain(entry: Any) -> str:
    where = [str(part) for part in entry["loc"]]
    kind = where.pop(1) if where[:1] == ["model"] and len(where) > 1 else None  # the tag of the union, no key
    name = ".".join(where)
    if entry["type"] == "union_tag_invalid":
        kinds = " or ".join(repr(known) for known in MODELS)
        return f"{name}.kind: Input should be {kinds}, got {entry['input']['kind']!r}"
    if entry["type"] == "extra_forbidden":
        known = list(_MODEL_OPTIONS[kind].model_fields) if kind is not None else _known_keys(where[:-1])
        near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.0)
        of_kind = "" if kind in (None, _DEFAULT_KIND) else f" to model.kind={kind}"
        return f"unknown key {name}{of_kind}; did you mean {'.'.join([*where[:-1], *near])}? Known: {', '.join(known)}"
    message = str(entry["msg"]).removeprefix("Value error, ")
    return message if entry["type"] == "value_error" else f"{name}: {message}, got {entry['input']!r}"


def _known_keys(section: list[str]) -> list[str]:
    model: Any = RunConfig
    for part in section:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
