"""A plain transformer: raw displacements go in, and nothing is built in that rotates or stays. For science, not for MD.

`model.symmetry=none`. The other networks have an equivariant core that sees to most of the symmetry; this one has to
learn all of it, as the networks of the REMUL papers do. An atom attends to its neighbours; what it reads of a neighbour
is gated by a network of the pair, whose inputs are the three components of the displacement in Angstrom. They are
read by one linear map and by nothing else, so that their axes mean nothing: any invertible matrix on them can be taken
back by that map. Direct forces are three numbers of each atom.

Translations, permutations and padding are exact, as in every model here, and messages carry an envelope that vanishes
at the cutoff. That envelope depends on the distance. Whether distances enter beyond it is the option `distances`. With
them radial functions stand beside the displacement, and the network can be symmetric by not reading directions at all.
Without them no message passes where the displacement is not read: what a pair sends is counted from what the same pair
would send at displacement 0, so nothing of the geometry is left when directions are cut.

Letters of the shape suffixes: A atoms of all systems, K neighbours of an atom (padded), E width, H heads, P width of
the pair features, R radial functions, F several features side by side, 3 space; other digits are sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from remul_md.errors import InputError
from remul_md.models.operations import (
    PairModel,
    Pairs,
    Symmetry,
    check_options,
    gather_neighbors,
    smooth_softmax,
    sum_over_systems,
)
from remul_md.structures.batch import Batch

# Attention averages over neighbours, energies are sums over them: with about as many as a molecule has, messages start
# at the size of a sum.
MESSAGE_SCALE = 8.0


@dataclass(frozen=True, kw_only=True)
class PlainConfig:
    """Sizes of the plain transformer.

    Args:
        species: atomic numbers the model knows, ascending.
        symmetry: none; what else there is are other kinds.
        distances: radial functions of the distance stand beside the displacement.
        cutoff: pair distance limit, Angstrom.
        width: channels of an atom, divisible by n_heads.
        n_layers: attention blocks.
        n_heads: attention heads.
        n_radial: Gaussian radial functions of the distance, read with `distances` only.
        pair_width: channels of the network of a pair.
        rank: gates, each with values of its own, whose sum is a message.
        energy_scale: eV that one unit of the raw output stands for; set from the training forces (RMS x 1 Angstrom).
    Raises:
        InputError: another symmetry, a size < 1, a width that the heads do not divide, cutoff or scale <= 0, no
            species.
    """

    species: tuple[int, ...]
    symmetry: Symmetry = "none"
    distances: bool = False
    cutoff: float = 6.0
    width: int = 128
    n_layers: int = 3
    n_heads: int = 8
    n_radial: int = 16
    pair_width: int = 128
    rank: int = 1
    energy_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.symmetry != "none":
            raise InputError(f"model.symmetry of model.kind=plain is none, got {self.symmetry!r}; leave the kind out")
        check_options(self, sizes=("width", "n_layers", "n_heads", "n_radial", "pair_width", "rank"))
        if self.width % self.n_heads:
            raise InputError(f"model.width must be divisible by model.n_heads, got {self.width} and {self.n_heads}")

    @property
    def n_inputs(self) -> int:
        """What a pair's network reads: the displacement first."""
        return 3 + (self.n_radial if self.distances else 0)


class SwiGLU(nn.Module):
    """One linear map of the input times the gate of another."""

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(n_inputs, 2 * n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[..., n_inputs] -> [..., n_outputs]."""
        gate, value = self.inputs(x).chunk(2, dim=-1)
        return functional.silu(gate) * value


class PlainBlock(nn.Module):
    """Attention over neighbours whose values are gated by the pair, then a network of the atom alone."""

    def __init__(self, config: PlainConfig) -> None:
        super().__init__()
        self.width, self.rank, self.n_heads = config.width, config.rank, config.n_heads
        self.scale = (config.width // config.n_heads) ** -0.5
        self.norm_attention = nn.RMSNorm(config.width, eps=1e-6)
        self.query = nn.Linear(config.width, config.width)
        self.key_value = nn.Linear(config.width, (1 + config.rank) * config.width)
        self.pair = nn.Linear(config.pair_width, config.rank * config.width + config.n_heads, bias=config.distances)
        self.mix = nn.Linear(config.width, config.width)
        self.norm_mlp = nn.RMSNorm(config.width, eps=1e-6)
        self.mlp = nn.Sequential(SwiGLU(config.width, 2 * config.width), nn.Linear(2 * config.width, config.width))

    def forward(self, x_AE: Tensor, pairs_AKP: Tensor, envelope_AK: Tensor, batch: Batch) -> Tensor:
        """Atom features after the block, [A, E]."""
        normed_AE = self.norm_attention(x_AE)
        sizes = [self.width, self.rank * self.width]
        key_AKE, values_AKF = gather_neighbors(self.key_value(normed_AE), batch).split(sizes, dim=-1)
        gates_AKF, bias_AKH = self.pair(pairs_AKP).split([self.rank * self.width, self.n_heads], dim=-1)
        message_AKE = (values_AKF * gates_AKF).unflatten(-1, (self.rank, self.width)).sum(-2)
        heads = (self.n_heads, -1)
        query_A1F, key_AKF = self.query(normed_AE).unflatten(-1, heads).unsqueeze(1), key_AKE.unflatten(-1, heads)
        logits_AKH = (query_A1F * key_AKF).sum(-1) * self.scale + bias_AKH
        attention_AKH = smooth_softmax(logits_AKH, envelope_AK) * MESSAGE_SCALE
        x_AE = x_AE + self.mix((attention_AKH.unsqueeze(-1) * message_AKE.unflatten(-1, heads)).sum(1).flatten(1))
        updated_AE: Tensor = x_AE + self.mlp(self.norm_mlp(x_AE))
        return updated_AE


class Plain(PairModel):
    """Energy and forces of atoms; see the contract in `remul_md.models`."""

    def __init__(self, config: PlainConfig) -> None:
        super().__init__(config)
        # With one layer direct forces were not learned even with distances given, and with displacements in units of
        # the cutoff an energy without distances began to fall after 350 steps instead of 150.
        self.pair_network = nn.Sequential(
            SwiGLU(config.n_inputs, config.pair_width),
            nn.RMSNorm(config.pair_width, eps=1e-6),
            SwiGLU(config.pair_width, config.pair_width),
        )
        self.blocks = nn.ModuleList(PlainBlock(config) for _ in range(config.n_layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.energy_head = nn.Sequential(nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, 1))
        self.direct_head = nn.Sequential(nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, 3))
        self.initialize()

    @property
    def shared_matrix(self) -> nn.Parameter:
        """The last matrix that serves all outputs, on which training may balance the gradients of its losses."""
        last: Any = self.blocks[-1]
        return last.mlp[1].weight

    def initialize(self) -> None:
        """Small outputs of both heads, so that training starts near zero forces."""
        for last in (self.energy_head[2], self.direct_head[2]):
            assert isinstance(last, nn.Linear)
            nn.init.normal_(last.weight, std=0.02)
            nn.init.zeros_(last.bias)

    def network(self, pairs: Pairs, batch: Batch, /, *, direct: bool) -> tuple[Tensor, Tensor | None]:
        """Atomic energies [A], eV, and direct forces [A, 3], eV/Angstrom, from the pairs."""
        displacements_AK3, _, _, radial_AKR, envelope_AK = pairs
        if self.config.distances:
            pairs_AKP = self.pair_network(torch.cat([displacements_AK3, radial_AKR], dim=-1))
        else:
            pairs_AKP = self.pair_network(displacements_AK3) - self.pair_network(displacements_AK3.new_zeros(3))
        x_AE = self.species(self.species_index[batch.atomic_numbers])
        for block in self.blocks:
            x_AE = block(x_AE, pairs_AKP, envelope_AK, batch)
        normed_AE = self.norm(x_AE)
        atomic_A = self.energy_head(normed_AE).squeeze(-1) * self.config.energy_scale
        if not direct:
            return atomic_A, None
        raw_A3 = self.direct_head(normed_AE) * self.config.energy_scale
        count_A = sum_over_systems(torch.ones_like(atomic_A), batch)
        mean_A3 = sum_over_systems(raw_A3, batch) / count_A.unsqueeze(-1)  # a molecule does not push itself
        return atomic_A, raw_A3 - mean_A3.index_select(0, batch.system_index)
