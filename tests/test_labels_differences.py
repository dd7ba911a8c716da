"""Differences of a cheap method on top of the labels that a better one gave the unchanged geometries."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.calculator import SCFError
from cheap_springs import MOLECULE, StiffSprings, reference_file, stiff_springs
from spring_molecule import SpringMolecule, spring_molecule

from remul_md import read_frames
from remul_md.errors import InputError
from remul_md.labels.calculated import calculate_labels
from remul_md.labels.differences import NEAR_EV, difference_labels, far_labels
from remul_md.labels.sources import LabelSource
from remul_md.labels.stretched import stretched_bonds
from remul_md.structures.frames import Frames

Run = Callable[..., tuple[int, str, str]]


def springs(*, stiffness: float = 1.0, make: Callable[[], SpringMolecule] | None = None) -> LabelSource:
    def plain() -> SpringMolecule:
        return StiffSprings(spring_molecule(MOLECULE)) if stiffness > 1.0 else SpringMolecule(spring_molecule(MOLECULE))

    return LabelSource(name="springs", version=f"{stiffness:g}", make=make or plain)


def starts_and_stretched(tmp_path: Path) -> tuple[Frames, Frames]:
    """Labelled frames, 700 eV below what the springs say, and what was made of them."""
    frames = read_frames(reference_file(tmp_path / "reference.extxyz", n_frames=7))
    made, numbers = stretched_bonds(frames, seed=1, n_stretched=2)
    return frames.select(numbers), made


def test_of_the_method_that_made_the_labels_they_are_its_labels(tmp_path: Path) -> None:
    """Up to its offset, which is that of the starts."""
    starts, made = starts_and_stretched(tmp_path)
    found = difference_labels(made, starts, springs(), partial=tmp_path / "part")
    right = calculate_labels(made, springs(), partial=tmp_path / "other").frames
    assert found.frames.energy == pytest.approx(right.energy - 700.0, abs=1e-6)
    np.testing.assert_allclose(found.frames.forces, right.forces, atol=1e-6)  # positions of the file are rounded
    assert np.array_equal(found.frames.positions, made.positions)
    assert found.provenance["added_to"] == {"name": "reference.extxyz", "content_sha256": starts.content_hash()}


def test_only_the_change_is_the_cheap_methods(tmp_path: Path) -> None:
    """Springs a fifth too stiff and 40 eV too high: off by a fifth of the change, not where none is felt."""
    starts, made = starts_and_stretched(tmp_path)
    found = difference_labels(made, starts, springs(stiffness=1.2), partial=tmp_path / "part").frames
    right = calculate_labels(made, springs(), partial=tmp_path / "other").frames
    change = right.energy - 700.0 - starts.energy
    assert found.energy == pytest.approx(starts.energy + 1.2 * change, abs=1e-6)
    assert np.abs(change).max() > 0.5
    np.testing.assert_allclose(found.forces, starts.forces + 1.2 * (right.forces - starts.forces), atol=1e-6)
    untouched = np.abs(right.forces - starts.forces).max(axis=1) < 1e-7
    assert 5 < untouched.sum() < len(untouched)
    np.testing.assert_allclose(found.forces[untouched], right.forces[untouched], atol=1e-6)


def test_what_lies_near_the_frames_is_left_out(tmp_path: Path) -> None:
    starts, made = starts_and_stretched(tmp_path)
    found = difference_labels(made, starts, springs(), partial=tmp_path / "part")
    found = replace(found, figures={"number": np.arange(len(made))})
    far = far_labels(found, starts)
    limit = starts.energy.max() + NEAR_EV
    kept = far.figures["number"]
    assert 0 < len(kept) < len(made)
    assert far.frames.energy.min() > limit >= np.delete(found.frames.energy, kept).max()
    assert np.array_equal(far.frames.positions, made.select(kept).positions)
    assert far.provenance["near_left_out"] == len(made) - len(kept)
    high = replace(starts, energy=starts.energy + 30.0)
    with pytest.raises(InputError, match=r"0\.5 eV above"):
        far_labels(found, high)


def test_a_geometry_is_left_out_if_it_or_its_start_has_no_label(tmp_path: Path) -> None:
    starts, made = starts_and_stretched(tmp_path)
    n, made_so_far = len(made), 0

    def make() -> SpringMolecule:
        nonlocal made_so_far
        made_so_far += 1
        if made_so_far - 1 in (2, n + 5):  # a changed geometry, and the start of another one
            raise_on_call = stiff_springs()
            raise_on_call.calculate = refuse  # type: ignore[method-assign]
            return raise_on_call
        return SpringMolecule(spring_molecule(MOLECULE))

    def refuse(*given: object, **options: object) -> None:
        raise SCFError("no convergence")

    found = difference_labels(made, starts, springs(make=make), partial=tmp_path / "part")
    assert list(found.refused) == [2, 5]
    assert list(found.provenance["refused"]) == ["2", "5"]
    kept = [index for index in range(n) if index not in (2, 5)]
    assert np.array_equal(found.frames.positions, made.select(kept).positions)
    whole = difference_labels(made, starts, springs(), partial=tmp_path / "other").frames.select(kept)
    assert found.frames.energy == pytest.approx(whole.energy, abs=1e-9)
    np.testing.assert_allclose(found.frames.forces, whole.forces, atol=1e-9)


def test_starts_without_labels_or_of_other_atoms_are_refused(tmp_path: Path) -> None:
    starts, made = starts_and_stretched(tmp_path)
    with pytest.raises(InputError, match="added to energies and forces"):
        difference_labels(made, replace(starts, forces=None), springs(), partial=tmp_path / "part")
    reordered = replace(starts, atomic_numbers=starts.atomic_numbers[::-1])
    with pytest.raises(InputError, match="other atoms"):
        difference_labels(made, reordered, springs(), partial=tmp_path / "part")


def test_the_command_writes_them_and_says_so(cli: Run, tmp_path: Path) -> None:
    reference = reference_file(tmp_path / "reference.extxyz", n_frames=7)
    output = tmp_path / "stretched.npz"
    command = ["label", "cheap_springs:stiff_springs", reference, output, "--stretched-bonds", "1"]
    code, out, err = cli(*command, "--differences")
    assert code == 0, err
    frames = read_frames(reference)
    made, numbers = stretched_bonds(frames, seed=1)
    written = read_frames(output, allow_implausible=True)
    starts = frames.select(numbers)
    every = difference_labels(made, starts, springs(stiffness=1.2), partial=tmp_path / "part")
    wanted = far_labels(every, frames).frames
    near = len(made) - len(wanted)
    assert f"{len(wanted)} frames labelled by cheap_springs:stiff_springs, {near} near the frames left out" in out
    assert written.energy == pytest.approx(wanted.energy, abs=1e-9)
    np.testing.assert_allclose(written.forces, wanted.forces, atol=1e-9)
    with np.load(output) as arrays:
        assert json.loads(str(arrays["provenance"]))["added_to"]["name"] == "reference.extxyz"
    complete = tmp_path / "complete.npz"
    kept = ["label", "cheap_springs:stiff_springs", reference, complete, *command[4:], "--differences"]
    code, out, err = cli(*kept, "--near")
    assert code == 0, err
    assert f"{len(made)} frames labelled by cheap_springs:stiff_springs\n" in out
    assert read_frames(complete, allow_implausible=True).energy == pytest.approx(every.frames.energy, abs=1e-9)
    assert near > 0
    for other in ([*command, "--differences", "--near", "--resume"], [*kept, "--resume"]):
        code, _, err = cli(*other)
        assert code == 2
        assert "near_kept" in err
    before = output.stat()
    assert cli(*command, "--differences", "--resume")[0] == 0
    assert output.stat() == before
    code, _, err = cli(*command, "--resume")  # without differences they would be others
    assert code == 2
    assert "geometries_sha256" in err


def test_the_command_refuses_what_has_no_difference(cli: Run, tmp_path: Path) -> None:
    frames = reference_file(tmp_path / "reference.extxyz", n_frames=3)
    stretched = ["--stretched-bonds", "1"]
    for source, more, message in (
        ("xtb", [], "--differences goes with --stretched-bonds"),
        ("xtb", [*stretched, "--random-orientations", "1"], "without --random-orientations"),
        ("ethanol", stretched, "--differences is an option of methods"),
    ):
        code, _, err = cli("label", source, frames, tmp_path / "out.npz", "--differences", *more)
        assert code == 2
        assert message in err
    code, _, err = cli("label", "xtb", frames, tmp_path / "out.npz", "--near", *stretched)
    assert code == 2
    assert "--near goes with --differences" in err
    assert not (tmp_path / "out.npz").exists()
