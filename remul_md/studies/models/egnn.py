"""EGNN, equivariant by construction: messages from distances, positions moved along differences.

Letters: B systems, N particles, E width, P features of a pair.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from remul_md.studies.particles import Tokens


class EgnnLayer(nn.Module):
    """One EGNN layer with the velocity term.

    Source: Satorras et al. (2021), arXiv:2102.09844, eqs. (3), (5), (6) and (7).
    """

    def __init__(self, *, width: int, n_pair_features: int) -> None:
        super().__init__()

        def two_layers(n_inputs: int, n_outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(n_inputs, width), nn.SiLU(), nn.Linear(width, n_outputs))

        self.edge = nn.Sequential(two_layers(2 * width + 1 + n_pair_features, width), nn.SiLU())
        last_of_move = nn.Linear(width, 1, bias=False)
        nn.init.xavier_uniform_(last_of_move.weight, gain=1e-3)  # the first steps must not fling particles away
        self.move = nn.Sequential(nn.Linear(width, width), nn.SiLU(), last_of_move)
        self.speed = two_layers(width, 1)
        self.node = two_layers(2 * width, width)

    def forward(
        self, h_BNE: Tensor, x_BN3: Tensor, velocities_BN3: Tensor, pairs_BNNP: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features [B, N, E] and positions [B, N, 3] after the layer; the velocities are the input's in every one."""
        n = h_BNE.shape[1]
        differences_BNN3 = x_BN3.unsqueeze(2) - x_BN3.unsqueeze(1)  # from j to i
        squared_BNN1 = differences_BNN3.square().sum(-1, keepdim=True)
        receivers_BNNE = h_BNE.unsqueeze(2).expand(-1, -1, n, -1)
        senders_BNNE = h_BNE.unsqueeze(1).expand(-1, n, -1, -1)
        messages_BNNE = self.edge(torch.cat([receivers_BNNE, senders_BNNE, squared_BNN1, pairs_BNNP], dim=-1))
        # A particle sends itself nothing; its difference to itself is 0 anyway.
        others_NN1 = 1.0 - torch.eye(n, dtype=h_BNE.dtype, device=h_BNE.device).unsqueeze(-1)
        moves_BNN3 = differences_BNN3 * self.move(messages_BNNE)
        x_BN3 = x_BN3 + moves_BNN3.sum(2) / (n - 1) + self.speed(h_BNE) * velocities_BN3
        received_BNE = (messages_BNNE * others_NN1).sum(2)
        return h_BNE + self.node(torch.cat([h_BNE, received_BNE], dim=-1)), x_BN3


class Egnn(nn.Module):
    """EGNN with the velocity term: rotations, mirrors and translations are exact, so no loss has to teach them.

    Source: Satorras et al. (2021), arXiv:2102.09844. Differences: scalars beside speeds as inputs; all pairs send
        messages, whatever their features; moves are not clipped to +-100 by component, which is not equivariant where
        it bites.

    Args:
        n_scalars: S of the tokens.
        n_pair_features: P of the tokens.
        width: E; 64 in the paper's N-body runs.
        n_layers: layers; 4 there.
    """

    def __init__(self, *, n_scalars: int, n_pair_features: int, width: int, n_layers: int) -> None:
        super().__init__()
        self.embed = nn.Linear(n_scalars + 1, width)
        self.layers = nn.ModuleList([EgnnLayer(width=width, n_pair_features=n_pair_features) for _ in range(n_layers)])

    def forward(self, tokens: Tokens) -> Tensor:
        """Displacements, [B, N, 3]."""
        speeds_BN1 = tokens.velocities.norm(dim=-1, keepdim=True)
        h_BNE = self.embed(torch.cat([tokens.scalars, speeds_BN1], dim=-1))
        x_BN3 = tokens.positions
        for layer in self.layers:
            h_BNE, x_BN3 = layer(h_BNE, x_BN3, tokens.velocities, tokens.pairs)
        return x_BN3 - tokens.positions
