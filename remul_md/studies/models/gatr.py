"""GATr: a transformer over multivectors of the projective geometric algebra G(3,0,1), equivariant by construction.

A multivector has 16 components, in the order of `BLADES`: 1; e0 e1 e2 e3; e01 e02 e03 e12 e13 e23; e012 e013 e023 e123;
e0123. e0 squares to 0, the other three to 1. Planes are vectors, lines bivectors, points trivectors. A mirror u takes x
to u x' u^-1, where x' is x with its odd grades negated; rotations and translations are products of mirrors.

Source: Brehmer, de Haan, Behrends and Cohen (2023), arXiv:2305.18415. Letters: B systems, N particles, C channels of
multivectors, M = 16 components, S scalar channels, H heads, F features behind a dot product.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from remul_md.studies.particles import Tokens

BLADES: tuple[tuple[int, ...], ...] = tuple(blade for grade in range(5) for blade in combinations(range(4), grade))
N_COMPONENTS = len(BLADES)
E123 = BLADES.index((1, 2, 3))  # the weight of a point
N_MAPS = 9
# Variance of the weights of each map at the start, times fan-in: outputs are then as large as inputs.
INITIAL_VARIANCE = (1.0, 4.0, 6.0, 2.0, 0.5, 0.5, 1.5, 1.5, 0.5)
SMALL = 0.1  # the attention of a fresh network adds little
WIDER = 2  # heads together, and the MLP within
NORM_FLOOR, WEIGHT_FLOOR = 1e-2, 1e-3
N_DISTANCE = 5
Array = NDArray[np.float64]


def product_of_blades(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, float]:
    """Component and sign of a geometric product; sign 0 where e0 meets itself."""
    exchanges = sum(i > j for i in first for j in second)
    sign = 0.0 if 0 in first and 0 in second else (-1.0) ** exchanges
    return BLADES.index(tuple(sorted(set(first) ^ set(second)))), sign


def product_table() -> Array:
    """Geometric product: (x y)_k = sum_ij table[i, j, k] x_i y_j."""
    table = np.zeros((N_COMPONENTS,) * 3)
    for i, first in enumerate(BLADES):
        for j, second in enumerate(BLADES):
            k, sign = product_of_blades(first, second)
            table[i, j, k] = sign
    return table


def dual_matrix() -> Array:
    """Right complement, blade ^ dual(blade) = e0123, which needs no metric: [to, from]."""
    matrix = np.zeros((N_COMPONENTS, N_COMPONENTS))
    for i, blade in enumerate(BLADES):
        rest = tuple(sorted(set(range(4)) - set(blade)))
        matrix[BLADES.index(rest), i] = product_of_blades(blade, rest)[1]
    return matrix


def join_table() -> Array:
    """Join, dual(dual x ^ dual y): the line through two points, the plane through a point and a line."""
    outer, dual = product_table(), dual_matrix()
    for i, first in enumerate(BLADES):
        for j, second in enumerate(BLADES):
            outer[i, j] *= not set(first) & set(second)
    joined: Array = np.einsum("ai,bj,abc,kc->ijk", dual, dual, outer, dual)
    return joined


def linear_maps() -> Array:
    """The nine maps that every equivariant linear map is a sum of, of Frobenius norm 1: [map, to, from].

    Five projections on a grade, and four products of e0 with what has no e0.
    """
    maps = np.zeros((N_MAPS, N_COMPONENTS, N_COMPONENTS))
    for i, blade in enumerate(BLADES):
        maps[len(blade), i, i] = 1.0
        if 0 not in blade:
            maps[5 + len(blade), BLADES.index((0, *blade)), i] = 1.0
    normalised: Array = maps / np.sqrt(np.square(maps).sum((1, 2), keepdims=True))
    return normalised


def euclidean(x: Tensor, *, trivectors: bool) -> Tensor:
    """The components that translations leave alone, [..., 7 or 8]: their dot product is the invariant inner product."""
    parts = [x[..., 0:1], x[..., 2:5], x[..., 8:11]]
    return torch.cat([*parts, x[..., E123:15]] if trivectors else parts, dim=-1)


def embed_point(positions: Tensor) -> Tensor:
    """Points [..., 3] as trivectors of weight 1, [..., M]."""
    x, y, z = positions.unbind(-1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack([*[zero] * 11, -z, y, -x, one, zero], dim=-1)


def embed_translation(vectors: Tensor) -> Tensor:
    """Vectors [..., 3] as the motors that move points along them, 1 - e0 t / 2, [..., M]."""
    zero = torch.zeros_like(vectors[..., :1])
    return torch.cat([zero + 1.0, *[zero] * 4, -0.5 * vectors, *[zero] * 8], dim=-1)


def embed_plane(normals: Tensor, points: Tensor) -> Tensor:
    """Planes through points [..., 3], of unit normals [..., 3], as vectors, [..., M]; a point p in it has n p = n x."""
    normals, points = torch.broadcast_tensors(normals, points)
    offset = -(normals * points).sum(-1, keepdim=True)
    zero = torch.zeros_like(offset)
    return torch.cat([zero, offset, normals, *[zero] * 11], dim=-1)


def read_displacement(x: Tensor, positions: Tensor) -> Tensor:
    """From particles [..., 3] to the points in x [..., M], times the weights of these points.

    Difference to the source, which divides by the weight: that has a pole, and a fresh network stands near it.
    """
    weighted = torch.stack([-x[..., 13], x[..., 12], -x[..., 11]], dim=-1)
    return weighted - x[..., E123, None] * positions


def distance_features(x: Tensor) -> tuple[Tensor, Tensor]:
    """Features of queries and of keys [..., C, 5] whose product is -|w_q p_k - w_k p_q|^2, for trivectors of x.

    Of two points of weight 1 that is minus the squared distance, up to `WEIGHT_FLOOR`.
    """
    weight = x[..., E123:15]
    trivector = x[..., 11:15] * weight / (weight.square() + WEIGHT_FLOOR)
    p, w = trivector[..., :3], trivector[..., 3:]
    p_squared, w_squared = p.square().sum(-1, keepdim=True), w.square()
    query = torch.cat([w_squared, p_squared, 2.0 * w * p], dim=-1)
    return query, torch.cat([-p_squared, -w_squared, w * p], dim=-1)


def bilinear(table: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The product of multivectors [..., M] that a table [M, M, M] says."""
    return (x.unsqueeze(-1) * y.unsqueeze(-2)).flatten(-2) @ table.flatten(0, 1)


def normalised(x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Multivectors [..., C, M] over the root mean square of their norms, scalars [..., S] by an ordinary layer norm."""
    square = euclidean(x, trivectors=True).square().sum(-1).mean(-1)
    return x * square.clamp(min=NORM_FLOOR).rsqrt()[..., None, None], functional.layer_norm(s, s.shape[-1:])


class EquivariantLinear(nn.Module):
    """Multivectors and scalars to multivectors and scalars; scalars meet multivectors in the component 1 alone."""

    def __init__(self, *, n_in: int, n_out: int, scalars_in: int, scalars_out: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        self.n_out = n_out
        self.register_buffer("maps", torch.tensor(linear_maps(), dtype=torch.float32).flatten(1), persistent=False)
        bounds = scale * (torch.tensor(INITIAL_VARIANCE) / n_in).sqrt()
        self.weight = nn.Parameter(bounds * (2.0 * torch.rand(n_out, n_in, N_MAPS) - 1.0))
        self.from_scalars = nn.Linear(scalars_in, n_out)  # its bias is that of the component 1
        self.to_scalars = nn.Linear(n_in + scalars_in, scalars_out) if scalars_out else None
        if scale != 1.0:
            for linear in (self.from_scalars, self.to_scalars):
                if linear is not None:
                    nn.init.uniform_(linear.weight, -scale * linear.in_features**-0.5, scale * linear.in_features**-0.5)

    def forward(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """From [..., C, M] and [..., S]; without scalars out, the scalars are those that came in."""
        maps: Tensor = self.get_buffer("maps")
        n_in = x.shape[-2]
        blocks = (self.weight @ maps).view(self.n_out, n_in, N_COMPONENTS, N_COMPONENTS)
        matrix = blocks.transpose(1, 2).reshape(self.n_out * N_COMPONENTS, n_in * N_COMPONENTS)
        mixed = functional.linear(x.flatten(-2), matrix).unflatten(-1, (self.n_out, N_COMPONENTS))
        mixed = mixed + functional.pad(self.from_scalars(s).unsqueeze(-1), (0, N_COMPONENTS - 1))
        return mixed, s if self.to_scalars is None else self.to_scalars(torch.cat([x[..., 0], s], dim=-1))


class Attention(nn.Module):
    """Heads of their own queries share keys and values; invariant products and distances in one dot product."""

    def __init__(self, *, n_channels: int, n_scalars: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.channels = max(1, WIDER * n_channels // n_heads)
        scalars = max(4, WIDER * n_scalars // n_heads)
        one, all_heads = (
            {"n_out": n * self.channels, "scalars_out": n * scalars, "n_in": n_channels, "scalars_in": n_scalars}
            for n in (1, n_heads)
        )
        self.query = EquivariantLinear(**all_heads)
        self.key, self.value = EquivariantLinear(**one), EquivariantLinear(**one)
        self.log_distance_weight = nn.Parameter(torch.zeros(n_heads, self.channels))
        self.out = EquivariantLinear(
            n_in=n_heads * self.channels,
            n_out=n_channels,
            scalars_in=n_heads * scalars,
            scalars_out=n_scalars,
            scale=SMALL,
        )

    def forward(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """From [B, N, C, M] and [B, N, S] to the same."""
        (query_x, query_s), (key_x, key_s), (value_x, value_s) = self.query(x, s), self.key(x, s), self.value(x, s)
        heads = (self.n_heads, -1)
        query_x, query_s = query_x.unflatten(-2, heads), query_s.unflatten(-1, heads)  # [B, N, H, C', M], [B, N, H, S']
        distance = distance_features(query_x)[0] * self.log_distance_weight.exp().unsqueeze(-1)
        parts = (euclidean(query_x, trivectors=False), distance)
        query = torch.cat([*(part.flatten(-2) for part in parts), query_s], dim=-1)
        parts = (euclidean(key_x, trivectors=False), distance_features(key_x)[1])
        key = torch.cat([*(part.flatten(-2) for part in parts), key_s], dim=-1)
        value = torch.cat([value_x.flatten(-2), value_s], dim=-1)
        # All heads read the same keys: as more queries of one head nothing need be copied.
        heard = functional.scaled_dot_product_attention(query.flatten(1, 2), key, value)
        heard = heard.unflatten(1, (-1, self.n_heads))  # [B, N, H, C' * M + S']
        heard_x, heard_s = heard.split([self.channels * N_COMPONENTS, value_s.shape[-1]], dim=-1)
        found: tuple[Tensor, Tensor] = self.out(
            heard_x.unflatten(-1, (self.channels, N_COMPONENTS)).flatten(2, 3), heard_s.flatten(-2)
        )
        return found


class Mlp(nn.Module):
    """Geometric products and joins of pairs of linear maps, then a gate by the component 1."""

    def __init__(self, *, n_channels: int, n_scalars: int) -> None:
        super().__init__()
        for name, table in (("product", product_table()), ("join", join_table())):
            self.register_buffer(name, torch.tensor(table, dtype=torch.float32), persistent=False)
        wide, wide_scalars = WIDER * n_channels, WIDER * n_scalars
        # Left and right factors of the products, left and right factors of the joins.
        self.factors = EquivariantLinear(n_in=n_channels, n_out=4 * n_channels, scalars_in=n_scalars)
        right = slice(n_channels, 2 * n_channels)
        with torch.no_grad():  # near 1: a fresh product is near its left factor
            self.factors.weight[right] *= 0.5
            self.factors.from_scalars.weight[right] *= 0.5
            self.factors.from_scalars.bias[right] = 1.0
        self.mix = EquivariantLinear(n_in=wide, n_out=wide, scalars_in=n_scalars, scalars_out=wide_scalars)
        self.out = EquivariantLinear(n_in=wide, n_out=n_channels, scalars_in=wide_scalars, scalars_out=n_scalars)

    def forward(self, x: Tensor, s: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """From [B, N, C, M] and [B, N, S] to the same; the reference is that of `Gatr.transformed`."""
        left, right, join_left, join_right = self.factors(x, s)[0].chunk(4, dim=-2)
        products = bilinear(self.get_buffer("product"), left, right)
        joins = reference * bilinear(self.get_buffer("join"), join_left, join_right)
        x, s = self.mix(torch.cat([products, joins], dim=-2), s)
        x, s = functional.gelu(x[..., :1], approximate="tanh") * x, functional.gelu(s)
        found: tuple[Tensor, Tensor] = self.out(x, s)
        return found


class Block(nn.Module):
    """Attention, then the MLP, each of what is normalised and added to what is not."""

    def __init__(self, *, n_channels: int, n_scalars: int, n_heads: int) -> None:
        super().__init__()
        self.attention = Attention(n_channels=n_channels, n_scalars=n_scalars, n_heads=n_heads)
        self.mlp = Mlp(n_channels=n_channels, n_scalars=n_scalars)

    def forward(self, x: Tensor, s: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """From [B, N, C, M] and [B, N, S] to the same."""
        more_x, more_s = self.attention(*normalised(x, s))
        x, s = x + more_x, s + more_s
        more_x, more_s = self.mlp(*normalised(x, s), reference)
        return x + more_x, s + more_s


class Gatr(nn.Module):
    """GATr: particles as points and their velocities as translations, in one multivector each.

    Source: Brehmer et al. (2023), arXiv:2305.18415; 16 multivectors, 128 scalar channels, 10 blocks and 8 heads are its
        N-body size. Differences: centred first, so that float32 serves anywhere; scalars of the tokens go to the scalar
        channels; the weight of the point that is read is not divided out. Features of pairs are not read. All this is
        exact for rotations and translations. A mirror also negates the trivector of a point, which no embedding of
        points alone can mend, so that particles and their mirror image are told apart; multivectors are not.

    Args:
        n_scalars: S of the tokens.
        n_channels: C.
        n_scalar_channels: S within.
        n_layers: blocks.
        n_heads: H.
    """

    def __init__(self, *, n_scalars: int, n_channels: int, n_scalar_channels: int, n_layers: int, n_heads: int) -> None:
        super().__init__()
        sizes = {"n_channels": n_channels, "n_scalars": n_scalar_channels, "n_heads": n_heads}
        self.embed = EquivariantLinear(n_in=1, n_out=n_channels, scalars_in=n_scalars, scalars_out=n_scalar_channels)
        self.blocks = nn.ModuleList([Block(**sizes) for _ in range(n_layers)])
        self.read = EquivariantLinear(n_in=n_channels, n_out=1, scalars_in=n_scalar_channels)

    def transformed(self, x_BNCM: Tensor, s_BNS: Tensor) -> Tensor:
        """Multivectors [B, N, 1, M] of multivectors [B, N, 1, M] and scalars, equivariant under mirrors as well.

        Joins are taken times the mean weight of the points that go in: both change sign in a mirror.
        """
        reference = x_BNCM[..., E123].mean((1, 2))[:, None, None, None]
        x_BNCM, s_BNS = self.embed(x_BNCM, s_BNS)
        for block in self.blocks:
            x_BNCM, s_BNS = block(x_BNCM, s_BNS, reference)
        outputs: Tensor = self.read(x_BNCM, s_BNS)[0]
        return outputs

    def forward(self, tokens: Tokens) -> Tensor:
        """Displacements, [B, N, 3]."""
        centred_BN3 = tokens.positions - tokens.positions.mean(1, keepdim=True)
        x_BNM = embed_point(centred_BN3) + embed_translation(tokens.velocities)
        return read_displacement(self.transformed(x_BNM.unsqueeze(2), tokens.scalars).squeeze(2), centred_BN3)
