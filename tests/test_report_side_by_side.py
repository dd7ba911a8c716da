"""Runs side by side: the headline names who failed and why, the table has every number, the plots every run."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from report_cases import analysed_run, side_by_side

from remul_md.analysis.report import Subject, side_by_side_data, write_side_by_side
from remul_md.analysis.report.overlays import N_BLOCKS, overlay_figures
from remul_md.analysis.report.side_by_side import headline
from remul_md.errors import InputError


def judged(passed):
    """The analysed run with all verdicts alike but the first."""
    run = analysed_run()
    first, *others = run.verdicts
    verdicts = (replace(first, passed=passed), *(replace(verdict, passed=True) for verdict in others))
    return replace(run, verdicts=verdicts)


def test_the_headline_tells_who_and_why():
    good, bad, unsure = (Subject(name=n, analysis=judged(p)) for n, p in (("a", True), ("b", False), ("c", None)))
    assert headline([good, replace(good, name="d")]) == "Both hold"
    assert headline([good, unsure]) == "Not decided for c: whether the energy is conserved; a holds"
    told = headline([good, bad, replace(good, name="d"), unsure])
    assert told == "B: the energy drifts; not decided for c: whether the energy is conserved; a and d hold"


def test_an_axis_is_told(tmp_path):
    one, other = side_by_side()
    about = replace(other, analysis=replace(other.analysis, axis=(0.0, 0.0, 1.0)))
    page = write_side_by_side([one, about], tmp_path / "page.html", comparisons={}, reference="shown").read_text()
    assert "judged about an axis only: shown about" in page


def test_every_run_has_a_column_and_a_look(tmp_path):
    shown = side_by_side()
    path = write_side_by_side(
        shown, tmp_path / "page.html", comparisons={}, reference="shown", provenance={"made": "x"}
    )
    page = path.read_text()
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', page).group(1))
    data = json.loads(re.search(r'id="data">(.*?)</script>', page).group(1))
    assert data == json.loads(json.dumps(side_by_side_data(shown, {}, "shown")))
    assert set(data["runs"]) == {"tilted", "shown"}
    by_key = {figure["key"]: figure for figure in figures}
    assert [trace["role"] for trace in by_key["rotational-error"]["traces"]] == ["run-0", "run-1"]
    assert [trace["name"] for trace in by_key["spectrum"]["traces"]] == ["shown"]
    energy = by_key["total-energy"]["traces"][0]
    assert len(energy["x"]) == N_BLOCKS
    run = analysed_run()
    last = run.energies.total_energy[-(len(run.energies.time_ps) // N_BLOCKS) :].mean()
    first = run.energies.total_energy[: -(-len(run.energies.time_ps) // N_BLOCKS)].mean()
    assert energy["y"][-1] == pytest.approx(1e3 * (last - first) / 9, abs=0.02)
    table = re.search(r'<table class="side".*?</table>', page, re.DOTALL).group(0)
    assert "7.31" in table
    assert "12.5" in table
    assert table.count("<tr>") == 2 + 1 + len({v.name for each in shown for v in each.analysis.verdicts})
    with pytest.raises(InputError, match="one to 6"):
        write_side_by_side(shown * 4, path, comparisons={}, reference="shown")


def test_a_data_set_is_a_dashed_line():
    from remul_md.analysis.comparison import compare_structures
    from remul_md.datasets import read_frames

    frames = read_frames("rmd17/ethanol/test-01").select(range(40))
    positions = frames.positions.reshape(40, 9, 3)
    found = compare_structures(positions[:20], positions[20:], atomic_numbers=frames.frame_numbers(0))
    figures = overlay_figures(side_by_side(), comparisons={"tilted": found}, reference="data")
    (pairs,) = (figure for figure in figures if figure.key == "pair-distances")
    assert [trace.name for trace in pairs.traces][-1] == "data"
    assert pairs.traces[-1].role == "bound"
