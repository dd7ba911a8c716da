"""Five charged particles in space: the data stand in all orientations, so a symmetry need not be taught to be seen.

Units are those of the generator: unit masses, charges of -1 or 1, Coulomb's law with strength 1. Letters: B systems, N
particles.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from remul_md.errors import InputError
from remul_md.studies.lab import columns
from remul_md.studies.learn import ParticleOptions, Particles, ParticleTask, Splits
from remul_md.studies.options import Names
from remul_md.studies.particles import Tokens, without_learning

N_PARTICLES = 5
TIMESTEP, SAMPLED = 1e-3, 100  # a frame is kept every 100 steps; frame k is that of step 100 (k + 1)
SPEED, BOX, MAX_FORCE = 0.5, 5.0, 100.0
IN, EARLY = (30, 40), (20, 30)  # input and target frame: a time of 1
Array = NDArray[np.float64]


class ChargedOptions(ParticleOptions):
    """Options of the task; the defaults are its default size."""

    cases: Names = ("charged",)
    models: Names = ("transformer", "egnn", "se3", "gatr")
    methods: Names = ("plain", "augmentation", "augmentation-2", "remul-0.1", "remul-1", "remul-10")
    n_train: int = Field(100, ge=1, description="training systems, as in the REMUL paper; 3000 in EGNN's")
    n_validation: int = Field(500, ge=2, description="validation systems")
    n_test: int = Field(2000, ge=2, description="test systems")


def simulate_charges(n: int, *, frames: tuple[int, ...], seed: int | list[int]) -> tuple[Array, Array, Array]:
    """Charges [n, N], and positions and velocities [frames, n, N, 3] at these frames.

    Positions are normal deviates, velocities of length 0.5 in random directions; who stands outside the box of
    half-width 5 at the start is reflected once, and there are no walls afterwards. Symplectic Euler: a kick, a drift;
    the velocity of a frame is that of the drift that led to it. A component of a force above 100 is cut.

    Args:
        n: number of systems, >= 1.
        frames: numbers of frames, in rising order.
        seed: seed of everything drawn here, as numpy takes it.
    Raises:
        InputError: n < 1.
    Source: n_body_system/dataset of Satorras et al. (2021), arXiv:2102.09844. Difference: the random numbers.
    """
    if n < 1:
        raise InputError(f"the number of systems must be >= 1, got {n}")
    rng = np.random.default_rng(seed)
    charges = rng.choice([-1.0, 1.0], size=(n, N_PARTICLES))
    x, v = rng.normal(size=(2, n, N_PARTICLES, 3))
    v *= SPEED / np.linalg.norm(v, axis=2, keepdims=True)
    outside, side = np.abs(x) > BOX, np.sign(x)
    x, v = np.where(outside, side * 2.0 * BOX - x, x), np.where(outside, -side * np.abs(v), v)
    kept: list[tuple[Array, Array]] = []
    for step in range(1, SAMPLED * (frames[-1] + 1) + 1):
        v = v + TIMESTEP * forces(charges, x)
        x = x + TIMESTEP * v
        if step % SAMPLED == 0 and step // SAMPLED - 1 in frames:
            kept.append((x, v))
    positions, velocities = (np.stack(arrays) for arrays in zip(*kept, strict=True))
    return charges, positions, velocities


def forces(charges: Array, positions: Array) -> Array:
    """Coulomb forces q_i q_j r / |r|^3, like charges repel; components cut at 100, [B, N, 3]."""
    i, j = np.triu_indices(positions.shape[1], 1)
    apart = positions[:, i] - positions[:, j]
    scale = charges[:, i] * charges[:, j] * np.square(apart).sum(2) ** -1.5
    pushes = scale[..., None] * apart
    total = np.zeros_like(positions)
    for pair, (first, second) in enumerate(zip(i, j, strict=True)):
        total[:, first] += pushes[:, pair]
        total[:, second] -= pushes[:, pair]
    cut: Array = np.clip(total, -MAX_FORCE, MAX_FORCE)
    return cut


def tokens_of(charges: Array, x: Array, v: Array, later: Array) -> Tokens:
    """Systems at a frame, centred, with the way to another frame as targets; pairs hold the products of charges."""
    q, start, velocities, end = (torch.from_numpy(array) for array in (charges, x, v, later))
    return Tokens(
        scalars=q.float().unsqueeze(2),
        positions=(start - start.mean(1, keepdim=True)).float(),
        velocities=velocities.float(),
        pairs=(q.unsqueeze(2) * q.unsqueeze(1)).float().unsqueeze(3),
        targets=(end - start).float(),
    )


def load(options: ChargedOptions, case: str, seed: int) -> Splits:
    """Training and validation systems of a seed; test systems, and the same at earlier frames, for all seeds."""
    charges, x, v = simulate_charges(options.n_train + options.n_validation, frames=IN, seed=[1, seed])
    own = tokens_of(charges, x[0], v[0], x[1])
    charges, x, v = simulate_charges(options.n_test, frames=(*EARLY, IN[1]), seed=[0])
    tests = {"in": tokens_of(charges, x[1], v[1], x[2]), "early": tokens_of(charges, x[0], v[0], x[1])}
    return Splits(
        train=own.select(slice(options.n_train)), validation=own.select(slice(options.n_train, None)), tests=tests
    )


baselines = partial(without_learning, straight="straight line x + v")
QUICK: dict[str, Any] = {
    "models": ["transformer", "egnn"],
    "methods": ["plain", "augmentation", "remul-0.1", "remul-1", "remul-10"],
    "seeds": [0],
    "n_steps": 2000,
    "n_test": 1000,
    "n_draws": 50,
    "n_draw_systems": 100,
}
GATR = {"gatr_channels": 16, "gatr_scalars": 128, "gatr_layers": 10}
PAPER: dict[str, Any] = {"width": 384, "n_layers": 10, **GATR, "n_steps": 50_000, "n_test": 5000, "device": "cuda"}
MSE = 1e3  # printed x 1e-3
TASK = ParticleTask(
    name="charged",
    title="Five charged particles",
    options=ChargedOptions,
    sizes={"quick": QUICK, "default": {}, "paper": PAPER},
    cases={"charged": "five charged particles"},
    runner=Particles(load=load, baselines=baselines),
    errors=("in", "early"),
    error_label="mean squared error x 1e-3",
    ratio=("in", "early"),
    tables={
        "Mean squared error a coordinate, x 1e-3": {
            **columns({"train": "train", "in": "frames 30 to 40", "early": "frames 20 to 30"}, scale=MSE),
            **columns({"rotated": "all orientations", "equivariance_norm": "E' x 1e-3"}, scale=MSE),
            **columns({"percent": "percent"}),
        }
    },
)
