"""The README says what was measured, and names commands that exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from typer.main import get_command

from remul_md.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_table_is_made_from_the_results() -> None:
    specification = importlib.util.spec_from_file_location("readme_table", ROOT / "benchmarks" / "readme_table.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert module.BEGIN in README
    assert module.with_table(README) == README, "run `python benchmarks/readme_table.py --write`"


def test_every_command_in_the_readme_exists() -> None:
    commands = set(re.findall(r"remul-md ([a-z-]+)", README))
    assert {"train", "evaluate", "md", "analyze", "data"} <= commands
    assert commands <= set(get_command(app).commands)  # type: ignore[attr-defined]


def test_every_link_into_the_repository_exists() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
