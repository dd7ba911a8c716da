from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from report_cases import EVALUATION, analysed_run, training_rows

from remul_md.analysis.report import write_report, write_summary_png
from remul_md.analysis.report.figures import MAX_POINTS, drift_band, learning_curve, report_figures, thin
from remul_md.analysis.report.parts import figure_data
from remul_md.errors import InputError


@pytest.fixture(scope="module")
def analysis():
    return analysed_run()


class Elements(HTMLParser):
    """Start tags with their attributes, and the text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._silent = False

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._silent = False

    def handle_data(self, data):
        if not self._silent:
            self.text.append(data)


def read(path) -> tuple[Elements, list[dict]]:
    page = Elements()
    html = path.read_text(encoding="utf-8")
    page.feed(html)
    data = re.search(r'id="figures">(.*?)</script>', html, re.DOTALL)
    return page, json.loads(data.group(1))


def test_the_page_is_self_contained_and_says_every_verdict(analysis, tmp_path):
    path = write_report(
        analysis,
        tmp_path / "new" / "report.html",
        evaluation=EVALUATION,
        training=training_rows(),
        provenance={"potential": "ethanol.pt", "versions": {"torch": "2.x"}},
    )
    page, figures = read(path)
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), f"<{tag} {name}={value}> asks for another file"
    text = " ".join(page.text)
    assert len(analysis.verdicts) == 6
    for verdict in analysis.verdicts:
        assert verdict.why in text
        assert verdict.name.capitalize() in text
    assert "9.31" in text
    assert "9.47" in text
    assert "Force error on O" in text
    assert "ethanol.pt" in text
    assert list(tmp_path.joinpath("new").iterdir()) == [path]  # no temporary file stays
    assert len(figures) == 6
    described = {
        attributes["id"]: attributes["aria-label"] for _, attributes in page.tags if attributes.get("role") == "img"
    }
    assert set(described) == {figure["key"] for figure in figures}
    assert all(len(description) > 30 for description in described.values())


def test_plots_hold_the_numbers_of_the_run(analysis):
    figures = {figure.key: figure for figure in report_figures(analysis, training=training_rows())}
    assert set(figures) == {
        "total-energy",
        "rotational-error",
        "net-torque",
        "temperature",
        "bonds",
        "learning-curve",
    }
    for figure in figures.values():
        assert 2 <= sum(len(trace.x) for trace in figure.traces) <= MAX_POINTS
        assert figure.reading.count(".") >= 1
    energy = figures["total-energy"]
    assert f"of {len(analysis.energies.time_ps):,} points" in energy.thinned
    relative = 1e3 * analysis.energies.total_energy / 9
    assert np.ptp(energy.traces[0].y) == pytest.approx(np.ptp(relative))  # thinning keeps the extremes
    slope = np.polyfit(energy.traces[1].x, energy.traces[1].y, 1)[0]
    assert slope == pytest.approx(analysis.drift.slope_meV_per_atom_ps)
    assert figures["rotational-error"].traces[0].x.max() == pytest.approx(
        analysis.angle_swept_deg[analysis.rotation_frames].max()
    )
    assert figures["net-torque"].traces[0].y.max() == pytest.approx(
        1e3 * np.linalg.norm(analysis.net_torque_eV, axis=1).max()
    )
    assert figures["learning-curve"].log_y


def test_the_fan_of_the_drift_has_the_slopes_of_its_interval(analysis):
    drift = analysis.drift
    ends = np.array([drift.start_ps, drift.start_ps + drift.length_ps])
    line, low, high = drift_band(drift, ends)
    assert np.diff(low)[0] / drift.length_ps == pytest.approx(drift.ci95_meV_per_atom_ps[0])
    assert np.diff(high)[0] / drift.length_ps == pytest.approx(drift.ci95_meV_per_atom_ps[1])
    assert low.mean() == pytest.approx(line.mean())
    assert high.mean() == pytest.approx(line.mean())


def test_thinning_keeps_every_extreme_and_the_order():
    generator = np.random.default_rng(5)
    x = np.sort(generator.uniform(size=9973))
    y = generator.normal(size=9973)
    spike = 4321
    y[spike] = 50.0
    kept_x, kept_y = thin(x, y, at_most=640)
    assert 600 <= len(kept_x) <= 640
    assert (np.diff(kept_x) > 0).all()
    assert kept_y.max() == 50.0
    assert kept_y.min() == y.min()
    assert kept_x[np.argmax(kept_y)] == x[spike]
    assert thin(x, y, at_most=10000)[0] is x


def test_what_was_not_measured_is_left_out(analysis, tmp_path):
    bare = replace(
        analysis, energies=None, drift=None, conservation=None, temperature_K=None, net_torque_eV=None,
        rotational=None, momentum=None, net_force_eV_per_A=None, verdicts=(), notes=("Only positions <b>.",),
    )  # fmt: skip
    page, figures = read(write_report(bare, tmp_path / "report.html"))
    assert [figure["key"] for figure in figures] == ["bonds"]
    text = " ".join(page.text)
    assert "nothing that could be judged" in text
    assert "Only positions <b>." in text  # escaped in the file, or the parser would have taken it for a tag
    assert "Nothing is known of the potential" in text
    assert learning_curve([{"step": 10.0, "learning_rate": 1e-3}]) is None
    assert learning_curve([{"step": 10.0, "task": 1.0}]) is None  # a frame about one point says nothing


def test_a_name_cannot_break_out_of_the_page(analysis, tmp_path):
    rows = [{"step": 1.0, "task": 2.0}, {"step": 2.0, "task": 1.0}]
    nasty = "</script><script>alert(1)</script>"
    path = write_report(
        replace(analysis, name=nasty), tmp_path / "report.html", training=rows, provenance={nasty: nasty}
    )
    assert nasty not in path.read_text(encoding="utf-8")
    figure = replace(report_figures(analysis)[0], title=nasty)
    script = figure_data([figure])
    assert script.count("<") == 2
    assert json.loads(re.search(r">(.*)<", script).group(1))[0]["title"] == nasty


@pytest.mark.slow
def test_the_picture_is_1600_pixels_wide_and_not_blank(analysis, tmp_path):
    from matplotlib.image import imread

    cases = {"both": (EVALUATION, training_rows()), "accuracy": (EVALUATION, None), "run": (None, None)}
    seen = []
    for name, (evaluation, training) in cases.items():
        path = write_summary_png(analysis, tmp_path / f"{name}.png", evaluation=evaluation, training=training)
        pixels = imread(path)
        assert pixels.shape[:2] == (640, 1600)
        accent = np.abs(pixels[..., :3] - np.array([0xB8, 0x43, 0x1F]) / 255).max(axis=2) < 0.15
        panels = np.array_split(accent, 2 if name == "run" else 3, axis=1)
        assert all(panel.sum() > 100 for panel in panels)  # each panel has its curve
        seen.append(pixels)
    assert not np.array_equal(seen[0], seen[1])


def test_files_that_cannot_be_written_are_named(analysis, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    with pytest.raises(InputError, match="cannot be written "):
        write_report(analysis, blocker / "report.html")
    with pytest.raises(InputError, match="cannot be written "):
        write_summary_png(analysis, blocker / "summary.png")
    with pytest.raises(InputError, match="holds nothing to draw"):
        write_summary_png(replace(analysis, drift=None, rotational=None), tmp_path / "empty.png")
