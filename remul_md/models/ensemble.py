"""Several models of one architecture whose mean is the prediction and whose scatter is its error bar.

The weights of the M members are stacked, [M, ...], and all of them are evaluated in one call (`torch.func.vmap`):
where a small molecule leaves a device idle, M members cost little more than one. The mean of conservative forces is
minus the gradient of the mean energy, so an ensemble of conservative members is conservative.

Letters of the shape suffixes: M members, A atoms of all systems, K neighbours of an atom (padded), B systems, 3 space.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from remul_md.errors import InputError
from remul_md.models.operations import Forces, MappedBatch, pair_displacements, sum_over_pairs, sum_over_systems
from remul_md.structures.batch import Batch, Prediction
from remul_md.structures.rows import row_fields


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """What the members are.

    Args:
        member_kind: kind of every member, a key of `remul_md.models.MODELS`.
        member_options: options that all of them share: everything but the energy scale.
        energy_scales: energy scale of each member, [M], eV; it comes from the data that member was trained on.
        std_scale: by which the scatter of the members is multiplied to be an error bar; 1 until it is calibrated.
    Raises:
        InputError: fewer than two members, or a scale that is not a number above 0.
    """

    member_kind: str
    member_options: dict[str, Any]
    energy_scales: tuple[float, ...]
    std_scale: float = 1.0

    def __post_init__(self) -> None:
        if len(self.energy_scales) < 2:
            raise InputError(f"an ensemble needs at least 2 members, got {len(self.energy_scales)}; use one model")
        if not 0.0 < self.std_scale < float("inf"):
            raise InputError(f"the scale of the error bars must be a number above 0, got {self.std_scale}")

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers the members know."""
        return tuple(self.member_options["species"])

    @property
    def cutoff(self) -> float:
        """Pair distance limit of the members, Angstrom."""
        return float(self.member_options["cutoff"])


class MemberOutputs(nn.Module):
    """Outputs of a model as the forward that `functional_call` runs with other weights and another energy scale.

    Args:
        model: with an energy scale of 1; the state of this module is its state, with "model." before each name.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, scale: Tensor, displacements_AK3: Tensor, batch: Batch, *, direct: bool) -> tuple[Tensor, ...]:
        """Energies of the atoms, and direct forces if asked for; `scale` is the energy scale, eV."""
        model: Any = self.model
        pairs = model.pairs(displacements_AK3, batch)
        atomic_A, direct_A3 = model.network(pairs, batch, direct=direct)
        scaled = (atomic_A * scale, None if direct_A3 is None else direct_A3 * scale)
        atomic_A, direct_A3 = model.with_short_range(*scaled, pairs, batch)
        return (atomic_A, direct_A3) if direct else (atomic_A,)


class Ensemble(nn.Module):
    """Mean and members of M models; see the contract in `remul_md.models`.

    Args:
        config: what the members are.
        members: M models of that kind, with an energy scale of 1: each has its own here. The first one is kept as their
            common form, and takes the stacked weights of all.
    """

    def __init__(self, config: EnsembleConfig, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.member = MemberOutputs(members[0])
        for name, value in stacked_states(members).items():
            path, _, leaf = name.rpartition(".")
            owner = members[0].get_submodule(path)
            held = isinstance(getattr(owner, leaf), nn.Parameter)
            setattr(owner, leaf, nn.Parameter(value) if held else value)

    def forward(self, batch: Batch, *, forces: Forces = "none", create_graph: bool = False) -> Prediction:
        """Means over the members, and each of them in `members`; eV and eV/Angstrom, in the members' dtype.

        Args:
            batch: systems with neighbours within `config.cutoff`.
            forces: as `ForceModel`.
            create_graph: as `ForceModel`.
        Raises:
            InputError: unknown kind of forces.
        """
        if forces not in get_args(Forces):
            raise InputError(f"forces must be one of {', '.join(get_args(Forces))}, got {forces!r}")
        conservative, direct = forces in ("conservative", "both"), forces in ("direct", "both")
        state = self.member.state_dict(keep_vars=True)
        mapped = MappedBatch(**{field.name: getattr(batch, field.name) for field in fields(batch)})

        def outputs(state: dict[str, Tensor], scale: Tensor, displacements_AK3: Tensor) -> tuple[Tensor, ...]:
            return functional_call(self.member, state, (scale, displacements_AK3, mapped), {"direct": direct})

        dtype = next(self.parameters()).dtype
        displacements_AK3 = pair_displacements(batch, padding=self.config.cutoff).to(dtype)
        with torch.enable_grad() if conservative else torch.set_grad_enabled(torch.is_grad_enabled()):
            # A leaf for each member, so that one backward pass gives the gradient of each of them.
            displacements_MAK3 = displacements_AK3.expand(len(self.config.energy_scales), -1, -1, -1)
            if conservative:
                displacements_MAK3 = displacements_MAK3.requires_grad_()
            scale_M = displacements_AK3.new_tensor(self.config.energy_scales)
            atomic_MA, *direct_MA3 = vmap(outputs)(state, scale_M, displacements_MAK3)
            forces_AM3 = None
            if conservative:
                (gradient_MAK3,) = torch.autograd.grad(atomic_MA.sum(), displacements_MAK3, create_graph=create_graph)
                forces_AM3 = sum_over_pairs(gradient_MAK3.movedim(0, 2), batch)
        if not (create_graph or torch.is_grad_enabled()):
            atomic_MA = atomic_MA.detach()
        members = (
            Prediction(
                system_index=batch.system_index,
                energy=energy_B,
                forces=None if forces_AM3 is None else forces_AM3[:, m],
                direct_forces=direct_MA3[0][m] if direct else None,
                atomic_energies=atomic_MA[m],
            )
            for m, energy_B in enumerate(sum_over_systems(atomic_MA.mT, batch).unbind(1))
        )
        return mean_of_members(members, std_scale=self.config.std_scale)


def stacked_states(members: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Weights and buffers of models of one architecture, each [M, ...], without a graph."""
    states = [member.state_dict() for member in members]
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def mean_of_members(predictions: Iterable[Prediction], *, std_scale: float) -> Prediction:
    """The mean of predictions of one batch, with each of them in `members`."""
    members = tuple(predictions)
    values = {
        name: [getattr(member, name) for member in members]
        for name, rows in row_fields(Prediction).items()
        if rows.index_of is None and getattr(members[0], name) is not None
    }
    means: dict[str, Any] = {name: torch.stack(of_members).mean(0) for name, of_members in values.items()}
    return Prediction(system_index=members[0].system_index, members=members, std_scale=std_scale, **means)
