"""The transformer of potential files up to format 2, kept so that they load and predict what they always did.

New potentials use `remul_md.models.transformer`, which is more accurate at equal cost. Atoms attend to their
neighbours; what a pair looks like enters as a bias of the attention and as a gate of the values, learned from the
distance and the raw direction vector. Products of learned sums of direction vectors tell angles.

Letters of the shape suffixes: A atoms of all systems, K neighbours of an atom (padded), B systems, E width,
H heads, D width of a head (E = H D), P width of the pair features, R radial functions, C learned sums of
direction vectors, S species, 3 space; a bare digit is a size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from remul_md.errors import InputError
from remul_md.models.operations import (
    Forces,
    check_options,
    energies_and_forces,
    gather_neighbors,
    radial_centers,
    radial_functions,
    smooth_envelope,
    species_table,
    sum_over_pairs,
)
from remul_md.models.transformer import smooth_softmax
from remul_md.structures.batch import Batch, Prediction

# Where raw directions enter, weights start this much smaller. The start still depends on the orientation (half of
# the force), but what training has to unlearn is less: at equal steps the rotational spread was 8.2 instead of 11.2
# meV/Angstrom, and 4.7 instead of 8.3 when all poses are turned, with the same accuracy.
DIRECTION_SCALE = 0.3


@dataclass(frozen=True, kw_only=True)
class FirstTransformerConfig:
    """Sizes of the transformer.

    Args:
        species: atomic numbers the model knows, ascending.
        cutoff: pair distance limit, Angstrom.
        width: channels of an atom, divisible by n_heads.
        n_layers: attention blocks.
        n_heads: attention heads.
        pair_width: channels of the pair features.
        n_radial: Gaussian radial functions of the distance, evenly spaced in exp(-r / 2 Angstrom).
        n_vectors: learned sums of direction vectors for each atom and block.
        mlp_factor: hidden width of the blocks' MLPs over `width`.
        energy_scale: eV that one unit of the raw output stands for; set from the training forces (RMS x 1 Angstrom).
    Raises:
        InputError: a size < 1, a width that the heads do not divide, cutoff or scale <= 0, no species.
    """

    species: tuple[int, ...]
    cutoff: float = 6.0
    width: int = 128
    n_layers: int = 4
    n_heads: int = 8
    pair_width: int = 64
    n_radial: int = 16
    n_vectors: int = 16
    mlp_factor: int = 2
    energy_scale: float = 1.0

    def __post_init__(self) -> None:
        sizes = ("width", "n_layers", "n_heads", "pair_width", "n_radial", "n_vectors", "mlp_factor")
        check_options(self, sizes=sizes)
        if self.width % self.n_heads:
            raise InputError(f"model.width must be divisible by model.n_heads, got {self.width} and {self.n_heads}")


class PairEmbedding(nn.Module):
    """Features of a pair from distance, raw direction and the two species."""

    centers: Tensor

    def __init__(self, config: FirstTransformerConfig) -> None:
        super().__init__()
        centers, self.inverse_width = radial_centers(config.n_radial, cutoff=config.cutoff)
        self.register_buffer("centers", centers)
        self.species = nn.Embedding(len(config.species) ** 2, config.pair_width)
        self.inputs = nn.Linear(config.n_radial + 3, config.pair_width)
        self.outputs = nn.Linear(config.pair_width, config.pair_width)

    def forward(self, distances_AK: Tensor, directions_AK3: Tensor, species_pair_AK: Tensor) -> Tensor:
        """Pair features, [A, K, P]."""
        radial_AKR = radial_functions(distances_AK, self.centers, self.inverse_width)
        hidden_AKP = self.inputs(torch.cat([radial_AKR, directions_AK3], dim=-1))
        hidden_AKP = functional.silu(hidden_AKP + self.species(species_pair_AK))
        return functional.silu(self.outputs(hidden_AKP))


class AtomBlock(nn.Module):
    """Attention over neighbours, products of learned sums of direction vectors, then an MLP."""

    def __init__(self, config: FirstTransformerConfig) -> None:
        super().__init__()
        width, self.n_heads, self.n_vectors = config.width, config.n_heads, config.n_vectors
        self.width = width
        self.scale = (width // config.n_heads) ** -0.5
        self.norm_attention = nn.RMSNorm(width, eps=1e-6)
        self.query = nn.Linear(width, width)
        self.sent = nn.Linear(width, 2 * width + config.n_vectors)  # key, value, weight of the direction
        self.pair = nn.Linear(config.pair_width, width + config.n_heads + config.n_vectors)  # gate, bias, weight
        self.out = nn.Linear(width + config.n_vectors * (config.n_vectors + 3), width)
        self.norm_mlp = nn.RMSNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.mlp_factor * width), nn.SiLU(), nn.Linear(config.mlp_factor * width, width)
        )

    def forward(
        self, x_AE: Tensor, pair_AKP: Tensor, directions_AK3: Tensor, envelope_AK: Tensor, batch: Batch
    ) -> Tensor:
        """Atom features after the block, [A, E]."""
        sizes = [self.width, self.width, self.n_vectors]
        normed_AE = self.norm_attention(x_AE)
        query_AHD = self.query(normed_AE).unflatten(-1, (self.n_heads, -1))
        key_AKE, value_AKE, sent_AKC = gather_neighbors(self.sent(normed_AE), batch).split(sizes, dim=-1)
        gate_AKE, bias_AKH, weight_AKC = self.pair(pair_AKP).split([self.width, self.n_heads, self.n_vectors], dim=-1)
        logits_AKH = (query_AHD.unsqueeze(1) * key_AKE.unflatten(-1, (self.n_heads, -1))).sum(-1) * self.scale
        attention_AKH = smooth_softmax(logits_AKH + bias_AKH, envelope_AK)
        messages_AKHD = (value_AKE * gate_AKE).unflatten(-1, (self.n_heads, -1))
        message_AE = (attention_AKH.unsqueeze(-1) * messages_AKHD).sum(1).flatten(1)
        # Learned sums of raw directions; their scalar products tell angles without a loop over triplets.
        vectors_AC3 = ((weight_AKC * sent_AKC) * envelope_AK.unsqueeze(-1)).mT @ directions_AK3
        products_ACC = vectors_AC3 @ vectors_AC3.mT
        x_AE = x_AE + self.out(torch.cat([message_AE, vectors_AC3.flatten(1), products_ACC.flatten(1)], dim=-1))
        return x_AE + self.mlp(self.norm_mlp(x_AE))


class DirectHead(nn.Module):
    """Forces read from pairs, without a gradient; action equals reaction, so the net force is zero."""

    def __init__(self, config: FirstTransformerConfig) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.atom = nn.Linear(config.width, config.pair_width)
        self.pair = nn.Linear(config.pair_width, config.pair_width)
        self.outputs = nn.Linear(config.pair_width, 4)

    def forward(
        self, x_AE: Tensor, pair_AKP: Tensor, directions_AK3: Tensor, envelope_AK: Tensor, batch: Batch
    ) -> Tensor:
        """Raw direct forces, [A, 3]."""
        atom_AP = self.atom(self.norm(x_AE))
        hidden_AKP = functional.silu(atom_AP.unsqueeze(1) + gather_neighbors(atom_AP, batch) + self.pair(pair_AKP))
        raw_AK3, along_AK1 = self.outputs(hidden_AKP).split([3, 1], dim=-1)
        return sum_over_pairs((raw_AK3 + along_AK1 * directions_AK3) * envelope_AK.unsqueeze(-1), batch)


class FirstTransformer(nn.Module):
    """Energy and forces from an unconstrained transformer; see the contract in `remul_md.models`."""

    species_index: Tensor

    def __init__(self, config: FirstTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("species_index", species_table(config.species), persistent=False)
        self.species = nn.Embedding(len(config.species), config.width)
        self.pair_embedding = PairEmbedding(config)
        self.blocks = nn.ModuleList(AtomBlock(config) for _ in range(config.n_layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.energy_head = nn.Sequential(nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, 1))
        self.direct_head = DirectHead(config)
        self.initialize()

    @property
    def shared_matrix(self) -> nn.Parameter:
        """The last matrix that serves all outputs, on which training may balance the gradients of its losses."""
        last: Any = self.blocks[-1]
        return last.mlp[2].weight

    def initialize(self) -> None:
        """Small outputs of every residual branch and of both heads, so that training starts near zero forces."""
        lasts: list[Any] = [self.energy_head[2], self.direct_head.outputs]
        for block in self.blocks:
            assert isinstance(block, AtomBlock)
            lasts += [block.out, block.mlp[2]]
        for last in lasts:
            nn.init.normal_(last.weight, std=0.02)
            nn.init.zeros_(last.bias)
        with torch.no_grad():
            self.pair_embedding.inputs.weight[:, -3:] *= DIRECTION_SCALE
            for block in self.blocks:
                assert isinstance(block, AtomBlock)
                raw = slice(self.config.width, self.config.width + 3 * self.config.n_vectors)
                block.out.weight[:, raw] *= DIRECTION_SCALE

    def forward(self, batch: Batch, *, forces: Forces = "none", create_graph: bool = False) -> Prediction:
        """Residual energies and the forces asked for; see `energies_and_forces`."""
        return energies_and_forces(
            self.outputs,
            batch,
            cutoff=self.config.cutoff,
            dtype=self.species.weight.dtype,
            forces=forces,
            create_graph=create_graph,
        )

    def outputs(self, displacements_AK3: Tensor, batch: Batch, *, direct: bool) -> tuple[Tensor, Tensor | None]:
        """Atomic energies [A], eV, and direct forces [A, 3], eV/Angstrom, from the displacements."""
        distances_AK = displacements_AK3.square().sum(-1).sqrt()
        directions_AK3 = displacements_AK3 / distances_AK.unsqueeze(-1)
        envelope_AK = smooth_envelope(distances_AK, self.config.cutoff) * batch.neighbor_mask
        species_A = self.species_index[batch.atomic_numbers]
        neighbor_species_AK = species_A.index_select(0, batch.neighbor_index.flatten()).view_as(batch.neighbor_index)
        species_pair_AK = species_A.unsqueeze(1) * len(self.config.species) + neighbor_species_AK
        pair_AKP = self.pair_embedding(distances_AK, directions_AK3, species_pair_AK)
        x_AE = self.species(species_A)
        for block in self.blocks:
            x_AE = block(x_AE, pair_AKP, directions_AK3, envelope_AK, batch)
        atomic_A = self.energy_head(self.norm(x_AE)).squeeze(-1) * self.config.energy_scale
        if not direct:
            return atomic_A, None
        direct_A3 = self.direct_head(x_AE, pair_AKP, directions_AK3, envelope_AK, batch)
        return atomic_A, direct_A3 * self.config.energy_scale
