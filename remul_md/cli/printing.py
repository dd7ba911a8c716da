"""What commands print: tables, and the line that says why a command failed."""

from __future__ import annotations

from typing import NoReturn

import typer


def print_table(title: str, rows: list[tuple[str, str]]) -> None:
    """A title, and a line of name and value for each row."""
    typer.echo(f"\n{title}")
    width = max(len(name) for name, _ in rows) if rows else 0
    for name, value in rows:
        typer.echo(f"  {name:{width}}  {value}")


def fail(message: str, *, code: int) -> NoReturn:
    """One line on stderr, and the end with this exit code."""
    typer.echo(f"error: {message}", err=True)
    raise SystemExit(code)
