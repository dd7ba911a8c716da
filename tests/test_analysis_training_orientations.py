"""Orientation relative to the training data: the angles that were rotated come back, and the report shows them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from analysis_runs import tilted_ethanol
from report_cases import TRAINED, analysed_run, thermal_frames
from spring_molecule import spring_molecule

from remul_md.analysis.report.figures import report_figures
from remul_md.analysis.report.page import write_report
from remul_md.analysis.training_orientations import orientation_angles
from remul_md.analysis.trajectory import analyze_frames
from remul_md.errors import InputError

ANGLES = np.array([0.0, 17.0, 93.0, 180.0])


def about_the_diagonal(degrees: float) -> np.ndarray:
    """Turn about (1, 2, 2) / 3, by Rodrigues' formula."""
    x, y, z = np.array([1.0, 2.0, 2.0]) / 3.0
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * skew + (1.0 - np.cos(angle)) * skew @ skew


def rotated_frames():
    """Ethanol at rest in four known orientations, somewhere else in space."""
    at_rest = spring_molecule("CH3CH2OH").positions
    positions = np.stack([at_rest @ about_the_diagonal(angle).T + [5.0, -2.0, 1.0] for angle in ANGLES])
    return replace(thermal_frames(len(ANGLES)), positions=positions)


def statistics(**changes):
    at_rest = spring_molecule("CH3CH2OH").positions
    return replace(TRAINED, **{"reference_positions": at_rest, "rotation_angle_median": 113.0, **changes})


def test_the_angles_that_were_rotated_come_back():
    frames = rotated_frames()
    found = orientation_angles(frames.positions, statistics(), masses=frames.masses)
    assert found is not None
    np.testing.assert_allclose(found.angle_deg, ANGLES, atol=1e-5)
    assert found.median_of_training_deg == 113.0


def test_a_run_is_held_against_the_training_orientation_and_not_against_its_start(tmp_path):
    frames = rotated_frames()
    frames = replace(frames, positions=frames.positions[::-1].copy())  # it starts half a turn away
    chosen = {"atoms": tilted_ethanol(), "n_rotation_frames": 4, "n_draws": 2}
    analysis = analyze_frames(frames, training_statistics=statistics(), **chosen)
    np.testing.assert_allclose(analysis.orientations.angle_deg, ANGLES[::-1], atol=1e-5)
    np.testing.assert_allclose(analysis.angle_swept_deg, 180.0 - ANGLES[::-1], atol=1e-5)
    assert analysis.to_json()["angle_from_training_deg"] == pytest.approx(180.0, abs=1e-5)
    figure = {figure.key: figure for figure in report_figures(analysis)}["rotational-error"]
    assert figure.x_title == "angle from the training orientation (degrees)"
    assert "within 113°" in figure.reading
    error, spread = figure.traces
    np.testing.assert_allclose(error.x, ANGLES, atol=1e-5)
    np.testing.assert_allclose(error.y, analysis.rotational.error_meV_per_A[::-1])
    np.testing.assert_allclose(spread.y, analysis.rotational.spread_meV_per_A[::-1])
    write_report(analysis, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    row = re.search(r'… from the training orientation</th><td class="value">(\d+)°</td>', page)
    assert row is not None
    assert row[1] == "180"


@pytest.mark.slow
def test_without_a_reference_frame_the_first_one_serves():
    assert orientation_angles(rotated_frames().positions, None) is None
    assert orientation_angles(rotated_frames().positions, TRAINED) is None
    analysis = analysed_run()
    assert analysis.orientations is None
    figure = {figure.key: figure for figure in report_figures(analysis)}["rotational-error"]
    assert figure.x_title == "angle from the first frame (degrees)"


@pytest.mark.parametrize("missing", ["reference_positions", "rotation_angle_median"])
def test_half_a_statement_is_refused(missing):
    with pytest.raises(InputError, match=f"training statistics lack {missing}: give reference_positions and"):
        statistics(**{missing: None})


def test_a_reference_frame_of_another_molecule_is_refused():
    with pytest.raises(InputError, match=r"positions \(4, 9, 3\) .*reference \(2, 3\)"):
        orientation_angles(rotated_frames().positions, statistics(reference_positions=np.eye(3)[:2]))
