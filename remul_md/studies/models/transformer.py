"""A plain transformer over particles: nothing in it knows what a rotation is.

Letters: B systems, N particles, E width, H heads, D = E / H, F input components.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from remul_md.studies.particles import Tokens

MLP_FACTOR = 2


class Block(nn.Module):
    """Every particle attends to all particles of its system, then an MLP."""

    def __init__(self, *, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_attention = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, MLP_FACTOR * width), nn.GELU(), nn.Linear(MLP_FACTOR * width, width))

    def forward(self, x_BNE: Tensor, mask_B11N: Tensor | None = None) -> Tensor:
        """Features after the block, [B, N, E]; the mask is True where a particle may be attended to."""
        qkv_BNHD = self.qkv(self.norm_attention(x_BNE)).unflatten(-1, (3, self.n_heads, -1)).unbind(2)
        q_BHND, k_BHND, v_BHND = (value.transpose(1, 2) for value in qkv_BNHD)
        messages_BHND = functional.scaled_dot_product_attention(q_BHND, k_BHND, v_BHND, attn_mask=mask_B11N)
        x_BNE = x_BNE + self.out(messages_BHND.transpose(1, 2).flatten(2))
        return x_BNE + self.mlp(self.norm_mlp(x_BNE))


class PlainTransformer(nn.Module):
    """Raw components go in, raw components come out; no position codes, so permuting particles permutes the answer.

    Source: the baseline of Brehmer et al. (2023), arXiv:2305.18415, which the REMUL paper takes over; 384 x 10 blocks
        is its size.

    Args:
        n_scalars: S of the tokens.
        width: E, divisible by `n_heads`.
        n_layers: blocks.
        n_heads: H.
    """

    def __init__(self, *, n_scalars: int, width: int, n_layers: int, n_heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(n_scalars + 6, width)
        self.blocks = nn.ModuleList([Block(width=width, n_heads=n_heads) for _ in range(n_layers)])
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.read = nn.Linear(width, 3)

    @property
    def shared_matrix(self) -> nn.Parameter:
        """The output of the last block's MLP, on which the gradual weights balance gradients."""
        last: Any = self.blocks[-1]
        matrix: nn.Parameter = last.mlp[-1].weight
        return matrix

    def forward(self, tokens: Tokens) -> Tensor:
        """Outputs, [B, N, 3]; features of pairs are not read."""
        x_BNE = self.embed(torch.cat([tokens.scalars, tokens.positions, tokens.velocities], dim=-1))
        for block in self.blocks:
            x_BNE = block(x_BNE)
        outputs_BN3: Tensor = self.read(self.norm(x_BNE))
        return outputs_BN3
