"""What every model on padded neighbours needs: displacements, radial functions, sums and gathers, the forward.

Sums and gathers are each other's adjoint: the neighbour list is symmetric and `reverse_index` says where the opposite
pair stands, so the backward of a gather is again a gather (and a sum over K): no scatter, hence the same bits on any
number of threads, and derivatives of any order.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor, nn

from remul_md.errors import InputError
from remul_md.models.short_range import (
    SURROUNDED,
    nuclear_tables,
    repulsion_slope,
    screened_repulsion,
    smooth_envelope,
)
from remul_md.structures.batch import Batch, Prediction, sums_of_systems

# The Gaussian radial functions are even in exp(-r / DECAY), so they are narrow where bonds are (0.2 Angstrom at 1.1)
# and wide far away: with even spacing in r training needed clearly more steps.
DECAY = 2.0  # Angstrom
NEAREST = 0.5  # Angstrom, no two atoms of a molecule come closer

Forces = Literal["none", "direct", "conservative", "both"]
Symmetry = Literal["relaxed", "exact", "none"]  # what a config says of its model, in `symmetry`


class Outputs(Protocol):
    """A model's function from displacements to its outputs."""

    def __call__(self, displacements: Tensor, batch: Batch, /, *, direct: bool) -> tuple[Tensor, Tensor | None]:
        """Atomic energies [A], eV, and direct forces [A, 3], eV/Angstrom, if asked for."""
        ...


def energies_and_forces(
    outputs: Outputs, batch: Batch, *, cutoff: float, dtype: torch.dtype, forces: Forces, create_graph: bool
) -> Prediction:
    """The forward of every model: residual energies and the forces asked for, eV and eV/Angstrom.

    Args:
        outputs: energies and direct forces from displacements [A, K, 3], Angstrom.
        batch: systems with neighbours within `cutoff`.
        cutoff: of the model, Angstrom.
        dtype: of the model; displacements are formed in float64 and cast to it.
        forces: none, direct (one pass), conservative (minus the gradient of the energy) or both.
        create_graph: keep the graph of the conservative forces, so that they can be trained.
    Raises:
        InputError: unknown kind of forces.
    """
    if forces not in get_args(Forces):
        raise InputError(f"forces must be one of {', '.join(get_args(Forces))}, got {forces!r}")
    conservative = forces in ("conservative", "both")
    # The displacements are the leaf: translations are exact and the cell needs no special case.
    displacements = pair_displacements(batch, padding=cutoff).to(dtype)
    with torch.enable_grad() if conservative else torch.set_grad_enabled(torch.is_grad_enabled()):
        if conservative:
            displacements = displacements.requires_grad_()
        atomic_energies, direct_forces = outputs(displacements, batch, direct=forces in ("direct", "both"))
        gradient = None
        if conservative:
            (gradient,) = torch.autograd.grad(atomic_energies.sum(), displacements, create_graph=create_graph)
    if not (create_graph or torch.is_grad_enabled()):
        atomic_energies = atomic_energies.detach()
    return Prediction(
        system_index=batch.system_index,
        energy=sum_over_systems(atomic_energies, batch),
        forces=None if gradient is None else sum_over_pairs(gradient, batch),
        direct_forces=direct_forces,
        atomic_energies=atomic_energies,
    )


def check_options(config: Any, *, sizes: Sequence[str]) -> None:
    """What the options of all models have in common.

    Raises:
        InputError: a size < 1, cutoff or scale <= 0, no species.
    """
    for name in sizes:
        if getattr(config, name) < 1:
            raise InputError(f"model.{name} must be >= 1, got {getattr(config, name)}")
    if not config.cutoff > NEAREST:
        raise InputError(f"model.cutoff must be > {NEAREST} Angstrom, got {config.cutoff}; 6 suits small molecules")
    if not config.energy_scale > 0:
        raise InputError(f"model.energy_scale must be > 0 eV, got {config.energy_scale}")
    if not config.species:
        raise InputError("model.species is empty; give the atomic numbers of the training data")


def species_table(species: Sequence[int]) -> Tensor:
    """Place of each atomic number in `species`, [119], -1 where it has none."""
    table = torch.full((119,), -1)
    table[list(species)] = torch.arange(len(species))
    return table


def radial_centers(n_radial: int, *, cutoff: float) -> tuple[Tensor, float]:
    """Centres of the radial functions [R] and their common inverse width, both in exp(-r / DECAY)."""
    farthest = math.exp((NEAREST - cutoff) / DECAY)
    return torch.linspace(farthest, 1.0, n_radial), n_radial / (2.0 * (1.0 - farthest))


def radial_functions(distances: Tensor, centers: Tensor, inverse_width: float) -> Tensor:
    """Gaussians of exp(-r / DECAY), [A, K] Angstrom -> [A, K, R]."""
    nearness = torch.exp((NEAREST - distances.unsqueeze(-1)) / DECAY)
    return torch.exp(-((nearness - centers) * inverse_width).square())


def smooth_softmax(logits: Tensor, envelope: Tensor) -> Tensor:
    """Attention weights that fade with the envelope, [A, K, H].

    The denominator holds a constant 1 for the atom itself: without it a lone neighbour would keep weight 1 up to
    the cutoff and then vanish at once.
    """
    shift = logits.detach().amax(dim=1, keepdim=True).clamp(min=0.0)
    weights = torch.exp(logits - shift) * envelope.unsqueeze(-1)
    return weights / (torch.exp(-shift) + weights.sum(dim=1, keepdim=True))


def pair_displacements(batch: Batch, *, padding: float) -> Tensor:
    """Position of the neighbour minus position of the atom, [A, K, 3], Angstrom, float64.

    Args:
        batch: systems; positions in float64, so that a molecule far from the origin loses nothing.
        padding: distance at which padded slots are put (along x), Angstrom: the cutoff, where envelopes vanish.
    """
    n_rows, n_slots = batch.neighbor_index.shape
    neighbors = batch.positions.index_select(0, batch.neighbor_index.flatten()).view(n_rows, n_slots, 3)
    displacements = neighbors - batch.positions.unsqueeze(1)
    if batch.neighbor_shift is not None and batch.cell is not None:
        cell = batch.cell.index_select(0, batch.system_index)
        displacements = displacements + torch.einsum("aks,asc->akc", batch.neighbor_shift.to(cell.dtype), cell)
    place = displacements.new_tensor([padding, 0.0, 0.0])
    return torch.where(batch.neighbor_mask.unsqueeze(-1), displacements, place)


class Pairs(NamedTuple):
    """The geometry of all pairs, formed once a call; lengths in Angstrom.

    Args:
        displacements: [A, K, 3].
        distances: [A, K].
        directions: [A, K, 3].
        radial: radial functions, [A, K, R].
        envelope: 0 at the cutoff and for padding, [A, K].
    """

    displacements: Tensor
    distances: Tensor
    directions: Tensor
    radial: Tensor
    envelope: Tensor


class PairModel(nn.Module):
    """What models of atoms and their pairs have in common; a model adds its blocks and `network`.

    Args:
        config: with `species`, `cutoff`, `width` and `n_radial`.

    Buffers that the training data set (`set_short_range`): `binding` [S], eV, the share of each element in the energy
    that holds molecules together, which is part of the reference energies; `reach` [S, S], Angstrom, see
    `screened_repulsion`. Until then both are 0, and there is neither a binding energy to take off nor a repulsion.
    """

    centers: Tensor
    species_index: Tensor
    binding: Tensor
    reach: Tensor
    strength: Tensor
    inverse_length: Tensor

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        centers, self.inverse_width = radial_centers(config.n_radial, cutoff=config.cutoff)
        self.register_buffer("centers", centers)
        self.register_buffer("species_index", species_table(config.species), persistent=False)
        self.species = nn.Embedding(len(config.species), config.width)
        n_species = len(config.species)
        self.register_buffer("binding", torch.zeros(n_species))
        self.register_buffer("reach", torch.zeros(n_species, n_species))
        strength, inverse_length = nuclear_tables(config.species)
        self.register_buffer("strength", strength.float(), persistent=False)
        self.register_buffer("inverse_length", inverse_length.float(), persistent=False)

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

    def outputs(self, displacements: Tensor, batch: Batch, /, *, direct: bool) -> tuple[Tensor, Tensor | None]:
        """As `Outputs`: what the network says, with what holds under it; see `with_short_range`."""
        pairs = self.pairs(displacements, batch)
        return self.with_short_range(*self.network(pairs, batch, direct=direct), pairs, batch)

    def with_short_range(
        self, atomic_energies: Tensor, direct_forces: Tensor | None, pairs: Pairs, batch: Batch
    ) -> tuple[Tensor, Tensor | None]:
        """Outputs of the network, faded out for atoms that are alone, and the repulsion of atoms pressed together.

        An atom without neighbours has minus its `binding`, so that with its reference energy it has the energy of the
        isolated atom, exactly.

        Args:
            atomic_energies: [A], eV.
            direct_forces: [A, 3], eV/Angstrom, or None.
            pairs: of the systems.
            batch: the systems.
        """
        distances = pairs.distances
        of_atom = self.species_index[batch.atomic_numbers]
        of_neighbor = of_atom.index_select(0, batch.neighbor_index.flatten()).view_as(batch.neighbor_index)
        kinds = (of_atom.unsqueeze(1) * len(self.config.species) + of_neighbor).flatten()
        # A reach of 0 is none: far inside the first slot of any distance, where nothing comes.
        tables = torch.stack([self.strength, self.inverse_length, self.reach.clamp(min=1e-3)])
        of_pairs = tables.flatten(1).index_select(1, kinds).view(3, *distances.shape).unbind()
        repulsion = screened_repulsion(distances, *of_pairs)
        alone = smooth_envelope(pairs.envelope.sum(1), SURROUNDED)
        binding = self.binding.index_select(0, of_atom)
        atomic_energies = (1.0 - alone) * atomic_energies - alone * binding + 0.5 * repulsion.sum(1)
        if direct_forces is not None:
            along = repulsion_slope(distances, *of_pairs) / distances
            direct_forces = direct_forces + (along.unsqueeze(-1) * pairs.displacements).sum(1)
        return atomic_energies, direct_forces

    def set_short_range(self, *, binding: Tensor, reach: Tensor) -> None:
        """What the training data say of lone atoms and of short distances, [S] eV and [S, S] Angstrom."""
        self.binding.copy_(binding)
        self.reach.copy_(reach)

    @abstractmethod
    def network(self, pairs: Pairs, batch: Batch, /, *, direct: bool) -> tuple[Tensor, Tensor | None]:
        """Atomic energies [A], eV, and direct forces [A, 3], eV/Angstrom, if asked for, of the network alone."""

    def pairs(self, displacements: Tensor, batch: Batch) -> Pairs:
        """The geometry of all pairs from their displacements, [A, K, 3], Angstrom."""
        distances = displacements.square().sum(-1).sqrt()
        directions = displacements / distances.unsqueeze(-1)
        envelope = smooth_envelope(distances, self.config.cutoff) * batch.neighbor_mask
        radial = radial_functions(distances, self.centers, self.inverse_width)
        return Pairs(displacements, distances, directions, radial, envelope)


class MappedBatch(Batch):
    """A batch that a model reads inside `torch.func.vmap`, which maps over weights, never over the batch.

    Gathers need a rule of their own there. That form binds its arguments anew at each call, 18 us, 9 % of a call for
    ethanol: so it is used where it is needed only.
    """


def gather_neighbors(values: Tensor, batch: Batch) -> Tensor:
    """Values of the neighbours, [A, ...] -> [A, K, ...]."""
    gather = _MappedGather if isinstance(batch, MappedBatch) else _Gather
    return gather.apply(values, batch.neighbor_index, batch.reverse_index)


def reverse_pairs(values: Tensor, batch: Batch) -> Tensor:
    """Of each pair i, j the value of the pair j, i: [A, K, F] -> [A, K, F]."""
    return (_MappedReverse if isinstance(batch, MappedBatch) else _Reverse).apply(values, batch.reverse_index)


def sum_over_pairs(values: Tensor, batch: Batch) -> Tensor:
    """Sum over the neighbours of value(i, j) minus value(j, i), [A, K, F] -> [A, F].

    With the energy gradient by the displacements as value this is the force; with a pair force, Newton's third law.
    """
    collect = _MappedCollect if isinstance(batch, MappedBatch) else _Collect
    return values.sum(1) - collect.apply(values, batch.neighbor_index, batch.reverse_index)


def sum_over_systems(values: Tensor, batch: Batch) -> Tensor:
    """Sum of atomic values of each system, [A, ...] -> [B, ...]."""
    return sums_of_systems(values, batch.system_index, n_systems=batch.n_systems)


class _Gather(torch.autograd.Function):
    """y[i, k] = x[neighbor_index[i, k]]; its adjoint is `_Collect`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, neighbor_index: Tensor, reverse_index: Tensor) -> Tensor:
        ctx.save_for_backward(neighbor_index, reverse_index)
        return x.index_select(0, neighbor_index.flatten()).view(*neighbor_index.shape, *x.shape[1:])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None, None]:
        return _Collect.apply(grad_outputs[0], *ctx.saved_tensors), None, None


class _Collect(torch.autograd.Function):
    """y[j] = sum over pairs i->j of x[i, k], read through the reverse pairs; its adjoint is `_Gather`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, neighbor_index: Tensor, reverse_index: Tensor) -> Tensor:
        ctx.save_for_backward(neighbor_index, reverse_index)
        reversed_pairs = x.flatten(0, 1).index_select(0, reverse_index.flatten())
        return reversed_pairs.view(*neighbor_index.shape, *x.shape[2:]).sum(1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None, None]:
        return _Gather.apply(grad_outputs[0], *ctx.saved_tensors), None, None


class _Reverse(torch.autograd.Function):
    """y[i, k] = x[reverse pair of i, k]; its own adjoint."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, reverse_index: Tensor) -> Tensor:
        ctx.save_for_backward(reverse_index)
        return x.flatten(0, 1).index_select(0, reverse_index.flatten()).view(x.shape)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None]:
        return _Reverse.apply(grad_outputs[0], *ctx.saved_tensors), None


class _MappedGather(torch.autograd.Function):
    """`_Gather` of the values of M members, whose rows become the rows of M copies of the systems."""

    @staticmethod
    def forward(x: Tensor, neighbor_index: Tensor, reverse_index: Tensor) -> Tensor:
        return _Gather.apply(x, neighbor_index, reverse_index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Nothing to keep: `vmap` takes the place of forward and backward."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None, None], x: Tensor, *index: Tensor) -> tuple[Tensor, int]:
        return _over_copies(_Gather, x.movedim(in_dims[0], 0), *index), 0


class _MappedCollect(torch.autograd.Function):
    """`_Collect`, likewise."""

    @staticmethod
    def forward(x: Tensor, neighbor_index: Tensor, reverse_index: Tensor) -> Tensor:
        return _Collect.apply(x, neighbor_index, reverse_index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Nothing to keep: `vmap` takes the place of forward and backward."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None, None], x: Tensor, *index: Tensor) -> tuple[Tensor, int]:
        return _over_copies(_Collect, x.movedim(in_dims[0], 0), *index), 0


class _MappedReverse(torch.autograd.Function):
    """`_Reverse`, likewise."""

    @staticmethod
    def forward(x: Tensor, reverse_index: Tensor) -> Tensor:
        return _Reverse.apply(x, reverse_index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Nothing to keep: `vmap` takes the place of forward and backward."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None], x: Tensor, reverse_index: Tensor) -> tuple[Tensor, int]:
        x = x.movedim(in_dims[0], 0)
        copy = torch.arange(len(x), device=x.device).view(-1, 1, 1)
        slots = (reverse_index + copy * reverse_index.numel()).flatten(0, 1)
        return _Reverse.apply(x.flatten(0, 1), slots).unflatten(0, (len(x), x.shape[1])), 0


def _over_copies(function: Any, x: Tensor, neighbor_index: Tensor, reverse_index: Tensor) -> Tensor:
    """`function` on [M, A, ...] as on M copies of the batch; derivatives of any order stay those of `function`."""
    n_rows, n_slots = neighbor_index.shape
    copy = torch.arange(len(x), device=x.device).view(-1, 1, 1)
    rows, slots = neighbor_index + copy * n_rows, reverse_index + copy * (n_rows * n_slots)
    return function.apply(x.flatten(0, 1), rows.flatten(0, 1), slots.flatten(0, 1)).unflatten(0, (len(x), n_rows))
