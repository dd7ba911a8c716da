"""Harmonics: the addition theorem, that they turn within their degree, and that mirrors flip odd ones."""

from __future__ import annotations

import pytest
import torch

from remul_md.models.harmonics import COMPONENTS, harmonics
from remul_md.symmetry.rotations import random_rotations


def directions(n: int, *, seed: int) -> torch.Tensor:
    drawn = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn / drawn.norm(dim=1, keepdim=True)


def test_scalar_products_are_legendre_polynomials_of_the_angle() -> None:
    """P_1, P_2, P_3 of the cosine between two directions; of a direction with itself 1."""
    one, other = directions(17, seed=0), directions(17, seed=1)
    x = (one * other).sum(1)
    expected = [x, 1.5 * x**2 - 0.5, 2.5 * x**3 - 1.5 * x]
    of_one, of_other = (harmonics(d, 3).split(COMPONENTS, dim=1) for d in (one, other))
    for a, b, value in zip(of_one, of_other, expected, strict=True):
        torch.testing.assert_close((a * b).sum(1), value)
        torch.testing.assert_close((a * a).sum(1), torch.ones(17, dtype=torch.float64))


@pytest.mark.parametrize("group", ["SO3", "O3"])
def test_a_turn_mixes_the_components_of_one_degree_only(group: str) -> None:
    """One orthogonal matrix, found from 40 directions, holds for 11 others."""
    turn = random_rotations(1, generator=torch.Generator().manual_seed(3), group=group)[0]  # type: ignore[arg-type]
    seen, fresh = directions(40, seed=4), directions(11, seed=5)
    parts = [harmonics(d, 3).split(COMPONENTS, dim=1) for d in (seen, seen @ turn.mT, fresh, fresh @ turn.mT)]
    for before, after, fresh_before, fresh_after in zip(*parts, strict=True):
        matrix = torch.linalg.lstsq(before, after).solution
        torch.testing.assert_close(matrix @ matrix.mT, torch.eye(len(matrix), dtype=torch.float64))
        torch.testing.assert_close(fresh_before @ matrix, fresh_after)


def test_components_are_independent_and_lower_degrees_stay() -> None:
    d = directions(60, seed=6)
    assert torch.linalg.matrix_rank(harmonics(d, 3)) == 15
    assert torch.equal(harmonics(d, 3)[:, :8], harmonics(d, 2))
    assert torch.equal(harmonics(d, 1), d)


def test_degrees_are_even_or_odd() -> None:
    d = directions(9, seed=7)
    signs = torch.tensor([-1.0] * 3 + [1.0] * 5 + [-1.0] * 7, dtype=torch.float64)
    torch.testing.assert_close(harmonics(-d, 3), signs * harmonics(d, 3))
