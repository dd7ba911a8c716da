"""Real spherical harmonics of a direction, degrees 1 to 3, as polynomials."""

from __future__ import annotations

import math

import torch
from torch import Tensor

COMPONENTS = (3, 5, 7)  # of degree 1, 2, 3


def harmonics(directions: Tensor, max_degree: int) -> Tensor:
    """Real spherical harmonics of unit vectors, [..., 3] -> [..., 3], [..., 8] or [..., 15].

    Degree 1, which comes first, is the vector itself. Scaled so that those of one degree have length 1 for every
    direction; the scalar product of two directions' harmonics of degree l is then the Legendre polynomial P_l of the
    cosine between them.

    Source: the addition theorem, https://dlmf.nist.gov/14.30 eq. 14.30.9.
    """
    x, y, z = directions.unbind(-1)
    found = [directions]
    if max_degree >= 2:
        root = math.sqrt(3.0)
        second = [root * x * y, root * y * z, root * x * z, 0.5 * root * (x * x - y * y), 1.5 * z * z - 0.5]
        found.append(torch.stack(second, dim=-1))
    if max_degree >= 3:
        a, b, c = math.sqrt(5.0 / 8.0), math.sqrt(15.0), math.sqrt(3.0 / 8.0)
        third = [
            a * y * (3.0 * x * x - y * y),
            b * x * y * z,
            c * y * (5.0 * z * z - 1.0),
            0.5 * z * (5.0 * z * z - 3.0),
            c * x * (5.0 * z * z - 1.0),
            0.5 * b * z * (x * x - y * y),
            a * x * (x * x - 3.0 * y * y),
        ]
        found.append(torch.stack(third, dim=-1))
    return torch.cat(found, dim=-1)
