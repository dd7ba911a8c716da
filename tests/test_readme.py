"""The README says what was measured, and names commands that exist."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from remul_md.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_tables_are_made_from_the_results() -> None:
    specification = importlib.util.spec_from_file_location("readme_table", ROOT / "benchmarks" / "readme_table.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert set(module.TABLES) == {"README.md", "docs/symmetry.md"}
    for name in module.TABLES:
        text = (ROOT / name).read_text()
        assert module.BEGIN in text
        assert module.with_table(text, name) == text, "run `python benchmarks/readme_table.py --write`"


def test_every_command_in_the_readme_exists() -> None:
    commands = set(re.findall(r"remul-md ([a-z-]+)", README))
    assert {"train", "evaluate", "md", "analyze", "data"} <= commands
    assert commands <= set(get_command(app).commands)  # type: ignore[attr-defined]


def test_every_link_into_the_repository_exists() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.slow
def test_the_first_python_block_runs_as_it_stands(tmp_path: Path) -> None:
    """In an empty folder, without a warning, and it ends in printed numbers."""
    block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", block],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    energies = [float(line.split()[-2]) for line in done.stdout.splitlines()]
    assert len(energies) == 4
    assert all(-4210.5 < energy < -4208.5 for energy in energies)
    assert max(energies) - min(energies) < 0.01  # eV, NVE
    assert not list(tmp_path.iterdir())


def test_the_first_screen_says_what_a_user_must_know() -> None:
    screen = "\n".join(README.splitlines()[:60])
    told = {"PBE/def2-SVP", "source .venv/bin/activate", "alpha = 0", 'symmetry="exact"', "make demo", "make test"}
    assert not {needed for needed in told if needed not in screen}
