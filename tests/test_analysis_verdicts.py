"""The lines of a verdict: one unit for one quantity, a limit with its unit, and no line that contradicts its yes."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from report_cases import shown_run

from remul_md.analysis.extrapolation import RangeDeparture
from remul_md.analysis.temperature import what_sets_the_temperature
from remul_md.analysis.verdicts import Bounds, Verdict, energy_verdict, range_verdict, temperature_verdict
from remul_md.cli.printing import verdict_line


@pytest.fixture(scope="module")
def judged() -> dict[str, Verdict]:
    return {verdict.name: verdict for verdict in shown_run()[0].verdicts}


def test_every_limit_that_is_printed_has_the_unit_of_its_value(judged) -> None:
    assert len(judged) == 7
    for verdict in judged.values():
        assert verdict.unit
        assert verdict.limit.endswith(verdict.unit)
        assert f"(limit {verdict.limit})" in verdict_line(verdict)
    assert judged["energy conserved"].limit == "±0.01 meV/atom/ps"
    assert judged["forces turn with the molecule"].limit == "≤ 2 meV/Å"


def test_a_temperature_is_a_temperature() -> None:
    verdict = temperature_verdict(299.205, asked_K=300.0, n_dof=24, bounds=Bounds())
    assert (verdict.value, verdict.limit, verdict.passed) == (299.205, "300 ± 30 K", True)
    assert not temperature_verdict(331.0, asked_K=300.0, n_dof=24, bounds=Bounds()).passed
    assert not temperature_verdict(269.0, asked_K=300.0, n_dof=24, bounds=Bounds()).passed


@pytest.mark.parametrize(
    ("options", "telling"),
    [
        (
            {"ensemble": "nve", "equilibrate_ps": 2.0, "match_energy": None},
            "velocities scaled .* nothing about the pot",
        ),
        ({"ensemble": "nve", "equilibrate_ps": 2.0, "match_energy": False}, "its first moment"),
        ({"ensemble": "nve", "equilibrate_ps": 0.0}, "its first moment"),
        ({"ensemble": "bussi", "equilibrate_ps": 2.0}, r"thermostat \(bussi\)"),
    ],
)
def test_the_row_of_the_temperature_says_what_set_it(options, telling) -> None:
    set_by = what_sets_the_temperature(options)
    verdict = temperature_verdict(299.2, asked_K=300.0, n_dof=24, bounds=Bounds(), set_by=set_by)
    assert re.search(telling, verdict.why)
    assert what_sets_the_temperature({}) == ""


def test_a_drift_is_told_with_value_unit_limit_and_heating(judged) -> None:
    analysis = shown_run()[0]
    verdict, low = judged["energy conserved"], analysis.drift.ci95_meV_per_atom_ps[0]
    assert f"{low:.2g} to" in verdict.why
    pace = 1e3 * analysis.heating_rate_K_per_ps
    assert f"{pace * low:,.0f} to" in verdict.why
    assert f"(limit ±{pace * verdict.threshold:,.0f} K/ns)" in verdict.why
    assert f"it adds up to {analysis.drift.change_meV_per_atom:.2g} meV/atom" in verdict.why
    assert "shadow energy" in verdict.why
    assert "run longer" in verdict.why
    assert "slow wave" not in verdict.why  # which only the total energy cannot tell
    foreign = energy_verdict(replace(analysis.drift, judged="total energy"), "undecided", bounds=Bounds())
    assert "slow wave" in foreign.why


def test_a_quantity_has_the_unit_of_its_plot(judged) -> None:
    analysis = shown_run()[0]
    torque, angular = judged["no torque from nowhere"], judged["angular momentum kept"]
    assert (torque.unit, torque.limit) == ("meV", "≤ 25 meV")
    assert torque.value == pytest.approx(1e3 * analysis.net_torque_rms_eV)
    assert angular.unit == "%"
    assert angular.value == pytest.approx(100.0 * analysis.momentum.max_relative_change)
    assert not re.search(r"0\.025 eV", torque.why)


def test_a_run_within_the_margin_is_not_said_to_have_left_the_data() -> None:
    times = np.arange(5) * 0.01
    inside = RangeDeparture(departure_A=np.array([0.0, 0.03, 0.0, 0.12, 0.0]), worst_pair="C-H", n_without_range=0)
    verdict = range_verdict(inside, time_ps=times)
    assert verdict.passed
    assert "left" not in verdict.why
    assert "C-H" in verdict.why
    outside = range_verdict(replace(inside, departure_A=np.array([0.0, 0.16, 0.0, 0.2, 0.0])), time_ps=times)
    assert outside.passed is False
    assert "2 of 5 frames" in outside.why
    assert "left" in outside.why
