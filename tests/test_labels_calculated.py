"""Labels of a calculator: the right ones in the right order, kept when it stops, never mixed with others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase.calculators.calculator import SCFError, all_changes
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import Bohr

from remul_md.datasets import read_frames, write_frames
from remul_md.errors import InputError
from remul_md.labels.calculated import _Label, _save, calculate_labels, calculation_record
from remul_md.labels.sources import LabelSource, label_source
from remul_md.structures.frames import Frames, frames_from_atoms

Run = Callable[..., tuple[int, str, str]]
EMT_FACTORY = "ase.calculators.emt:EMT"


def clusters() -> Frames:
    """Molecules of 3 and 5 atoms of elements that EMT knows."""
    from ase import Atoms

    rng = np.random.default_rng(4)
    structures = [Atoms("CNO", positions=1.3 * np.eye(3) + rng.normal(scale=0.05, size=(3, 3))) for _ in range(2)]
    corners = 1.4 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
    structures.append(Atoms("CNOCH", positions=corners + rng.normal(scale=0.05, size=(5, 3))))
    return frames_from_atoms(structures, name="clusters")


def stopping(after: int, *, error: type[BaseException] = KeyboardInterrupt) -> LabelSource:
    """EMT that is stopped after so many frames."""
    made = 0

    def make() -> EMT:
        nonlocal made
        made += 1
        if made > after:
            raise error("stopped")
        return EMT()

    return LabelSource(name=EMT_FACTORY, version="", make=make)


def test_labels_belong_to_their_frames(tmp_path: Path) -> None:
    frames = clusters()
    made = calculate_labels(frames, label_source(EMT_FACTORY), partial=tmp_path / "labels.part")
    assert made.frames.energy is not None
    assert made.frames.forces is not None
    for index, first in enumerate(frames.first_atom):
        atoms = frames.atoms(index)
        atoms.calc = EMT()
        assert made.frames.energy[index] == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
        found = made.frames.forces[first : first + len(atoms)]
        np.testing.assert_allclose(found, atoms.get_forces(), atol=1e-12)
    assert np.abs(made.frames.forces).max() > 0.1
    assert made.provenance["method"] == EMT_FACTORY


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    partial = tmp_path / "labels.part"
    with pytest.raises(KeyboardInterrupt):
        calculate_labels(clusters(), stopping(2), partial=partial)
    assert partial.is_file()
    again = stopping(1)  # only the third frame is left
    made = calculate_labels(clusters(), again, partial=partial)
    whole = calculate_labels(clusters(), label_source(EMT_FACTORY), partial=tmp_path / "whole.part")
    np.testing.assert_array_equal(made.frames.energy, whole.frames.energy)
    np.testing.assert_array_equal(made.frames.forces, whole.frames.forces)


def test_labels_of_other_frames_are_refused(tmp_path: Path) -> None:
    partial = tmp_path / "labels.part"
    calculate_labels(clusters(), label_source(EMT_FACTORY), partial=partial)
    with pytest.raises(InputError, match="holds other labels: geometries_sha256 was"):
        calculate_labels(clusters().select([1, 0, 2]), label_source(EMT_FACTORY), partial=partial)


def test_another_file_in_the_place_of_kept_labels_is_told(tmp_path: Path) -> None:
    partial = tmp_path / "labels.part"
    with partial.open("wb") as file:
        np.savez(file, energy=np.zeros(2), forces=np.zeros((6, 3)))
    before = partial.read_bytes()
    with pytest.raises(InputError, match=r"labels\.part: lacks"):
        calculate_labels(clusters(), label_source(EMT_FACTORY), partial=partial)
    assert partial.read_bytes() == before


def test_a_failure_names_the_frame(tmp_path: Path) -> None:
    unknown = clusters()
    unknown.atomic_numbers[-1] = 92  # EMT has no uranium
    with pytest.raises(InputError, match=r"clusters, frame 2: .* failed"):
        calculate_labels(unknown, label_source(EMT_FACTORY), partial=tmp_path / "labels.part")


class Unsure(EMT):
    """EMT that does not converge on five atoms, and knows a figure of each frame."""

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        if len(atoms) == 5:
            raise SCFError("went round in circles")
        super().calculate(atoms, properties, system_changes)
        self.results["roundness"] = 0.5 * len(atoms)


def unsure() -> LabelSource:
    return LabelSource(name="unsure", version="", make=Unsure, figures=("roundness",))


def test_what_does_not_converge_is_left_out_and_told(tmp_path: Path) -> None:
    frames, partial = clusters().select([2, 0, 2, 1]), tmp_path / "labels.part"
    made = calculate_labels(frames, unsure(), partial=partial)
    whole = calculate_labels(clusters().select([0, 1]), label_source(EMT_FACTORY), partial=tmp_path / "whole.part")
    np.testing.assert_array_equal(made.frames.energy, whole.frames.energy)
    np.testing.assert_array_equal(made.frames.forces, whole.frames.forces)
    np.testing.assert_array_equal(made.frames.positions, whole.frames.positions)
    assert dict(made.refused) == dict.fromkeys((0, 2), "SCFError: went round in circles")
    assert made.provenance["refused"] == dict.fromkeys("02", "SCFError: went round in circles")
    assert made.figures["roundness"].tolist() == [1.5, 1.5]


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_stopped_run_knows_what_it_left_out(after: int, tmp_path: Path) -> None:
    frames, partial, made = clusters().select([2, 0, 2, 1]), tmp_path / "labels.part", 0

    def make() -> EMT:
        nonlocal made
        made += 1
        if made > after:
            raise KeyboardInterrupt
        return Unsure()

    with pytest.raises(KeyboardInterrupt):
        calculate_labels(frames, replace(unsure(), make=make), partial=partial)
    made = -100
    again = calculate_labels(frames, replace(unsure(), make=make), partial=partial)
    assert made == -100 + 4 - after  # what was refused is not tried again
    whole = calculate_labels(frames, unsure(), partial=tmp_path / "whole.part")
    np.testing.assert_array_equal(again.frames.energy, whole.frames.energy)
    np.testing.assert_array_equal(again.figures["roundness"], whole.figures["roundness"])
    assert again.refused == whole.refused


def test_no_frame_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of 1 frames; .*SCFError"):
        calculate_labels(clusters().select([2]), unsure(), partial=tmp_path / "labels.part")


def test_the_command_lists_what_it_left_out(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remul_md.labels.sources.label_source", lambda *_, **__: unsure())
    ase.io.write(tmp_path / "frames.extxyz", [clusters().atoms(index) for index in (0, 1, 2)])
    output = tmp_path / "labels.extxyz"
    code, out, err = cli("label", EMT_FACTORY, tmp_path / "frames.extxyz", output, "--every", "2")
    assert code == 0, err
    assert "labels.extxyz: 1 frames labelled by unsure" in out
    assert "note: frame 2 of " in out
    assert "has no label: SCFError: went round in circles" in out
    (written,) = ase.io.read(output, index=":")
    assert written.info["roundness"] == 1.5
    assert "went round" in str(written.info["provenance"])


def test_a_stretched_bond_without_a_label_is_told_by_its_own_number(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by that of a frame: two frames, of which one is taken, become more geometries than there are frames."""
    made: list[EMT] = []

    def make() -> EMT:
        made.append(Unsure() if len(made) == 3 else EMT())
        return made[-1]

    source = LabelSource(name=EMT_FACTORY, version="", make=make)
    monkeypatch.setattr("remul_md.labels.sources.label_source", lambda *_, **__: source)
    ase.io.write(tmp_path / "frames.extxyz", [clusters().atoms(2)] * 2)
    output = tmp_path / "labels.extxyz"
    chosen = ["--every", "2", "--stretched-bonds", "0"]
    code, out, err = cli("label", EMT_FACTORY, tmp_path / "frames.extxyz", output, *chosen)
    assert code == 0, err
    assert "note: geometry 3 of frames.extxyz has no label: SCFError: went round in circles" in out


def test_labels_in_the_file_are_not_needed_and_not_read(cli: Run, tmp_path: Path) -> None:
    """Geometries with labels in another unit, which would be refused as labels; lengths are told by --length-unit."""
    atoms = clusters().atoms(0)
    atoms.positions /= Bohr
    atoms.calc = SinglePointCalculator(atoms, energy=1e5, forces=np.full((3, 3), 1e3))
    ase.io.write(tmp_path / "frames.extxyz", atoms)
    output = tmp_path / "labels.extxyz"
    code, _, err = cli("label", EMT_FACTORY, tmp_path / "frames.extxyz", output, "--length-unit", "Bohr")
    assert code == 0, err
    np.testing.assert_allclose(ase.io.read(output).positions, clusters().frame_positions(0), atol=1e-6)


def test_the_command(cli: Run, tmp_path: Path) -> None:
    frames, output = tmp_path / "frames.extxyz", tmp_path / "labels.extxyz"
    labelled = calculate_labels(clusters(), label_source(EMT_FACTORY), partial=tmp_path / "x.part").frames
    write_frames(labelled, frames, provenance={})
    code, out, err = cli("label", EMT_FACTORY, frames, output, "--every", "2")
    assert code == 0, err
    assert f"labels.extxyz: 2 frames labelled by {EMT_FACTORY}" in out
    assert not (tmp_path / "labels.extxyz.part").exists()
    found = read_frames(output, allow_implausible=True)
    assert labelled.energy is not None
    np.testing.assert_allclose(found.energy, labelled.energy[[0, 2]], atol=1e-6)
    before = output.read_bytes()
    code, _, err = cli("label", EMT_FACTORY, frames, output, "--every", "2")
    assert (code, output.read_bytes()) == (2, before)
    assert "exists already; go on with it (--resume), replace it (--overwrite)" in err
    assert cli("label", EMT_FACTORY, frames, output, "--every", "2", "--resume")[0] == 0  # nothing to do
    assert output.read_bytes() == before
    code, _, err = cli("label", EMT_FACTORY, frames, output, "--resume")
    assert (code, output.read_bytes()) == (2, before)
    assert "holds other labels: " in err
    code, _, err = cli("label", EMT_FACTORY, frames, frames, "--overwrite")
    assert code == 2
    assert "is read by this command" in err
    assert cli("label", EMT_FACTORY, frames, output, "--overwrite")[0] == 0
    assert len(read_frames(output, allow_implausible=True)) == 3
    code, _, err = cli("label", EMT_FACTORY, frames, output, "--forces", "direct")
    assert code == 2
    assert "--forces is an option of potentials" in err


@pytest.mark.parametrize("suffix", [".extxyz", ".npz"])
def test_a_command_that_was_killed_goes_on_when_told_to(cli: Run, tmp_path: Path, suffix: str) -> None:
    frames, output = tmp_path / "frames.extxyz", tmp_path / f"labels{suffix}"
    one = clusters().select([0, 1])
    labelled = calculate_labels(one, label_source(EMT_FACTORY), partial=tmp_path / "x.part").frames
    write_frames(labelled, frames, provenance={})
    partial = tmp_path / f"labels{suffix}.part"
    with pytest.raises(KeyboardInterrupt):
        calculate_labels(read_frames(frames, allow_implausible=True), stopping(1), partial=partial)
    code, _, err = cli("label", EMT_FACTORY, frames, output)
    assert code == 2
    assert f"{partial.name}' exists already; go on with it (--resume)" in err
    assert cli("label", EMT_FACTORY, frames, output, "--resume")[0] == 0
    assert cli("label", EMT_FACTORY, frames, tmp_path / f"whole{suffix}")[0] == 0
    assert output.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert not partial.exists()
    assert cli("label", EMT_FACTORY, frames, output, "--resume")[0] == 0
    (tmp_path / f"notes{suffix}").write_bytes(frames.read_bytes() if suffix == ".extxyz" else output.read_bytes()[:50])
    code, _, err = cli("label", EMT_FACTORY, frames, tmp_path / f"notes{suffix}", "--resume")
    assert code == 2, err


class EMTWithoutFives(EMT):
    """A calculator of a user's module, which another process can import: it does not converge on five atoms."""

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        if len(atoms) == 5:
            raise SCFError("went round in circles")
        super().calculate(atoms, properties, system_changes)


@pytest.mark.slow
def test_several_processes_give_the_labels_of_one(tmp_path: Path) -> None:
    frames = clusters().select([0, 2, 1, 0])
    source = label_source("test_labels_calculated:EMTWithoutFives")
    one = calculate_labels(frames, source, partial=tmp_path / "one.part")
    with pytest.raises(InputError, match="jobs must be a whole number >= 1, got 0"):
        calculate_labels(frames, source, partial=tmp_path / "two.part", jobs=0)
    two = calculate_labels(frames, source, partial=tmp_path / "two.part", jobs=2)
    np.testing.assert_array_equal(two.frames.energy, one.frames.energy)
    np.testing.assert_array_equal(two.frames.forces, one.frames.forces)
    np.testing.assert_array_equal(two.frames.positions, one.frames.positions)
    assert two.refused == one.refused == {1: "SCFError: went round in circles"}
    assert two.provenance == one.provenance


def test_labels_that_are_there_are_not_computed_again_whatever_their_place(tmp_path: Path) -> None:
    """Of several processes the third frame may be done before the first."""
    frames, partial = clusters(), tmp_path / "labels.part"
    provenance = calculation_record(frames, label_source(EMT_FACTORY))
    far = _Label(energy=-7.5, forces=np.full((3, 3), 0.25), figures={})
    _save(partial, {1: far}, provenance, figures=())
    made = calculate_labels(frames, label_source(EMT_FACTORY), partial=partial)
    assert made.frames.energy is not None
    assert made.frames.energy[1] == -7.5
    assert (made.frames.energy[[0, 2]] > 0).all()
