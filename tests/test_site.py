"""The site without Sphinx, which `make docs` runs: pages, links, pictures, and every command of README and how-tos."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import remul_md
from remul_md.cli.app import app
from remul_md.cli.compare import Target
from remul_md.cli.config_flags import options_of
from remul_md.cli.options import chosen_axis
from remul_md.dynamics.options import MDOptions
from remul_md.labels.sampling_options import Sampling
from remul_md.training.config import load_config
from remul_md.training.improve_config import ImproveOptions

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("howto/*.md"), *DOCS.glob("papers/*.md")])
HOWTO = sorted(DOCS.glob("howto/*.md"))
COMMANDS: Any = get_command(app)
Run = Callable[..., tuple[int, str, str]]


def console_lines(page: Path) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), flags=re.DOTALL)
    return [
        line[2:].split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("$ ")
    ]


def package_lines(page: Path) -> list[str]:
    return [line for line in console_lines(page) if line.startswith("remul-md ")]


def test_every_page_stands_in_one_list_of_contents() -> None:
    listed = [
        entry.strip()
        for page in PAGES
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), flags=re.DOTALL)
        for entry in tree.splitlines()
        if entry.strip() and not entry.startswith(":")
    ]
    assert listed.count("reference/*") == 1
    assert sorted([*listed, "index"]) == sorted(
        [*(str(page.relative_to(DOCS).with_suffix("")) for page in PAGES), "reference/*"]
    )
    assert len(HOWTO) == 8


def headings(page: Path) -> set[str]:
    """Link targets as GitHub and the site make them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#{1,4} (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_and_pictures_are_there(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", re.sub(r"```(?!\{).*?```", "", page.read_text(), flags=re.DOTALL))
    for target, _, part in re.findall(r"\]\((?!https?:)([^)#\s]*)(#([^)\s]*))?\)", text):
        other = page if not target else page.parent / target
        assert other.exists(), f"{page.name}: {target}"
        if part:
            assert part in headings(other), f"{page.name}: {target}#{part}"
    for target in re.findall(r"\{literalinclude\} (\S+)", text):
        assert (page.parent / target).is_file(), target


def test_the_gallery_has_every_example() -> None:
    shown = set(re.findall(r"examples/(\w+\.(?:py|ipynb))", (DOCS / "gallery.md").read_text()))
    assert shown == {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".ipynb")}


def test_the_reference_has_every_public_name() -> None:
    named = set(re.findall(r":: remul_md\.(\w+)", (DOCS / "api.md").read_text())) | {"__version__", "mdanalysis"}
    assert named == set(remul_md.__all__)


def checked(line: str) -> None:
    """Parse a line as the program would, and check its options as its command does before it reads anything."""
    words = shlex.split(line)[1:]
    command, name = COMMANDS, ""
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    given = command.make_context(name, words).params
    chosen = given.get("set_") or []
    if name == "train":
        named = f"data.molecule={given['molecule']}" if given["molecule"] else "train.seed=0"
        load_config(None, overrides=[named, *chosen])
    options: dict[str, tuple[Any, str]] = {
        "md": (MDOptions, "md"), "distill": (Sampling, "sampling"), "improve": (ImproveOptions, "improve")
    }  # fmt: skip
    if name in options:
        config, section = options[name]
        known = {field.name for field in fields(config)}
        own = [each for each in chosen if each.startswith(f"{section}.")]
        options_of(config, section, overrides=own, given={key: given[key] for key in known & set(given)})
        load_config(None, overrides=[each for each in chosen if each not in own])
    if name == "compare":
        assert len([Target.of(word) for word in given["targets"]]) >= 2
    chosen_axis(given.get("axis"))


@pytest.mark.parametrize("page", [ROOT / "README.md", *HOWTO], ids=lambda page: page.stem)
def test_every_command_of_a_page_parses(page: Path) -> None:
    lines = package_lines(page)
    assert len(lines) >= 2
    for line in lines:
        for one in [line] if " | " not in line else ["remul-md data list"]:  # `data list | fetch NAME` tells of three
            checked(one)


def test_a_wrong_line_would_be_found() -> None:
    for line in (
        "remul-md md ethanol --structure ethanol --output a.traj --ensemble nvt",
        "remul-md train --molecule ethanol --run-dir RUN --set train.gamma=1",
        "remul-md compare ethanol@upright ethanol --report a.html",
        "remul-md evaluate ethanol rmd17/ethanol/test-01 --axis up",
    ):
        with pytest.raises(remul_md.InputError):
            checked(line)


@pytest.mark.slow
def test_cheap_commands_run(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames of the first how-to are made as it says, and read; a field and a dial are measured on few draws."""
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "howto" / "my-own-molecule.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-c", block], cwd=tmp_path, check=True)
    (shown,) = (line for line in package_lines(DOCS / "howto" / "my-own-molecule.md") if " data show " in line)
    code, out, err = cli(*shlex.split(shown)[1:])
    assert code == 0, err
    assert "300" in out
    (field,) = (line for line in package_lines(DOCS / "howto" / "a-field.md") if " evaluate " in line)
    words = [str(ROOT / word) if (ROOT / word).is_file() else word for word in shlex.split(field)[1:]]
    code, out, err = cli(*words, "--n-draws", "2")
    assert code == 0, err
    assert "about" in out
