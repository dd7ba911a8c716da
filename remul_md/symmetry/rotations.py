"""Random rotations and how batches and predictions turn with them.

Conventions: a rotation is a 3x3 matrix g acting on column vectors, so row vectors turn as `v @ g.T`.
Systems turn about the origin; the models know displacements only, so the centre does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

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
) -> Tensor:
    """Independent draws from the Haar measure of SO(3) or O(3), [n, 3, 3], float64, on the generator's device.

    Unit quaternions from four normal deviates are uniform on the 3-sphere, which double-covers SO(3).
    O(3) adds the factor -1 (the inversion, det = -1) to each draw with probability 1/2.

    Args:
        n: number of draws, >= 1.
        generator: source of the random numbers; nothing is drawn from a global state.
        group: SO3 (proper rotations) or O3 (mirrors too).
        axis: only rotations about it, by angles that are uniform, and with O3 mirrors through planes that hold it: what
            leaves a uniform field along it as it is. Any length > 0.
    Raises:
        InputError: unknown group, or an axis of no length or not of 3 numbers.
    Source: Shoemake, Graphics Gems III (1992), 124.
    """
    if group not in get_args(Group):
        raise InputError(f"group {group!r} is unknown; choose one of {', '.join(get_args(Group))}")
    if axis is not None:
        check_axis(axis)
        uniform = torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device)
        axes = torch.tensor(list(axis), dtype=torch.float64, device=generator.device).expand(n, 3)
        rotations = rotations_about(axes, (2.0 * uniform - 1.0) * math.pi)
    else:
        quaternions = torch.randn(n, 4, generator=generator, dtype=torch.float64, device=generator.device)
        rotations = rotations_from_quaternions(quaternions / quaternions.norm(dim=1, keepdim=True))
    if group == "O3":
        improper = torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device) < 0.5
        rotations = torch.where(improper.view(-1, 1, 1), mirrored(rotations, axis=axis), rotations)
    return rotations


def mirrored(rotations: Tensor, *, axis: Sequence[float] | None = None) -> Tensor:
    """Rotations [..., 3, 3] made improper (det = -1): by the inversion, or about an axis by a mirror that holds it.

    Raises:
        InputError: as `check_axis`.
    """
    if axis is None:
        return -rotations
    along = torch.tensor(unit_axis(axis), dtype=rotations.dtype, device=rotations.device)
    normal = torch.linalg.cross(along, torch.eye(3, dtype=along.dtype, device=along.device)[int(along.abs().argmin())])
    normal = normal / normal.norm()
    mirror = torch.eye(3, dtype=along.dtype, device=along.device) - 2.0 * torch.outer(normal, normal)
    return rotations @ mirror


def unit_axis(axis: Sequence[float]) -> tuple[float, float, float]:
    """An axis of any length > 0, of length 1.

    Raises:
        InputError: as `check_axis`.
    """
    check_axis(axis)
    largest = max(map(abs, axis))
    x, y, z = (component / largest for component in axis)
    length = math.hypot(x, y, z)
    return x / length, y / length, z / length


def check_axis(axis: Sequence[float]) -> None:
    """Refuse an axis of no length or not of 3 numbers.

    Raises:
        InputError: such an axis.
    """
    if len(axis) != 3 or not 0 < math.hypot(*axis) < math.inf:
        raise InputError(f"axis must be 3 numbers that are not all 0, got {list(axis)}; the z axis is [0, 0, 1]")


def rotations_about(axes: Tensor, angles: Tensor) -> Tensor:
    """Rotation matrices [n, 3, 3] about axes [n, 3] (any length > 0) by angles [n], radians."""
    largest = axes.abs().amax(dim=1, keepdim=True)
    # A power of two close to the largest component goes first: squares of 1e-200 or 1e200 are 0 or infinite. Exact.
    scaled = axes / (largest / (2.0 * torch.frexp(largest).mantissa))
    unit = scaled / scaled.norm(dim=1, keepdim=True)
    half = 0.5 * angles.unsqueeze(1)
    return rotations_from_quaternions(torch.cat([half.cos(), half.sin() * unit], dim=1))


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
    from scipy.spatial.transform import Rotation

    group = Rotation.create_group({"tetrahedral": "T", "octahedral": "O", "icosahedral": "I"}[name]).as_matrix()
    if name != "icosahedral":
        group = group.round()  # permutations of the axes with signs: exactly integer
    matrices = torch.from_numpy(group)
    identity_first = torch.argsort((matrices - torch.eye(3, dtype=matrices.dtype)).abs().sum((1, 2)), stable=True)
    return matrices[identity_first]


def rotate_vectors(vectors: Tensor, rotations: Tensor, *, system_index: Tensor) -> Tensor:
    """Turn row vectors [A, 3] by the matrix of their system, [B, 3, 3]; dtype and unit are kept."""
    per_atom = rotations.to(vectors.dtype).index_select(0, system_index)
    return torch.einsum("aij,aj->ai", per_atom, vectors)


def rotated_about_centre(positions: Tensor, rotation: Tensor) -> Tensor:
    """Positions [N, 3] of one structure rotated about their mean by [3, 3]."""
    centre = positions.mean(0)
    return (positions - centre) @ rotation.mT + centre


def rotate_batch(batch: Batch, rotations: Tensor) -> Batch:
    """Turn all vectors of a batch, such as positions, cells and force labels, by [B, 3, 3]; the rest stays as it is."""
    return _rotated(batch, rotations)


def rotated_copies(batch: Batch, rotations: Tensor) -> Batch:
    """One batch of G rotated copies of all systems, orientation-major: rotations [G, B, 3, 3]."""
    return rotate_batch(batch.repeated(rotations.shape[0]), rotations.flatten(0, 1))


def rotate_prediction(prediction: Prediction, rotations: Tensor) -> Prediction:
    """Turn the forces of a prediction by [B, 3, 3]; energies are invariant."""
    members = prediction.members
    rotated = None if members is None else tuple(rotate_prediction(member, rotations) for member in members)
    return replace(_rotated(prediction, rotations), members=rotated)


def _rotated(data: Flat, rotations: Tensor) -> Flat:
    found: dict[str, Any] = {}
    for name, rows in row_fields(type(data)).items():
        value = getattr(data, name)
        if not rows.turns or value is None:
            continue
        if rows.per == "system":
            found[name] = torch.einsum("bij,b...j->b...i", rotations.to(value.dtype), value)
        else:
            found[name] = rotate_vectors(value, rotations, system_index=data.system_index)
    return replace(data, **found)


def symmetrizing_rotations(symmetrize: FixedSet | int | str, *, seed: int = 0) -> Tensor:
    """The fixed rotations to average over, [G, 3, 3], float64: the group of a solid, or seeded Haar draws.

    Raises:
        InputError: a number < 1 or an unknown name.
    """
    if isinstance(symmetrize, bool):
        raise InputError(f"symmetrize takes a name or a number of rotations, got {symmetrize}")
    if isinstance(symmetrize, int):
        if symmetrize < 1:
            raise InputError(f"symmetrize needs at least 1 rotation, got {symmetrize}")
        return random_rotations(symmetrize, generator=torch.Generator().manual_seed(seed))
    if symmetrize not in get_args(FixedSet):
        names = ", ".join(get_args(FixedSet))
        raise InputError(f"symmetrize must be one of {names} or a number of rotations, got {symmetrize!r}")
    return fixed_rotations(symmetrize)  # type: ignore[arg-type]
