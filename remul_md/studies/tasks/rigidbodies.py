"""Rigid bodies that collide: is a network that knows the symmetry better, and does augmentation make up for it?

Tokens are the faces of convex meshes; asked is how far their corners move in 0.4 s. Lengths in metres, velocities in
metres in that time. Letters: B scenes, F faces, K bodies.

Source: the question is that of Brehmer et al. (2024), arXiv:2410.23179, whose data were not found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from remul_md.studies.lab import CalculatorFactory, Job, columns
from remul_md.studies.learn import ParticleOptions, Particles, ParticleTask, Splits
from remul_md.studies.models.faces import CORNERS, FLOOR, FaceGatr, FaceTransformer
from remul_md.studies.options import Names, check_names
from remul_md.studies.particles import Tokens
from remul_md.studies.rigid_bodies import GRAVITY, HORIZON_S, SceneOptions, Scenes, read_scenes, write_scenes
from remul_md.studies.rigid_meshes import KINDS, flown
from remul_md.training.config import TrainConfig

VERTICAL = (0.0, 0.0, 1.0)
# What the methods turn about in a case, and its symmetry is measured about; None: all rotations.
CASES: dict[str, tuple[float, float, float] | None] = {"free": None, "floor": VERTICAL}
SEEDS = {"train": 1, "validation": 2, "test": 0}
N_PLAIN_SCALARS = 2  # floor and mass; then which body
MODELS = {"transformer": "transformer", "gatr": "GATr"}
FLIGHT = "flight without contacts"


class RigidBodyOptions(ParticleOptions):
    """Options of the task; the defaults are its default size."""

    cases: Names = tuple(CASES)
    models: Names = tuple(MODELS)
    methods: Names = ("plain", "augmentation", "remul-1")
    kinds: Names = Field(tuple(KINDS), description="meshes of a scene, one body each")
    n_train: int = Field(20_000, ge=1, description="training scenes; the first of a larger set")
    n_validation: int = Field(500, ge=2, description="validation scenes")
    n_test: int = Field(1000, ge=2, description="test scenes")
    n_steps: int = Field(
        10_000, ge=10, description="optimiser steps at equal steps, and of the reference at equal time"
    )
    batch_size: int = Field(32, ge=1, description="scenes a step; each is seen in 1 + n_rotated orientations")
    learning_rate: float = Field(1e-3, gt=0, description="peak of the schedule, transformer")

    def train_config(self, job: Job) -> TrainConfig:
        """Options of one run; whatever the method, rotations are those of the case."""
        return super().train_config(job).model_copy(update={"axis": CASES[job.case]})

    def model(self, kind: str, example: Tokens, *, seed: int) -> nn.Module:
        """An untrained network; the same seed gives all methods the same weights to start from."""
        n_scalars = example.scalars.shape[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if kind == "gatr":
                sizes = {"n_channels": self.gatr_channels, "n_scalar_channels": self.gatr_scalars}
                return FaceGatr(n_scalars=n_scalars, **sizes, n_layers=self.gatr_layers, n_heads=self.n_heads)
            return FaceTransformer(n_scalars=n_scalars, width=self.width, n_layers=self.n_layers, n_heads=self.n_heads)

    def scenes(self, case: str) -> SceneOptions:
        """What a scene of a case is made of."""
        return SceneOptions(world="floor" if case == "floor" else "free", kinds=self.kinds)


def tokens_of(scenes: Scenes) -> Tokens:
    """The corners of all faces, face after face, [B, F * 3, 3], centred, with a floor in its plane alone.

    Scalars of a corner: 1 where there is a floor, the logarithm of the mass over 1 kg, and which body it is of.
    """
    n, bodies, has_floor = len(scenes), scenes.options.body_of_face, scenes.options.world == "floor"
    of_corner = torch.from_numpy(np.repeat(bodies, CORNERS))
    rows = torch.arange(n)[:, None]
    vertices = torch.from_numpy(scenes.faces.reshape(n, -1).astype(np.int64))
    start, velocities, later = (
        torch.from_numpy(each)[rows, vertices] for each in (scenes.start, scenes.velocities, scenes.later)
    )
    floor = torch.full((n, len(of_corner), 1), float(has_floor))
    mass = torch.from_numpy(scenes.masses).log()[:, of_corner, None]
    which = nn.functional.one_hot(of_corner).float().expand(n, -1, -1)
    middle = start.mean(1, keepdim=True) * (1.0 - float(has_floor) * torch.tensor(VERTICAL))
    return Tokens(
        scalars=torch.cat([floor, mass, which], dim=-1),
        positions=start - middle,
        velocities=HORIZON_S * velocities,
        pairs=torch.zeros(n, len(of_corner), len(of_corner), 0),
        targets=later - start,
    )


def flight(tokens: Tokens) -> torch.Tensor:
    """How far each corner moves where nothing touches anything, [B, F * 3, 3]."""
    bodies = tokens.scalars[0, ::CORNERS, N_PLAIN_SCALARS:].argmax(-1)
    gravity = GRAVITY * HORIZON_S**2 * tokens.scalars[0, 0, FLOOR].item()
    corners, velocities = (
        each.double().cpu().unflatten(1, (-1, CORNERS)).numpy() for each in (tokens.positions, tokens.velocities)
    )
    moved = np.zeros_like(corners)
    for body in bodies.unique().tolist():
        of = (bodies == body).cpu().numpy()
        moved[:, of] = flown(corners[:, of], velocities[:, of], time_s=1.0, gravity=gravity) - corners[:, of]
    return torch.from_numpy(moved).flatten(1, 2)


def baselines(tokens: Tokens) -> dict[str, float]:
    """Mean squared error a coordinate, m^2, of what needs no learning."""
    error: NDArray[np.float64] = (tokens.targets.cpu() - flight(tokens)).numpy()
    return {"no motion": tokens.targets.square().mean().item(), FLIGHT: float(np.square(error).mean())}


def scene_file(study_dir: Path, case: str, part: str) -> Path:
    """File of the scenes of a case: train, validation or test."""
    return study_dir / f"scenes-{case}-{part}.h5"


def prepare(options: RigidBodyOptions, study_dir: Path, calculator: CalculatorFactory | None = None) -> None:
    """Simulate what the jobs of a study read; goes on where it was stopped.

    Raises:
        InputError: mujoco is not installed.
    """
    numbers = {"train": options.n_train, "validation": options.n_validation, "test": options.n_test}
    for case in options.cases:
        for part, n in numbers.items():
            file = scene_file(study_dir, case, part)
            write_scenes(file, n_scenes=n, seed=SEEDS[part], options=options.scenes(case))


def load(study_dir: Path, options: RigidBodyOptions, case: str, seed: int) -> Splits:
    """The scenes of a study; the seed decides weights, orientations and the order, not the scenes."""
    train, validation, test = (tokens_of(read_scenes(scene_file(study_dir, case, part))) for part in SEEDS)
    return Splits(train=train, validation=validation, tests={"test": test})


@dataclass(frozen=True)
class Bodies:
    """A `Runner` of particles whose scenes lie in the folder of the study."""

    def particles(self, case: str, study_dir: Path) -> Particles[RigidBodyOptions]:
        """The runner of a case."""
        return Particles(load=partial(load, study_dir), baselines=baselines, axis=CASES[case])

    def check(self, options: RigidBodyOptions, job: Job) -> TrainConfig:
        """Refuse a job that cannot be, before anything is made."""
        check_names(options.kinds, KINDS, kind="mesh")
        return options.train_config(job)

    def step(self, options: RigidBodyOptions, job: Job, study_dir: Path) -> Callable[[], None]:
        """A function that takes the next step of a job."""
        return self.particles(job.case, study_dir).step(options, job, study_dir)

    def run(
        self, options: RigidBodyOptions, job: Job, folder: Path, calculator: CalculatorFactory | None
    ) -> dict[str, Any]:
        """Train and test one job; see `Runner.run`."""
        return self.particles(job.case, folder.parent).run(options, job, folder, calculator)


QUICK: dict[str, Any] = {
    "methods": ["plain", "augmentation"],
    "seeds": [0],
    "kinds": ["box", "tetrahedron", "hull"],
    "n_train": 1000,
    "n_validation": 100,
    "n_test": 200,
    "n_steps": 1000,
    "batch_size": 16,
    "width": 64,
    "n_layers": 3,
    "gatr_channels": 4,
    "gatr_scalars": 16,
    "gatr_layers": 2,
    "n_heads": 4,
    "learning_rate": 5e-3,
    "gatr_learning_rate": 5e-3,
    "n_draws": 20,
    "n_draw_systems": 50,
}
PAPER: dict[str, Any] = {
    "n_train": 200_000,
    "n_steps": 200_000,
    "batch_size": 64,
    "width": 512,
    "n_layers": 10,
    "gatr_channels": 16,
    "gatr_scalars": 128,
    "gatr_layers": 10,
    "learning_rate": 3e-4,
    "gatr_learning_rate": 3e-4,
    "device": "cuda",
}
MSE = 1e3  # printed x 1e-3
TASK = ParticleTask(
    name="rigid-bodies",
    title="Rigid bodies",
    options=RigidBodyOptions,
    sizes={"quick": QUICK, "default": {}, "paper": PAPER},
    cases={"free": "no gravity and no floor", "floor": "falling on a floor"},
    models=MODELS,
    exact=frozenset({"gatr"}),
    runner=Bodies(),
    prepare=prepare,
    errors=("test", "rotated"),
    error_label="mean squared error x 1e-3 m²",
    tables={
        "Mean squared error a coordinate of the corners, x 1e-3 m²": {
            **columns({"train": "train", "test": "test", "rotated": "all orientations of the case"}, scale=MSE),
            **columns({"equivariance_norm": "E'", "percent": "percent"}),
        }
    },
    notes={"floor": "Methods turn about the vertical, and broken symmetry is measured about it."},
)
