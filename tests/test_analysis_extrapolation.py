"""Distances of a run against the ranges of the training data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from analysis_runs import ethanol_run

import remul_md.analysis.extrapolation as extrapolation
from remul_md.analysis.extrapolation import joined_range_departure, range_departure
from remul_md.analysis.structure import BondRanges
from remul_md.analysis.training_statistics import TrainingStatistics
from remul_md.analysis.trajectory import analyze_trajectory
from remul_md.analysis.verdicts import INSIDE, range_verdict
from remul_md.errors import InputError

NUMBERS = np.array([8, 1, 1, 6])
RANGES = {"H-O": [0.9, 2.1], "H-H": [1.2, 3.0], "C-O": [1.1, 2.0]}  # C-H was never seen


def frames(*heights: float) -> np.ndarray:
    """O, H and H in a plane; carbon at a height above the oxygen."""
    flat = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.9, 0.0]]
    return np.array([[*flat, [0.0, 0.0, height]] for height in heights])


def test_the_departure_is_that_of_the_worst_pair_in_each_frame() -> None:
    positions = frames(1.5, 0.7, 2.3, 2.0, 1.4)
    positions[4, 1, 0] = 0.75  # one hydrogen too close, 0.15 below; its distance to the other shrinks to 2.04
    found = range_departure(positions, NUMBERS, RANGES)
    np.testing.assert_allclose(found.departure_A, [0.0, 0.4, 0.3, 0.0, 0.15], atol=1e-12)
    assert found.worst_pair == "C-O"
    assert found.max_departure_A == pytest.approx(0.4)
    assert found.n_without_range == 1


def test_blocks_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    positions = frames(*generator.uniform(0.5, 2.5, size=37)) + generator.normal(scale=0.1, size=(37, 4, 3))
    whole = range_departure(positions, NUMBERS, RANGES)
    assert (whole.departure_A > 0).sum() > 5
    parts = [range_departure(part, NUMBERS, RANGES) for part in np.split(positions, [5, 23])]
    joined = joined_range_departure(parts)
    np.testing.assert_array_equal(joined.departure_A, whole.departure_A)
    assert joined.worst_pair == whole.worst_pair
    monkeypatch.setattr(extrapolation, "DISTANCES_AT_ONCE", 8)
    np.testing.assert_array_equal(range_departure(positions, NUMBERS, RANGES).departure_A, whole.departure_A)


def test_the_verdict_says_when_and_how_often() -> None:
    time_ps = np.array([2.0, 2.5, 3.0, 3.5])
    inside = range_verdict(range_departure(frames(1.5, 1.6, 1.2, 1.9), NUMBERS, RANGES), time_ps=time_ps)
    assert inside.passed
    assert "ever shorter or longer" in inside.why
    outside = range_verdict(range_departure(frames(1.5, 2.2, 2.5, 2.05), NUMBERS, RANGES), time_ps=time_ps)
    assert outside.passed is False
    assert outside.value == pytest.approx(0.5)
    assert outside.threshold == 0.15
    assert "C-O" in outside.why
    assert "after 1 ps" in outside.why
    assert "2 of 4 frames" in outside.why


def test_an_analysis_with_the_ranges_has_the_verdict(tmp_path) -> None:
    path = ethanol_run(tmp_path, tilted=False, length_ps=0.1, equilibrate_ps=0.0)
    bonds = BondRanges(pairs=np.array([[0, 1]]), min_A=np.array([1.3]), max_A=np.array([1.7]))
    statistics = TrainingStatistics(bonds=bonds)
    bare = analyze_trajectory(path, training_statistics=statistics)
    assert bare.to_json()["max_distance_departure_A"] is None
    assert INSIDE not in [verdict.name for verdict in bare.verdicts]
    ranges = {"C-C": [0.5, 1.0]}  # the bond is 1.5
    told = analyze_trajectory(path, training_statistics=replace(statistics, distance_ranges=ranges))
    verdict = next(verdict for verdict in told.verdicts if verdict.name == INSIDE)
    assert verdict.passed is False
    assert 0.4 < told.to_json()["max_distance_departure_A"] == verdict.value < 0.8


def test_wrong_input_is_refused() -> None:
    with pytest.raises(InputError, match=r"positions \(2, 4, 3\) .* N = 3"):
        range_departure(frames(1.0, 1.1), NUMBERS[:3], RANGES)
    with pytest.raises(InputError, match=r"C-O is 2\.0 to 1\.0 Angstrom"):
        range_departure(frames(1.0), NUMBERS, {"C-O": [2.0, 1.0]})
