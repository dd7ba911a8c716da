"""THE model: a transformer on atoms whose symmetry is an option, to be read from top to bottom.

Atoms attend to their neighbours. Beside its features an atom carries tensor features: learned sums, over its
neighbours, of the harmonics of the directions to them. Their scalar products tell angles, and their products with a
pair's harmonics tell how the pair stands among the others, both without a loop over triplets. This much is equivariant.

With `symmetry="relaxed"` raw directions enter the messages too, as plain numbers, and the direct head writes plain
components: nothing makes the output turn with the input, and the losses decide how far the directions are used
(`remul_md.symmetry.remul`). With `symmetry="exact"` both are left out, and energies and forces turn with the molecule
under O(3) whatever the weights are. `remul_md.models.exact_model` makes the second out of the first.

Translations, permutations and padding are exact, and every message carries an envelope that vanishes at the cutoff
with two derivatives, so energy and forces have no jumps.

What each part is worth was measured: `docs/ablations.md`.

Letters of the shape suffixes: A atoms of all systems, K neighbours of an atom (padded), B systems, E width,
H heads, D width of a head (E = H D), C tensor features of each degree, L degrees, S components of all degrees (3 + 5 +
7), N components of one degree, P width of the pair features, R radial functions, I what a pair's network reads (radial
functions and, if relaxed, the raw direction), G gates of a message, F several features side by side, 3 space;
other digits are sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from remul_md.errors import InputError
from remul_md.models.harmonics import COMPONENTS, harmonics
from remul_md.models.operations import (
    PairModel,
    Pairs,
    Symmetry,
    check_options,
    gather_neighbors,
    reverse_pairs,
    smooth_softmax,
    sum_over_pairs,
)
from remul_md.structures.batch import Batch

# Where raw directions enter, weights start this much smaller. The start still depends on the orientation, but what
# training has to unlearn is less: at equal steps the rotational spread and the error were lower.
DIRECTION_SCALE = 0.3
# Attention averages over neighbours, energies are sums over them: with about as many as a molecule has, messages start
# at the size of a sum, and training is faster than with the plain average.
MESSAGE_SCALE = 8.0
# What blocks and heads read of the pairs: inputs [A, K, I], harmonics [A, K, S] and envelope [A, K].
OfPairs = tuple[Tensor, Tensor, Tensor]
# The length of a tensor feature is sqrt(|m|^2 + SOFTENING^2): at m = 0, where an atom has no neighbour, it stays
# smooth.
SOFTENING = 0.1


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes of the transformer.

    Args:
        species: atomic numbers the model knows, ascending.
        symmetry: relaxed (raw directions enter: no rotation is built in) or exact (they do not: O(3) is).
        cutoff: pair distance limit, Angstrom.
        width: channels of an atom, divisible by n_heads.
        n_layers: attention blocks.
        n_heads: attention heads.
        n_radial: Gaussian radial functions of the distance, evenly spaced in exp(-r / 2 Angstrom).
        n_tensors: tensor features of each degree that an atom carries.
        max_degree: highest degree of the harmonics, 1 to 3.
        pair_width: channels of the network that reads a pair's place among the others.
        field_input: the electric field is an input: degree 1 of the tensor features starts along it. What a network
            that is told the field reaches, to compare with; the symmetry is then that of molecule and field together.
        direct_layers: attention blocks that the direct head has for itself, >= 0; they cost nothing where
            conservative forces alone are asked for.
        energy_scale: eV that one unit of the raw output stands for; set from the training forces (RMS x 1 Angstrom).
    Raises:
        InputError: an unknown symmetry, a size < 1, a width that the heads do not divide, a degree above 3, cutoff or
            scale <= 0, no species.
    """

    species: tuple[int, ...]
    symmetry: Symmetry = "relaxed"
    cutoff: float = 6.0
    width: int = 128
    n_layers: int = 3
    n_heads: int = 8
    n_radial: int = 16
    n_tensors: int = 32
    max_degree: int = 3
    pair_width: int = 32
    field_input: bool = False
    direct_layers: int = 1
    energy_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.symmetry not in ("relaxed", "exact"):
            raise InputError(f"model.symmetry is relaxed or exact (none: model.kind=plain), got {self.symmetry!r}")
        sizes = ("width", "n_layers", "n_heads", "n_radial", "n_tensors", "max_degree", "pair_width")
        check_options(self, sizes=sizes)
        if self.direct_layers < 0:
            raise InputError(f"model.direct_layers must be >= 0, got {self.direct_layers}")
        if self.width % self.n_heads:
            raise InputError(f"model.width must be divisible by model.n_heads, got {self.width} and {self.n_heads}")
        if self.max_degree > len(COMPONENTS):
            raise InputError(f"model.max_degree must be 1 to {len(COMPONENTS)}, got {self.max_degree}")

    @property
    def components(self) -> tuple[int, ...]:
        """Components of the harmonics of each degree, from 1 on."""
        return COMPONENTS[: self.max_degree]

    @property
    def n_raw(self) -> int:
        """Components of the raw direction that a pair's network reads, and of the raw force that the head writes."""
        return 3 if self.symmetry == "relaxed" else 0

    @property
    def n_inputs(self) -> int:
        """I, what a pair's network reads."""
        return self.n_radial + self.n_raw


class MixTensors(nn.Module):
    """Linear combinations of the tensor features of each degree; no bias, since a constant would not turn."""

    def __init__(self, config: TransformerConfig, width: int) -> None:
        super().__init__()
        self.components = config.components
        self.degrees = nn.ModuleList(nn.Linear(config.n_tensors, width, bias=False) for _ in self.components)

    def forward(self, tensors_ASC: Tensor) -> Tensor:
        """[A, S, C] -> [A, S, width]."""
        parts = zip(self.degrees, tensors_ASC.split(self.components, dim=1), strict=True)
        return torch.cat([mix(part_ANC) for mix, part_ANC in parts], dim=1)


class PairNetwork(nn.Module):
    """What a pair is: its distance, if relaxed its raw direction, and how it stands among the pairs of its atoms."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.inputs = nn.Linear(config.n_inputs, config.pair_width)
        self.mix = MixTensors(config, 2 * config.pair_width)

    def forward(self, inputs_AKI: Tensor, harmonics_AKS: Tensor, tensors_ASC: Tensor, batch: Batch) -> Tensor:
        """Pair features, [A, K, P]."""
        from_here_AKP, from_there_AKP = (harmonics_AKS @ self.mix(tensors_ASC)).chunk(2, dim=-1)
        hidden_AKP = self.inputs(inputs_AKI) + from_here_AKP + reverse_pairs(from_there_AKP, batch)
        return functional.silu(hidden_AKP)


class AtomBlock(nn.Module):
    """Attention over neighbours that also sends tensor features, then a network that reads their scalar products."""

    def __init__(self, config: TransformerConfig, *, first: bool, last: bool) -> None:
        super().__init__()
        self.width, self.n_heads, self.components, self.last = config.width, config.n_heads, config.components, last
        self.scale = (config.width // config.n_heads) ** -0.5
        n_tensors = config.n_tensors * config.max_degree
        # Gates of a message: its features, its harmonics and, where there are some already, the tensors of the sender.
        self.gates = [config.width, n_tensors, 0 if first else n_tensors]
        self.norm_attention = nn.RMSNorm(config.width, eps=1e-6)
        self.query_key = nn.Linear(config.width, 2 * config.width)
        self.message = nn.Sequential(
            nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, sum(self.gates))
        )
        self.pair = nn.Linear(config.n_inputs, sum(self.gates) + config.n_heads)
        self.pair_network = None if first else PairNetwork(config)
        self.pair_more = None if first else nn.Linear(config.pair_width, sum(self.gates) + config.n_heads, bias=False)
        self.mix = MixTensors(config, 2 * config.n_tensors)
        self.norm_mlp = nn.RMSNorm(config.width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(config.width + 2 * n_tensors, config.width),
            nn.SiLU(),
            nn.Linear(config.width, config.width + (0 if last else n_tensors)),
        )

    def forward(
        self, x_AE: Tensor, tensors_ASC: Tensor | None, of_pairs: OfPairs, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Atom features [A, E] and tensor features [A, S, C] after the block; none of the latter enter the first."""
        inputs_AKI, harmonics_AKS, envelope_AK = of_pairs
        old_ASC = None if tensors_ASC is None else tamed(tensors_ASC)
        normed_AE = self.norm_attention(x_AE)
        query_AE, key_AE = self.query_key(normed_AE).chunk(2, dim=-1)
        of_neighbor_AKF = gather_neighbors(torch.cat([key_AE, self.message(normed_AE)], dim=-1), batch)
        key_AKE, message_AKG = of_neighbor_AKF.split([self.width, sum(self.gates)], dim=-1)
        gate_AKG = self.pair(inputs_AKI)
        if self.pair_network is not None and self.pair_more is not None and old_ASC is not None:
            gate_AKG = gate_AKG + self.pair_more(self.pair_network(inputs_AKI, harmonics_AKS, old_ASC, batch))
        gate_AKG, bias_AKH = gate_AKG.split([sum(self.gates), self.n_heads], dim=-1)
        value_AKE, new_AKG, carried_AKG = (message_AKG * gate_AKG).split(self.gates, dim=-1)

        heads = (self.n_heads, -1)
        logits_AKH = (query_AE.unflatten(-1, heads).unsqueeze(1) * key_AKE.unflatten(-1, heads)).sum(-1) * self.scale
        attention_AKH = smooth_softmax(logits_AKH + bias_AKH, envelope_AK) * MESSAGE_SCALE
        x_AE = x_AE + (attention_AKH.unsqueeze(-1) * value_AKE.unflatten(-1, heads)).sum(1).flatten(1)

        harmonics_of_degrees = harmonics_AKS.split(self.components, dim=-1)
        new_of_degrees = (new_AKG * envelope_AK.unsqueeze(-1)).chunk(len(self.components), dim=-1)
        pairs = zip(harmonics_of_degrees, new_of_degrees, strict=True)
        new_ASC = torch.cat([part_AKN.mT @ gate_AKC for part_AKN, gate_AKC in pairs], dim=1)
        if tensors_ASC is not None and old_ASC is not None:
            carried_of_degrees = (carried_AKG * envelope_AK.unsqueeze(-1)).chunk(len(self.components), dim=-1)
            tensors_of_degrees = gather_neighbors(old_ASC, batch).split(self.components, dim=2)
            pairs = zip(carried_of_degrees, tensors_of_degrees, strict=True)
            carried_ASC = torch.cat([(gate.unsqueeze(2) * part_AKNC).sum(1) for gate, part_AKNC in pairs], dim=1)
            new_ASC = tensors_ASC + new_ASC + carried_ASC

        one_ASC, other_ASC = self.mix(tamed(new_ASC)).chunk(2, dim=-1)
        products_AG = self.sum_of_each_degree(one_ASC * other_ASC)
        lengths_AG = (self.sum_of_each_degree(other_ASC.square()) + SOFTENING**2).sqrt()
        update_AF = self.mlp(torch.cat([self.norm_mlp(x_AE), lengths_AG, products_AG], dim=-1))
        x_AE = x_AE + update_AF[:, : self.width]
        if not self.last:
            gates = update_AF[:, self.width :].unsqueeze(1).chunk(len(self.components), dim=-1)
            pairs = zip(gates, one_ASC.split(self.components, dim=1), strict=True)
            new_ASC = new_ASC + torch.cat([gate_A1C * part_ANC for gate_A1C, part_ANC in pairs], dim=1)
        return x_AE, new_ASC

    def sum_of_each_degree(self, values_ASC: Tensor) -> Tensor:
        """Sum over the components of each degree, [A, L C]."""
        return torch.cat([part_ANC.sum(1) for part_ANC in values_ASC.split(self.components, dim=1)], dim=-1)


class DirectHead(nn.Module):
    """Forces read from pairs, without a gradient; action equals reaction, so the net force is zero.

    The features that the energy is read from do not suffice: with a block of its own in between the head came twice as
    close to the conservative forces (`docs/direct-forces.md`).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(AtomBlock(config, first=False, last=False) for _ in range(config.direct_layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.atom = nn.Linear(config.width, config.width)
        self.pair_network = PairNetwork(config)
        self.pair = nn.Linear(config.pair_width, config.width)
        self.n_raw = config.n_raw
        self.outputs = nn.Linear(config.width, config.n_raw + 1)  # a raw force, and one along the pair

    def forward(self, x_AE: Tensor, tensors_ASC: Tensor, of_pairs: OfPairs, batch: Batch) -> Tensor:
        """Raw direct forces, [A, 3]."""
        inputs_AKI, harmonics_AKS, envelope_AK = of_pairs
        for block in self.blocks:
            x_AE, tensors_ASC = block(x_AE, tensors_ASC, of_pairs, batch)
        atom_AE = self.atom(self.norm(x_AE))
        pair_AKP = self.pair_network(inputs_AKI, harmonics_AKS, tamed(tensors_ASC), batch)
        hidden_AKE = functional.silu(atom_AE.unsqueeze(1) + gather_neighbors(atom_AE, batch) + self.pair(pair_AKP))
        raw_AK3, along_AK1 = self.outputs(hidden_AKE).split([self.n_raw, 1], dim=-1)
        along_AK3 = along_AK1 * harmonics_AKS[..., :3]
        pair_AK3 = raw_AK3 + along_AK3 if self.n_raw else along_AK3
        return sum_over_pairs(pair_AK3 * envelope_AK.unsqueeze(-1), batch)


class Transformer(PairModel):
    """Energy and forces of atoms; see the contract in `remul_md.models`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        last = config.n_layers - 1
        self.blocks = nn.ModuleList(
            AtomBlock(config, first=layer == 0 and not config.field_input, last=layer == last)
            for layer in range(config.n_layers)
        )
        self.along_field = nn.Embedding(len(config.species), config.n_tensors) if config.field_input else None
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
        """Small outputs of both heads, so that training starts near zero forces, and small raw directions."""
        lasts: list[Any] = [self.energy_head[2], self.direct_head.outputs]
        for last in lasts:
            nn.init.normal_(last.weight, std=0.02)
            nn.init.zeros_(last.bias)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, AtomBlock):
                    module.pair.weight[:, self.config.n_radial :] *= DIRECTION_SCALE
                    if module.pair_more is not None:
                        nn.init.normal_(module.pair_more.weight, std=0.02)
                elif isinstance(module, PairNetwork):
                    module.inputs.weight[:, self.config.n_radial :] *= DIRECTION_SCALE

    def tensors_of_field(self, batch: Batch) -> Tensor | None:
        """Tensor features before the first block, [A, S, C]: learned multiples of the field, if it is an input."""
        if self.along_field is None:
            return None
        if batch.field_V_per_A is None:
            raise InputError("this model reads the electric field (model.field_input), and these systems have none")
        multiples_AC = self.along_field(self.species_index[batch.atomic_numbers])
        field_A3 = batch.field_V_per_A.to(multiples_AC.dtype).index_select(0, batch.system_index)
        first_A3C = field_A3.unsqueeze(-1) * multiples_AC.unsqueeze(1)
        return functional.pad(first_A3C, (0, 0, 0, sum(self.config.components) - 3))

    def network(self, pairs: Pairs, batch: Batch, /, *, direct: bool) -> tuple[Tensor, Tensor | None]:
        """Atomic energies [A], eV, and direct forces [A, 3], eV/Angstrom, from the pairs."""
        _, _, directions_AK3, radial_AKR, envelope_AK = pairs
        inputs_AKI = torch.cat([radial_AKR, directions_AK3], dim=-1) if self.config.n_raw else radial_AKR
        of_pairs = inputs_AKI, harmonics(directions_AK3, self.config.max_degree), envelope_AK
        x_AE, tensors_ASC = self.species(self.species_index[batch.atomic_numbers]), self.tensors_of_field(batch)
        for block in self.blocks:
            x_AE, tensors_ASC = block(x_AE, tensors_ASC, of_pairs, batch)
        atomic_A = self.energy_head(self.norm(x_AE)).squeeze(-1) * self.config.energy_scale
        if not direct:
            return atomic_A, None
        direct_A3 = self.direct_head(x_AE, tensors_ASC, of_pairs, batch)
        return atomic_A, direct_A3 * self.config.energy_scale


def tamed(tensors_ASC: Tensor) -> Tensor:
    """Tensor features of an atom over sqrt(1 + mean square of all of them), [A, S, C]: smooth, and bounded.

    Small ones stay as they are. Without it their products, which gate the next tensor features, ran away.
    """
    return tensors_ASC * torch.rsqrt(1.0 + tensors_ASC.square().mean(dim=(1, 2), keepdim=True))
