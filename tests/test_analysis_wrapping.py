"""Coordinates that a program wrapped into a box: told from a molecule that flies apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from report_cases import thermal_frames
from spring_molecule import spring_molecule

from remul_md.analysis.trajectory import analyze_frames
from remul_md.analysis.verdicts import INTACT
from remul_md.analysis.wrapping import WrappedCoordinates
from remul_md.dynamics.trajectory import TrajectoryArrays

N_FRAMES = 60


def flying() -> TrajectoryArrays:
    """Ethanol that vibrates a little and flies along x and z by 0.2 Angstrom a frame."""
    rng = np.random.default_rng(7)
    frames = thermal_frames(N_FRAMES)
    drift = 0.2 * np.arange(N_FRAMES)[:, None, None] * np.array([1.0, 0.0, 0.7])
    places = spring_molecule("CH3CH2OH").positions + drift + rng.normal(scale=0.02, size=(N_FRAMES, 9, 3))
    return replace(frames, positions=places)


def wrapped(frames: TrajectoryArrays, *, box_A: float) -> TrajectoryArrays:
    return replace(frames, positions=frames.positions % box_A)


def box_of(positions: np.ndarray, *, block: int = N_FRAMES) -> dict[str, float]:
    looks = WrappedCoordinates()
    for start in range(0, len(positions), block):
        looks.update(positions[start : start + block])
    return looks.box_A()


@pytest.mark.parametrize("box_A", [6.0, 9.5])
def test_the_box_is_found_along_the_axes_that_are_crossed(box_A: float) -> None:
    frames = wrapped(flying(), box_A=box_A)
    found = box_of(frames.positions)
    assert {"x", "z"} <= set(found)
    for length in found.values():
        assert length == pytest.approx(box_A, abs=0.5)
    assert box_of(frames.positions, block=7) == found


def test_a_molecule_that_moves_turns_or_flies_apart_is_not_wrapped() -> None:
    frames = flying()
    assert box_of(frames.positions) == {}
    hops = frames.positions + 30.0 * np.random.default_rng(2).normal(size=(N_FRAMES, 1, 3))  # far apart in time
    assert box_of(hops) == {}
    away = np.random.default_rng(3).normal(size=(9, 3))
    apart = frames.positions + 0.5 * np.arange(N_FRAMES)[:, None, None] ** 2 * away
    assert box_of(apart) == {}


def test_wrapping_is_not_blamed_on_the_potential() -> None:
    whole, torn = (
        {verdict.name: verdict for verdict in analyze_frames(frames).verdicts}
        for frames in (flying(), wrapped(flying(), box_A=9.5))
    )
    assert whole[INTACT].passed is True
    assert torn[INTACT].passed is None
    assert "wrapped into a box that the file does not state" in torn[INTACT].why
    assert whole.keys() == torn.keys()
    assert not [verdict.name for verdict in torn.values() if verdict.passed is False]
