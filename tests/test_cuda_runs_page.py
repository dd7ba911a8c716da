"""docs/cuda-runs.md: its commands exist and their options are known, although nobody here can run them."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from remul_md.cli.app import app
from remul_md.training.config import load_config

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "cuda-runs.md").read_text()
APP: Any = get_command(app)
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
    for line in re.findall(r"^\$ (.*(?:\\\n.*)*)", block.replace("\\\n", " "), flags=re.MULTILINE)
]


def test_the_page_has_commands_of_every_kind() -> None:
    kinds = {words[0] for words in COMMANDS}
    assert {"make", "remul-md", "python"} <= kinds
    assert len(COMMANDS) > 12


@pytest.mark.parametrize("words", [w for w in COMMANDS if w[0] == "remul-md"], ids=" ".join)
def test_commands_of_the_package_parse(words: list[str]) -> None:
    command, arguments = APP, words[1:]
    while hasattr(command, "commands"):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    parsed = command.make_context(words[1], arguments)  # refuses what it does not know
    chosen = parsed.params.get("set_") or []
    if words[1] == "train":
        assert load_config(words[2], overrides=chosen).train.device == "cuda"


@pytest.mark.parametrize("words", [w for w in COMMANDS if w[0] == "python"], ids=" ".join)
def test_options_of_benchmarks_are_known(words: list[str]) -> None:
    script = ROOT / words[1]
    texts = [node.value for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Constant)]
    for word in words[2:]:
        assert not word.startswith("--") or word in texts, f"{words[1]} has no option {word}"
    overrides = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    if overrides:
        load_config("ethanol", overrides=overrides)


@pytest.mark.parametrize("words", [w for w in COMMANDS if w[0] == "make"], ids=" ".join)
def test_targets_and_variables_are_in_the_makefile(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{words[1]}:", makefile, flags=re.MULTILINE)
    for word in words[2:]:
        assert f"$({word.partition('=')[0]})" in makefile
        if word.startswith("DISTILL="):
            APP.commands["distill"].make_context(
                "distill", ["ethanol", "--run-dir", "RUN", *shlex.split(word.partition("=")[2])]
            )


def test_every_file_and_part_on_the_page_is_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    from_script = re.findall(
        r'^    "(\w+)": \(0\.\d+,', (ROOT / "benchmarks/cuda_check.py").read_text(), flags=re.MULTILINE
    )
    assert re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE) == from_script
    assert len(from_script) == 5
