"""Networks whose tokens are the faces of meshes: a plain transformer, and GATr.

A face is three particles of `Tokens` in a row, its corners; their scalars are alike. The first scalar is 1 where there
is a floor, the plane z = 0, with gravity towards it. Letters: B scenes, F faces, C = 3 corners, E width, S scalars, M
components of a multivector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from remul_md.studies.models.gatr import (
    E123,
    EquivariantLinear,
    embed_plane,
    embed_point,
    embed_translation,
    read_displacement,
)
from remul_md.studies.models.gatr import Block as GatrBlock
from remul_md.studies.models.transformer import Block
from remul_md.studies.particles import Tokens

CORNERS = 3
FLOOR = 0  # of the scalars


def faces_of(values: Tensor) -> Tensor:
    """What stands for each corner, [B, F * C, ...], by face: [B, F, C, ...]."""
    return values.unflatten(1, (-1, CORNERS))


class FaceTransformer(nn.Module):
    """Coordinates and velocities of the corners go in as plain numbers, displacements of the corners come out.

    Args:
        n_scalars: S of the tokens.
        width: E, divisible by `n_heads`.
        n_layers: blocks.
        n_heads: heads of a block.
    """

    def __init__(self, *, n_scalars: int, width: int, n_layers: int, n_heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(n_scalars + 6 * CORNERS, width)
        self.blocks = nn.ModuleList([Block(width=width, n_heads=n_heads) for _ in range(n_layers)])
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.read = nn.Linear(width, 3 * CORNERS)

    @property
    def shared_matrix(self) -> nn.Parameter:
        """The output of the last block's MLP, on which the gradual weights balance gradients."""
        last = self.blocks[-1]
        assert isinstance(last, Block)
        matrix: nn.Parameter = last.mlp[-1].weight  # type: ignore[assignment]
        return matrix

    def forward(self, tokens: Tokens) -> Tensor:
        """Displacements of the corners, [B, F * C, 3]."""
        scalars_BFS = faces_of(tokens.scalars)[:, :, 0]
        seen = [scalars_BFS, faces_of(tokens.positions).flatten(2), faces_of(tokens.velocities).flatten(2)]
        x_BFE = self.embed(torch.cat(seen, dim=-1))
        for block in self.blocks:
            x_BFE = block(x_BFE)
        outputs: Tensor = self.read(self.norm(x_BFE)).unflatten(-1, (CORNERS, 3)).flatten(1, 2)
        return outputs


class FaceGatr(nn.Module):
    """GATr on faces: a multivector for each corner, its point and its velocity as a translation, and one for the floor.

    Exact for rotations and translations of scene and floor together; the floor being where it is, for rotations about
    the vertical and translations along the floor. Without one its multivector is 0, and it is exact for all of them.

    Source: Brehmer et al. (2023), arXiv:2305.18415. Differences: those of `Gatr`. How the faces of arXiv:2410.23179
        enter was not found.

    Args:
        n_scalars: S of the tokens.
        n_channels: multivectors within.
        n_scalar_channels: scalars within.
        n_layers: blocks.
        n_heads: heads of a block.
    """

    def __init__(self, *, n_scalars: int, n_channels: int, n_scalar_channels: int, n_layers: int, n_heads: int) -> None:
        super().__init__()
        sizes = {"n_channels": n_channels, "n_scalars": n_scalar_channels, "n_heads": n_heads}
        self.embed = EquivariantLinear(
            n_in=CORNERS + 1, n_out=n_channels, scalars_in=n_scalars, scalars_out=n_scalar_channels
        )
        self.blocks = nn.ModuleList([GatrBlock(**sizes) for _ in range(n_layers)])
        self.read = EquivariantLinear(n_in=n_channels, n_out=CORNERS, scalars_in=n_scalar_channels)

    def forward(self, tokens: Tokens) -> Tensor:
        """Displacements of the corners, [B, F * C, 3]."""
        middle_B13 = tokens.positions.mean(1, keepdim=True)
        centred_BFC3 = faces_of(tokens.positions - middle_B13)
        corners_BFCM = embed_point(centred_BFC3) + embed_translation(faces_of(tokens.velocities))
        scalars_BFS = faces_of(tokens.scalars)[:, :, 0]
        up = tokens.positions.new_tensor([0.0, 0.0, 1.0])
        floor_B1M = scalars_BFS[:, :1, FLOOR, None] * embed_plane(up, -middle_B13)
        floor_BF1M = floor_B1M.unsqueeze(2).expand(-1, corners_BFCM.shape[1], -1, -1)
        x_BFCM, s_BFS = torch.cat([corners_BFCM, floor_BF1M], dim=2), scalars_BFS
        reference = x_BFCM[..., E123].mean((1, 2))[:, None, None, None]
        x_BFCM, s_BFS = self.embed(x_BFCM, s_BFS)
        for block in self.blocks:
            x_BFCM, s_BFS = block(x_BFCM, s_BFS, reference)
        return read_displacement(self.read(x_BFCM, s_BFS)[0], centred_BFC3).flatten(1, 2)
