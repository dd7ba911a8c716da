"""Calibration figures on errors whose distribution is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf

from remul_md.analysis.calibration import COVERED, calibration, std_scale
from remul_md.errors import InputError


def drawn(n_values: int, *, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Normal errors, each with a standard deviation of its own (log-normal), which is returned with it."""
    rng = np.random.default_rng(seed)
    stds = 7.0 * np.exp(spread * rng.normal(size=n_values))
    return stds * rng.normal(size=n_values), stds


def test_exact_error_bars_are_found_exact() -> None:
    errors, stds = drawn(200_000, spread=0.5)
    found = calibration(errors.reshape(-1, 4), stds.reshape(-1, 4))
    assert found.n_values == 200_000
    assert found.error_over_std == pytest.approx(1.0, abs=0.01)
    assert found.rms_std == pytest.approx(7.0 * np.exp(0.25), rel=0.01)
    assert found.within_1_std == pytest.approx(100 * erf(1 / np.sqrt(2)), abs=0.3)
    assert found.within_2_std == pytest.approx(100 * erf(2 / np.sqrt(2)), abs=0.15)
    assert 0.3 < found.spearman < 0.6


@pytest.mark.parametrize("factor", [0.4, 2.5])
def test_error_bars_of_a_wrong_size(factor: float) -> None:
    """Errors are 1/factor of what the error bar says; ranks do not change."""
    errors, stds = drawn(100_000, spread=0.5)
    exact, found = calibration(errors, stds), calibration(errors, factor * stds)
    assert found.error_over_std == pytest.approx(1.0 / factor, rel=0.01)
    assert found.within_1_std == pytest.approx(100 * erf(factor / np.sqrt(2)), abs=0.5)
    assert found.within_2_std == pytest.approx(100 * erf(2 * factor / np.sqrt(2)), abs=0.5)
    assert found.spearman == pytest.approx(exact.spearman, abs=1e-12)


def test_the_rank_correlation_knows_order_only() -> None:
    errors, stds = drawn(5_000, spread=1.0)
    assert calibration(stds, stds**3).spearman == pytest.approx(1.0)
    assert calibration(-stds, stds).spearman == pytest.approx(1.0)  # the sign of an error does not matter
    assert calibration(1.0 / stds, stds).spearman == pytest.approx(-1.0)
    shuffled = np.random.default_rng(3).permutation(stds)
    assert abs(calibration(errors, shuffled).spearman) < 0.05
    assert calibration(errors, np.full_like(errors, 7.0)).spearman == 0.0
    beside = calibration(errors, stds, null=shuffled)
    assert abs(beside.spearman_null) < 0.05 < beside.spearman
    assert calibration(errors, shuffled, null=stds).spearman_null == pytest.approx(beside.spearman)


def test_what_cannot_be_calibrated_is_refused() -> None:
    ones = np.ones(5)
    with pytest.raises(InputError, match=r"\(5,\), .*\(4,\)"):
        calibration(ones, ones[:4])
    with pytest.raises(InputError, match="needs at least 2 errors, got 1"):
        calibration(ones[:1], ones[:1])
    with pytest.raises(InputError, match=r">= 0 .*got -1"):
        calibration(ones, -ones)
    with pytest.raises(InputError, match=r"not all 0, got 0\.0 to 0\.0"):
        calibration(ones, 0 * ones)


@pytest.mark.parametrize("n", [21, 60, 500])
def test_the_factor_covers_what_it_says(n: int) -> None:
    """Heavy-tailed errors (Student's t, 3 degrees of freedom), error bars a third too small: of further errors 95.4 %
    lie within two, on average over 4,000 calibrations, whatever the number of errors behind each of them."""
    rng = np.random.default_rng(n)
    covered = []
    for _ in range(4000):
        stds = np.exp(0.5 * rng.normal(size=n + 1))
        errors = 1.5 * stds * rng.standard_t(3, size=n + 1)
        factor = std_scale(errors[:n], stds[:n])
        covered.append(abs(errors[n]) <= 2.0 * factor * stds[n])
    assert np.mean(covered) >= COVERED - 3 * 0.0033  # three standard errors of 4,000 draws
    assert np.mean(covered) <= COVERED + 1.0 / (n + 1) + 3 * 0.0033  # the rank is rounded up


def test_the_factor_of_normal_errors_is_that_of_their_size() -> None:
    errors, stds = drawn(100_000, spread=0.5)
    assert std_scale(errors, 0.4 * stds) == pytest.approx(2.5, rel=0.01)
    assert std_scale(errors, stds) == pytest.approx(1.0, rel=0.01)
    with pytest.raises(InputError, match="got 20"):
        std_scale(errors[:20], stds[:20])
    with pytest.raises(InputError, match="must be > 0"):
        std_scale(errors, 0.0 * stds)
