"""The equivariant control: scalar and vector features that turn with the molecule by construction.

The studies hold the transformer against this model in the same trainer on the same batches. It is a control, not a
recommended model: it is a plain, small member of its kind, kept as close to the paper as the comparison allows, and its
options were not tuned. Its energies are invariant and its forces turn with the molecule under O(3) to
rounding, whatever the weights are.

Source: Schuett et al. (2021), arXiv:2102.03150, eq. (7) to (11). Differences: radial functions, envelope and species
embedding are the transformer's, so that both see the same input; scalars are normalised before each network, which
lets it train at the transformer's learning rates; vectors that nothing reads (before the first message and after the
last update) are not computed.

Letters of the shape suffixes: A atoms of all systems, K neighbours of an atom (padded), E width, R radial functions,
G gates of a network (2 E or 3 E), 3 space; other digits are sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from remul_md.models.operations import PairModel, Pairs, Symmetry, check_options, gather_neighbors, sum_over_pairs
from remul_md.structures.batch import Batch

# The length of a vector is sqrt(|v|^2 + SOFTENING^2): at v = 0, where an atom has no neighbour, it stays smooth.
SOFTENING = 0.1


@dataclass(frozen=True, kw_only=True)
class PainnConfig:
    """Sizes of the equivariant control; the defaults are the published width and number of layers.

    Args:
        species: atomic numbers the model knows, ascending.
        cutoff: pair distance limit, Angstrom.
        width: scalar channels of an atom, and as many vector channels.
        n_layers: pairs of a message and an update.
        n_radial: Gaussian radial functions of the distance, evenly spaced in exp(-r / 2 Angstrom).
        energy_scale: eV that one unit of the raw output stands for; set from the training forces (RMS x 1 Angstrom).
    Raises:
        InputError: a size < 1, cutoff or scale <= 0, no species.
    """

    symmetry: ClassVar[Symmetry] = "exact"
    species: tuple[int, ...]
    cutoff: float = 6.0
    width: int = 128
    n_layers: int = 3
    n_radial: int = 16
    energy_scale: float = 1.0

    def __post_init__(self) -> None:
        check_options(self, sizes=("width", "n_layers", "n_radial"))


class Message(nn.Module):
    """What the neighbours send: scalars, vectors along the bonds, and their own vectors; eq. (7) and (8)."""

    def __init__(self, config: PainnConfig, *, has_vectors: bool) -> None:
        super().__init__()
        self.width = config.width
        n_gates = (3 if has_vectors else 2) * config.width
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.message = nn.Sequential(nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, n_gates))
        self.filters = nn.Linear(config.n_radial, n_gates)

    def forward(
        self,
        x_AE: Tensor,
        vectors_A3E: Tensor | None,
        radial_AKR: Tensor,
        directions_AK3: Tensor,
        envelope_AK: Tensor,
        batch: Batch,
    ) -> tuple[Tensor, Tensor]:
        """Scalars [A, E] and vectors [A, 3, E] after the message; no vectors come in at the first."""
        filters_AKG = self.filters(radial_AKR) * envelope_AK.unsqueeze(-1)
        gates_AKG = gather_neighbors(self.message(self.norm(x_AE)), batch) * filters_AKG
        scalar_AKE, along_AKE, *gate_AKE = gates_AKG.split(self.width, dim=-1)
        x_AE = x_AE + scalar_AKE.sum(1)
        message_A3E = directions_AK3.mT @ along_AKE
        if vectors_A3E is None:
            return x_AE, message_A3E
        sender_AK3E = gather_neighbors(vectors_A3E, batch)
        return x_AE, vectors_A3E + message_A3E + (gate_AKE[0].unsqueeze(2) * sender_AK3E).sum(1)


class Update(nn.Module):
    """Scalars and vectors of an atom act on each other through lengths and scalar products; eq. (9) to (11)."""

    def __init__(self, config: PainnConfig, *, has_vectors: bool) -> None:
        super().__init__()
        width, self.width = config.width, config.width
        self.norm = nn.RMSNorm(width, eps=1e-6)
        # No bias: a constant vector would not turn. The two parts are U and V of the paper.
        self.mix = nn.Linear(width, 2 * width, bias=False)
        n_gates = (3 if has_vectors else 2) * width
        self.mlp = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, n_gates))

    def forward(self, x_AE: Tensor, vectors_A3E: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scalars [A, E] and vectors [A, 3, E] after the update; no vectors leave the last one."""
        u_A3E, v_A3E = self.mix(vectors_A3E).chunk(2, dim=-1)
        length_AE = (v_A3E.square().sum(1) + SOFTENING**2).sqrt()
        gates_AG = self.mlp(torch.cat([self.norm(x_AE), length_AE], dim=-1))
        scalar_AE, product_AE, *vector_AE = gates_AG.split(self.width, dim=-1)
        x_AE = x_AE + scalar_AE + product_AE * (u_A3E * v_A3E).sum(1)
        return x_AE, vectors_A3E + vector_AE[0].unsqueeze(1) * u_A3E if vector_AE else None


class CentralHead(nn.Module):
    """Direct forces along the bonds, as strong as the invariants say: they turn, and net force and torque are zero."""

    def __init__(self, config: PainnConfig) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.atom = nn.Linear(config.width, config.width)
        self.pair = nn.Linear(config.n_radial, config.width)
        self.outputs = nn.Linear(config.width, 1)

    def forward(
        self, x_AE: Tensor, radial_AKR: Tensor, directions_AK3: Tensor, envelope_AK: Tensor, batch: Batch
    ) -> Tensor:
        """Raw direct forces, [A, 3]."""
        atom_AE = self.atom(self.norm(x_AE))
        hidden_AKE = functional.silu(atom_AE.unsqueeze(1) + gather_neighbors(atom_AE, batch) + self.pair(radial_AKR))
        return sum_over_pairs(self.outputs(hidden_AKE) * directions_AK3 * envelope_AK.unsqueeze(-1), batch)


class Painn(PairModel):
    """Energy and forces from equivariant messages; see the contract in `remul_md.models`."""

    def __init__(self, config: PainnConfig) -> None:
        super().__init__(config)
        last = config.n_layers - 1
        self.messages = nn.ModuleList(Message(config, has_vectors=layer > 0) for layer in range(config.n_layers))
        self.updates = nn.ModuleList(Update(config, has_vectors=layer < last) for layer in range(config.n_layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.energy_head = nn.Sequential(nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, 1))
        self.direct_head = CentralHead(config)
        self.initialize()

    @property
    def shared_matrix(self) -> nn.Parameter:
        """The last matrix that serves all outputs, on which training may balance the gradients of its losses."""
        last: Any = self.updates[-1]
        return last.mlp[2].weight

    def initialize(self) -> None:
        """Small outputs of both heads, so that training starts near zero forces."""
        for last in (self.energy_head[2], self.direct_head.outputs):
            assert isinstance(last, nn.Linear)
            nn.init.normal_(last.weight, std=0.02)
            nn.init.zeros_(last.bias)

    def network(self, pairs: Pairs, batch: Batch, /, *, direct: bool) -> tuple[Tensor, Tensor | None]:
        """Atomic energies [A], eV, and direct forces [A, 3], eV/Angstrom, from the pairs."""
        _, _, directions_AK3, radial_AKR, envelope_AK = pairs
        x_AE, vectors_A3E = self.species(self.species_index[batch.atomic_numbers]), None
        for message, update in zip(self.messages, self.updates, strict=True):
            x_AE, vectors_A3E = message(x_AE, vectors_A3E, radial_AKR, directions_AK3, envelope_AK, batch)
            x_AE, vectors_A3E = update(x_AE, vectors_A3E)
        atomic_A = self.energy_head(self.norm(x_AE)).squeeze(-1) * self.config.energy_scale
        if not direct:
            return atomic_A, None
        direct_A3 = self.direct_head(x_AE, radial_AKR, directions_AK3, envelope_AK, batch)
        return atomic_A, direct_A3 * self.config.energy_scale
