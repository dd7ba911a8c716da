"""The velocity of a flow of conformers: the plain transformer, told elements and the time of the flow.

Letters: B systems, N atoms, padding included, E width, K elements, F waves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from remul_md.studies.models.transformer import Block
from remul_md.studies.particles import Tokens

N_WAVES = 4  # of the time: sines and cosines of pi t, 2 pi t, 4 pi t, ...


class FlowTransformer(nn.Module):
    """Raw components of the positions go in, raw components of the velocity come out.

    The scalars of an atom are its element as one of K numbers that is 1, all 0 for padding, and the time. Atoms of
    padding are seen by none, and have no velocity; the mean velocity of a molecule is 0, as that of its targets.

    Args:
        n_elements: K.
        width: E, divisible by `n_heads`.
        n_layers: blocks.
        n_heads: heads of a block.
    """

    waves_F: Tensor

    def __init__(self, *, n_elements: int, width: int, n_layers: int, n_heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(n_elements + 1 + 2 * N_WAVES + 3, width)
        self.blocks = nn.ModuleList([Block(width=width, n_heads=n_heads) for _ in range(n_layers)])
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.read = nn.Linear(width, 3)
        self.register_buffer("waves_F", math.pi * 2.0 ** torch.arange(N_WAVES), persistent=False)

    def forward(self, tokens: Tokens) -> Tensor:
        """Velocities, [B, N, 3]."""
        elements_BNK, time_BN1 = tokens.scalars[..., :-1], tokens.scalars[..., -1:]
        real_BN1 = elements_BNK.sum(2, keepdim=True)
        phases_BNF = time_BN1 * self.waves_F
        seen = [elements_BNK, time_BN1, phases_BNF.sin(), phases_BNF.cos(), tokens.positions]
        x_BNE = self.embed(torch.cat(seen, dim=-1))
        mask_B11N = (real_BN1 > 0).squeeze(2)[:, None, None, :]
        for block in self.blocks:
            x_BNE = block(x_BNE, mask_B11N)
        velocity_BN3 = self.read(self.norm(x_BNE)) * real_BN1
        mean_B13 = velocity_BN3.sum(1, keepdim=True) / real_BN1.sum(1, keepdim=True)
        return (velocity_BN3 - mean_B13) * real_BN1
