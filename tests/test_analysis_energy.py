from __future__ import annotations

import numpy as np
import pytest
from analysis_runs import ethanol_run
from scipy.signal import lfilter

from remul_md.analysis.energy import Drift, conserves, energy_drift, mean_drift, within
from remul_md.analysis.log import read_log
from remul_md.errors import InputError

N_TRIALS, N_SAMPLES, TIMESTEP_PS = 400, 1400, 0.007
TRUE_SLOPE = 0.31  # meV/atom/ps


def correlated_noise(generator: np.random.Generator, *, share_of_run: float, n_samples: int = N_SAMPLES) -> np.ndarray:
    """AR(1) noise of unit variance whose correlation time is that share of the run; white for 0."""
    memory = np.exp(-1.0 / (share_of_run * n_samples)) if share_of_run else 0.0
    warm_up = int(6 * share_of_run * n_samples)
    kicks = generator.normal(size=n_samples + warm_up)
    return lfilter([1.0], [1.0, -memory], kicks)[warm_up:] * np.sqrt(1.0 - memory**2)


def drifts_of_noise(*, share_of_run: float, extra: str = "") -> list[Drift]:
    generator = np.random.default_rng(7)
    time = 2.5 + TIMESTEP_PS * np.arange(N_SAMPLES)
    drifts = []
    for _ in range(N_TRIALS):
        noise = correlated_noise(generator, share_of_run=share_of_run)
        if extra == "white":
            noise = noise + 2.0 * generator.normal(size=N_SAMPLES)
        if extra == "oscillation":
            noise = noise + 3.0 * np.sin(2 * np.pi * np.arange(N_SAMPLES) / 13.7 + generator.uniform(0, 6))
        drifts.append(energy_drift(time, -1234.5 + 1e-3 * (TRUE_SLOPE * time + 0.8 * noise)))
    return drifts


@pytest.mark.parametrize(
    ("share_of_run", "extra"),
    [(0.0, ""), (0.005, ""), (0.02, ""), (0.05, ""), (0.05, "white"), (0.05, "oscillation")],
)
def test_the_interval_covers_the_true_slope_as_often_as_it_says(share_of_run, extra):
    drifts = drifts_of_noise(share_of_run=share_of_run, extra=extra)
    covered = np.mean([d.ci95_meV_per_atom_ps[0] < TRUE_SLOPE < d.ci95_meV_per_atom_ps[1] for d in drifts])
    assert 0.92 <= covered <= 0.98
    # ... and not by being wide: twice the scatter of the slope, as Student's t with 8 degrees of freedom asks.
    half_widths = [0.5 * (d.ci95_meV_per_atom_ps[1] - d.ci95_meV_per_atom_ps[0]) for d in drifts]
    assert np.median(half_widths) < 3.0 * np.std([d.slope_meV_per_atom_ps for d in drifts])


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


def test_a_run_of_few_correlation_times_is_called_too_short():
    assert np.mean([d.too_short for d in drifts_of_noise(share_of_run=0.005)]) < 0.02
    assert np.mean([d.too_short for d in drifts_of_noise(share_of_run=0.2)]) > 0.85
    generator = np.random.default_rng(5)
    wander = np.cumsum(generator.normal(size=N_SAMPLES))  # heat from forces that are no gradient
    assert energy_drift(TIMESTEP_PS * np.arange(N_SAMPLES), 1e-5 * wander).too_short


@pytest.mark.parametrize("share_of_run", [0.1, 0.3])
def test_the_widened_interval_holds_for_runs_of_few_correlation_times(share_of_run):
    drifts = drifts_of_noise(share_of_run=share_of_run)
    short = [d for d in drifts if d.too_short]
    assert len(short) > 0.6 * len(drifts)
    covered = np.mean([d.judged_interval[0] < TRUE_SLOPE < d.judged_interval[1] for d in drifts])
    plain = np.mean([d.ci95_meV_per_atom_ps[0] < TRUE_SLOPE < d.ci95_meV_per_atom_ps[1] for d in drifts])
    assert covered >= 0.93 > plain


def test_the_correlation_time_is_found():
    found = np.median([d.correlation_time_ps for d in drifts_of_noise(share_of_run=0.03)])
    assert found == pytest.approx(0.03 * N_SAMPLES * TIMESTEP_PS, rel=0.15)


def test_conservation_is_an_equivalence_test():
    def drift(low: float, high: float, *, too_short: bool = False) -> Drift:
        return Drift(
            slope_meV_per_atom_ps=0.5 * (low + high),
            ci95_meV_per_atom_ps=(low, high),
            fluctuation_meV_per_atom=0.1,
            intercept_eV_per_atom=-3.0,
            start_ps=0.0,
            length_ps=5.0,
            correlation_time_ps=0.1,
            n_samples=500,
            too_short=too_short,
        )

    assert conserves(drift(-0.02, 0.04)) == "conserves"
    assert conserves(drift(-0.02, 0.04), bound_meV_per_atom_ps=0.03) == "undecided"
    assert conserves(drift(-0.2, 0.2)) == "undecided"  # not different from zero, and yet nothing is shown
    assert conserves(drift(0.01, 0.2)) == "undecided"
    assert conserves(drift(0.06, 0.2)) == "drifts"
    assert conserves(drift(-0.2, -0.06)) == "drifts"
    # A run too short for its noise is judged by twice the interval: -0.05 to 0.07 here, 0 to 0.02 there.
    assert conserves(drift(-0.02, 0.04, too_short=True)) == "undecided"
    assert conserves(drift(0.005, 0.015, too_short=True)) == "conserves"
    assert conserves(drift(0.06, 0.1, too_short=True)) == "undecided"
    assert conserves(drift(0.09, 0.12, too_short=True)) == "drifts"
    with pytest.raises(InputError, match=r"bound .*got 0"):
        conserves(drift(-1, 1), bound_meV_per_atom_ps=0.0)


@pytest.mark.slow
def test_velocity_verlet_conserves_and_a_leak_is_seen(tmp_path):
    log = read_log(ethanol_run(tmp_path, tilted=False, length_ps=2.0, log_interval=5).with_suffix(".log.csv"))
    drift = energy_drift(log.time_ps, log.total_energy / 9)
    assert conserves(drift) == "conserves"
    low, high = drift.ci95_meV_per_atom_ps
    # The total energy oscillates with the step: the interval must be near zero and far narrower than the scatter.
    assert low - 0.5 * (high - low) < 0.0 < high + 0.5 * (high - low)
    assert high - low < 0.5 * drift.fluctuation_meV_per_atom / drift.length_ps
    leak = 0.12e-3 * log.time_ps  # eV/atom/ps
    leaking = energy_drift(log.time_ps, log.total_energy / 9 + leak)
    assert conserves(leaking) == "drifts"
    assert leaking.slope_meV_per_atom_ps - drift.slope_meV_per_atom_ps == pytest.approx(0.12, rel=1e-6)


def test_constant_energy_has_a_drift_of_zero_with_a_narrow_interval():
    drift = energy_drift(np.linspace(0.0, 4.0, 33), np.full(33, -17.25))
    assert drift.slope_meV_per_atom_ps == 0.0
    assert drift.ci95_meV_per_atom_ps == (0.0, 0.0)
    assert not drift.too_short


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


def drift_of(slope: float, half_width: float, *, too_short: bool = False) -> Drift:
    return Drift(
        slope_meV_per_atom_ps=slope,
        ci95_meV_per_atom_ps=(slope - half_width, slope + half_width),
        fluctuation_meV_per_atom=0.1,
        intercept_eV_per_atom=0.0,
        start_ps=0.0,
        length_ps=10.0,
        correlation_time_ps=0.1,
        n_samples=1000,
        too_short=too_short,
    )


def test_the_mean_of_runs_is_narrower_unless_they_disagree():
    agreeing = mean_drift([drift_of(0.02, 0.03), drift_of(0.021, 0.03), drift_of(0.019, 0.03), drift_of(0.02, 0.03)])
    assert agreeing.widening == 1.0
    np.testing.assert_allclose(agreeing.interval_meV_per_atom_ps, (0.02 - 0.015, 0.02 + 0.015))
    # Student's t of 8 degrees of freedom is 2.306 at 95 %: standard deviations of 0.01 against a scatter of 0.05.
    apart = mean_drift([drift_of(0.0, 0.02306), drift_of(0.05 * 2**0.5, 0.02306)])
    assert apart.widening == pytest.approx(5.0, rel=1e-3)
    low, high = apart.interval_meV_per_atom_ps
    assert high - low == pytest.approx(2.0 * 5.0 * 0.02306 / 2**0.5, rel=1e-3)
    alone = mean_drift([drift_of(0.04, 0.01, too_short=True)])
    np.testing.assert_allclose(alone.interval_meV_per_atom_ps, (0.02, 0.06))  # twice as wide, as in its own verdict
    with pytest.raises(InputError, match="mean drift of no run was asked for"):
        mean_drift([])


def test_the_interval_of_the_mean_covers_the_true_slope_as_often_as_it_says():
    drifts = drifts_of_noise(share_of_run=0.02)
    means = [mean_drift(drifts[first : first + 3]) for first in range(0, len(drifts) - 2, 3)]
    covered = [m.interval_meV_per_atom_ps[0] < TRUE_SLOPE < m.interval_meV_per_atom_ps[1] for m in means]
    assert len(means) > 100
    assert np.mean(covered) > 0.92


def test_an_interval_is_judged_as_a_drift_is():
    bound = {"bound_meV_per_atom_ps": 0.05}
    assert within((-0.04, 0.01), **bound) == "conserves"
    assert within((0.06, 0.07), **bound) == "drifts"
    assert within((0.04, 0.07), **bound) == "undecided"
