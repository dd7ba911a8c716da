"""Where will the heavy atoms of a hot molecule be 3,000 steps later? The MD17 task, on our own trajectories.

There is no full MD17 trajectory to be had, so the study runs its own: 100 ps at 500 K with the conservative forces of a
potential of the package. Lengths in Angstrom. Letters: R replicas, T frames, B samples, N heavy atoms.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from remul_md.dynamics import MDOptions
from remul_md.errors import InputError
from remul_md.structures.alignment import superposition_rotations
from remul_md.structures.topology import all_pairs, bond_lengths
from remul_md.studies.lab import CalculatorFactory, Job, columns
from remul_md.studies.learn import PARTICLE_MODELS, ParticleOptions, Particles, ParticleTask, Splits
from remul_md.studies.options import Names
from remul_md.studies.particles import Tokens
from remul_md.studies.tasks.mocap import hops
from remul_md.studies.trajectories import Trajectory, read_heavy_atoms, run_trajectory, trajectory_file

MOLECULES = ("aspirin", "ethanol", "salicylic")
TEMPERATURE_K, TIMESTEP_FS = 500.0, 0.5  # of MD17
FRAME_STEPS = 10  # steps between two frames: possible starts and targets
VELOCITY_TIME_FS = 100.0  # velocities are ways in this time, of order one
BONDED_A = 1.6  # two atoms nearer than this in the first frame are bonded, as in the published loader
SHARES = {"train": 0.5, "validation": 0.25, "test": 0.25}  # of each replica, in this order in time
START_SEED = 100
Array = NDArray[np.float64]


class Md17Options(ParticleOptions):
    """Options of the task; the defaults are its default size."""

    cases: Names = Field(MOLECULES, description="molecules")
    models: Names = ("gnn", "transformer", "egnn")
    methods: Names = ("plain", "augmentation", "augmentation-2", "remul-0.1", "remul-1", "remul-10")
    n_steps: int = Field(2500, ge=10, description="optimiser steps at equal steps, and of the reference at equal time")
    batch_size: int = Field(100, ge=1, description="samples a step; each is seen in 1 + n_rotated orientations")
    n_train: int = Field(500, ge=1, description="training samples, as in the paper, evenly from the replicas")
    n_validation: int = Field(2000, ge=1, description="validation samples, as in the paper")
    n_test: int = Field(2000, ge=1, description="test samples, as in the paper")
    horizon_steps: int = Field(3000, ge=1, description="MD steps of 0.5 fs from input to target; GMN's code has 3000")
    split: Literal["blocks", "mixed"] = Field(
        "blocks", description="parts are blocks in time; mixed: drawn from all frames, as in the published loader"
    )
    n_replicas: int = Field(4, ge=1, description="runs of a molecule, from different frames of rMD17")
    replica_ps: float = Field(25.0, gt=0, description="length of each run")
    md_seed: int = Field(0, ge=0, description="of the velocities and the thermostat")
    compile_forces: bool = Field(True, description="compile the forces of the dynamics: faster, needs a C compiler")

    @model_validator(mode="after")
    def _starts_are_enough(self) -> Md17Options:
        self.md_options()
        if self.horizon_steps % FRAME_STEPS:
            raise ValueError(f"horizon_steps must be a multiple of {FRAME_STEPS}, got {self.horizon_steps}")
        possible = {part: len(self.starts_of(part)) for part in SHARES}
        for part, n in self.sizes_of_parts.items():
            if -(-n // self.n_replicas) > possible[part]:
                raise ValueError(
                    f"n_{part} {n} is more than the {possible[part]} starts that each of {self.n_replicas} replicas of "
                    f"{self.replica_ps:g} ps has for a horizon of {self.horizon_steps} steps; make replica_ps longer"
                )
        return self

    @property
    def sizes_of_parts(self) -> dict[str, int]:
        """Samples of each part."""
        return {"train": self.n_train, "validation": self.n_validation, "test": self.n_test}

    def starts_of(self, part: str) -> NDArray[np.int64]:
        """Frames of a replica at which a sample of a part may start."""
        if self.split == "blocks":
            return starts_in_block(part, n_frames=self.n_frames, horizon=self.horizon)
        mixed = np.random.default_rng(START_SEED).permutation(max(0, self.n_frames - self.horizon))
        ends = np.cumsum([int(share * len(mixed)) for share in SHARES.values()])
        return np.split(mixed, ends[:-1])[[*SHARES].index(part)]

    @property
    def horizon(self) -> int:
        """Frames from input to target."""
        return self.horizon_steps // FRAME_STEPS

    @property
    def n_frames(self) -> int:
        """Frames of a replica."""
        return self.md_options().n_steps // FRAME_STEPS + 1

    def md_options(self) -> MDOptions:
        """Options of the dynamics. The geometries of rMD17 are hot already, so nothing is equilibrated; without angular
        momentum a molecule stays about in its orientation, as in MD17."""
        return MDOptions(
            ensemble="bussi",
            temperature_K=TEMPERATURE_K,
            rotation="zero",
            timestep_fs=TIMESTEP_FS,
            length_ps=self.replica_ps,
            equilibrate_ps=0.0,
            seed=self.md_seed,
            log_interval=20,
            frame_interval_fs=FRAME_STEPS * TIMESTEP_FS,
            max_bond_stretch=2.0,
        )


def prepare(options: Md17Options, study_dir: Path, calculator: CalculatorFactory | None) -> None:
    """Run the dynamics of every molecule; goes on where it was stopped, and what is there is kept."""
    assert calculator is not None  # the study has looked
    for case in options.cases:
        if not trajectory_file(study_dir, case).is_file():
            run_trajectory(
                case,
                options.md_options(),
                n_replicas=options.n_replicas,
                study_dir=study_dir,
                calculator=partial(calculator, compile=options.compile_forces),
            )


def starts_in_block(part: str, *, n_frames: int, horizon: int) -> NDArray[np.int64]:
    """Frames of a replica at which a sample of a part may start.

    A replica is cut into three blocks in time with a gap of one horizon between two of them, and input and target of a
    sample, with all the way between them, lie in the block of its part. So no two samples of different parts share a
    moment, and between the target of one and the input of another there is at least a horizon.

    Args:
        part: one of `SHARES`, training first in time and the test last.
        n_frames: T.
        horizon: frames from input to target.
    """
    usable = n_frames - (len(SHARES) - 1) * horizon
    first = 0
    for name, share in SHARES.items():
        length = int(share * usable)
        if name == part:
            return np.arange(first, max(first, first + length - horizon))
        first += length + horizon
    raise KeyError(part)


def load(options: Md17Options, case: str, study_dir: Path) -> Splits:
    """Samples of a molecule; the same for every seed.

    Raises:
        InputError: the trajectory in the folder is one of other options.
    """
    trajectory = read_heavy_atoms(study_dir, case)
    there, wanted = trajectory.positions.shape[:2], (options.n_replicas, options.n_frames)
    if there != wanted:
        raise InputError(
            f"{trajectory_file(study_dir, case)}: holds {there[0]} replicas of {there[1]} frames, and the options ask "
            f"for {wanted[0]} of {wanted[1]}; use a new --run-dir"
        )
    rng = np.random.default_rng(START_SEED)
    parts: dict[str, Tokens] = {}
    for part, n in options.sizes_of_parts.items():
        possible = options.starts_of(part)
        numbers = np.array_split(np.arange(n), options.n_replicas)
        starts = [np.sort(rng.choice(possible, size=len(each), replace=False)) for each in numbers]
        parts[part] = samples(trajectory, starts, horizon=options.horizon)
    return Splits(train=parts["train"], validation=parts["validation"], tests={"test": parts["test"]})


def samples(trajectory: Trajectory, starts: list[NDArray[np.int64]], *, horizon: int) -> Tokens:
    """Tokens of start frames: x = X[s], v = V[s], target X[s + horizon] - X[s], Angstrom.

    Args:
        trajectory: of a molecule.
        starts: frames for each replica.
        horizon: frames from input to target.
    Returns:
        Centred on the mean over the heavy atoms; velocities are ways in 100 fs; the atom as scalars (a one at its
        place); pairs say which atoms are one and which two bonds apart.
    Source: the loader of GMN (md17/dataset.py) and its settings. Differences: the trajectory; velocities are those of
        the integrator and not differences of frames; centred; told which atom is which, where the published features
        are element and speed.
    """
    replicas = np.repeat(np.arange(len(starts)), [len(each) for each in starts])
    rows = np.concatenate(starts)
    x, v, later = (
        torch.from_numpy(array[replicas, at].astype(np.float64))
        for array, at in (
            (trajectory.positions, rows),
            (trajectory.velocities, rows),
            (trajectory.positions, rows + horizon),
        )
    )
    n_atoms = len(trajectory.numbers)
    return Tokens(
        scalars=torch.eye(n_atoms).expand(len(rows), -1, -1),
        positions=(x - x.mean(1, keepdim=True)).float(),
        velocities=(VELOCITY_TIME_FS * v).float(),
        pairs=hops(bonds(trajectory.positions[0, 0]), n_atoms).expand(len(rows), -1, -1, -1),
        targets=(later - x).float(),
    )


def bonds(positions: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Pairs of heavy atoms that are bonded, [E, 2], from positions [N, 3], Angstrom."""
    pairs = all_pairs(len(positions))
    return pairs[bond_lengths(positions.astype(np.float64), pairs) < BONDED_A]


def baselines(tokens: Tokens, *, train: Tokens) -> dict[str, float]:
    """Standing still, and going to the mean geometry of training, as it stands or superposed on the input; A^2."""
    ends = train.positions + train.targets
    mean = ends.mean(0).double().numpy()
    internal = mean_geometry(ends.double().numpy())
    x = tokens.positions.double().numpy()
    superposed = np.einsum("tij,aj->tai", superposition_rotations(x, internal), internal)
    still = tokens.targets.double().numpy()
    return {
        "no motion": float(np.square(still).mean()),
        "mean geometry": float(np.square(still + x - mean).mean()),
        "mean geometry, superposed on the input": float(np.square(still + x - superposed).mean()),
    }


def mean_geometry(positions: Array) -> Array:
    """The centred mean [N, 3] of geometries [T, N, 3] after each was superposed on it."""
    centred = positions - positions.mean(1, keepdims=True)
    mean = centred[0]
    for _ in range(10):
        mean = np.einsum("tji,taj->tai", superposition_rotations(centred, mean), centred).mean(0)
    return mean


class FutureOfTrajectories:
    """The jobs of the task: those of particles, whose data lie in the folder of the study. A `Runner`."""

    def check(self, options: Md17Options, job: Job) -> object:
        """Refuse a job that cannot be."""
        return options.train_config(job)

    def step(self, options: Md17Options, job: Job, study_dir: Path) -> Callable[[], None]:
        """A function that takes the next training step of a job."""
        return self._particles(options, job, study_dir).step(options, job, study_dir)

    def run(self, options: Md17Options, job: Job, folder: Path, calculator: CalculatorFactory | None) -> dict[str, Any]:
        """Train and test one job; the result says which trajectory it is of."""
        particles = self._particles(options, job, folder.parent)
        return {
            **particles.run(options, job, folder, calculator),
            "made_from": read_heavy_atoms(folder.parent, job.case).facts,
        }

    @staticmethod
    def _particles(options: Md17Options, job: Job, study_dir: Path) -> Particles[Md17Options]:
        splits = load(options, job.case, study_dir)
        return Particles(load=lambda *_: splits, baselines=partial(baselines, train=splits.train))


QUICK: dict[str, Any] = {
    "cases": ["ethanol"],  # whose trajectory takes a quarter of the time that aspirin's takes
    "methods": ["plain", "augmentation", "remul-1"],
    "seeds": [0],
    "n_steps": 1000,
    "batch_size": 50,
    "n_validation": 400,
    "n_draws": 20,
    "n_draw_systems": 100,
}
PAPER: dict[str, Any] = {"width": 384, "n_layers": 10, "batch_size": 200, "n_steps": 1250, "device": "cuda"}
MSE = 1e2  # printed x 1e-2
OURS = "dynamics of our own potential, not MD17"
TASK = ParticleTask(
    name="md17",
    title="Future positions of hot molecules",
    options=Md17Options,
    sizes={"quick": QUICK, "default": {}, "paper": PAPER},
    cases={name: f"{name}, {OURS}" for name in MOLECULES},
    models={"gnn": PARTICLE_MODELS["gnn"], **PARTICLE_MODELS},
    runner=FutureOfTrajectories(),
    prepare=prepare,
    dynamics=True,
    errors=("test", "rotated"),
    error_label="mean squared error x 1e-2, Å²",
    ratio=("test", "rotated"),
    tables={
        "Mean squared error a coordinate, x 1e-2 Å²": {
            **columns({"train": "train", "test": "test", "rotated": "all orientations"}, scale=MSE),
            **columns({"equivariance_norm": "E'", "percent": "percent"}),
        }
    },
    published_label="published, of MD17",
    # 500 epochs of 500 samples. Elhag et al., arXiv:2410.17878, table 3.
    published={
        ("aspirin", "gnn", "plain"): "9.26",
        ("aspirin", "gnn", "remul"): "9.28",
        ("aspirin", "egnn", "plain"): "14.41",
    },
    notes=dict.fromkeys(
        MOLECULES,
        "Trajectories are dynamics of our own potentials at 500 K, NOT MD17; published figures do not compare.",
    ),
)
