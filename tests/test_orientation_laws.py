"""Rotations about one axis and up to an angle: the axis stays, and angles follow the restricted Haar measure."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from messages import pattern
from torch import Tensor

from remul_md.errors import InputError
from remul_md.symmetry.rotations import mirrored, random_rotations, rotations_about

N = 20_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def angles_of(rotations: Tensor) -> np.ndarray:
    """Rotation angles, 0 to pi, from the antisymmetric part and the trace."""
    skew = rotations - rotations.mT
    sine = torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]]).norm(dim=0)
    return torch.atan2(sine, rotations.diagonal(dim1=1, dim2=2).sum(1) - 1.0).numpy()


def assert_proper(rotations: Tensor) -> None:
    eye = torch.eye(3, dtype=torch.float64).expand(len(rotations), 3, 3)
    torch.testing.assert_close(rotations @ rotations.mT, eye, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(len(rotations), dtype=torch.float64))


def distance_of_distributions(sample: np.ndarray, cumulative: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance times the root of the sample size; 1.95 is passed by chance once in a thousand."""
    order = np.argsort(sample)
    found = (np.arange(len(sample)) + 0.5) / len(sample)
    return float(np.abs(cumulative[order] - found).max() * math.sqrt(len(sample)))


def test_angles_and_axes_of_all_rotations_follow_the_haar_measure() -> None:
    """The angle has the density (1 - cos a) / pi, the axis is uniform on the sphere."""
    rotations = random_rotations(N, generator=generator())
    assert_proper(rotations[:100])
    angles = angles_of(rotations)
    assert distance_of_distributions(angles, (angles - np.sin(angles)) / math.pi) < 1.95
    assert distance_of_distributions(angles, angles / math.pi) > 5  # it would see the law of uniform angles
    moved = rotations - rotations.mT
    axes = torch.stack([moved[:, 2, 1], moved[:, 0, 2], moved[:, 1, 0]], dim=1)
    axes = axes / axes.norm(dim=1, keepdim=True)
    for column in range(3):  # uniform on the sphere: each component is uniform in [-1, 1]
        component = axes[:, column].numpy()
        assert distance_of_distributions(component, (component + 1) / 2) < 1.95


def test_about_an_axis_only_the_angle_is_random() -> None:
    axis = (1.0, -2.0, 0.5)
    rotations = random_rotations(N, generator=generator(), axis=axis)
    assert_proper(rotations[:100])
    direction = torch.tensor(axis, dtype=torch.float64)
    torch.testing.assert_close(rotations @ direction, direction.expand(N, 3), rtol=0, atol=1e-12)
    across = torch.linalg.cross(direction, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    third = torch.linalg.cross(direction / direction.norm(), across)
    signed = torch.atan2(rotations @ across @ third, rotations @ across @ across).numpy()
    assert distance_of_distributions(signed, (signed + math.pi) / (2 * math.pi)) < 1.95


def test_rotations_about_are_right_handed() -> None:
    turn = rotations_about(torch.tensor([[0.0, 0.0, 2.5]], dtype=torch.float64), torch.tensor([0.5 * math.pi]).double())
    x = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(turn[0] @ x, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-7)


def test_the_generator_decides() -> None:
    first, again = (random_rotations(7, generator=generator(5), axis=(1.0, 0.0, 2.0)) for _ in range(2))
    other = random_rotations(7, generator=generator(6), axis=(1.0, 0.0, 2.0))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("axis", [(1.0, 0.0, 2.0), (0.0, -3e-170, 0.0), (2.0, 2.0, 2.0)])
def test_mirrors_about_an_axis_hold_it(axis: tuple[float, float, float]) -> None:
    """O(3) about an axis is what leaves a uniform field as it is: half of its elements mirror, none turns the axis."""
    drawn = random_rotations(400, generator=generator(), group="O3", axis=axis)
    unit = torch.tensor(axis, dtype=torch.float64) / max(map(abs, axis))
    torch.testing.assert_close(drawn @ unit, unit.expand(400, 3), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        drawn @ drawn.mT, torch.eye(3, dtype=torch.float64).expand(400, 3, 3), atol=1e-12, rtol=0
    )
    improper = torch.linalg.det(drawn) < 0
    assert 160 < int(improper.sum()) < 240
    # A mirror that holds the axis has the trace 1; its plane lies anywhere about the axis.
    torch.testing.assert_close(
        drawn[improper].diagonal(dim1=1, dim2=2).sum(1), torch.ones(int(improper.sum())).double()
    )
    normals = torch.linalg.eigh(drawn[improper])[1][:, :, 0]
    assert (normals @ unit).abs().max() < 1e-10
    mean = normals.unsqueeze(2).mul(normals.unsqueeze(1)).mean(0)
    across = 0.5 * (torch.eye(3).double() - torch.outer(unit, unit) / unit.square().sum())
    torch.testing.assert_close(mean, across, atol=0.12, rtol=0)
    torch.testing.assert_close(mirrored(drawn, axis=axis).det(), -drawn.det())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axis": (0.0, 0.0, 0.0)}, "axis ... got [0.0, 0.0, 0.0]"),
        ({"axis": (1.0, 0.0)}, "axis ... got [1.0, 0.0]"),
    ],
)
def test_what_cannot_be_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=pattern(message)):
        random_rotations(3, generator=generator(), **options)
