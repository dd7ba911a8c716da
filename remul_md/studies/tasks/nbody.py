"""Four bodies under gravity: does an unconstrained network that learned rotations keep them outside its data?

One star and three planets; units are those of the generator: G = 1, lengths and masses of order one. Letters: B
systems, N bodies.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from remul_md.errors import InputError
from remul_md.studies.lab import columns
from remul_md.studies.learn import EXACT, ParticleOptions, Particles, ParticleTask, Splits
from remul_md.studies.methods import ALL_GROUP
from remul_md.studies.options import Names
from remul_md.studies.particles import Tokens, rotate_tokens, without_learning
from remul_md.symmetry.rotations import random_rotations, rotations_about

N_PLANETS = 3
STAR_MASS, PLANET_MASS, ORBIT_RADIUS = (1.0, 10.0), (0.01, 0.1), (0.1, 1.0)
VELOCITY_NOISE = 0.01
N_STEPS, TIMESTEP = 100, 1e-3
TOTAL_TIME = N_STEPS * TIMESTEP
MAX_DISPLACEMENT = 2.0
CENTRE_SPREAD, FAR_CENTRE = 20.0, 200.0  # of the reference generator: where systems stand, and its shifted test set
# Angles between which training and test systems are rotated, degrees; None: the Haar measure of all rotations.
CASES: dict[str, tuple[float, float] | None] = {"limited": (0.0, 10.0), "haar": None}
OUTSIDE_DEG = (90.0, 180.0)
Array = NDArray[np.float64]


class NBodyOptions(ParticleOptions):
    """Options of the task; the defaults are its default size."""

    cases: Names = Field(("limited",), description="training orientations: within 10 degrees, or all")
    methods: Names = tuple(name for name in ALL_GROUP if not name.startswith("consistent"))
    models: Names = ("transformer", "egnn", "se3", "gatr")
    n_train: int = Field(100, ge=1, description="training systems, as in the paper")
    n_validation: int = Field(500, ge=2, description="validation systems, in training orientations")
    n_test: int = Field(5000, ge=2, description="test systems, each in an orientation of every test set")
    positions: Literal["centred", "absolute"] = Field(
        "centred", description="what a network sees; absolute: the centres spread by 20, and a test set 200 away"
    )
    predicted: Literal["displacements", "positions"] = Field("displacements", description="what a network gives")

    @model_validator(mode="after")
    def _positions_can_be_predicted(self) -> NBodyOptions:
        if self.predicted == "positions" and set(self.models) & EXACT:
            raise ValueError(
                f"predicted=positions is for the transformer: {', '.join(sorted(EXACT))} give displacements by "
                f"construction; models were {', '.join(self.models)}"
            )
        return self


def simulate_bodies(n: int, *, seed: int | list[int]) -> Tokens:
    """`n` systems in their own frame: the planets orbit near the x-y plane. Float32, simulated in float64.

    Star and planet masses are log-uniform, planets uniform in the area of an annulus, on circular orbits of either
    sense with a little velocity noise; the order of the bodies is shuffled, so that no model can learn it.

    Args:
        n: number of systems, >= 1.
        seed: seed of everything drawn here, as numpy takes it.
    Returns:
        Tokens with the masses as scalars, centred positions, and displacements after `TOTAL_TIME` as targets.
    Raises:
        InputError: n < 1.
    Source: the generator of Brehmer et al. (2023), arXiv:2305.18415. Differences: no random rotation and no
        translation, because these are what a study splits by.
    """
    if n < 1:
        raise InputError(f"the number of systems must be >= 1, got {n}")
    rng = np.random.default_rng(seed)
    parts: list[tuple[Array, ...]] = []
    n_kept = 0
    while n_kept < n:
        masses, start, velocities = _initial_state(max(64, n - n_kept), rng)
        final, _ = advanced(masses, start, velocities)
        # Close encounters without softening fling bodies away (about 1 system in 1,000); NaN compares as False.
        kept = (np.linalg.norm(final - start, axis=2) <= MAX_DISPLACEMENT).all(1)
        parts.append((masses[kept], start[kept], velocities[kept], (final - start)[kept]))
        n_kept += int(kept.sum())
    m, x, v, moved = (torch.from_numpy(np.concatenate(arrays)[:n]) for arrays in zip(*parts, strict=True))
    return Tokens(
        scalars=m.float().unsqueeze(2),
        positions=(x - x.mean(1, keepdim=True)).float(),
        velocities=v.float(),
        pairs=torch.zeros(n, 1 + N_PLANETS, 1 + N_PLANETS, 0),
        targets=moved.float(),
    )


def _initial_state(n: int, rng: np.random.Generator) -> tuple[Array, ...]:
    star = np.exp(rng.uniform(math.log(STAR_MASS[0]), math.log(STAR_MASS[1]), size=(n, 1)))
    planets = np.exp(rng.uniform(math.log(PLANET_MASS[0]), math.log(PLANET_MASS[1]), size=(n, N_PLANETS)))
    radius = np.sqrt(rng.uniform(ORBIT_RADIUS[0] ** 2, ORBIT_RADIUS[1] ** 2, size=(n, N_PLANETS)))
    angle = rng.uniform(0.0, 2.0 * np.pi, size=(n, N_PLANETS))
    sense = rng.choice([-1.0, 1.0], size=(n, N_PLANETS))
    outward = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=2)
    tangential = np.stack([-np.sin(angle), np.cos(angle), np.zeros_like(angle)], axis=2)
    speed = sense * np.sqrt(star / radius)
    n_bodies = 1 + N_PLANETS
    masses, positions, velocities = np.zeros((n, n_bodies)), np.zeros((n, n_bodies, 3)), np.zeros((n, n_bodies, 3))
    masses[:, :1], masses[:, 1:] = star, planets
    positions[:, 1:] = radius[..., None] * outward
    velocities[:, 1:] = speed[..., None] * tangential + rng.normal(0.0, VELOCITY_NOISE, size=(n, N_PLANETS, 3))
    order = rng.permuted(np.tile(np.arange(n_bodies), (n, 1)), axis=1)
    rows = np.arange(n)[:, None]
    return masses[rows, order], positions[rows, order], velocities[rows, order]


def advanced(masses: Array, positions: Array, velocities: Array) -> tuple[Array, Array]:
    """Positions and velocities after `N_STEPS` symplectic Euler steps (kick, then drift); no softening, G = 1."""
    for _ in range(N_STEPS):
        velocities = velocities + TIMESTEP * _accelerations(masses, positions)
        positions = positions + TIMESTEP * velocities
    return positions, velocities


def _accelerations(masses: Array, positions: Array) -> Array:
    towards = positions[:, None, :, :] - positions[:, :, None, :]  # [B, i, j]: from i to j
    squared = np.square(towards).sum(3) + np.eye(positions.shape[1])  # a body does not pull itself: towards is 0
    pull: Array = (masses[:, None, :] * squared**-1.5)[..., None] * towards
    return pull.sum(2)


def rotations_between(n: int, *, low_deg: float, high_deg: float, generator: torch.Generator) -> torch.Tensor:
    """Rotations about axes uniform on the sphere by angles uniform in a band, [n, 3, 3], float64.

    Uniform in the angle, not Haar restricted to the band: the paper gives the bands, its angle law was not found.

    Args:
        n: number of draws, >= 1.
        low_deg, high_deg: smallest and largest angle, degrees.
        generator: source of the random numbers.
    """
    axes = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    angles_deg = low_deg + (high_deg - low_deg) * torch.rand(n, generator=generator, dtype=torch.float64)
    return rotations_about(axes, torch.deg2rad(angles_deg))


def load(options: NBodyOptions, case: str, seed: int) -> Splits:
    """Training and validation systems of a seed, and test systems that are the same for every seed.

    Every test system stands in each test set, so that the sets differ by orientation (and place) alone.
    """
    band = CASES[case]
    own = simulate_bodies(options.n_train + options.n_validation, seed=[1, seed])
    own = _oriented(own, band, torch.Generator().manual_seed(2 * seed + 2))
    test = simulate_bodies(options.n_test, seed=[0])
    shared = torch.Generator().manual_seed(1)
    tests = {"in": _oriented(test, band, shared), "out": _oriented(test, OUTSIDE_DEG, shared)}
    if options.positions == "absolute":
        own = _moved(own, CENTRE_SPREAD, torch.Generator().manual_seed(2 * seed + 3))
        tests = {name: _moved(tokens, CENTRE_SPREAD, shared) for name, tokens in tests.items()}
        near = tests["in"]
        tests["far"] = replace(near, positions=near.positions + torch.tensor([FAR_CENTRE, 0.0, 0.0]))
    if options.predicted == "positions":
        own, *others = (replace(each, targets=each.positions + each.targets) for each in (own, *tests.values()))
        tests = dict(zip(tests, others, strict=True))
    train, validation = own.select(slice(options.n_train)), own.select(slice(options.n_train, None))
    return Splits(train=train, validation=validation, tests=tests)


def _oriented(bodies: Tokens, band_deg: tuple[float, float] | None, generator: torch.Generator) -> Tokens:
    if band_deg is None:
        rotations = random_rotations(len(bodies), generator=generator)
    else:
        low, high = band_deg
        rotations = rotations_between(len(bodies), low_deg=low, high_deg=high, generator=generator)
    return rotate_tokens(bodies, rotations.unsqueeze(0))


def _moved(bodies: Tokens, spread: float, generator: torch.Generator) -> Tokens:
    centres = spread * torch.randn(len(bodies), 1, 3, generator=generator)
    return replace(bodies, positions=bodies.positions + centres)


baselines = partial(without_learning, straight="straight line x + 0.1 v", time=TOTAL_TIME)
# What fits 15 minutes on 2 cores: four methods, two seeds, fewer test systems and draws. Networks, data and steps stay.
QUICK: dict[str, Any] = {
    "models": ["transformer"],
    "methods": ["plain", "augmentation", "augmentation-2", "remul-1"],
    "seeds": [0, 1],
    "n_test": 1000,
    "n_draw_systems": 100,
}
GATR = {"gatr_channels": 16, "gatr_scalars": 128, "gatr_layers": 10}
PAPER: dict[str, Any] = {
    "width": 384,
    "n_layers": 10,
    **GATR,
    "n_steps": 50_000,
    "n_validation": 5000,
    "device": "cuda",
}
MSE = 1e3  # printed x 1e-3
TASK = ParticleTask(
    name="nbody",
    title="Four bodies under gravity",
    options=NBodyOptions,
    sizes={"quick": QUICK, "default": {}, "paper": PAPER},
    cases={"limited": "trained within 10 degrees", "haar": "trained in all orientations"},
    runner=Particles(load=load, baselines=baselines),
    errors=("in", "out", "rotated"),
    error_label="mean squared error x 1e-3",
    ratio=("in", "out"),
    tables={
        "Mean squared error a coordinate, x 1e-3": {
            **columns({"train": "train", "in": "in distribution", "out": "outside"}, scale=MSE),
            **columns({"rotated": "all orientations", "far": "200 away", "equivariance_norm": "E' x 1e-3"}, scale=MSE),
            **columns({"percent": "percent"}),
        }
    },
    published_label="published, in / outside",
    # 100 training systems: in distribution / outside. Elhag et al., arXiv:2410.17878, table 1.
    published={
        ("limited", "transformer", "plain"): "8.99 / 27.06",
        ("limited", "transformer", "augmentation"): "4.20 / 4.21",
        ("limited", "transformer", "remul"): "1.94 / 1.83",
        ("limited", "gatr", "plain"): "1.49 / 1.41",
        ("limited", "SE(3)-Transformer", "plain"): "5.16 / 4.85",
    },
)
