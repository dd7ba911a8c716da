"""The head of a report: the verdict with its scope, what failed in words, the force error first."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from report_cases import EVALUATION, shown_run

from remul_md import load_potential
from remul_md.analysis import verdicts as judge
from remul_md.analysis.report import PotentialRecord, write_report
from remul_md.analysis.report.banner import IN_WORDS, MEASURE, SECTION_OF, banner, cards, counted, verdict_in_words
from remul_md.analysis.report.record import shipped_figures
from remul_md.analysis.verdicts import QUESTIONS

RECORD = PotentialRecord(molecule="ethanol", training_data="rmd17/ethanol/train-01", data_temperature_K=500.0)


@pytest.fixture(scope="module")
def run():
    return shown_run()[0]


def judged(run, **passed):
    """The run with other results, by the first word of a check."""
    chosen = [replace(v, passed=passed.get(v.name.split()[0], True)) for v in run.verdicts]
    return replace(run, verdicts=tuple(chosen))


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_a_sound_run_holds_and_says_for_what(run) -> None:
    style, title = verdict_in_words(judged(run), RECORD)
    assert (style, title) == ("pass", "Holds for 300 K NVE of ethanol")
    text = text_of(banner(judged(run), RECORD))
    assert "All 7 checks passed" in text
    assert "within its training data; not bond breaking" in text
    assert "500 K" in text
    assert "C₂H₆O" in text


def test_what_failed_or_is_open_stands_in_the_headline(run) -> None:
    bad = judged(run, energy=False, forces=False)
    style, title = verdict_in_words(bad, RECORD)
    assert style == "fail"
    assert title == "Does not hold: the energy drifts; the forces do not turn with the molecule"
    text = text_of(banner(bad, RECORD))
    assert "5 of 7 checks passed" in text
    assert all(v.why in text for v in run.verdicts if v.name in (judge.ENERGY, judge.ROTATION))
    assert verdict_in_words(judged(run, energy=None), RECORD)[0] == "open"
    left = text_of(banner(judged(run, inside=False), RECORD))
    assert "within its training data" not in left  # a scope that the checks deny
    assert "Scope" not in left
    many = verdict_in_words(judged(run, energy=False, forces=False, molecule=False, angular=False), RECORD)[1]
    assert many.endswith("; and 2 more")
    for verdict in run.verdicts:
        assert verdict.name in IN_WORDS
        assert verdict.name in SECTION_OF


def test_a_question_without_an_answer_is_no_pass(run) -> None:
    some = replace(judged(run), verdicts=tuple(v for v in judged(run).verdicts if v.name != judge.ENERGY))
    style, title = verdict_in_words(some, None)
    assert style == "open"
    assert "as far as it was checked" in title
    assert "whether the energy is conserved" in counted(some.verdicts)
    assert set(QUESTIONS) <= set(IN_WORDS)
    assert verdict_in_words(replace(run, verdicts=()), None)[0] == "open"


def test_a_field_and_an_axis_are_said(run) -> None:
    plain = banner(judged(run), RECORD)
    assert "field" not in plain
    assert "about" not in plain
    text = text_of(
        banner(replace(judged(run), axis=(0.0, 0.0, 1.0)), replace(RECORD, fields_V_per_A=((0.0, 0.0, 0.5),)))
    )
    assert "in the electric field (0 0 0.5) V/Å" in text
    assert "judged about (0 0 1) only" in text or "judged about the axis (0 0 1) only" in text


def test_the_force_error_is_the_first_card(run) -> None:
    def first(evaluation, record):
        return text_of(re.search(r"<li.*?</li>", cards(run, evaluation=evaluation, record=record)).group())

    assert "9.47 meV/Å" in first({**EVALUATION, "data": "my-test"}, RECORD)
    assert "137 test frames of my-test" in first({**EVALUATION, "data": "my-test"}, RECORD)
    known = first(None, replace(RECORD, validation_force_mae_meV_per_A=3.24))
    assert "3.24 meV/Å" in known
    assert "validation frames" in known
    assert "--potential" in first(None, None)


def test_every_card_has_its_unit_and_a_temperature_is_one(run) -> None:
    shown = cards(run, evaluation=EVALUATION, record=RECORD)
    numbers = re.findall(r'class="number">([^<]+)<span class="unit"> ([^<]+)</span>', shown)
    assert len(numbers) == 1 + len(run.verdicts)
    assert (f"{run.mean_temperature_K:.1f}", "K") in numbers
    assert "mean, limit 300 ± 30 K" in shown
    assert {verdict.name for verdict in run.verdicts} == set(MEASURE)  # each number says what it is of
    assert "−0" not in [number for number, _ in numbers]


def test_the_record_of_a_shipped_potential_has_its_test_figures(tmp_path, run) -> None:
    potential = load_potential("ethanol")
    record = PotentialRecord.of(potential, forces="conservative")
    assert record.molecule == "ethanol"
    assert record.data_temperature_K == 500.0
    assert record.figures["data"] == "rmd17/ethanol/test-01"
    assert record.validation_force_mae_meV_per_A > 1.0
    assert shipped_figures(potential, forces="direct")["force_mae_rotated"] > record.figures["force_mae_rotated"]
    path = write_report(run, tmp_path / "report.html", record=record)
    text = text_of(path.read_text(encoding="utf-8").split("</main>")[0])
    assert f"{record.figures['force_mae_rotated']:.3g} meV/Å" in text
    assert "1,000 test frames of rmd17/ethanol/test-01" in text
