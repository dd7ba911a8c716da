"""What the report tests show: one analysed run, an evaluation and the metrics of a training."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from analysis_runs import TILT, ethanol_run, tilted_ethanol

from remul_md.analysis.trajectory import TrajectoryAnalysis, analyze_trajectory

EVALUATION = {
    "n_frames": 137,
    "force_mae_stock": 9.31,
    "force_mae_turned": 9.47,
    "rotational_error": 0.82,
    "rotational_spread": 0.74,
    "energy_mae_stock": 1.61,
    "energy_mae_turned": 1.66,
    "equivariance_percent": 0.44,
    "equivariance_percent_ci95": [0.41, 0.48],
    "equivariance_percent_energy": 1.2,
    "force_mae_by_element": {"C": 11.2, "H": 8.1, "O": 12.6},
}


def training_rows() -> list[dict[str, float]]:
    """Rows as a metrics file has them: losses often, validation seldom."""
    generator = np.random.default_rng(0)
    rows = []
    for step in range(20, 4001, 20):
        noise = np.exp(0.1 * generator.normal(size=2))
        row = {"step": step, "task": 2.0 * step**-0.3 * noise[0], "equivariance": 2.1 * step**-0.32 * noise[1]}
        if step % 200 == 0:
            row["validation_force_mae"] = 900.0 * step**-0.45
        rows.append(row)
    return rows


@lru_cache(maxsize=1)
def analysed_run() -> TrajectoryAnalysis:
    """1.1 ps of ethanol in a slightly tilted potential, with a log long enough to be thinned; made once."""
    with TemporaryDirectory() as folder:
        path = ethanol_run(Path(folder), length_ps=1.1, log_interval=1)
        return analyze_trajectory(path, atoms=tilted_ethanol(tilt=0.8 * TILT), n_rotation_frames=23, n_draws=3)
