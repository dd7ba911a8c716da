"""The interval of a rate of breaks, and what counts as one."""

from __future__ import annotations

import numpy as np
import pytest
import stability


def test_the_interval_is_that_of_a_poisson_process() -> None:
    """Published limits (Garwood 1936), and no break in 1.5 ns means under 2 per ns."""
    low, high = stability.rate_interval(0, 1.5)
    assert (low, high) == (0.0, pytest.approx(2.0, abs=0.01))
    assert stability.rate_interval(1, 1.0) == pytest.approx((0.0253, 5.572), abs=1e-3)
    assert stability.rate_interval(10, 2.0) == pytest.approx((4.795 / 2, 18.39 / 2), abs=1e-2)


def test_the_interval_covers() -> None:
    """Of 4,000 processes with 7 breaks expected at least 95 % lie within, and not all."""
    counts = np.random.default_rng(0).poisson(7.0, size=4000)
    intervals = [stability.rate_interval(int(count), 1.0) for count in counts]
    covered = np.mean([low <= 7.0 <= high for low, high in intervals])
    assert 0.95 <= covered < 0.999
