"""What every study is asked, and the names that it may be asked by."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from remul_md.errors import InputError

Budget = Literal["steps", "time"]
Names = Annotated[tuple[str, ...], Field(min_length=1)]
# What decides which runs there are, but not the numbers of one: a study that has begun can be extended by them.
LISTS = ("cases", "models", "methods", "seeds", "budgets")


class StudyOptions(BaseModel):
    """What every study is asked; a task adds its own options and gives all of them defaults, its default size."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    cases: Names = Field(description="data sets of the task")
    models: Names = Field(description="networks")
    methods: Names = Field(description="ways of training")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="of weights, orientations and drawn data")
    budgets: tuple[Budget, ...] = Field(("steps",), min_length=1, description="equal steps; equal computing time")
    n_steps: int = Field(ge=10, description="optimiser steps at equal steps, and of the reference at equal time")
    device: str = Field("cpu", description="cpu, cuda or cuda:N")

    @field_validator("cases", mode="before")
    @classmethod
    def _numbers_are_names(cls, given: Any) -> Any:
        return [str(each) for each in given] if isinstance(given, list) else given  # YAML reads [200] as a number

    @property
    def decisive(self) -> dict[str, Any]:
        """The options that decide a run's numbers, JSON-able."""
        return self.model_dump(mode="json", exclude=set(LISTS))


M = TypeVar("M", bound=StudyOptions)


def check_names(names: Iterable[str], known: Iterable[str], *, kind: str) -> None:
    """Refuse names that are not known.

    Raises:
        InputError: an unknown name, with the nearest known one.
    """
    listed = list(known)
    for name in names:
        if name not in listed:
            near = difflib.get_close_matches(name, listed, n=1, cutoff=0.0)[0]
            raise InputError(f"{kind} {name!r} is unknown; did you mean {near}? Known: {', '.join(listed)}")
