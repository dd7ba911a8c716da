"""Many copies of one molecule in one call of the potential: what replicas of dynamics ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remul_md.potentials.structure_check import StructureCheck
from remul_md.structures.batch import Batch
from remul_md.structures.moving_systems import MovingSystems

Geometries = NDArray[np.float64]  # [R, N, 3]
Energies = NDArray[np.float64]  # [R]
# Energies [R], forces [R * N, 3] and, of an ensemble, the standard deviation of the forces over its members.
Evaluated = tuple[Tensor, Tensor, Tensor | None]


class Copies:
    """A function of positions [R, N, 3], Angstrom, of R copies of a molecule: energies [R], eV, and forces.

    Args:
        systems: the copies.
        atomic_numbers: of one copy, [N].
        evaluated: what the potential says of a batch.
        warn: what is told of all positions, or None where nothing is.
        check: with it `diagnostics` is kept: for each copy what `RemulCalculator.diagnostics` says of one structure,
            `in_domain` and `outside_training`, and of an ensemble `forces_std`, [N, 3], eV/Angstrom.
    """

    def __init__(
        self,
        systems: MovingSystems,
        *,
        atomic_numbers: NDArray[np.int64],
        evaluated: Callable[[Batch], Evaluated],
        warn: Callable[[NDArray[np.int64], Geometries], object] | None,
        check: StructureCheck | None,
    ) -> None:
        self._systems, self._numbers, self._evaluated = systems, atomic_numbers, evaluated
        self._warn, self._check = warn, check
        self.diagnostics: list[dict[str, Any]] | None = None

    def __call__(self, positions: Geometries) -> tuple[Energies, Geometries]:
        """Energies and forces of all copies."""
        if self._warn is not None:
            self._warn(self._numbers, positions)
        energies, forces, std = self._evaluated(self._systems.at(torch.from_numpy(positions).flatten(0, 1)))
        if self._check is not None:
            self.diagnostics = self._diagnosed(positions, std)
        return energies.cpu().numpy(), forces.double().cpu().numpy().reshape(positions.shape)

    def _diagnosed(self, positions: Geometries, std: Tensor | None) -> list[dict[str, Any]]:
        assert self._check is not None
        found: list[dict[str, Any]] = [{} for _ in positions]
        if self._warn is not None:  # no periodic copies, of which distances say nothing
            whole = not self._check.outside(self._numbers, positions)
            for copy, at in zip(found, positions, strict=True):
                outside = () if whole else self._check.outside(self._numbers, at)
                copy |= {"in_domain": not outside, "outside_training": outside}
        if std is not None:
            of_copies = std.double().cpu().numpy().reshape(positions.shape)
            for copy, of_copy in zip(found, of_copies, strict=True):
                copy["forces_std"] = of_copy
        return found
