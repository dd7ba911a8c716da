"""The options of a study from a named size and `--set KEY=VALUE`, with messages a user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from remul_md.errors import InputError

Budget = Literal["steps", "time"]
# What decides which runs there are, but not the numbers of one: a study that has begun can be extended by them.
LISTS = ("cases", "models", "methods", "seeds", "budgets")


class StudyOptions(BaseModel):
    """What every study is asked; a task adds its own options and gives all of them defaults, its default size."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    cases: tuple[str, ...] = Field(min_length=1, description="data sets of the task")
    models: tuple[str, ...] = Field(min_length=1, description="networks")
    methods: tuple[str, ...] = Field(min_length=1, description="ways of training")
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


def sized_options(
    model: type[M],
    sizes: Mapping[str, Mapping[str, Any]],
    size: str,
    *,
    overrides: Sequence[str] = (),
    known: Mapping[str, Iterable[str]] | None = None,
) -> M:
    """Options of a study from one of its sizes and `key=value` overrides (values are YAML).

    Args:
        model: the options of the task.
        sizes: name -> the options in which the size differs from the defaults.
        size: a key of it.
        overrides: such as `n_steps=2000`.
        known: option -> the names that it may hold.
    Raises:
        InputError: unknown size, key or name (with the nearest known one), one that is given twice, or a value out of
            range.
    """
    check_names([size], sizes, kind="size")
    values = dict(sizes[size])
    keys = list(model.model_fields)
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            raise InputError(f"--set takes KEY=VALUE such as n_steps=2000, got {override!r}")
        if key not in keys:
            raise InputError(f"unknown key {key}; did you mean {nearest(key, keys)}? Known: {', '.join(keys)}")
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"--set {override!r}: the value is not valid YAML") from error
    try:
        options = model.model_validate(values)
    except ValidationError as error:
        raise InputError("the options of the study: " + "; ".join(_explain(e) for e in error.errors())) from error
    for name, names in (known or {}).items():
        check_names(getattr(options, name), names, kind=name.removesuffix("s"))
    for name in LISTS:
        given = getattr(options, name)
        if len(set(given)) < len(given):
            raise InputError(f"{name} names something twice: {', '.join(map(str, given))}; give each once")
    return options


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like `name`."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]


def check_names(names: Iterable[str], known: Iterable[str], *, kind: str) -> None:
    """Refuse names that are not known.

    Raises:
        InputError: an unknown name, with the nearest known one.
    """
    listed = list(known)
    for name in names:
        if name not in listed:
            raise InputError(
                f"{kind} {name!r} is unknown; did you mean {nearest(name, listed)}? Known: {', '.join(listed)}"
            )


def _explain(entry: Any) -> str:
    message = str(entry["msg"]).removeprefix("Value error, ")
    where = ".".join(str(part) for part in entry["loc"][:1])
    return message if entry["type"] == "value_error" else f"{where}: {message}, got {entry['input']!r}"
