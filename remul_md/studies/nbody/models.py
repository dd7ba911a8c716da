"""The two models of the study: a plain transformer over bodies, and EGNN, which is equivariant by construction.

Both map masses, centred positions and velocities to displacements. Letters: B systems, N bodies, E width, H heads,
D = E / H, 3 the axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from remul_md.errors import InputError
from remul_md.studies.nbody.generator import Bodies


@dataclass(frozen=True, kw_only=True)
class BodyTransformerConfig:
    """Sizes of the plain transformer; width 384 with 10 layers is the paper's (11.8 million weights)."""

    width: int = 128
    n_layers: int = 4
    n_heads: int = 8
    mlp_factor: int = 2

    def __post_init__(self) -> None:
        for name in ("width", "n_layers", "n_heads", "mlp_factor"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.width % self.n_heads:
            raise InputError(f"width must be divisible by n_heads, got {self.width} and {self.n_heads}")


class BodyBlock(nn.Module):
    """Every body attends to all bodies of its system, then an MLP."""

    def __init__(self, config: BodyTransformerConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.mlp_factor * config.width
        self.n_heads = config.n_heads
        self.norm_attention = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x_BNE: Tensor) -> Tensor:
        """Features after the block, [B, N, E]."""
        qkv_BNHD = self.qkv(self.norm_attention(x_BNE)).unflatten(-1, (3, self.n_heads, -1)).unbind(2)
        q_BHND, k_BHND, v_BHND = (value.transpose(1, 2) for value in qkv_BNHD)
        messages_BHND = functional.scaled_dot_product_attention(q_BHND, k_BHND, v_BHND)
        x_BNE = x_BNE + self.out(messages_BHND.transpose(1, 2).flatten(2))
        return x_BNE + self.mlp(self.norm_mlp(x_BNE))


class BodyTransformer(nn.Module):
    """A plain transformer: raw components go in, raw components come out, nothing knows what a rotation is.

    No position codes, so permuting the bodies permutes the answer.
    Source: the baseline of Brehmer et al. (2023), arXiv:2305.18415, which the REMUL paper takes over.
    """

    def __init__(self, config: BodyTransformerConfig) -> None:
        super().__init__()
        self.embed = nn.Linear(7, config.width)
        self.blocks = nn.ModuleList([BodyBlock(config) for _ in range(config.n_layers)])
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)
        self.read = nn.Linear(config.width, 3)

    @property
    def shared_matrix(self) -> nn.Parameter:
        """The output of the last block's MLP, on which the gradual weights balance gradients."""
        last: Any = self.blocks[-1]
        matrix: nn.Parameter = last.mlp[-1].weight
        return matrix

    def forward(self, bodies: Bodies) -> Tensor:
        """Displacements, [B, N, 3]."""
        inputs_BN7 = torch.cat([bodies.masses.unsqueeze(-1), bodies.positions, bodies.velocities], dim=-1)
        x_BNE = self.embed(inputs_BN7)
        for block in self.blocks:
            x_BNE = block(x_BNE)
        displacements_BN3: Tensor = self.read(self.norm(x_BNE))
        return displacements_BN3


@dataclass(frozen=True, kw_only=True)
class EgnnConfig:
    """Sizes of the equivariant control; the defaults are those of the EGNN paper's N-body runs."""

    width: int = 64
    n_layers: int = 4

    def __post_init__(self) -> None:
        for name in ("width", "n_layers"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be >= 1, got {getattr(self, name)}")


class EgnnLayer(nn.Module):
    """One EGNN layer with the velocity term: messages from invariants, positions moved along differences.

    Source: Satorras et al. (2021), arXiv:2102.09844, eqs. (3), (5), (6) and (7).
    """

    def __init__(self, config: EgnnConfig) -> None:
        super().__init__()
        width = config.width

        def two_layers(n_inputs: int, n_outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(n_inputs, width), nn.SiLU(), nn.Linear(width, n_outputs))

        self.edge = nn.Sequential(two_layers(2 * width + 1, width), nn.SiLU())
        last_of_move = nn.Linear(width, 1, bias=False)
        nn.init.xavier_uniform_(last_of_move.weight, gain=1e-3)  # the first steps must not fling bodies away
        self.move = nn.Sequential(nn.Linear(width, width), nn.SiLU(), last_of_move)
        self.speed = two_layers(width, 1)
        self.node = two_layers(2 * width, width)

    def forward(self, h_BNE: Tensor, x_BN3: Tensor, velocities_BN3: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, N, E] and positions [B, N, 3] after the layer; the velocities are the input's in every one."""
        n_bodies = h_BNE.shape[1]
        differences_BNN3 = x_BN3.unsqueeze(2) - x_BN3.unsqueeze(1)  # from j to i
        squared_BNN1 = differences_BNN3.square().sum(-1, keepdim=True)
        receivers_BNNE = h_BNE.unsqueeze(2).expand(-1, -1, n_bodies, -1)
        senders_BNNE = h_BNE.unsqueeze(1).expand(-1, n_bodies, -1, -1)
        messages_BNNE = self.edge(torch.cat([receivers_BNNE, senders_BNNE, squared_BNN1], dim=-1))
        # A body sends itself nothing; its difference to itself is 0 anyway.
        others_NN1 = 1.0 - torch.eye(n_bodies, dtype=h_BNE.dtype, device=h_BNE.device).unsqueeze(-1)
        moves_BNN3 = differences_BNN3 * self.move(messages_BNNE)
        x_BN3 = x_BN3 + moves_BNN3.sum(2) / (n_bodies - 1) + self.speed(h_BNE) * velocities_BN3
        received_BNE = (messages_BNNE * others_NN1).sum(2)
        return h_BNE + self.node(torch.cat([h_BNE, received_BNE], dim=-1)), x_BN3


class Egnn(nn.Module):
    """EGNN with the velocity term: rotations, mirrors and translations are exact, so no loss has to teach them.

    Source: Satorras et al. (2021), arXiv:2102.09844. Differences: masses beside speeds as inputs, because these
        bodies have masses and no charges; no edge attributes besides the squared distance; moves are not clipped to
        +-100 by component, which is not equivariant where it bites.
    """

    def __init__(self, config: EgnnConfig) -> None:
        super().__init__()
        self.embed = nn.Linear(2, config.width)
        self.layers = nn.ModuleList([EgnnLayer(config) for _ in range(config.n_layers)])

    def forward(self, bodies: Bodies) -> Tensor:
        """Displacements, [B, N, 3]."""
        speeds_BN1 = bodies.velocities.norm(dim=-1, keepdim=True)
        h_BNE = self.embed(torch.cat([bodies.masses.unsqueeze(-1), speeds_BN1], dim=-1))
        x_BN3 = bodies.positions
        for layer in self.layers:
            h_BNE, x_BN3 = layer(h_BNE, x_BN3, bodies.velocities)
        return x_BN3 - bodies.positions
