"""Options of a command that are those of a config class: from a YAML file, from --set, as flags made from the class.

What an option is called, its default and what it means stand in the class alone. A flag wins over --set, --set over the
file, the file over the defaults.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer

from remul_md.errors import InputError

C = TypeVar("C")
Command = Callable[..., None]


def flags_of(config: type[Any], names: Sequence[str]) -> Callable[[Command], Command]:
    """Give a command a flag for each of these options of a config class; `**given` gets the values.

    They come after --set, in a command without it at the end.

    Args:
        config: the class, a dataclass whose fields have `metadata["help"]`.
        names: its commonest options; the others are for --set and the file.
    """

    def decorate(command: Command) -> Command:
        hints = get_type_hints(config)
        of_class = {field.name: field for field in fields(config)}
        signature = inspect.signature(command, eval_str=True)
        own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        flags = []
        for name in names:
            default = of_class[name].default
            told = of_class[name].metadata["help"].rstrip(".") + ("." if default is None else f" ({default}).")
            help_text = told[:1].upper() + told[1:]
            option = typer.Option(f"--{name.replace('_', '-')}", help=help_text, show_default=False)
            annotation: Any = Annotated[_plain(hints[name]) | None, option]
            flags.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
        place = next((number for number, each in enumerate(own, 1) if each.name == "set_"), len(own))
        parameters = [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own[:place], *flags, *own[place:])
        ]
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def options_of(
    config: type[C],
    section: str,
    *,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    given: Mapping[str, Any],
) -> C:
    """An instance of the class.

    Args:
        config: a dataclass that checks its own ranges.
        section: of the YAML file, and what stands before the dot of an override.
        file: holds `section: {option: value}`.
        overrides: such as md.friction_per_ps=20.
        given: flags by name; those that are None were not given.
    Raises:
        InputError: a file that cannot be read, an unknown section or option (with the nearest known one), a value out
            of range.
    """
    from remul_md.training.sections import apply_override, read_yaml

    values: dict[str, Any] = {} if file is None else read_yaml(file, sections=(section,))
    for override in overrides:
        apply_override(values, override, example=f"{section}.seed=1")
    if unknown := sorted(set(values) - {section}):
        raise InputError(f"section {unknown[0]!r} is unknown here; the options of this command are {section}.KEY")
    chosen = dict(values.get(section) or {})
    known = [field.name for field in fields(config)]  # type: ignore[arg-type]
    for name in chosen:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise InputError(f"unknown key {section}.{name}; did you mean {section}.{near}? Known: {', '.join(known)}")
    return config(**chosen | {name: value for name, value in given.items() if value is not None})


def file_flags(command: Command) -> Command:
    """Give a command that reads data files the flags of `FileOptions`; `**given` gets the values."""
    from remul_md.datasets.file_options import HELP, FileOptions

    return flags_of(FileOptions, list(HELP))(command)


def _plain(hint: Any) -> Any:
    """The type that a command line has for the type of a field: a choice of words is a word."""
    if isinstance(hint, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    return str if get_origin(hint) is Literal else hint
