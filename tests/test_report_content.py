"""What a report shows besides the analysis: 3D view, spectrum, vibrations; all of it in the page and in the JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from analysis_runs import tilted_ethanol
from report_cases import EVALUATION, shown_run, thermal_frames, training_rows
from spring_molecule import spring_molecule

import remul_md.analysis.report.content as content_module
from remul_md.analysis.report import RunContent, collect_content, report_data, write_report
from remul_md.analysis.report.figures import report_figures
from remul_md.analysis.report.molecule import MAX_FRAMES, first_view, molecule_view
from remul_md.analysis.report.spectrum import spectrum_figure
from remul_md.analysis.spectrum import trajectory_spectrum
from remul_md.analysis.trajectory import analyze_frames
from remul_md.errors import InputError


def embedded(path) -> dict:
    """The data in the elements of a page."""
    html = path.read_text(encoding="utf-8")
    found = {
        name: json.loads(re.search(rf'id="{name}">(.*?)</script>', html, re.DOTALL).group(1))
        for name in ("data", "figures")
    }
    return {**found["data"], "figures": found["figures"]}


@pytest.mark.slow
def test_the_page_holds_the_data_that_the_json_holds(tmp_path):
    analysis, content = shown_run()
    shown = {"evaluation": EVALUATION, "training": training_rows(), "provenance": {"command": "remul-md </script>"}}
    data = report_data(analysis, content=content, **shown)
    path = write_report(analysis, tmp_path / "report.html", content=content, **shown)
    assert embedded(path) == json.loads(json.dumps(data, allow_nan=False))
    assert analysis.to_json().items() <= data.items()
    assert data["evaluation"]["force_mae_rotated"] == 9.47
    assert data["provenance"] == {"command": "remul-md </script>"}
    assert {figure["key"] for figure in data["figures"]} >= {"spectrum", "learning-curve", "net-torque"}
    assert data["spectrum"]["integral"] == content.spectrum.integral
    assert len(data["vibrations"]["vibrations_per_cm"]) == 21
    text = path.read_text(encoding="utf-8")
    for verdict in analysis.verdicts:
        assert verdict.limit_from.replace("'", "&#x27;") in text
        assert verdict.limit_from


def test_the_view_shows_the_frames_and_errors_of_the_run():
    analysis, content = shown_run()
    view = content.molecule
    assert len(analysis.time_ps) == 601
    assert len(view.frames) == MAX_FRAMES
    assert view.thinned == "Thinned to 500 of 601 frames."
    assert list(view.symbols) == ["C", "C", "O", *"HHHHHH"]
    assert (np.diff(view.frames) > 0).all()
    assert view.frames[[0, -1]].tolist() == [0, 600]
    np.testing.assert_array_equal(view.time_ps, analysis.time_ps[view.frames])
    np.testing.assert_allclose(view.positions.mean(axis=1), 0.0, atol=1e-12)
    np.testing.assert_array_equal(view.frames[view.tested], analysis.rotation_frames)
    np.testing.assert_array_equal(view.atom_error_meV_per_A, analysis.rotational.atom_error_meV_per_A)
    assert view.atom_error_meV_per_A.mean() == pytest.approx(analysis.rotational.mean_error_meV_per_A)
    plain = view.to_json()
    assert len(plain["positions_A"]) == 500
    assert np.abs(np.array(plain["positions_A"]) - view.positions).max() <= 0.005 + 1e-12


def test_the_worst_frame_is_never_thinned_away():
    frames = thermal_frames(2003)
    analysis = analyze_frames(frames, atoms=tilted_ethanol(), n_rotation_frames=601, n_draws=2)
    for row in (301, 302, 303):  # every second or third is kept
        planted = analysis.rotational.error_meV_per_A.copy()
        planted[row] = 99.0
        view = molecule_view(
            [frames], replace(analysis, rotational=replace(analysis.rotational, error_meV_per_A=planted))
        )
        assert analysis.rotation_frames[row] in view.frames[view.tested]
    worst = int(analysis.rotation_frames[np.argmax(analysis.rotational.error_meV_per_A)])
    whole = molecule_view([frames], analysis)
    assert len(whole.frames) == MAX_FRAMES
    assert 200 < len(whole.tested) <= 300
    assert worst in whole.frames[whole.tested]
    errors = whole.atom_error_meV_per_A.mean(axis=1)
    assert whole.frames[whole.tested][np.argmax(errors)] == worst
    assert errors.max() == pytest.approx(analysis.rotational.error_meV_per_A.max())
    cuts = [0, 700, 701, 2003]
    parts = [replace(frames, positions=frames.positions[a:b], time_ps=frames.time_ps[a:b]) for a, b in pairwise(cuts)]
    np.testing.assert_array_equal(molecule_view(parts, analysis).positions, whole.positions)
    with pytest.raises(InputError, match="2003 frames of 9 atoms, 701 "):
        molecule_view(parts[:2], analysis)
    with pytest.raises(InputError, match=r"2,000 atoms, .*2,001"):
        molecule_view([frames], replace(analysis, n_atoms=2001))


def test_ten_thousand_frames_make_less_than_ten_megabytes(tmp_path):
    frames = thermal_frames(10_000)
    analysis = analyze_frames(frames, atoms=tilted_ethanol(), n_rotation_frames=50, n_draws=2)
    content = collect_content([frames], analysis)
    path = write_report(analysis, tmp_path / "long.html", content=content, training=training_rows())
    assert path.stat().st_size < 6e6  # 4.8 of them are the plot script
    text = path.read_text(encoding="utf-8")
    assert "Thinned to 500 of 10,000 frames." in text
    assert re.search(r"Thinned to [\d,]+ of 10,000 points; the lowest and highest of each interval are kept", text)
    assert len(json.dumps(report_data(analysis, content=content))) < 1.5e6


def test_the_spectrum_stands_over_its_harmonic_lines(monkeypatch):
    _, content = shown_run()
    # The springs leave torsions free: rounding decides on which side of 0 they come out. Here one on each.
    modes = content.vibrations.modes
    harmonic = modes.vibrations_per_cm.copy()
    assert np.abs(harmonic[:2]).max() < 100.0 < harmonic[2]
    harmonic[:2] = -5.0, 18.0
    vibrations = replace(content.vibrations, modes=replace(modes, vibrations_per_cm=harmonic))
    figure = spectrum_figure(content.spectrum, vibrations)
    curve, lines = figure.traces
    assert (curve.y >= 0.0).all()
    real = harmonic[harmonic >= 0.0]
    assert len(real) == 20
    assert "Imaginary ones are not drawn (1)" in figure.reading
    np.testing.assert_array_equal(lines.x, np.repeat(real, 3))
    heights = lines.y.reshape(-1, 3)
    assert (heights[:, 0] == 0.0).all()
    assert (heights[:, 1] < 0.0).all()
    assert np.isnan(heights[:, 2]).all()  # a gap, or the lines would be joined
    # Weight near the lines, none between 1900 and 2600, where no spring vibrates.
    assert ((harmonic < 1900) | (harmonic > 2600)).all()
    empty = (curve.x > 1900) & (curve.x < 2600)
    assert empty.sum() > 5
    assert curve.y[empty].mean() < 0.02 * curve.y.mean()
    assert spectrum_figure(None, None) is None
    frames = thermal_frames(200)
    analysis = analyze_frames(frames)
    blocks = [
        replace(frames, positions=frames.positions[a:b], time_ps=frames.time_ps[a:b], momenta=frames.momenta[a:b])
        for a, b in pairwise([0, 70, 71, 200])
    ]
    found = collect_content(iter(blocks), analysis).spectrum
    np.testing.assert_array_equal(found.density, trajectory_spectrum(frames).density)
    monkeypatch.setattr(content_module, "MAX_MOMENTA", 200 * 27 - 1)
    assert "200 frames of 9 atoms are too many" in collect_content(blocks, analysis).missing["spectrum"]
    assert len(spectrum_figure(None, vibrations).traces) == 1


def test_what_is_missing_has_its_reason(tmp_path, monkeypatch):
    frames = replace(thermal_frames(40), momenta=None)
    analysis = analyze_frames(frames)
    monkeypatch.setattr(content_module, "MAX_VIBRATING_ATOMS", 8)
    content = collect_content([frames], analysis, atoms=spring_molecule("CH3CH2OH"))
    assert content.spectrum is None
    assert content.vibrations is None
    assert "momenta" in content.missing["spectrum"]
    assert "9 atoms take 54 force calls" in content.missing["vibrations"]
    text = write_report(analysis, tmp_path / "report.html", content=content).read_text(encoding="utf-8")
    assert content.missing["spectrum"] in text
    assert "ask for them with --vibrations" in text
    assert "Not judged: energy conserved." in text
    assert "Not judged: forces turn with the molecule. For this its forces have to be computed" in text
    assert "Not judged: inside the training data." in text
    assert "Not judged: molecule intact" not in text
    assert "Colours tell the elements" in text
    assert 'id="worst-frame"' not in text
    asked = collect_content([frames], analysis, atoms=spring_molecule("CH3CH2OH"), any_size=True)
    assert asked.vibrations.relaxed
    bare = write_report(analysis, tmp_path / "bare.html").read_text(encoding="utf-8")
    assert 'id="scene"' not in bare
    assert 'id="spectrum"' not in bare
    assert RunContent().to_json() == {
        "molecule": None,
        "spectrum": None,
        "vibrations": None,
        "parity": None,
        "missing": {},
    }


def test_a_ensemble_is_plotted_beside_the_rotational_error():
    analysis, _ = shown_run()
    plain = {figure.key: figure for figure in report_figures(analysis)}["rotational-error"]
    assert len(plain.traces) == 2
    std = np.linspace(3.0, 9.0, len(analysis.rotation_frames))
    told = replace(analysis, rotational=replace(analysis.rotational, ensemble_std_meV_per_A=std))
    figure = {figure.key: figure for figure in report_figures(told)}["rotational-error"]
    assert figure.log_y
    assert not plain.log_y
    order = np.argsort(analysis.angle_swept_deg[analysis.rotation_frames])
    np.testing.assert_array_equal(figure.traces[2].y, std[order])
    np.testing.assert_array_equal(figure.traces[2].x, figure.traces[0].x)
    np.testing.assert_array_equal(figure.traces[0].moments, analysis.time_ps[analysis.rotation_frames][order])
    assert "ensemble spread 6.29 meV/Å" in figure.description


def test_the_first_view_lays_the_two_longest_axes_into_the_plane():
    generator = np.random.default_rng(4)
    flat = generator.normal(size=(11, 3)) * [0.2, 3.0, 1.1]
    seen = flat @ first_view(flat).T
    assert np.ptp(seen[:, 0]) > np.ptp(seen[:, 1]) > np.ptp(seen[:, 2])
    rotation = first_view(flat)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)  # no image in a mirror
    line = np.array([[0.0, 0.0, -0.6], [0.0, 0.0, 0.6]])  # two atoms have one axis
    assert np.linalg.det(first_view(line)) == pytest.approx(1.0)
    assert abs((line @ first_view(line).T)[1, 0]) == pytest.approx(0.6)
