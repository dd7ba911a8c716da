"""A potential compiled ahead of time for some systems whose neighbours stay the same.

A small molecule is a few hundred small tensor operations, and most of a call is spent between them. Compiled into one
function (forward and force gradient together) they take a fraction of that time: `docs/speed.md`. Weights are arguments
of it, so what was compiled once serves all potentials of one architecture, and all members of an ensemble.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call

import remul_md.models
from remul_md._version import __version__
from remul_md.errors import InputError
from remul_md.models import build_model, model_config
from remul_md.models.ensemble import MemberOutputs, mean_of_members
from remul_md.models.operations import energies_and_forces
from remul_md.potentials.baseline import with_references
from remul_md.potentials.compilation import compiled_file, compiled_function, digest_of_sources, digest_of_tensors
from remul_md.potentials.ensemble import members_of
from remul_md.potentials.potential import Potential
from remul_md.structures.batch import Batch, Prediction

logger = logging.getLogger(__name__)

# Compiled and uncompiled forces may differ by this part of the largest force: rounding makes 1e-6 and 1e-14 of it.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}
# Of a batch, all but the positions.
FIXED = ("atomic_numbers", "system_index", "neighbor_index", "neighbor_mask", "reverse_index")


class CompiledPotential:
    """Energies and forces of the systems of a batch at new positions; compiled when it is made, then kept on disk.

    What comes out is compared with the uncompiled potential once, whether it was compiled now or long ago. `file` is
    where it is kept; it may be deleted.

    Args:
        potential: on its device, in its precision; of an ensemble the members are called one after another.
        batch: systems on that device; neighbours must hold for all positions to come, as all pairs of molecules do.
        forces: the head.
        say: told in a line when compilation starts and how long it took.
    Raises:
        InputError: a periodic batch, no compiler, no cache folder, or a result that is not the same.
    """

    def __init__(
        self,
        potential: Potential,
        batch: Batch,
        *,
        forces: Literal["conservative", "direct"],
        say: Callable[[str], None] = logger.info,
    ) -> None:
        if batch.pbc.any():
            raise InputError("compile=True takes isolated molecules, whose neighbours never change; leave it off")
        self._potential, self._batch, self._forces = potential, batch, forces
        self._references = potential.atomic_references(batch), potential.member_atomic_references(batch)
        members = members_of(potential)
        kind, options = model_config(members[0].model)
        form = {**options, "energy_scale": 1.0}
        with torch.random.fork_rng(devices=[]):  # weights are given with each call
            model = build_model(kind, form).to(device=potential.device, dtype=next(potential.model.parameters()).dtype)
        self._form = MemberOutputs(model.eval().requires_grad_(False))
        self._names = list(self._form.state_dict())
        # The arguments beside the positions: energy scale and weights of each member.
        self._arguments = [self._arguments_of(member) for member in members]
        fixed = {name: getattr(batch, name) for name in FIXED}
        field = potential.in_its_field(batch).field_V_per_A
        identity = {
            "package": __version__,
            "sources": digest_of_sources(remul_md.models),
            "model": {"kind": kind, "options": form},
            "systems": digest_of_tensors(fixed if field is None else {**fixed, "field": field}),
            "forces": forces,
        }
        example = (batch.positions, *self._arguments[0])
        with torch.no_grad():
            self.file = compiled_file(example, identity=identity)
            self._function = compiled_function(self._of_member, example, file=self.file, say=say)
        self._check()

    def serves(self, batch: Batch) -> bool:
        """Whether a batch holds these systems with these neighbours, at whatever positions."""
        return all(torch.equal(getattr(batch, name), getattr(self._batch, name)) for name in FIXED)

    def predict(self, positions: Tensor) -> Prediction:
        """As `Potential.predict` of the batch at `positions`, [A, 3], Angstrom, float64."""
        with torch.no_grad():
            members = [self._prediction(*self._function(positions, *arguments)) for arguments in self._arguments]
        out = members[0]
        if len(members) > 1:
            out = mean_of_members(members, std_scale=self._potential.config.std_scale)
        return with_references(out, *self._references)

    def _prediction(self, energy: Tensor, atomic_energies: Tensor, forces: Tensor) -> Prediction:
        conservative = self._forces == "conservative"
        return Prediction(
            system_index=self._batch.system_index,
            energy=energy,
            atomic_energies=atomic_energies,
            forces=forces if conservative else None,
            direct_forces=None if conservative else forces,
        )

    def _arguments_of(self, member: Potential) -> tuple[Tensor, ...]:
        model: Any = member.model
        weights = {f"model.{name}": value.detach() for name, value in model.state_dict().items()}
        scale = next(model.parameters()).new_tensor(float(model.config.energy_scale))
        return (scale, *(weights[name] for name in self._names))

    def _of_member(self, positions: Tensor, scale: Tensor, *weights: Tensor) -> list[Tensor]:
        """Energies, energies of the atoms and forces of one member, without reference energies."""
        state = dict(zip(self._names, weights, strict=True))

        def outputs(displacements: Tensor, batch: Batch, *, direct: bool) -> tuple[Tensor, Tensor | None]:
            found = functional_call(self._form, state, (scale, displacements, batch), {"direct": direct})
            return found if direct else (*found, None)

        out = energies_and_forces(
            outputs,
            self._potential.in_its_field(replace(self._batch, positions=positions)),
            cutoff=self._potential.cutoff,
            dtype=scale.dtype,
            forces=self._forces,
            create_graph=False,
        )
        forces = out.forces if self._forces == "conservative" else out.direct_forces
        assert out.energy is not None
        assert out.atomic_energies is not None
        assert forces is not None
        return [out.energy, out.atomic_energies, forces]

    def _check(self) -> None:
        right = self._potential.predict(self._batch, forces=self._forces)
        found = self.predict(self._batch.positions)
        for one, other in zip(right.members or (right,), found.members or (found,), strict=True):
            self._compare(
                *(part.forces if self._forces == "conservative" else part.direct_forces for part in (one, other))
            )

    @staticmethod
    def _compare(right: Tensor | None, found: Tensor | None) -> None:
        assert right is not None
        assert found is not None
        limit = TOLERANCE[right.dtype] * max(1.0, float(right.abs().max()))
        difference = float((found - right).abs().max())
        if not difference <= limit:
            raise InputError(
                f"compiled forces differ from uncompiled ones by {difference:.2g} eV/Angstrom (limit {limit:.2g}); "
                "leave compile off, and please report torch version and machine"
            )
