"""Shipped potentials, audit, drift, training and dynamics give what they gave (`tests/golden_figures.py`)."""

from __future__ import annotations

import numpy as np
import pytest
from golden_figures import CASES, FOLDER, computed, leaves, recorded

# (relative, absolute). Single precision on another processor rounds otherwise, 1e-6 of the largest force, and training
# and dynamics amplify it; errors of 4e-3 eV/Angstrom are differences of such forces. EMT's audit values are rounding.
DEFAULT = (1e-3, 1e-4)
TOLERANCES = {"training": (2e-3, 1e-3), "dynamics": (2e-4, 1e-5), "audit": (0.2, 1e-6), "drift": (1e-6, 0.0)}
# What is left of nearly equal numbers, the scatter over orientations: two kinds of processor differ by up to 5 %.
SCATTER = ("equivariance_", "mirror_error", "rotational_")
# Figures that consist of rounding, and hashes of bits: they are looked at by `python tests/golden_figures.py check`.
ROUNDING = {"net_force_rms_eV_per_A", "jacobian_asymmetry", "weights_sha256"}


def test_there_is_a_file_for_every_case() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(CASES)
    assert len(CASES) == 12  # eight potentials, audit, drift, training, dynamics


@pytest.mark.parametrize("case", sorted(CASES))
def test_figures_are_what_they_were(case: str) -> None:
    found, before = dict(leaves(computed(case))), dict(leaves(recorded(case)))
    assert found.keys() >= before.keys()
    relative, absolute = TOLERANCES.get(case, DEFAULT)
    for path, value in before.items():
        if path[-1] in ROUNDING:
            continue
        if isinstance(value, float) or (isinstance(value, np.ndarray) and value.dtype.kind == "f"):
            scatter = any(str(part).startswith(SCATTER) for part in path)
            assert found[path] == pytest.approx(value, rel=0.1 if scatter else relative, abs=absolute), path
        else:
            assert np.array_equal(found[path], value), path
