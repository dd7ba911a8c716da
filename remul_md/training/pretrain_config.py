"""The options of pretraining: training on many cheap labels before training on the few good ones."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from remul_md.labels.sources import XTB

T = TypeVar("T", bound=BaseModel)


class PretrainConfig(BaseModel):
    """Which labels a potential is trained on before the data, how many, and for how long."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: str | None = Field(None, description="xtb (GFN2-xTB), or MODULE:FACTORY of an ASE calculator; null: none")
    n_labels: int = Field(20_000, ge=20, description="geometries sampled around the training frames and labelled")
    n_steps: int | None = Field(None, ge=1, description="optimiser steps on them; default: train.n_steps")
    temperature_K: float = Field(700.0, gt=0, description="of the dynamics that samples them")
    seed: int = Field(0, ge=0, description="of the geometries; weights and order have train.seed")

    @model_validator(mode="after")
    def _method_and_its_options(self) -> PretrainConfig:
        if self.method is None:
            # An option that would be ignored is a mistake; the resolved config of a run names all, at their defaults.
            for name, field in type(self).model_fields.items():
                if getattr(self, name) != field.default:
                    raise ValueError(f"pretrain.{name}={getattr(self, name)} has no effect without pretrain.method")
        elif self.method != XTB and not all(self.method.partition(":")):
            raise ValueError(
                f"pretrain.method={self.method} is unknown; use {XTB}, or MODULE:FACTORY of an ASE calculator such as "
                "ase.calculators.emt:EMT"
            )
        return self

    @property
    def n_validation(self) -> int:
        """Labels that choose the weights of the pretraining and are not trained on."""
        return min(100, self.n_labels // 20)

    def stage_of(self, train: T) -> T:
        """The options `train` for the steps on cheap labels.

        Raises:
            ValueError: they do not go together with `n_steps`.
        """
        # Frames without labels belong to the data: among cheap labels there is no lack of geometries.
        values = train.model_dump() | {"unlabelled_batch_size": 0}
        values |= {} if self.n_steps is None else {"n_steps": self.n_steps}
        try:
            return type(train).model_validate(values)
        except ValidationError as error:
            reasons = "; ".join(str(entry["msg"]).removeprefix("Value error, ") for entry in error.errors())
            raise ValueError(f"pretraining with pretrain.n_steps={self.n_steps} is not possible: {reasons}") from error
