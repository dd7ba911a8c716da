"""Calibration figures on errors whose distribution is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf

from remul_md.analysis.calibration import calibration
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
