"""People who walk and run: where will the 31 joints be in a quarter of a second? Gravity and heading break SO(3).

Lengths in the database's unit, 1/0.45 inch = 0.0564 m; y is up. Letters: B samples, N = 31 joints.
"""

from __future__ import annotations

from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from remul_md.datasets.readers.npz import load_arrays
from remul_md.studies.lab import Column, columns
from remul_md.studies.learn import ParticleOptions, Particles, ParticleTask, Splits
from remul_md.studies.methods import ABOUT_AXIS, ALL_GROUP
from remul_md.studies.options import Names
from remul_md.studies.particles import Tokens, without_learning

PACKAGE = "remul_md.data.mocap"
FILES = {"walk": "cmu35_walk.npz", "run": "cmu_run.npz"}
RUN_SPLIT = "cmu_run_split.npz"
HORIZON = 30  # frames, 0.25 s
LENGTH = 10.0  # half a metre: positions, displacements and velocities (per horizon) in it are of order one
VERTICAL = (0.0, 1.0, 0.0)
GROUPS = {"": "all rotations", "_y": "about the vertical", "_x": "about x", "_z": "about z"}
AXES = {"_x": (1.0, 0.0, 0.0), "_y": VERTICAL, "_z": (0.0, 0.0, 1.0)}
N_TRIALS = (10, 5, 5)  # of the 20 walks
MAX_START, STARTS = 300, 100  # as the published files draw them
SPLIT_SEED = 100
Starts = list[tuple[int, NDArray[np.int64]]]  # trial, start frames


class MocapOptions(ParticleOptions):
    """Options of the task; the defaults are its default size."""

    axis: ClassVar[tuple[float, float, float] | None] = VERTICAL

    cases: Names = ("walk", "run")
    models: Names = ("transformer", "egnn")
    methods: Names = (
        *("plain", "augmentation", "augmentation-axis", "augmentation-2", "remul-0.01", "remul-0.1", "remul-1"),
        *("remul-10", "remul-0.1-axis", "remul-1-axis", "remul-10-axis"),
    )
    batch_size: int = Field(12, ge=1, description="samples a step; each is seen in 1 + n_rotated orientations")
    n_train: int = Field(200, ge=10, description="training samples, evenly from the trials")
    n_validation: int = Field(600, ge=10, description="validation samples, as many as there are")
    n_test: int = Field(600, ge=10, description="test samples, as many as there are")


def load(options: MocapOptions, case: str, seed: int) -> Splits:
    """Samples of trials that are all in training, validation or test; the seed decides nothing here.

    The trials and starts of the runs are the published ones. Those of the walks are drawn here: the published ones are
    of a file with three more trials.
    """
    arrays = load_arrays(_file(FILES[case]))
    positions, offsets = arrays["positions"], arrays["offsets"]
    parts = _run_starts() if case == "run" else _walk_starts(np.diff(offsets))
    train, validation, test = (
        samples(
            positions, offsets, [(trial, starts[: n // len(part)]) for trial, starts in part], edges=arrays["edges"]
        )
        for part, n in zip(parts, (options.n_train, options.n_validation, options.n_test), strict=True)
    )
    return Splits(train=train, validation=validation, tests={"test": test})


def _file(name: str) -> Path:
    return Path(str(resources.files(PACKAGE))) / name


def _run_starts() -> tuple[Starts, Starts, Starts]:
    split = load_arrays(_file(RUN_SPLIT))
    train, validation, test = (
        [(int(trial), starts) for trial, starts in zip(split[f"{part}_trials"], split[f"{part}_starts"], strict=True)]
        for part in ("train", "val", "test")
    )
    return train, validation, test


def _walk_starts(lengths: NDArray[np.int64]) -> tuple[Starts, Starts, Starts]:
    rng = np.random.default_rng(SPLIT_SEED)
    order = rng.permutation(len(lengths))
    possible = np.minimum(MAX_START, lengths - HORIZON)
    starts = {int(trial): rng.choice(possible[trial], size=STARTS, replace=False) for trial in order}
    ends = np.cumsum(N_TRIALS)
    train, validation, test = (
        [(int(trial), starts[int(trial)]) for trial in part] for part in np.split(order, ends[:-1])
    )
    return train, validation, test


def samples(positions: NDArray[Any], offsets: NDArray[np.int64], starts: Starts, *, edges: NDArray[np.int64]) -> Tokens:
    """Tokens of start frames: x = X[s], v = X[s + 1] - X[s], target X[s + 30] - X[s], in units of `LENGTH`.

    Args:
        positions: [frames, N, 3].
        offsets: first frame of each trial.
        starts: trials with start frames, counted from the trial's first.
        edges: bones, [N - 1, 2].
    Returns:
        Centred on the mean over the joints; velocities times the horizon; the joint as scalars (a one at its place);
        pairs say which joints are one and which two bones apart.
    Source: the loaders of GMN and EGNO (main_motion.py). Differences: centred, in other units, and told which joint is
        which, because a transformer without position codes could not know.
    """
    rows = np.concatenate([offsets[trial] + frames for trial, frames in starts])
    x = torch.from_numpy(positions[rows].astype(np.float64))
    after, later = (torch.from_numpy(positions[rows + step].astype(np.float64)) for step in (1, HORIZON))
    n_joints = x.shape[1]
    return Tokens(
        scalars=torch.eye(n_joints).expand(len(rows), -1, -1),
        positions=((x - x.mean(1, keepdim=True)) / LENGTH).float(),
        velocities=(HORIZON * (after - x) / LENGTH).float(),
        pairs=hops(edges, n_joints).expand(len(rows), -1, -1, -1),
        targets=((later - x) / LENGTH).float(),
    )


def hops(edges: NDArray[np.int64], n_joints: int) -> torch.Tensor:
    """1 where two joints are one bone apart, and where they are two bones apart: [N, N, 2]."""
    bones = torch.zeros(n_joints, n_joints)
    bones[edges[:, 0], edges[:, 1]] = bones[edges[:, 1], edges[:, 0]] = 1.0
    two = ((bones @ bones) > 0).float() * (1.0 - torch.eye(n_joints)) * (1.0 - bones)
    return torch.stack([bones, two], dim=-1)


baselines = partial(without_learning, straight="straight line")
QUICK: dict[str, Any] = {
    "methods": ["plain", "augmentation", "remul-0.1", "remul-1", "remul-1-axis"],
    "seeds": [0],
    "n_steps": 1000,
    "n_validation": 60,
    "n_test": 120,
    "n_draws": 20,
    "n_draw_systems": 50,
}
GATR = {"gatr_channels": 16, "gatr_scalars": 128, "gatr_layers": 12}
PAPER: dict[str, Any] = {"width": 384, "n_layers": 10, **GATR, "n_steps": 33_000, "device": "cuda"}  # 2,000 epochs
MSE = 1e2  # printed x 1e-2
TASK = ParticleTask(
    name="mocap",
    title="Motion capture",
    options=MocapOptions,
    sizes={"quick": QUICK, "default": {}, "paper": PAPER},
    cases={"walk": "walk", "run": "run"},
    methods=(*ALL_GROUP, *ABOUT_AXIS),
    runner=Particles(load=load, baselines=baselines, axes=AXES, length=LENGTH),
    errors=("test", "rotated_y", "rotated"),
    error_label="mean squared error x 1e-2",
    ratio=("test", "rotated_y"),
    tables={
        "Mean squared error a coordinate, x 1e-2": columns(
            {
                "train": "train",
                "test": "test",
                "rotated_y": "rotated about the vertical",
                "rotated": "all orientations",
            },
            scale=MSE,
        ),
        "Broken symmetry by group: E', and the share of the squared error over the group, %": {
            f"{figure}{end}": Column(label=f"{label}, {group}")
            for figure, label in (("equivariance_norm", "E'"), ("percent", "percent"))
            for end, group in GROUPS.items()
        },
    },
    published_label="published",
    # Elhag et al., arXiv:2410.17878, table 2.
    published={
        ("walk", "transformer", "plain"): "5.21",
        ("walk", "transformer", "remul"): "4.95",
        ("walk", "gatr", "plain"): "10.06",
        ("walk", "SE(3)-Transformer", "plain"): "10.85",
        ("run", "transformer", "plain"): "20.78",
        ("run", "transformer", "remul"): "18.5",
    },
    notes={
        "walk": "Published figures of walk are NOT comparable: three of the 23 trials are missing here, several begin "
        "later, and the split is another one.",
        "run": "Trials and start frames of run are the published ones.",
    },
)
