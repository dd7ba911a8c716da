"""The README says what was measured, and names commands that exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import readme_table
from typer.main import get_command

from remul_md.cli.app import app
from remul_md.training.config import load_config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_tables_are_made_from_the_results() -> None:
    pages = {"README.md", *(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))}
    marked = {page for page in pages if readme_table.MARK.search((ROOT / page).read_text())}
    assert marked == set(readme_table.TABLES)
    for page, of_page in readme_table.TABLES.items():
        text = (ROOT / page).read_text()
        assert readme_table.with_tables(text, of_page) == text, "run `python benchmarks/readme_table.py --write`"
    made = [table() for of_page in readme_table.TABLES.values() for table in of_page.values()]
    assert len(set(made)) == len(made)  # one table is never taken for another


def test_a_table_stands_in_its_own_marks() -> None:
    own: dict[str, Callable[[], str]] = {"loads": lambda: "| 1 |", "spreads": lambda: "| 2 |"}
    page = "a\n{0}\nold\n{1}\nb\n{2}\n{3}\nc\n"
    marks = [f"<!-- measured: {name} {edge} -->" for name in own for edge in ("begin", "end")]
    written = readme_table.with_tables(page.format(*marks), own)
    assert written == "a\n{}\n| 1 |\n{}\nb\n{}\n| 2 |\n{}\nc\n".format(*marks)
    assert readme_table.with_tables(written, own) == written
    nameless = [re.sub("loads |spreads ", "", mark) for mark in marks]
    unknown = [mark.replace("loads", "laods") for mark in marks]
    for wrong in (nameless, unknown, [*marks[2:], *marks[:2]], [*marks[:2], *marks[:2]], [marks[0], *marks[:0:-1]]):
        with pytest.raises(ValueError, match="the page has the marks"):
            readme_table.with_tables(page.format(*wrong), own)


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


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_config_for_own_frames_is_complete(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    assert len(text.splitlines()) == 6
    path = tmp_path / "my.yaml"
    path.write_text(text)
    config = load_config(path)
    assert config.data.source == "frames.extxyz"
    assert config.data.n_train + config.data.n_validation == 1000


def test_a_stranger_runs_the_lines_of_the_first_screen_in_their_order() -> None:
    """`tests/stranger.sh` copies them: as they stand, and in short form with shorter options behind them."""
    script = ROOT / "tests" / "stranger.sh"
    install, lines = (
        [line[2:].split("  #")[0].strip() for line in block.splitlines()] for block in blocks("console")[:2]
    )
    assert install == ["make install", "source .venv/bin/activate"]
    assert len(lines) == 5
    said = {}
    for form in ("", "1"):
        environment = {**os.environ, "DRY": "1", "FULL": form, "INSTALLED": ""}
        done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=True)
        said[form] = done.stdout.splitlines()
        assert said[form][:2] == install
        assert blocks("python")[0].splitlines()[0] in said[form][2]
    assert said["1"][3:] == lines
    assert all(short.startswith(line) for short, line in zip(said[""][3:], lines, strict=True))
    main = get_command(app)
    for line in (*said["1"][3:], *said[""][3:]):
        program, name, *options = shlex.split(line)
        assert program == "remul-md"
        command = main.commands[name]  # type: ignore[attr-defined]
        command.make_context(name, options)  # names of options and their number of values


def test_remul_is_spelled_out_once_and_the_install_has_its_size() -> None:
    assert README.count("Relaxed Equivariance via Multitask Learning") == 1
    assert re.search(r"\d+ packages, [\d.]+ GB, of which torch", README)


def test_the_first_screen_says_what_a_user_must_know() -> None:
    screen = "\n".join(README.splitlines()[:75])
    told = {"PBE/def2-SVP", "source .venv/bin/activate", "alpha = 0", 'symmetry="exact"', "make demo", "make test"}
    assert not {needed for needed in told if needed not in screen}
