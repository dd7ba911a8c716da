"""Errors against angle and axis: figures of a slow loop, the orientation trap seen, files written and refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from messages import pattern
from numpy.typing import NDArray
from potentials import molecule_frames, untrained_potential

from remul_md.analysis import orientations
from remul_md.analysis.orientations import (
    OrientationErrors,
    check_orientation_file,
    orientation_errors,
    write_orientation_errors,
)
from remul_md.errors import InputError
from remul_md.outputs import GENERATOR
from remul_md.potentials.potential import Potential
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch

ANGLES = (0.0, 20.0, 90.0)


@pytest.fixture(scope="module")
def frames() -> Frames:
    """Two frames, of 7 and 5 atoms, labelled by the potential itself in the original orientation."""
    frames = molecule_frames()
    out = untrained_potential(frames, cutoff=4.5).to(dtype="float64").predict(build_batch(frames, cutoff=4.5))
    assert out.energy is not None
    assert out.forces is not None
    return replace(frames, energy=out.energy.numpy(), forces=out.forces.numpy())


@pytest.fixture(scope="module")
def potential() -> Potential:
    return untrained_potential(molecule_frames(), cutoff=4.5).to(dtype="float64")


@pytest.fixture(scope="module")
def found(potential: Potential, frames: Frames) -> OrientationErrors:
    return orientation_errors(potential, frames, angles_deg=ANGLES, seed=4)


def rotated_forces(potential: Potential, frames: Frames, g: NDArray) -> NDArray:
    rotated = replace(frames, positions=frames.positions @ g.T)
    out = potential.predict(build_batch(rotated, cutoff=potential.cutoff), forces="conservative")
    assert out.forces is not None
    return 1000 * out.forces.numpy()


def about(axis: int, angle_deg: float) -> NDArray:
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    one, other = (axis + 1) % 3, (axis + 2) % 3
    g = np.eye(3)
    g[one, one], g[one, other], g[other, one], g[other, other] = c, -s, s, c
    return g


def test_turns_about_an_axis_are_those_of_a_loop(
    found: OrientationErrors, potential: Potential, frames: Frames
) -> None:
    assert frames.forces is not None
    wrong = replace(frames, forces=frames.forces + 0.25)  # so that force MAE and rotational error are two figures
    assert wrong.forces is not None
    shifted = orientation_errors(potential, wrong, angles_deg=ANGLES, seed=4)
    original = rotated_forces(potential, frames, np.eye(3))
    for axis, name in enumerate("xyz"):
        for index, angle in enumerate(ANGLES):
            g = about(axis, angle)
            rotated = rotated_forces(potential, frames, g)
            error = float(np.abs(rotated @ g - original).mean())
            assert found.axis_rotational_error[name][index] == pytest.approx(error, rel=1e-9, abs=1e-9)
            assert shifted.axis_rotational_error[name][index] == pytest.approx(error, rel=1e-9, abs=1e-9)
            mae = float(np.abs(rotated @ g - 1000 * wrong.forces).mean())
            assert shifted.axis_force_mae[name][index] == pytest.approx(mae, rel=1e-9)


def test_the_orientation_trap_is_seen(found: OrientationErrors) -> None:
    """Perfect as the frames stand, worse the further they turn: the labels are the model's own in the original
    orientation."""
    assert (found.n_frames, found.forces, found.angles_deg) == (2, "conservative", list(ANGLES))
    assert found.force_mae[0] < 1e-9
    assert found.percent[0] == 0.0
    assert 10 < found.force_mae[1] < 0.7 * found.force_mae[2]
    assert found.force_mae[1:] == pytest.approx(found.rotational_error[1:], rel=1e-9)
    assert all(5 < value < 100 for value in found.axis_percent.values())


def test_random_axes_are_seeded_and_differ_by_frame(
    potential: Potential, frames: Frames, found: OrientationErrors
) -> None:
    assert orientation_errors(potential, frames, angles_deg=ANGLES, seed=4).force_mae == found.force_mae
    other = orientation_errors(potential, frames, angles_deg=ANGLES, seed=5)
    assert other.force_mae[2] != found.force_mae[2]
    assert other.axis_force_mae == found.axis_force_mae
    sets = orientations._orientation_sets(6, (35.0,), torch.Generator().manual_seed(1))
    turns = sets["35"].flatten(0, 1)
    cosines = (turns.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    torch.testing.assert_close(cosines, torch.full_like(cosines, math.cos(math.radians(35.0))))
    assert torch.unique(turns.round(decimals=6), dim=0).shape[0] == orientations.N_DRAWS * 6


def test_how_frames_are_cut_into_passes_changes_nothing(
    potential: Potential, frames: Frames, found: OrientationErrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orientations, "MAX_ATOMS", 1)
    pieces = orientation_errors(potential, frames, angles_deg=ANGLES, seed=4).to_json()
    for name, value in found.to_json().items():
        if name in ("force_mae", "rotational_error"):
            assert pieces[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name


def test_files(tmp_path: Path, found: OrientationErrors) -> None:
    write_orientation_errors(found, tmp_path / "new" / "errors.json")
    assert json.loads((tmp_path / "new" / "errors.json").read_text()) == {"generator": GENERATOR, **found.to_json()}
    write_orientation_errors(found, tmp_path / "errors.png")
    assert (tmp_path / "errors.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=pattern(".png or .json")):
        check_orientation_file(tmp_path / "errors.pdf")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_orientation_errors(found, tmp_path / "file" / "errors.json")


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"forces": None}, {}, "has no forces"),
        ({}, {"angles_deg": (0.0, 190.0)}, "angles_deg ... got [0.0, 190.0]"),
        ({}, {"angles_deg": ()}, "angles_deg ... got []"),
    ],
)
def test_what_cannot_be_is_refused(
    potential: Potential, frames: Frames, changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=pattern(message)):
        orientation_errors(potential, replace(frames, **changes), **options)
