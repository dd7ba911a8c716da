"""Flags, --set and the YAML file of a command all mean the options of one class, and the nearer word wins."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from potentials import ethanol_potential
from typer.main import get_command

from remul_md import InputError, MDOptions
from remul_md.cli.app import app
from remul_md.cli.config_flags import options_of
from remul_md.cli.md import FLAGS
from remul_md.labels.sampling_options import Sampling

Run = Callable[..., tuple[int, str, str]]


def options(file: Path | None = None, *overrides: str, **given: object) -> MDOptions:
    return options_of(MDOptions, "md", file=file, overrides=overrides, given=given)


def test_the_nearer_word_wins(tmp_path: Path) -> None:
    file = tmp_path / "hot.yaml"
    file.write_text("md:\n  temperature_K: 500\n  friction_per_ps: 5\n  log_interval: 7\n")
    found = options(file, "md.friction_per_ps=20", "md.seed=3", seed=4, length_ps=None, temperature_K=None)
    assert (found.temperature_K, found.friction_per_ps, found.log_interval, found.seed) == (500, 20, 7, 4)
    assert found.length_ps == MDOptions().length_ps
    assert options() == MDOptions()


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (
            "md: {temperatur_K: 300}",
            [],
            r"did you mean md\.temperature_K\?",
        ),
        ("train: {seed: 1}", [], "section 'train' .*md.KEY"),
        ("- 1", [], r"\(md\), found a list"),
        ("md: {seed: 1}", ["seed=2"], r"SECTION\.KEY=VALUE .*got 'seed=2'"),
        ("md: {timestep_fs: -1}", [], "timestep_fs .*got -1"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    file = tmp_path / "md.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        options(file, *overrides)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config '.*none\.yaml' cannot be read"):
        options(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("command", "config", "flags"),
    [("md", MDOptions, FLAGS), ("distill", Sampling, [field.name for field in fields(Sampling)])],
)
def test_every_flag_is_an_option_of_the_class_with_its_default_in_the_help(
    command: str, config: type, flags: list[str]
) -> None:
    parameters = {each.name: each for each in get_command(app).commands[command].params}  # type: ignore[attr-defined]
    of_class = {field.name: field for field in fields(config)}
    for name in flags:
        assert parameters[name].opts == [f"--{name.replace('_', '-')}"]
        default = of_class[name].default
        assert default is None or f"({default})" in parameters[name].help
    assert not (of_class.keys() - set(flags)) & parameters.keys()


def test_the_command_takes_all_three(cli: Run, tmp_path: Path) -> None:
    potential = ethanol_potential(tmp_path / "both.pt", trained_forces="both")
    file = tmp_path / "md.yaml"
    file.write_text("md: {temperature_K: 50, timestep_fs: 0.1, length_ps: 0.002, equilibrate_ps: 0.001}")
    command = ["md", potential, "--structure", "ethanol", "--output", tmp_path / "run.traj", "--config", file]
    code, _, err = cli(*command, "--set", "md.log_interval=5", "--seed", "6")
    assert code == 0, err
    made = json.loads((tmp_path / "run.json").read_text())["options"]
    assert {"temperature_K": 50, "log_interval": 5, "seed": 6, "length_ps": 0.002}.items() <= made.items()
