"""Random rotations and how batches and predictions turn with them.

Conventions: a rotation is a 3x3 matrix g acting on column vectors, so row vectors turn as `v @ g.T`.
Systems turn about the origin; the models know displacements only, so the centre does not matter.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from remul_md.errors import InputError
from remul_md.structures import Batch, Prediction

Group = Literal["SO3", "O3"]
FixedSet = Literal["tetrahedral", "octahedral", "icosahedral"]


def random_rotations(n: int, *, generator: torch.Generator, group: Group = "SO3") -> Tensor:
    """Independent draws from the Haar measure of SO(3) or O(3), [n, 3, 3], float64, on the generator's device.

    Unit quaternions from four normal deviates are uniform on the 3-sphere, which double-covers SO(3).
    O(3) adds the factor -1 (the inversion, det = -1) to each draw with probability 1/2.

    Args:
        n: number of draws, >= 1.
        generator: source of the random numbers; nothing is drawn from a global state.
        group: SO3 (proper rotations) or O3 (mirrors too).
    Raises:
        InputError: unknown group.
    Source: Shoemake, Graphics Gems III (1992), 124.
    """
    if group not in get_args(Group):
        raise InputError(f"group {group!r} is unknown; choose one of {', '.join(get_args(Group))}")
    quaternions = torch.randn(n, 4, generator=generator, dtype=torch.float64, device=generator.device)
    rotations = rotations_from_quaternions(quaternions / quaternions.norm(dim=1, keepdim=True))
    if group == "O3":
        mirrored = torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device) < 0.5
        rotations = torch.where(mirrored.view(-1, 1, 1), -rotations, rotations)
    return rotations


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
    """Turn positions, cells and force labels by [B, 3, 3]; neighbours and energies stay as they are."""
    return replace(
        batch,
        positions=turn_vectors(batch.positions, rotations, system_index=batch.system_index),
        cell=None if batch.cell is None else torch.einsum("bij,bkj->bki", rotations.to(batch.cell.dtype), batch.cell),
        forces=None if batch.forces is None else turn_vectors(batch.forces, rotations, system_index=batch.system_index),
    )


def pose_batch(batch: Batch, rotations: Tensor) -> Batch:
    """One batch of G turned copies of all systems, pose-major: rotations [G, B, 3, 3]."""
    return turn_batch(batch.repeated(rotations.shape[0]), rotations.flatten(0, 1))


def turn_prediction(prediction: Prediction, rotations: Tensor) -> Prediction:
    """Turn the forces of a prediction by [B, 3, 3]; energies are invariant."""

    def turned(vectors: Tensor | None) -> Tensor | None:
        return None if vectors is None else turn_vectors(vectors, rotations, system_index=prediction.system_index)

    return replace(prediction, forces=turned(prediction.forces), direct_forces=turned(prediction.direct_forces))
