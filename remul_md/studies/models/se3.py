"""An SE(3)-Transformer of degrees 0 and 1: attention between scalars and vectors, equivariant by construction.

With degrees 0 and 1 every Clebsch-Gordan kernel is a dot or a cross product with the direction of the pair, so no
harmonics are needed. Letters: B systems, N particles, C channels of each degree, K kernels, P features of a pair.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from remul_md.studies.particles import Tokens

RADIAL_WIDTH = 32
# Of a pair: 0->0, 1->0, 0->1, and 1->1 by the identity, along the direction, and by the cross product with it.
N_KERNELS = 6


class Se3Layer(nn.Module):
    """Attention of every particle to all others by invariant products of scalars and vectors, then a nonlinearity.

    Source: Fuchs et al. (2020), arXiv:2006.10503, eqs. (8) to (12), for degrees 0 and 1.
    """

    def __init__(self, *, n_channels: int, n_pair_features: int) -> None:
        super().__init__()
        self.n_channels = n_channels
        n_kernels = 2 * N_KERNELS * n_channels * n_channels  # of keys and of values
        self.radial = nn.Sequential(
            nn.Linear(1 + n_pair_features, RADIAL_WIDTH),
            nn.LayerNorm(RADIAL_WIDTH),
            nn.SiLU(),
            nn.Linear(RADIAL_WIDTH, n_kernels),
        )
        self.query_scalars = nn.Linear(n_channels, n_channels, bias=False)
        self.query_vectors = nn.Linear(n_channels, n_channels, bias=False)
        self.self_scalars = nn.Linear(2 * n_channels, n_channels)
        self.self_vectors = nn.Linear(2 * n_channels, n_channels, bias=False)
        self.gate = nn.Linear(n_channels, n_channels)

    def forward(
        self, s_BNC: Tensor, v_BNC3: Tensor, directions_BNN3: Tensor, invariants_BNNP: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scalars [B, N, C] and vectors [B, N, C, 3] after the layer."""
        n, channels = s_BNC.shape[1], self.n_channels
        w = self.radial(invariants_BNNP).unflatten(-1, (2, N_KERNELS, channels, channels))
        u = directions_BNN3.unsqueeze(-2)  # [B, N, N, 1, 3], from i to j
        s, v = s_BNC.unsqueeze(1).expand(-1, n, -1, -1), v_BNC3.unsqueeze(1).expand(-1, n, -1, -1, -1)
        along = (v * u).sum(-1)  # [B, N, N, C]
        across = torch.linalg.cross(u.expand_as(v), v)

        def mixed(kernel: int, features: Tensor, letters: str = "") -> Tensor:
            return torch.einsum(f"bijkoc,bijc{letters}->bijko{letters}", w[..., kernel, :, :], features)

        scalars = mixed(0, s) + mixed(1, along)  # [B, N, N, 2, C]
        toward = (mixed(2, s) + mixed(4, along)).unsqueeze(-1) * u.unsqueeze(-3)
        vectors = toward + mixed(3, v, "x") + mixed(5, across, "x")  # [B, N, N, 2, C, 3]
        (key_s, value_s), (key_v, value_v) = scalars.unbind(3), vectors.unbind(3)
        query_s, query_v = self.query_scalars(s_BNC), self.query_vectors(v_BNC3.mT).mT
        logits = torch.einsum("bic,bijc->bij", query_s, key_s) + torch.einsum("bicx,bijcx->bij", query_v, key_v)
        itself = torch.eye(n, dtype=torch.bool, device=logits.device)
        weights = (logits / (4 * channels) ** 0.5).masked_fill(itself, -torch.inf).softmax(-1)
        heard_s = torch.einsum("bij,bijc->bic", weights, value_s)
        heard_v = torch.einsum("bij,bijcx->bicx", weights, value_v)
        new_s = s_BNC + self.self_scalars(functional.silu(torch.cat([s_BNC, heard_s], dim=-1)))
        new_v = v_BNC3 + self.self_vectors(torch.cat([v_BNC3, heard_v], dim=2).mT).mT
        gate = 1.0 + torch.tanh(self.gate((new_v.square().sum(-1) + 1e-8).sqrt()))
        return new_s, new_v * gate.unsqueeze(-1)


class Se3Transformer(nn.Module):
    """SE(3)-Transformer of degrees 0 and 1, one head, with the velocities as first vectors.

    Source: Fuchs et al. (2020), arXiv:2006.10503. Differences: no degree above 1 (published runs have 3 or 4); gates by
        the norms of vectors as nonlinearity.

    Args:
        n_scalars: S of the tokens.
        n_pair_features: P of the tokens.
        n_channels: C.
        n_layers: layers.
    """

    def __init__(self, *, n_scalars: int, n_pair_features: int, n_channels: int, n_layers: int) -> None:
        super().__init__()
        self.embed_scalars = nn.Linear(n_scalars + 1, n_channels)
        self.embed_vectors = nn.Linear(2, n_channels, bias=False)
        self.layers = nn.ModuleList(
            [Se3Layer(n_channels=n_channels, n_pair_features=n_pair_features) for _ in range(n_layers)]
        )
        self.read = nn.Linear(n_channels, 1, bias=False)
        self.scale = nn.Parameter(torch.tensor(0.01))  # the first steps must not fling particles away

    def forward(self, tokens: Tokens) -> Tensor:
        """Displacements, [B, N, 3]."""
        x_BN3, velocities_BN3 = tokens.positions, tokens.velocities
        differences_BNN3 = x_BN3.unsqueeze(1) - x_BN3.unsqueeze(2)  # from i to j
        lengths_BNN1 = (differences_BNN3.square().sum(-1, keepdim=True) + 1e-8).sqrt()
        invariants_BNNP = torch.cat([lengths_BNN1, tokens.pairs], dim=-1)
        centred_BN3 = x_BN3 - x_BN3.mean(1, keepdim=True)
        s_BNC = self.embed_scalars(torch.cat([tokens.scalars, velocities_BN3.norm(dim=-1, keepdim=True)], dim=-1))
        v_BNC3 = self.embed_vectors(torch.stack([velocities_BN3, centred_BN3], dim=-1)).mT
        for layer in self.layers:
            s_BNC, v_BNC3 = layer(s_BNC, v_BNC3, differences_BNN3 / lengths_BNN1, invariants_BNNP)
        displacements_BN3: Tensor = self.scale * self.read(v_BNC3.mT).squeeze(-1)
        return displacements_BN3
