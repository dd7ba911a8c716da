"""The options of a study from a preset and `--set KEY=VALUE`, with messages a user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from remul_md.errors import InputError

M = TypeVar("M", bound=BaseModel)


def study_config(
    model: type[M], presets: Mapping[str, Mapping[str, Any]], preset: str, *, overrides: Sequence[str] = ()
) -> M:
    """Options of a study from one of its presets and `key=value` overrides (values are YAML).

    Raises:
        InputError: unknown preset or key (with the nearest known one), or a value out of range.
    """
    if preset not in presets:
        raise InputError(f"preset {preset!r} is unknown; choose one of {', '.join(presets)}")
    values = dict(presets[preset])
    known = list(model.model_fields)
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            raise InputError(f"--set takes KEY=VALUE such as n_steps=2000, got {override!r}")
        if key not in known:
            raise InputError(f"unknown key {key}; did you mean {nearest(key, known)}? Known: {', '.join(known)}")
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"--set {override!r}: the value is not valid YAML") from error
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError("the options of the study: " + "; ".join(_explain(e) for e in error.errors())) from error


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like `name`."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]


def check_names(names: Iterable[str], known: Iterable[str], *, kind: str) -> None:
    """Refuse names that are not known, for validators.

    Raises:
        ValueError: an unknown name, with the nearest known one.
    """
    listed = list(known)
    for name in names:
        if name not in listed:
            raise ValueError(
                f"{kind} {name!r} is unknown; did you mean {nearest(name, listed)}? Known: {', '.join(listed)}"
            )


def check_distinct(config: BaseModel, names: Sequence[str]) -> None:
    """Refuse lists of options that name something twice, for validators.

    Raises:
        ValueError: a value stands twice in one of the options `names`.
    """
    for name in names:
        values = getattr(config, name)
        if len(set(values)) < len(values):
            raise ValueError(f"{name} names something twice: {values}; give each once")


def _explain(entry: Any) -> str:
    message = str(entry["msg"]).removeprefix("Value error, ")
    where = ".".join(str(part) for part in entry["loc"][:1])
    return message if entry["type"] == "value_error" else f"{where}: {message}, got {entry['input']!r}"
