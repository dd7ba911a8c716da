"""One star and three planets under gravity, and the orientations in which a study shows them.

Units are those of the generator: G = 1, lengths and masses of order one; no chemistry and no Angstrom here.
Letters: B systems, N bodies, G orientations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remul_md.errors import InputError
from remul_md.symmetry.rotations import random_rotations, rotations_about

N_PLANETS = 3
STAR_MASS, PLANET_MASS, ORBIT_RADIUS = (1.0, 10.0), (0.01, 0.1), (0.1, 1.0)
VELOCITY_NOISE = 0.01
N_STEPS, TIMESTEP = 100, 1e-3
TOTAL_TIME = N_STEPS * TIMESTEP
MAX_DISPLACEMENT = 2.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Bodies:
    """Systems of N bodies: what a model sees, and how far each body has moved after `TOTAL_TIME`.

    Args:
        masses: [B, N].
        positions: at the start, centred on the mean over the bodies, [B, N, 3].
        velocities: at the start, [B, N, 3].
        displacements: label, final minus initial position, [B, N, 3].
    """

    masses: Tensor
    positions: Tensor
    velocities: Tensor
    displacements: Tensor

    def __len__(self) -> int:
        return int(self.masses.shape[0])

    def select(self, indices: NDArray[np.int64] | slice) -> Bodies:
        """The systems with these indices, in this order."""
        rows = indices if isinstance(indices, slice) else torch.from_numpy(indices).to(self.masses.device)
        return Bodies(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def to(self, device: torch.device | str) -> Bodies:
        """The same systems on another device."""
        return Bodies(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def simulate_bodies(n: int, *, seed: int | list[int]) -> Bodies:
    """`n` systems in their own frame: the planets orbit near the x-y plane. Float32, simulated in float64.

    Star and planet masses are log-uniform, planets uniform in the area of an annulus, on circular orbits of either
    sense with a little velocity noise; the order of the bodies is shuffled, so that no model can learn it.

    Args:
        n: number of systems, >= 1.
        seed: seed of everything drawn here, as numpy takes it.
    Raises:
        InputError: n < 1.
    Source: the generator of Brehmer et al. (2023), arXiv:2305.18415. Differences: no random rotation and no
        translation (systems are centred), because rotations are what a study splits by.
    """
    if n < 1:
        raise InputError(f"the number of systems must be >= 1, got {n}")
    rng = np.random.default_rng(seed)
    parts: list[tuple[NDArray[np.float64], ...]] = []
    n_kept = 0
    while n_kept < n:
        masses, start, velocities = _initial_state(max(64, n - n_kept), rng)
        final = _final_positions(masses, start, velocities)
        # Close encounters without softening fling bodies away (about 1 system in 1,000); NaN compares as False.
        kept = (np.linalg.norm(final - start, axis=2) <= MAX_DISPLACEMENT).all(1)
        parts.append((masses[kept], start[kept], velocities[kept], (final - start)[kept]))
        n_kept += int(kept.sum())
    m, x, v, moved = (torch.from_numpy(np.concatenate(arrays)[:n]) for arrays in zip(*parts, strict=True))
    return Bodies(
        masses=m.float(),
        positions=(x - x.mean(1, keepdim=True)).float(),
        velocities=v.float(),
        displacements=moved.float(),
    )


def _initial_state(n: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
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


def _final_positions(
    masses: NDArray[np.float64], positions: NDArray[np.float64], velocities: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Positions after `N_STEPS` symplectic Euler steps (kick, then drift), [B, N, 3]; no softening, G = 1."""
    for _ in range(N_STEPS):
        velocities = velocities + TIMESTEP * _accelerations(masses, positions)
        positions = positions + TIMESTEP * velocities
    return positions


def _accelerations(masses: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    towards = positions[:, None, :, :] - positions[:, :, None, :]  # [B, i, j]: from i to j
    squared = np.square(towards).sum(3) + np.eye(positions.shape[1])  # a body does not pull itself: towards is 0
    pull: NDArray[np.float64] = (masses[:, None, :] * squared**-1.5)[..., None] * towards
    return pull.sum(2)


def rotations_between(n: int, *, low_deg: float, high_deg: float, generator: torch.Generator) -> Tensor:
    """Rotations about axes uniform on the sphere by angles uniform in a band, [n, 3, 3], float64.

    Uniform in the angle, not Haar restricted to the band: the paper gives the bands, its angle law was not found.

    Args:
        n: number of draws, >= 1.
        low_deg: smallest angle, degrees.
        high_deg: largest angle, degrees, at most 180.
        generator: source of the random numbers.
    Raises:
        InputError: unless 0 <= low_deg <= high_deg <= 180.
    """
    if not 0.0 <= low_deg <= high_deg <= 180.0:
        raise InputError(f"a band of angles needs 0 <= low <= high <= 180 degrees, got {low_deg} and {high_deg}")
    axes = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    angles_deg = low_deg + (high_deg - low_deg) * torch.rand(n, generator=generator, dtype=torch.float64)
    return rotations_about(axes, torch.deg2rad(angles_deg))


def rotate_bodies(bodies: Bodies, rotations: Tensor) -> Bodies:
    """G rotated copies of all systems in one, orientation-major: rotations [G, B, 3, 3]; masses do not turn."""
    return Bodies(
        masses=bodies.masses.repeat(rotations.shape[0], 1),
        positions=rotate_body_vectors(bodies.positions, rotations),
        velocities=rotate_body_vectors(bodies.velocities, rotations),
        displacements=rotate_body_vectors(bodies.displacements, rotations),
    )


def rotate_body_vectors(vectors: Tensor, rotations: Tensor) -> Tensor:
    """Vectors [B, N, 3] in G orientations, [G * B, N, 3], orientation-major; dtype is kept."""
    return torch.einsum("gbij,bnj->gbni", rotations.to(vectors), vectors).flatten(0, 1)


@dataclass(frozen=True, kw_only=True)
class OrientationLaw:
    """Angles between which systems are rotated, degrees; None is the Haar measure of all rotations."""

    training_deg: tuple[float, float] | None
    out_of_distribution_deg: tuple[float, float] | None


LAWS = {
    "limited": OrientationLaw(training_deg=(0.0, 10.0), out_of_distribution_deg=(90.0, 180.0)),
    "haar": OrientationLaw(training_deg=None, out_of_distribution_deg=(90.0, 180.0)),
}


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Data of a study; `in_distribution` and `out_of_distribution` are the same systems in other orientations."""

    train: Bodies
    validation: Bodies
    in_distribution: Bodies
    out_of_distribution: Bodies


def make_splits(*, n_train: int, n_validation: int, n_test: int, law: str, seed: int) -> Splits:
    """Training and validation systems of a seed, and test systems that are the same for every seed.

    Args:
        n_train: training systems.
        n_validation: validation systems, in training orientations.
        n_test: test systems; each stands in both test sets, so that the sets differ by orientation alone.
        law: a name of `LAWS`.
        seed: decides the training and validation systems.
    Raises:
        InputError: unknown law.
    """
    if law not in LAWS:
        raise InputError(f"orientations {law!r} are unknown; choose one of {', '.join(LAWS)}")
    chosen = LAWS[law]
    own = simulate_bodies(n_train + n_validation, seed=[1, seed])
    own = _posed(own, chosen.training_deg, torch.Generator().manual_seed(2 * seed + 2))
    test = simulate_bodies(n_test, seed=[0])
    shared = torch.Generator().manual_seed(1)
    return Splits(
        train=own.select(slice(n_train)),
        validation=own.select(slice(n_train, None)),
        in_distribution=_posed(test, chosen.training_deg, shared),
        out_of_distribution=_posed(test, chosen.out_of_distribution_deg, shared),
    )


def _posed(bodies: Bodies, band_deg: tuple[float, float] | None, generator: torch.Generator) -> Bodies:
    if band_deg is None:
        rotations = random_rotations(len(bodies), generator=generator)
    else:
        low, high = band_deg
        rotations = rotations_between(len(bodies), low_deg=low, high_deg=high, generator=generator)
    return rotate_bodies(bodies, rotations.unsqueeze(0))


def baseline_errors(bodies: Bodies) -> dict[str, float]:
    """Mean squared error a coordinate of what needs no learning: staying ("copy") and flying straight on."""
    return {
        "copy": bodies.displacements.square().mean().item(),
        "straight_line": (bodies.displacements - TOTAL_TIME * bodies.velocities).square().mean().item(),
    }
