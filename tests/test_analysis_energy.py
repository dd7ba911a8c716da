"""Drift, its interval and its verdict: coverage on noise of many kinds, looks, means, and a real run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from analysis_runs import ethanol_run
from scipy.signal import lfilter

from remul_md.analysis.energy import DRIFT_BOUND, Drift, conserves, energy_drift, mean_drift, within
from remul_md.analysis.log import read_log
from remul_md.errors import InputError

N_TRIALS, N_SAMPLES = 400, 317
TIME = 2.5 + np.linspace(0.0, 1.0, N_SAMPLES)  # 1 ps
SHARE = TIME - 2.5
# 400 trials: a true coverage of 95 % stays above 92.5 % with a confidence of 98 %, true rates of 5 % below 7.5 %.
NOMINAL, WRONG = 0.925, 0.075


def noise(kind: str, generator: np.random.Generator) -> np.ndarray:
    """One series; the size does not matter."""
    name, _, number = kind.partition(" ")
    if name == "white":
        return generator.normal(size=N_SAMPLES)
    if name == "AR(1)":  # its correlation time as a share of the run
        memory = np.exp(-1.0 / (float(number) * N_SAMPLES))
        warm_up = int(6 * float(number) * N_SAMPLES)
        return lfilter([1.0], [1.0, -memory], generator.normal(size=N_SAMPLES + warm_up))[warm_up:]
    if name == "cosine":  # its period in lengths of the run
        return np.cos(2 * np.pi * (SHARE / float(number) + generator.uniform()))
    if name == "decay":  # from the start, its time as a share of the run
        return generator.choice([-1.0, 1.0]) * np.exp(-SHARE / float(number))
    assert name == "1/f^"
    frequency = np.fft.rfftfreq(16 * N_SAMPLES)[1:]
    waves = generator.normal(size=(2, len(frequency))) * frequency ** (-0.5 * float(number))
    return np.fft.irfft(np.append(0.0, waves[0] + 1j * waves[1]))[:N_SAMPLES]


KINDS = ("white", "AR(1) 0.01", "AR(1) 0.1", "AR(1) 1", "cosine 1.5", "cosine 2", "cosine 3", "1/f^ 1", "1/f^ 1.5")
KINDS = (*KINDS, "decay 0.05", "decay 0.3")


@cache
def intervals_of_noise(kind: str, over_white: float) -> np.ndarray:
    """Intervals of series without any drift, [trials, 2], in units of the root mean square slope of the noise."""
    generator = np.random.default_rng(11)
    series = np.stack([noise(kind, generator) for _ in range(N_TRIALS)])
    series /= np.sqrt(np.mean([np.polyfit(TIME, row, 1)[0] ** 2 for row in series]))
    if np.isfinite(over_white):
        series += generator.normal(size=series.shape) * (N_SAMPLES / 12.0) ** 0.5 / over_white
    return np.array([energy_drift(TIME, -1234.5 + 1e-3 * row).ci95_meV_per_atom_ps for row in series])


def share_of(verdict: str, intervals: np.ndarray, *, true: float, size: float) -> float:
    """How often a true drift and noise of that size, both in units of the bound, get the verdict."""
    found = [within((low, high), bound_meV_per_atom_ps=1.0) for low, high in intervals * size + true]
    return found.count(verdict) / len(found)


@pytest.mark.parametrize("over_white", [np.inf, 30.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_interval_covers_the_true_slope_in_95_percent_of_runs_and_verdicts_are_wrong_in_5(kind, over_white):
    intervals = intervals_of_noise(kind, over_white)
    assert np.mean((intervals[:, 0] <= 0.0) & (intervals[:, 1] >= 0.0)) >= NOMINAL
    for size in (0.05, 0.3, 1.0, 4.0):
        assert share_of("conserves", intervals, true=1.0001, size=size) <= WRONG
        assert share_of("conserves", intervals, true=-2.0, size=size) <= WRONG
        assert share_of("drifts", intervals, true=0.9999, size=size) <= WRONG
        assert share_of("drifts", intervals, true=0.0, size=size) <= WRONG


def test_what_is_plain_gets_its_verdict():
    intervals = intervals_of_noise("white", np.inf)
    assert share_of("conserves", intervals, true=0.2, size=0.01) > 0.95
    assert share_of("drifts", intervals, true=2.0, size=0.01) > 0.95
    # ... so the price is known: noise of a hundredth of the bound, where white noise alone would need a half.
    assert 15.0 < np.median(intervals[:, 1] - intervals[:, 0]) / 2.0 < 30.0


@pytest.mark.parametrize("period", [0.4, 1.0, 1.5, 2.0, 3.0])
def test_no_wave_of_up_to_three_runs_is_a_drift_whatever_its_phase(period):
    for phase in np.linspace(0.0, 1.0, 97):
        low, high = energy_drift(TIME, np.cos(2 * np.pi * (SHARE / period + phase))).ci95_meV_per_atom_ps
        assert low <= 0.0 <= high


def first_verdict(series: np.ndarray, *, corrected: bool) -> str:
    """A run of four blocks, looked at after each, with or without the correction for that."""
    for number in range(1, 5):
        end = number * N_SAMPLES // 4
        look = (number, 4) if corrected else (1, 1)
        verdict = conserves(energy_drift(TIME[:end], 1e-3 * series[:end], look=look), bound_meV_per_atom_ps=1.0)
        if verdict != "undecided":
            return verdict
    return "undecided"


@pytest.mark.parametrize("kind", ["white", "AR(1) 0.1", "cosine 2", "cosine 3"])
def test_four_looks_at_a_growing_run_are_corrected_for(kind):
    generator = np.random.default_rng(2)
    plain, corrected = 0, 0
    for size in (0.1, 0.5, 3.0):
        for _ in range(120):
            series = size * noise(kind, generator) + 1.0001 * TIME
            plain += first_verdict(series, corrected=False) == "conserves"
            corrected += first_verdict(series, corrected=True) == "conserves"
    assert corrected <= 0.05 * 360
    assert corrected <= plain
    if kind == "cosine 3":
        assert plain > 0.05 * 360  # each look sees a wave of up to twelve lengths


def test_early_looks_are_strict_and_the_last_is_hardly_wider_than_an_only_one():
    wave = noise("white", np.random.default_rng(5))
    width = {
        look: np.diff(energy_drift(TIME, wave, look=look).ci95_meV_per_atom_ps)[0] for look in ((1, 1), (1, 4), (4, 4))
    }
    assert width[4, 4] == pytest.approx(width[1, 1] * (354 / 256) ** 0.5)  # 1 + 16 + 81 + 256 over 256
    assert width[1, 4] == pytest.approx(16.0 * width[4, 4])
    with pytest.raises(InputError, match=r"look \(5, 4\) is not"):
        energy_drift(TIME, wave, look=(5, 4))


def test_slope_line_and_fluctuation_are_those_of_least_squares_for_uneven_times():
    generator = np.random.default_rng(3)
    time = np.sort(generator.uniform(1.0, 9.0, size=317))
    energy = -1e4 + 2.3e-3 * time + 1e-3 * generator.normal(size=317)
    drift = energy_drift(time, energy)
    slope, offset = np.polyfit(time, energy + 1e4, 1)
    assert drift.slope_meV_per_atom_ps == pytest.approx(1e3 * slope, rel=1e-7)
    np.testing.assert_allclose(drift.line(time) + 1e4, offset + slope * time, atol=1e-10)
    residual = energy + 1e4 - offset - slope * time
    assert drift.fluctuation_meV_per_atom == pytest.approx(1e3 * residual.std(), rel=1e-7)


def test_the_shadow_energy_is_judged_where_there_is_one():
    generator = np.random.default_rng(8)
    waves = 0.3 * np.cos(2 * np.pi * SHARE / 2.7 + 1.3)
    total = -77.0 + 1e-3 * (0.004 * SHARE + waves)
    shadow = -76.9 + 1e-3 * (0.004 * SHARE + 0.001 * waves + 1e-5 * generator.normal(size=N_SAMPLES))
    shadow[0] = np.nan  # no step ends in the first row of a log
    alone, beside = energy_drift(TIME, total), energy_drift(TIME, total, shadow_energy_per_atom=shadow)
    assert (alone.judged, conserves(alone)) == ("total energy", "undecided")
    assert (beside.judged, conserves(beside)) == ("shadow energy", "conserves")
    assert beside.slope_meV_per_atom_ps == pytest.approx(0.004, abs=0.002)
    assert beside.change_meV_per_atom == pytest.approx(beside.slope_meV_per_atom_ps, rel=1e-12)  # the run is 1 ps
    # What is shown is the total energy: its scatter, and a line that goes through its middle.
    assert beside.fluctuation_meV_per_atom == pytest.approx(1e3 * np.std(total - beside.line(TIME)), rel=1e-6)
    assert beside.line(TIME).mean() == pytest.approx(total.mean(), abs=1e-10)
    assert beside.n_samples == N_SAMPLES
    shadow[40] = np.inf
    with pytest.raises(InputError, match="sample 39 is not finite"):
        energy_drift(TIME, total, shadow_energy_per_atom=shadow)
    with pytest.raises(InputError, match=r"shadow energies \(316,\)"):
        energy_drift(TIME, total, shadow_energy_per_atom=shadow[1:])
    with pytest.raises(InputError, match="at least 20 energies, got 19"):
        energy_drift(TIME[:20], total[:20], shadow_energy_per_atom=shadow[:20])


def drift_of(low: float, high: float) -> Drift:
    return Drift(
        slope_meV_per_atom_ps=0.5 * (low + high),
        ci95_meV_per_atom_ps=(low, high),
        fluctuation_meV_per_atom=0.1,
        intercept_eV_per_atom=-3.0,
        start_ps=0.0,
        length_ps=5.0,
        n_samples=500,
    )


def test_conservation_is_an_equivalence_test():
    bound = {"bound_meV_per_atom_ps": 0.05}
    assert conserves(drift_of(-0.02, 0.04), **bound) == "conserves"
    assert conserves(drift_of(-0.02, 0.04), bound_meV_per_atom_ps=0.03) == "undecided"
    assert conserves(drift_of(-0.2, 0.2), **bound) == "undecided"  # not different from zero, and yet nothing is shown
    assert conserves(drift_of(0.01, 0.2), **bound) == "undecided"
    assert conserves(drift_of(0.06, 0.2), **bound) == "drifts"
    assert conserves(drift_of(-0.2, -0.06), **bound) == "drifts"
    assert conserves(drift_of(0.0, 0.9 * DRIFT_BOUND)) == "conserves"
    assert conserves(drift_of(0.0, 1.1 * DRIFT_BOUND)) == "undecided"
    with pytest.raises(InputError, match=r"bound .*got 0"):
        conserves(drift_of(-1, 1), bound_meV_per_atom_ps=0.0)


@pytest.mark.slow
def test_velocity_verlet_conserves_and_a_leak_of_twice_the_bound_is_seen(tmp_path):
    log = read_log(ethanol_run(tmp_path, tilted=False, length_ps=1.0, log_interval=2).with_suffix(".log.csv"))

    def drift(leak: float = 0.0) -> Drift:
        more = 1e-3 * leak * log.time_ps
        return energy_drift(
            log.time_ps, log.total_energy / 9 + more, shadow_energy_per_atom=log.shadow_energy / 9 + more
        )

    assert conserves(drift()) == "conserves"
    assert conserves(drift(2.0 * DRIFT_BOUND)) == "drifts"
    widths = [np.diff(d.ci95_meV_per_atom_ps)[0] for d in (drift(), energy_drift(log.time_ps, log.total_energy / 9))]
    assert widths[0] < 0.1 * widths[1]
    assert drift(0.12).slope_meV_per_atom_ps - drift().slope_meV_per_atom_ps == pytest.approx(0.12, rel=1e-6)


def test_constant_energy_has_a_drift_of_zero_with_a_narrow_interval():
    drift = energy_drift(np.linspace(0.0, 4.0, 33), np.full(33, -17.25))
    assert drift.slope_meV_per_atom_ps == 0.0
    assert drift.ci95_meV_per_atom_ps == (0.0, 0.0)


def test_unusable_energies_are_refused():
    time = np.linspace(0.0, 3.0, 41)
    energy = np.sin(time)
    with pytest.raises(InputError, match="at least 20 energies, got 13"):
        energy_drift(time[:13], energy[:13])
    with pytest.raises(InputError, match=r"times \(41,\) and energies \(40,\)"):
        energy_drift(time, energy[:-1])
    broken = energy.copy()
    broken[17] = np.nan
    with pytest.raises(InputError, match="sample 17 is not finite"):
        energy_drift(time, broken)
    back = time.copy()
    back[23] = back[22]
    with pytest.raises(InputError, match="times must increase, but sample 23"):
        energy_drift(back, energy)


def test_few_runs_have_the_interval_of_student():
    runs = [drift_of(slope - 0.03, slope + 0.03) for slope in (0.010, 0.014)]
    mean = mean_drift(runs)
    assert mean.slope_meV_per_atom_ps == pytest.approx(0.012)
    # Two values: 12.706 times the standard error of 0.002.
    np.testing.assert_allclose(mean.interval_meV_per_atom_ps, (0.012 - 0.025412, 0.012 + 0.025412), rtol=1e-3)
    assert mean_drift(runs[:1]).interval_meV_per_atom_ps == runs[0].ci95_meV_per_atom_ps
    with pytest.raises(InputError, match="mean drift of no run was asked for"):
        mean_drift([])


def coverage_of_the_mean(slopes: Sequence[float], n_runs: int) -> float:
    drifts = [drift_of(slope, slope) for slope in slopes]
    means = [mean_drift(drifts[first : first + n_runs]) for first in range(0, len(drifts) - n_runs + 1, n_runs)]
    return float(np.mean([m.interval_meV_per_atom_ps[0] < 0.0 < m.interval_meV_per_atom_ps[1] for m in means]))


@pytest.mark.parametrize("n_runs", [2, 5])
@pytest.mark.parametrize("kind", ["white", "AR(1) 0.1", "1/f^ 1.5"])
def test_the_interval_of_the_mean_covers_with_two_runs_and_with_five(kind, n_runs):
    generator = np.random.default_rng(17)
    slopes = np.polyfit(TIME, np.stack([noise(kind, generator) for _ in range(400 * n_runs)]).T, 1)[0]
    assert NOMINAL <= coverage_of_the_mean(slopes, n_runs) <= 0.98


def test_a_run_that_blows_up_drifts_although_it_is_as_curved_as_a_wave() -> None:
    """Exponential growth to 2 eV an atom; the same shape a thousand times lower is undecided."""
    time = np.linspace(0.0, 1.2, 600)
    growth = np.exp(8.0 * time / 1.2) / np.exp(8.0)
    high, low = (energy_drift(time, -3.0 + height * growth) for height in (2.0, 2e-3))
    assert high.ci95_meV_per_atom_ps[0] < 0.0 < high.ci95_meV_per_atom_ps[1]
    assert conserves(high) == "drifts"
    assert conserves(low) == "undecided"
