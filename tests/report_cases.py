"""What the report tests show: one analysed run, an evaluation and the metrics of a training."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from analysis_runs import TILT, ethanol_run, tilted_ethanol
from ase import units
from spring_molecule import spring_molecule

from remul_md.analysis.parity import Parity
from remul_md.analysis.report import PotentialRecord, RunContent, Subject, collect_content
from remul_md.analysis.structure import BondRanges
from remul_md.analysis.training_statistics import TrainingStatistics
from remul_md.analysis.trajectory import TrajectoryAnalysis, analyze_trajectory
from remul_md.dynamics.read import read_trajectory
from remul_md.dynamics.trajectory import TrajectoryArrays

TRAINED = TrainingStatistics(
    bonds=BondRanges(pairs=np.array([[0, 1], [1, 2]]), min_A=np.array([1.2, 1.2]), max_A=np.array([1.8, 1.8])),
    distance_ranges={"C-H": [0.9, 2.9], "C-O": [1.2, 2.6], "H-H": [1.4, 4.5], "C-C": [1.3, 1.75]},
)
EVALUATION = {
    "n_frames": 137,
    "force_mae_original": 9.31,
    "force_mae_rotated": 9.47,
    "rotational_error": 0.82,
    "rotational_spread": 0.74,
    "energy_mae_original": 1.61,
    "energy_mae_rotated": 1.66,
    "equivariance_percent": 0.44,
    "equivariance_percent_median": 0.37,
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


@lru_cache(maxsize=1)
def shown_run() -> tuple[TrajectoryAnalysis, RunContent]:
    """0.6 ps of tilted ethanol in more frames than the 3D view shows, with its spectrum and vibrations; made once."""
    with TemporaryDirectory() as folder:
        path = ethanol_run(Path(folder), length_ps=0.6, timestep_fs=1.0, frame_interval_fs=1.0, equilibrate_ps=0.1)
        analysis = analyze_trajectory(
            path, atoms=tilted_ethanol(), n_rotation_frames=11, n_draws=3, training_statistics=TRAINED
        )
        return analysis, collect_content([read_trajectory(path)], analysis, atoms=tilted_ethanol(tilt=0.05 * TILT))


def drawn_parity() -> Parity:
    """900 force components with errors of 4 meV/Angstrom, three of them far off; 30 energies, 1 meV too high."""
    generator = np.random.default_rng(3)
    label = generator.normal(size=900)
    error = 0.004 * generator.normal(size=900)
    error[[5, 77, 400]] = 0.3, -0.5, 0.4
    energy = generator.normal(size=30) - 4000.0
    return Parity(
        forces=label,
        predicted_forces=label + error,
        energy=energy,
        predicted_energy=energy + 0.001,
        data="drawn",
        n_frames=30,
        head="conservative",
    )


def side_by_side() -> list[Subject]:
    """Both runs as `remul-md compare` hands them to its page."""
    run, content = shown_run()
    record = PotentialRecord(molecule="ethanol", validation_force_mae_meV_per_A=7.31)
    return [
        Subject(name="tilted", analysis=analysed_run(), call_ms=12.5),
        Subject(name="shown", analysis=run, record=record, spectrum=content.spectrum, provenance={"sha256": "ab" * 32}),
    ]


def thermal_frames(n_frames: int, *, interval_fs: float = 3.0, seed: int = 11) -> TrajectoryArrays:
    """Ethanol whose atoms stand about their places and move at 300 K, each frame for itself."""
    atoms = spring_molecule("CH3CH2OH")
    generator = np.random.default_rng(seed)
    masses = atoms.get_masses()
    speed = np.sqrt(units.kB * 300.0 / masses)[:, None] * units.fs  # Angstrom/fs
    return TrajectoryArrays(
        positions=atoms.positions + generator.normal(scale=0.03, size=(n_frames, 9, 3)),
        atomic_numbers=atoms.numbers.astype(np.int64),
        masses=masses,
        time_ps=1e-3 * interval_fs * np.arange(n_frames),
        pbc=np.zeros(3, dtype=bool),
        cell=np.zeros((n_frames, 3, 3)),
        momenta=masses[:, None] * speed * generator.normal(size=(n_frames, 9, 3)),
        forces=generator.normal(scale=0.5, size=(n_frames, 9, 3)),
        energy=generator.normal(scale=0.05, size=n_frames),
    )
