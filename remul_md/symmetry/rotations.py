"""Random rotations and how batches and predictions turn with them.

Conventions: a rotation is a 3x3 matrix g acting on column vectors, so row vectors turn as `v @ g.T`.
Systems turn about the origin; the models know displacements only, so the centre does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations, product
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from remul_md.errors import InputError
from remul_md.structures.batch import Batch, Flat, Prediction
from remul_md.structures.rows import row_fields

Group = Literal["SO3", "O3"]
FixedSet = Literal["tetrahedral", "octahedral", "icosahedral"]


def random_rotations(
    n: int,
    *,
    generator: torch.Generator,
    group: Group = "SO3",
    axis: Sequence[float] | None = None,
    max_angle_deg: float | None = None,
) -> Tensor:
    """Independent draws from the Haar measure of SO(3) or O(3), [n, 3, 3], float64, on the generator's device.

    Unit quaternions from four normal deviates are uniform on the 3-sphere, which double-covers SO(3).
    O(3) adds the factor -1 (the inversion, det = -1) to each draw with probability 1/2.

    Args:
        n: number of draws, >= 1.
        generator: source of the random numbers; nothing is drawn from a global state.
        group: SO3 (proper rotations) or O3 (mirrors too).
        axis: with SO3, only rotations about it: see `restricted_rotations`.
        max_angle_deg: with SO3, only rotations by at most this angle, degrees.
    Raises:
        InputError: unknown group, or one with mirrors where axis or angle are restricted.
    Source: Shoemake, Graphics Gems III (1992), 124.
    """
    if group not in get_args(Group):
        raise InputError(f"group {group!r} is unknown; choose one of {', '.join(get_args(Group))}")
    if axis is not None or max_angle_deg is not None:
        if group != "SO3":
            raise InputError(f"axis and max_angle_deg restrict proper rotations; give group SO3, got {group}")
        return restricted_rotations(n, generator=generator, axis=axis, max_angle_deg=max_angle_deg)
    quaternions = torch.randn(n, 4, generator=generator, dtype=torch.float64, device=generator.device)
    rotations = rotations_from_quaternions(quaternions / quaternions.norm(dim=1, keepdim=True))
    if group == "O3":
        mirrored = torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device) < 0.5
        rotations = torch.where(mirrored.view(-1, 1, 1), -rotations, rotations)
    return rotations


def restricted_rotations(
    n: int,
    *,
    generator: torch.Generator,
    axis: Sequence[float] | None = None,
    max_angle_deg: float | None = None,
) -> Tensor:
    """Independent rotations about one axis, or by at most an angle, or both, [n, 3, 3], float64, det = +1.

    The law is that of the group, restricted: about an axis the signed angle is uniform in [-max, max]; about any
    axis it is the Haar measure given that the angle is at most max, so the axis is uniform on the sphere and the
    angle has a density proportional to 1 - cos(angle): nearly all draws of a small ball are close to its surface.

    Args:
        n: number of draws, >= 1.
        generator: source of the random numbers.
        axis: direction of the axis, any length > 0; None for every axis.
        max_angle_deg: largest angle, degrees, in (0, 180]; None is 180.
    Raises:
        InputError: an axis of no length or not of 3 numbers, an angle out of range.
    """
    limit = check_restriction(axis=axis, max_angle_deg=max_angle_deg)
    uniform = torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device)
    if axis is not None:
        axes = torch.tensor(list(axis), dtype=torch.float64, device=generator.device).expand(n, 3)
        angles = (2.0 * uniform - 1.0) * limit
    else:
        axes = torch.randn(n, 3, generator=generator, dtype=torch.float64, device=generator.device)
        angles = _ball_angles(uniform, limit)
    return rotations_about(axes, angles)


def check_restriction(*, axis: Sequence[float] | None, max_angle_deg: float | None) -> float:
    """The largest angle in radians.

    Raises:
        InputError: an axis of no length or not of 3 numbers, an angle out of range.
    """
    if axis is not None and (len(axis) != 3 or not 0 < math.hypot(*axis) < math.inf):
        raise InputError(f"axis must be 3 numbers that are not all 0, got {list(axis)}; the z axis is [0, 0, 1]")
    if max_angle_deg is not None and not 0 < max_angle_deg <= 180:
        raise InputError(f"max_angle_deg must be in (0, 180] degrees, got {max_angle_deg}")
    return math.pi if max_angle_deg is None else math.radians(max_angle_deg)


def rotations_about(axes: Tensor, angles: Tensor) -> Tensor:
    """Rotation matrices [n, 3, 3] about axes [n, 3] (any length > 0) by angles [n], radians."""
    largest = axes.abs().amax(dim=1, keepdim=True)
    # A power of two close to the largest component goes first: squares of 1e-200 or 1e200 are 0 or infinite. Exact.
    scaled = axes / (largest / (2.0 * torch.frexp(largest).mantissa))
    unit = scaled / scaled.norm(dim=1, keepdim=True)
    half = 0.5 * angles.unsqueeze(1)
    return rotations_from_quaternions(torch.cat([half.cos(), half.sin() * unit], dim=1))


def _ball_angles(uniform: Tensor, limit: float) -> Tensor:
    """Angles whose distribution function is (a - sin a) / (limit - sin limit), by bisection."""

    def volume(angle: Tensor) -> Tensor:
        # The difference loses its digits below about 0.01, the series has an error of a^6 / 840 of itself there.
        series = angle**3 / 6.0 * (1.0 - angle**2 / 20.0)
        return torch.where(angle < 0.02, series, angle - angle.sin())

    low, high = torch.zeros_like(uniform), torch.full_like(uniform, limit)
    wanted = uniform * volume(high)
    for _ in range(50):  # 2^-50 of the limit
        middle = 0.5 * (low + high)
        below = volume(middle) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return 0.5 * (low + high)


def rotations_from_quaternions(quaternions: Tensor) -> Tensor:
    """Rotation matrices [n, 3, 3] of unit quaternions [n, 4], ordered (w, x, y, z)."""
    w, x, y, z = quaternions.unbind(1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def fixed_rotations(name: FixedSet) -> Tensor:
    """The rotation group of a regular solid, [12, 24 or 60, 3, 3], float64, the identity first.

    A fixed set keeps an averaged conservative model conservative; it must never enter the estimators of
    `remul_md.symmetry.measures`, which need independent draws.

    Raises:
        InputError: unknown name.
    """
    if name not in get_args(FixedSet):
        raise InputError(f"rotation set {name!r} is unknown; choose one of {', '.join(get_args(FixedSet))}")
    if name == "icosahedral":
        golden = (1 + 5**0.5) / 2
        even = [p for p in permutations(range(4)) if _sign(p) > 0]
        units = [np.eye(4)[k] * s for k in range(4) for s in (1, -1)]
        halves = [0.5 * np.array(signs) for signs in product((1, -1), repeat=4)]
        goldens = [
            0.5 * np.array([s0 * golden, s1 * 1.0, s2 / golden, 0.0])[list(order)]
            for order in even
            for s0, s1, s2 in product((1, -1), repeat=3)
        ]
        quaternions = np.array([*units, *halves, *goldens])  # the 120 icosians; q and -q are one rotation
        leading = np.array([row[np.flatnonzero(np.abs(row) > 1e-9)[0]] for row in quaternions])
        group = rotations_from_quaternions(torch.from_numpy(quaternions[leading > 0]))
    else:
        matrices = []
        for order in permutations(range(3)):
            for signs in product((1.0, -1.0), repeat=3):
                matrix = np.zeros((3, 3))
                matrix[range(3), order] = signs
                # Proper rotations of the cube; those that permute the axes evenly keep the tetrahedron.
                if np.linalg.det(matrix) > 0 and (name == "octahedral" or _sign(order) > 0):
                    matrices.append(matrix)
        group = torch.from_numpy(np.array(matrices))
    identity_first = torch.argsort((group - torch.eye(3, dtype=group.dtype)).abs().sum((1, 2)), stable=True)
    return group[identity_first]


def _sign(order: tuple[int, ...]) -> int:
    inversions = sum(order[a] > order[b] for a in range(len(order)) for b in range(a + 1, len(order)))
    return -1 if inversions % 2 else 1


def turn_vectors(vectors: Tensor, rotations: Tensor, *, system_index: Tensor) -> Tensor:
    """Turn row vectors [A, 3] by the matrix of their system, [B, 3, 3]; dtype and unit are kept."""
    per_atom = rotations.to(vectors.dtype).index_select(0, system_index)
    return torch.einsum("aij,aj->ai", per_atom, vectors)


def turn_batch(batch: Batch, rotations: Tensor) -> Batch:
    """Turn all vectors of a batch, such as positions, cells and force labels, by [B, 3, 3]; the rest stays as it is."""
    return _turned(batch, rotations)


def pose_batch(batch: Batch, rotations: Tensor) -> Batch:
    """One batch of G turned copies of all systems, pose-major: rotations [G, B, 3, 3]."""
    return turn_batch(batch.repeated(rotations.shape[0]), rotations.flatten(0, 1))


def turn_prediction(prediction: Prediction, rotations: Tensor) -> Prediction:
    """Turn the forces of a prediction by [B, 3, 3]; energies are invariant."""
    members = prediction.members
    turned = None if members is None else tuple(turn_prediction(member, rotations) for member in members)
    return replace(_turned(prediction, rotations), members=turned)


def _turned(data: Flat, rotations: Tensor) -> Flat:
    found: dict[str, Any] = {}
    for name, rows in row_fields(type(data)).items():
        value = getattr(data, name)
        if not rows.turns or value is None:
            continue
        if rows.per == "system":
            found[name] = torch.einsum("bij,b...j->b...i", rotations.to(value.dtype), value)
        else:
            found[name] = turn_vectors(value, rotations, system_index=data.system_index)
    return replace(data, **found)
