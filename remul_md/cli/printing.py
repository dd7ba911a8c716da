"""What commands print and write: tables, verdicts, the file of --json, and the line that says why a command failed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from remul_md.analysis.verdicts import Verdict


def command_line(*words: str | Path) -> str:
    """A command of this package to be pasted into a shell, whatever is in the names."""
    return shlex.join(["remul-md", *map(str, words)])


def print_table(title: str, rows: list[tuple[str, str]]) -> None:
    """A title, and a line of name and value for each row."""
    typer.echo(f"\n{title}")
    width = max(len(name) for name, _ in rows) if rows else 0
    for name, value in rows:
        typer.echo(f"  {name:{width}}  {value}")


def verdict_line(verdict: Verdict) -> str:
    """A verdict without its name: the word, the number with its limit, the reason."""
    word = {"passed": "yes", "failed": "NO", "undecided": "undecided", "not applicable": "-"}[verdict.outcome]
    return " ".join(part for part in (f"{word:9}", verdict.measured, verdict.why) if part)


def print_verdicts(verdicts: Iterable[Verdict]) -> None:
    """A line for each."""
    for verdict in verdicts:
        typer.echo(f"  {verdict.name}: {verdict_line(verdict)}")


def write_figures(path: Path | None, content: dict[str, Any]) -> None:
    """The file of --json, if there is to be one, which says what made it."""
    if path is None:
        return
    from remul_md.outputs import write_figures as write

    write(path, content)
    typer.echo(f"wrote {path}")


def fail(message: str, *, code: int) -> NoReturn:
    """One line on stderr, and the end with this exit code."""
    typer.echo(f"error: {message}", err=True)
    raise SystemExit(code)
