"""Names and units of a file: one class for every command, and a potential's record as the default."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from potentials import untrained_potential
from typer.main import get_command

from remul_md.cli.app import app
from remul_md.datasets import read_frames
from remul_md.datasets.file_options import HELP, FileOptions
from remul_md.datasets.read import recorded_options
from remul_md.errors import InputError
from remul_md.potentials.potential import load_potential
from remul_md.training.config import DataConfig, load_config

Run = Callable[..., tuple[int, str, str]]
KCAL = 0.0433641039  # eV, of ase.units; another sixth digit shifts energies of ethanol by 1 meV
RECORD = {"energy_key": "REF_energy", "forces_key": "REF_forces", "energy_unit": "kcal/mol"}


def written(path: Path, *, keys: tuple[str, str] = ("REF_energy", "REF_forces"), unit: float = KCAL) -> Path:
    """Six frames of ethanol with labels of these names, in kcal/mol."""
    frames = read_frames("rmd17/ethanol/test-01").select(range(6))
    assert frames.energy is not None
    assert frames.forces is not None
    structures = []
    for index in range(6):
        atoms = frames.atoms(index)
        atoms.info[keys[0]] = frames.energy[index] / unit
        atoms.arrays[keys[1]] = frames.forces[9 * index : 9 * index + 9] / unit
        structures.append(atoms)
    ase.io.write(path, structures, format="extxyz")
    return path


def potential(path: Path, *, record: dict[str, str], trained_on: str = "ref.extxyz") -> Path:
    frames = read_frames("rmd17/ethanol/train-01").select(range(0, 40, 8))
    made = untrained_potential(frames, trained_forces="conservative", seed=3)
    config = {"data": {**dict.fromkeys(HELP), **record}}
    replace(made, provenance=replace(made.provenance, config=config, data={"name": trained_on})).save(path)
    return path


def test_the_factor_of_kcal_is_that_of_ase() -> None:
    from remul_md.datasets.units import energy_factor

    assert energy_factor("kcal/mol") == pytest.approx(KCAL, abs=1e-12)


def test_one_class_says_it_everywhere() -> None:
    """`read_frames`, `data:` of a config and the flags of every command that reads labels."""
    names = {field.name for field in fields(FileOptions)}
    assert names <= set(inspect.signature(read_frames).parameters)
    for name in names:
        assert DataConfig.model_fields[name].description == HELP[name]
    commands: Any = get_command(app)
    for words in (("evaluate",), ("compare",), ("label",), ("data", "show")):
        command = commands
        for word in words:
            command = command.commands[word]
        assert names <= {option.name for option in command.params}, words


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"energy_unit": "furlong"}, "energy unit 'furlong'"),
        ({"force_unit": "eV"}, "force unit 'eV'"),
        ({"length_unit": 3}, "length unit .*got 3"),
        ({"energy_key": ""}, "energy_key .*got ''"),
        ({"forces_key": 3}, "forces_key .*got 3"),
    ],
)
def test_options_are_checked_before_a_file_is_opened(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FileOptions(**given)


def test_a_config_with_an_unknown_unit_is_refused_before_data_are_read() -> None:
    with pytest.raises(InputError, match="energy unit 'furlong'"):
        load_config(None, overrides=["data.source=no-such-file.xyz", "data.energy_unit=furlong"])


def test_what_the_record_of_a_potential_adds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ref = written(tmp_path / "ref.extxyz")
    plain = written(tmp_path / "plain.extxyz", keys=("energy", "force"))

    def chosen(
        path: Path | str, *, record: dict[str, str] = RECORD, trained_on: str = "train.xyz", **given: str
    ) -> Any:
        return recorded_options(path, FileOptions(**given), record=record, trained_on=trained_on).given

    assert chosen(ref) == RECORD
    assert "read with energy_key=REF_energy, forces_key=REF_forces, energy_unit=kcal/mol" in caplog.text
    # The nearer word: units of the user replace those of the record, keys of the user its keys and with them its units.
    keys = {key: RECORD[key] for key in ("energy_key", "forces_key")}
    assert chosen(ref, energy_unit="eV") == {**keys, "energy_unit": "eV"}
    assert chosen(ref, energy_key="other") == {"energy_key": "other"}
    assert chosen(ref, **keys) == RECORD
    # A file without these entries, of another format, or a registered name says its own.
    assert chosen(plain) == {}
    assert chosen("rmd17/ethanol/test-01") == {}
    assert chosen(ref, trained_on="train.npz") == keys
    assert chosen(plain, record={"energy_unit": "kcal/mol"}) == {"energy_unit": "kcal/mol"}
    assert chosen(ref, record=dict.fromkeys(HELP)) == {}  # type: ignore[arg-type]
    (tmp_path / "broken.extxyz").write_text("no frame\n")
    assert chosen(tmp_path / "broken.extxyz") == {}


def test_the_record_of_a_potential_is_the_default_of_evaluate(cli: Run, tmp_path: Path) -> None:
    ref, file = written(tmp_path / "ref.extxyz"), potential(tmp_path / "own.pt", record=RECORD)
    figures = []
    for extra in ((), ("--energy-key", "REF_energy", "--forces-key", "REF_forces", "--energy-unit", "kcal/mol")):
        code, _, err = cli("evaluate", file, ref, "--n-draws", "2", "--json", tmp_path / "own.json", *extra)
        assert code == 0, err
        figures.append(json.loads((tmp_path / "own.json").read_text()))
    foreign = potential(tmp_path / "foreign.pt", record={}, trained_on="rmd17/ethanol/train-01")
    code, _, err = cli("evaluate", foreign, ref)
    assert code == 2
    assert "energy_key" in err
    options = ("--energy-key", "REF_energy", "--forces-key", "REF_forces", "--energy-unit", "kcal/mol")
    code, _, err = cli("evaluate", foreign, ref, "--n-draws", "2", "--json", tmp_path / "own.json", *options)
    assert code == 0, err
    figures.append(json.loads((tmp_path / "own.json").read_text()))
    assert len({round(each["force_mae_original"], 4) for each in figures}) == 1
    # What the packaged frames give, read in their own way: the same labels.
    truth = read_frames("rmd17/ethanol/test-01").select(range(6))
    found = read_frames(ref, **asdict(FileOptions(**RECORD)))
    np.testing.assert_allclose(found.energy, truth.energy, atol=1e-6)


def test_a_ensemble_has_the_record_its_members_share(tmp_path: Path) -> None:
    from remul_md.potentials.provenance import Provenance

    one = {"config": {"data": dict(RECORD)}}
    other = {"config": {"data": {**RECORD, "energy_unit": "eV"}}}
    shared = Provenance(trained_forces="both", members=[one, one]).file_options
    assert {key: value for key, value in shared.items() if value} == RECORD
    assert Provenance(trained_forces="both", members=[one, other]).file_options == {}
    assert (
        load_potential(potential(tmp_path / "one.pt", record=RECORD)).provenance.file_options["energy_unit"]
        == "kcal/mol"
    )


def test_data_show_compare_and_label_take_them(cli: Run, tmp_path: Path) -> None:
    options = ("--energy-key", "REF_energy", "--forces-key", "REF_forces", "--energy-unit", "kcal/mol")
    ref = written(tmp_path / "ref.extxyz")
    code, out, err = cli("data", "show", ref, *options)
    assert code == 0, err
    assert "mean -42" in out
    code, _, err = cli("compare", ref, "rmd17/ethanol/test-01", *options)
    assert code == 0, err
    code, _, err = cli("compare", ref, "rmd17/ethanol/test-01", "--energy-key", "no_such")
    assert code == 2
    assert "no entry 'no_such'" in err
    file = potential(tmp_path / "own.pt", record=RECORD)
    code, out, err = cli("label", file, ref, tmp_path / "labels.npz", *options)
    assert code == 0, err
    assert "labels.npz: 6 frames" in out


def test_compare_reads_lengths_in_bohr(cli: Run, tmp_path: Path) -> None:
    """Labels in whatever unit do not matter, positions do."""
    frames = read_frames("rmd17/ethanol/test-01").select(range(40))
    structures = [
        Atoms(numbers=frames.frame_numbers(index), positions=frames.frame_positions(index) / 0.529177210903)
        for index in range(40)
    ]
    for atoms in structures:
        atoms.info["energy"] = 1e9
        atoms.arrays["force"] = np.full((9, 3), 1e6)
    ase.io.write(tmp_path / "bohr.extxyz", structures, format="extxyz")
    code, out, err = cli("compare", tmp_path / "bohr.extxyz", "rmd17/ethanol/test-01", "--length-unit", "Bohr")
    assert code == 0, err
    gap = next(line for line in out.splitlines() if line.strip().startswith("pair distances"))
    assert float(gap.split()[2]) < 0.3
