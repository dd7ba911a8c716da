"""Molecules as densities on a grid: how they are made and rotated, and what broken symmetry costs a network on them.

A grid can be rotated exactly by the 24 rotations of a cube alone; by all others it has to be interpolated, which has an
error of its own. Letters: B systems, N atoms, K elements, V points along an edge, G orientations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from remul_md.symmetry.evaluate import rotated_back, statistics
from remul_md.symmetry.measures import equivariance_norm, equivariance_percent
from remul_md.symmetry.remul import Turn
from remul_md.symmetry.rotations import fixed_rotations, random_rotations

Denoise = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A cube of points about the origin.

    Args:
        n: V, points along an edge.
        spacing: between two of them, Angstrom.
        width: standard deviation of the Gaussian that is an atom, Angstrom.
    """

    n: int
    spacing: float
    width: float

    @property
    def reach(self) -> float:
        """From the centre to a face, Angstrom."""
        return 0.5 * (self.n - 1) * self.spacing

    def points(self, like: Tensor) -> Tensor:
        """Coordinates along an edge, [V], Angstrom."""
        return torch.linspace(-self.reach, self.reach, self.n, dtype=like.dtype, device=like.device)


@dataclass(frozen=True, kw_only=True, eq=False)
class Molecules:
    """Atoms of B molecules.

    Args:
        positions: [B, N, 3], Angstrom.
        elements: one of K numbers is 1, [B, N, K].
    """

    positions: Tensor
    elements: Tensor

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, indices: NDArray[Any] | slice) -> Molecules:
        """The molecules with these indices, in this order."""
        rows = indices if isinstance(indices, slice) else torch.from_numpy(indices).to(self.positions.device)
        return Molecules(positions=self.positions[rows], elements=self.elements[rows])

    def to(self, device: torch.device | str) -> Molecules:
        """The same molecules on another device."""
        return Molecules(positions=self.positions.to(device), elements=self.elements.to(device))


def rotate_molecules(molecules: Molecules, rotations: Tensor) -> Molecules:
    """G rotated copies of all molecules, orientation-major: rotations [G, B, 3, 3]."""
    rotated = torch.einsum("gbij,bnj->gbni", rotations.to(molecules.positions), molecules.positions)
    return Molecules(positions=rotated.flatten(0, 1), elements=molecules.elements.repeat(len(rotations), 1, 1))


def density(molecules: Molecules, grid: Grid) -> Tensor:
    """Sum of exp(-r^2 / (2 width^2)) over the atoms of each element, [B, K, V, V, V]; 1 at a lone atom."""
    apart = grid.points(molecules.positions) - molecules.positions.unsqueeze(3)
    along = torch.exp(-0.5 * (apart / grid.width).square())
    x, y, z = along.unbind(2)
    return torch.einsum("bnk,bnx,bny,bnz->bkxyz", molecules.elements, x, y, z)


def cube_rotated(grids: Tensor, rotation: Tensor) -> Tensor:
    """Values [..., V, V, V] rotated by a signed permutation [3, 3], exactly: what stood at r then stands at g r."""
    source = rotation.abs().argmax(1).tolist()
    kept = grids.ndim - 3
    moved = grids.permute(*range(kept), *(kept + axis for axis in source))
    flipped = [kept + axis for axis in range(3) if rotation[axis, source[axis]] < 0]
    return moved.flip(flipped) if flipped else moved


def rotate_grids(grids: Tensor, rotations: Tensor) -> Tensor:
    """G rotated copies of all grids [B, K, V, V, V], orientation-major, by rotations of the cube [G, B, 3, 3]."""
    return torch.stack([cube_rotated(grid, g) for each in rotations for grid, g in zip(grids, each, strict=True)])


def interpolated(grids: Tensor, rotations: Tensor, grid: Grid) -> Tensor:
    """Grids [B, K, V, V, V] rotated by any [B, 3, 3], by trilinear interpolation; 0 comes in from outside."""
    edge = grid.points(grids) / grid.reach
    points = torch.stack(torch.meshgrid(edge, edge, edge, indexing="ij"), dim=-1)
    sources = torch.einsum("bji,xyzj->bxyzi", rotations.to(grids), points)  # g^-1 r
    return functional.grid_sample(grids, sources.flip(-1), align_corners=True)  # it counts axes from the last


CUBE_TURN: Turn[Tensor, Tensor] = Turn(inputs=rotate_grids, outputs=rotate_grids)


def cube_figures(denoise: Denoise, noisy: Tensor, clean: Tensor, *, n_draws: int, seed: int = 0) -> dict[str, float]:
    """What broken symmetry costs, from `n_draws` independent draws of the 24 rotations for each grid.

    Args:
        denoise: noisy grids -> clean ones, without a graph.
        noisy, clean: [B, K, V, V, V]; the noise is rotated with its grid.
        n_draws: >= 2.
        seed: of the draws.
    Returns:
        "percent", "twirled" and "spread" (T and s2 a value of the grid) and "equivariance_norm" (E').
    """
    cube, generator = fixed_rotations("octahedral"), torch.Generator().manual_seed(seed)
    drawn = cube[torch.randint(len(cube), (n_draws, len(noisy)), generator=generator)]
    back = torch.stack(rotated_back(denoise, noisy, turn=CUBE_TURN, rotations=drawn)).double()
    found = statistics(back.flatten(2), clean.double().flatten(1))
    n_values = clean[0].numel()
    return {
        "percent": equivariance_percent(found.twirled.cpu().numpy(), found.spread.cpu().numpy()).value,
        "twirled": found.twirled.mean().item() / n_values,
        "spread": found.spread.mean().item() / n_values,
        "equivariance_norm": equivariance_norm(back, denoise(noisy).double().expand_as(back)).item(),
    }


def general_figures(
    denoise: Denoise, molecules: Molecules, grid: Grid, *, noise: float, n_draws: int, seed: int = 0
) -> dict[str, float]:
    """The same over all rotations of the atoms, as far as interpolation can tell.

    Every orientation has noise of its own. The covariance of two outputs of the same orientation with different noise
    is the spread over orientations of the output averaged over the noise; the same of clean grids, which a perfect
    network would give, is what interpolation alone makes.

    Args:
        denoise: noisy grids -> clean ones, without a graph.
        molecules: B of them.
        grid: where they stand.
        noise: standard deviation of a value.
        n_draws: rotations of each, >= 2.
        seed: of rotations and noise.
    Returns:
        "rotated": mean squared error in all orientations, without interpolation; "general_spread" and "floor", both a
        value of the grid, and both over "rotated" in percent.
    """
    generator = torch.Generator().manual_seed(seed)
    rotations = random_rotations(n_draws * len(molecules), generator=generator).view(n_draws, len(molecules), 3, 3)
    errors, outputs, floors = [], [], []
    for g in rotations:
        clean = density(rotate_molecules(molecules, g.unsqueeze(0)), grid)
        pair = [denoise(clean + noise * torch.randn(clean.shape, generator=generator).to(clean)) for _ in range(2)]
        errors += [(each - clean).square().mean().item() for each in pair]
        outputs.append(torch.stack([interpolated(each, g.mT, grid) for each in pair]))
        floors.append(interpolated(clean, g.mT, grid))
    back, known = torch.stack(outputs, dim=1), torch.stack(floors)  # [2, draws, B, ...], [draws, B, ...]
    gaps = back - back.mean(1, keepdim=True)
    spread = (gaps[0] * gaps[1]).mean().item() * n_draws / (n_draws - 1)
    floor = known.var(0).mean().item()
    rotated = sum(errors) / len(errors)
    return {
        "rotated": rotated,
        "general_spread": spread,
        "floor": floor,
        "general_percent": 100.0 * spread / rotated,
        "floor_percent": 100.0 * floor / rotated,
    }
