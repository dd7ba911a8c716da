"""A potential compiled ahead of time for some systems whose neighbours stay the same.

A small molecule is a few hundred small tensor operations, and most of a call is spent between them. Compiled into one
function (forward and force gradient together) they take a fraction of that time: `docs/speed.md`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

import remul_md.models
from remul_md._version import __version__
from remul_md.errors import InputError
from remul_md.models import model_config
from remul_md.potentials.baseline import with_references
from remul_md.potentials.compilation import compiled_file, compiled_function, digest_of_sources, digest_of_tensors
from remul_md.potentials.potential import Potential
from remul_md.structures.batch import Batch, Prediction

logger = logging.getLogger(__name__)

# Compiled and uncompiled forces may differ by this part of the largest force: rounding makes 1e-6 and 1e-14 of it.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}
FIXED = ("atomic_numbers", "system_index", "neighbor_index", "neighbor_mask", "reverse_index")


class CompiledPotential:
    """Energies and forces of the systems of a batch at new positions; compiled when it is made, then kept on disk.

    What comes out is compared with the uncompiled potential once, whether it was compiled now or long ago. `file` is
    where it is kept; it may be deleted.

    Args:
        potential: on its device, in its precision; no ensemble.
        batch: systems on that device; neighbours must hold for all positions to come, as all pairs of molecules do.
        forces: the head.
        say: told in a line when compilation starts and how long it took.
    Raises:
        InputError: an ensemble, a periodic batch, no compiler, no cache folder, or a result that is not the same.
    """

    def __init__(
        self,
        potential: Potential,
        batch: Batch,
        *,
        forces: Literal["conservative", "direct"],
        say: Callable[[str], None] = logger.info,
    ) -> None:
        if potential.n_members > 1:
            raise InputError(
                f"compile=True takes single potentials, this is an ensemble of {potential.n_members}; leave it off"
            )
        if batch.pbc.any():
            raise InputError("compile=True takes isolated molecules, whose neighbours never change; leave it off")
        self._potential, self._batch, self._forces = potential, batch, forces
        self._references = potential.atomic_references(batch)
        kind, options = model_config(potential.model)
        identity = {
            "package": __version__,
            "sources": digest_of_sources(remul_md.models),
            "model": {"kind": kind, "options": options},
            "weights": digest_of_tensors(potential.model.state_dict()),
            "systems": digest_of_tensors({name: getattr(batch, name) for name in FIXED}),
            "forces": forces,
        }
        with torch.no_grad():
            self.file = compiled_file(batch.positions, identity=identity)
            self._function = compiled_function(self._uncompiled, batch.positions, file=self.file, say=say)
        self._check()

    def serves(self, batch: Batch) -> bool:
        """Whether a batch holds these systems with these neighbours, at whatever positions."""
        return all(torch.equal(getattr(batch, name), getattr(self._batch, name)) for name in FIXED)

    def predict(self, positions: Tensor) -> Prediction:
        """As `Potential.predict` of the batch at `positions`, [A, 3], Angstrom, float64."""
        with torch.no_grad():
            energy, atomic_energies, forces = self._function(positions)
        conservative = self._forces == "conservative"
        out = Prediction(
            system_index=self._batch.system_index,
            energy=energy,
            atomic_energies=atomic_energies,
            forces=forces if conservative else None,
            direct_forces=None if conservative else forces,
        )
        return with_references(out, self._references)

    def _uncompiled(self, positions: Tensor) -> list[Tensor]:
        out = self._potential.model(replace(self._batch, positions=positions), forces=self._forces)
        return [out.energy, out.atomic_energies, out.forces if self._forces == "conservative" else out.direct_forces]

    def _check(self) -> None:
        with torch.no_grad():
            _, _, right = self._uncompiled(self._batch.positions)
            _, _, found = self._function(self._batch.positions)
        limit = TOLERANCE[right.dtype] * max(1.0, float(right.abs().max()))
        difference = float((found - right).abs().max())
        if not difference <= limit:
            raise InputError(
                f"compiled forces differ from uncompiled ones by {difference:.2g} eV/Angstrom (limit {limit:.2g}); "
                "leave compile off, and please report torch version and machine"
            )
