"""A plain graph network over particles: messages between all pairs, nothing in it knows what a rotation is.

Letters: B systems, N particles, E width, P features of a pair.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from remul_md.studies.particles import Tokens


class GnnLayer(nn.Module):
    """Messages along pairs, summed, and an update of every particle."""

    def __init__(self, *, width: int, n_pair_features: int) -> None:
        super().__init__()
        self.receive, self.send = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.pair = nn.Linear(1 + n_pair_features, width, bias=False)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.node = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, h_BNE: Tensor, pairs_BNNP: Tensor) -> Tensor:
        """Features after the layer, [B, N, E]; the first feature of a pair is its squared distance."""
        n = h_BNE.shape[1]
        # One linear layer over (receiver, sender, pair), taken apart: each particle is multiplied once, not N times.
        inputs_BNNE = self.receive(h_BNE).unsqueeze(2) + self.send(h_BNE).unsqueeze(1) + self.pair(pairs_BNNP)
        others_NN1 = 1.0 - torch.eye(n, dtype=h_BNE.dtype, device=h_BNE.device).unsqueeze(-1)
        received_BNE = (self.message(inputs_BNNE) * others_NN1).sum(2)
        updated_BNE: Tensor = h_BNE + self.node(torch.cat([h_BNE, received_BNE], dim=-1))
        return updated_BNE


class Gnn(nn.Module):
    """Raw components of positions and velocities go in, raw components come out.

    Source: the network "gnn" that Satorras et al. (2021), arXiv:2102.09844, compare EGNN with, 64 x 4. Differences:
        particles keep their features beside the update (their layers can do without); squared distances are features of
        a pair, as in their runs, and all pairs send messages, whatever their features.

    Args:
        n_scalars: S of the tokens.
        n_pair_features: P of the tokens.
        width: E.
        n_layers: layers.
    """

    def __init__(self, *, n_scalars: int, n_pair_features: int, width: int, n_layers: int) -> None:
        super().__init__()
        self.embed = nn.Linear(n_scalars + 6, width)
        self.layers = nn.ModuleList([GnnLayer(width=width, n_pair_features=n_pair_features) for _ in range(n_layers)])
        self.mix = nn.Linear(width, width)
        self.read = nn.Linear(width, 3)

    @property
    def shared_matrix(self) -> nn.Parameter:
        """The matrix before the output, on which the gradual weights balance gradients."""
        mix: Any = self.mix
        matrix: nn.Parameter = mix.weight
        return matrix

    def forward(self, tokens: Tokens) -> Tensor:
        """Outputs, [B, N, 3]."""
        h_BNE = self.embed(torch.cat([tokens.scalars, tokens.positions, tokens.velocities], dim=-1))
        differences_BNN3 = tokens.positions.unsqueeze(2) - tokens.positions.unsqueeze(1)
        pairs_BNNP = torch.cat([differences_BNN3.square().sum(-1, keepdim=True), tokens.pairs], dim=-1)
        for layer in self.layers:
            h_BNE = layer(h_BNE, pairs_BNNP)
        outputs_BN3: Tensor = self.read(nn.functional.silu(self.mix(h_BNE)))
        return outputs_BN3
