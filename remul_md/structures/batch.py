"""What a model reads (`Batch`) and gives (`Prediction`): torch, flat, eV and Angstrom.

Letters: A atoms of all systems, B systems, K neighbours of an atom (padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remul_md.structures.frames import concatenated_ranges


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Input of every model: any number of systems, flat, with padded neighbours.

    Args:
        positions: Cartesian coordinates, [A, 3], Angstrom, float64 (displacements are formed in float64, then cast).
        atomic_numbers: [A], int64.
        system_index: system of each atom, ascending, [A], int64.
        pbc: periodic flags, [B, 3], bool.
        cell: lattice vectors as rows, [B, 3, 3], Angstrom, or None.
        neighbor_index: neighbours of each atom, sorted by index, padded with the atom itself, [A, K], int64.
        neighbor_mask: True where `neighbor_index` is a real neighbour, [A, K].
        neighbor_shift: integer cell vectors to add to the neighbour, [A, K, 3], or None without a cell.
        reverse_index: flat slot (row * K + column) of the pair j->i for the pair i->j, [A, K]; a padded slot is
            its own reverse, so that summing over `reverse_index` is the exact adjoint of gathering neighbours.
        energy: labels, [B], eV, float64, or None.
        forces: labels, [A, 3], eV/Angstrom, float64, or None.
    """

    positions: Tensor
    atomic_numbers: Tensor
    system_index: Tensor
    pbc: Tensor
    neighbor_index: Tensor
    neighbor_mask: Tensor
    reverse_index: Tensor
    cell: Tensor | None = None
    neighbor_shift: Tensor | None = None
    energy: Tensor | None = None
    forces: Tensor | None = None

    @property
    def n_systems(self) -> int:
        """Number of systems B, known without a device synchronisation."""
        return int(self.pbc.shape[0])

    @property
    def n_atoms(self) -> int:
        """Number of atoms A of all systems."""
        return int(self.positions.shape[0])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(
            self,
            **{
                field.name: value.to(device, non_blocking=True)
                for field in fields(self)
                if (value := getattr(self, field.name)) is not None
            },
        )

    def repeated(self, n_copies: int) -> Batch:
        """`n_copies` copies of all systems in one batch (copy-major); every copy keeps its neighbour list."""
        if n_copies == 1:
            return self
        n_atoms, n_slots = self.n_atoms, self.neighbor_index.numel()
        copy = torch.arange(n_copies, device=self.positions.device)

        def shifted(index: Tensor, step: int) -> Tensor:
            offsets = (copy * step).view(-1, *[1] * index.ndim)
            return (index.unsqueeze(0) + offsets).flatten(0, 1)

        def tiled(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.repeat(n_copies, *[1] * (value.ndim - 1))

        return Batch(
            positions=self.positions.repeat(n_copies, 1),
            atomic_numbers=self.atomic_numbers.repeat(n_copies),
            system_index=shifted(self.system_index, self.n_systems),
            pbc=self.pbc.repeat(n_copies, 1),
            neighbor_index=shifted(self.neighbor_index, n_atoms),
            neighbor_mask=self.neighbor_mask.repeat(n_copies, 1),
            reverse_index=shifted(self.reverse_index, n_slots),
            cell=tiled(self.cell),
            neighbor_shift=tiled(self.neighbor_shift),
            energy=tiled(self.energy),
            forces=tiled(self.forces),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Output of every model, and the labels in the same form; what was not asked for is None.

    Args:
        system_index: system of each atom, [A]; turning a prediction needs it.
        energy: [B], eV.
        forces: -dE/dr, [A, 3], eV/Angstrom.
        direct_forces: forces of the direct head, [A, 3], eV/Angstrom.
        atomic_energies: [A], eV.
        members: of a committee, what each member predicts; the other fields are the means.
    """

    system_index: Tensor
    energy: Tensor | None = None
    forces: Tensor | None = None
    direct_forces: Tensor | None = None
    atomic_energies: Tensor | None = None
    members: tuple[Prediction, ...] | None = None

    def std(self, name: Literal["energy", "forces", "direct_forces"]) -> Tensor | None:
        """Standard deviation (M - 1) over the members of a committee, by component: [B] eV or [A, 3] eV/Angstrom.

        None for a single model, or where that output was not asked for.
        """
        if self.members is None or getattr(self, name) is None:
            return None
        return torch.stack([getattr(member, name) for member in self.members]).std(0)


class BatchStore:
    """All frames of a data set on one device, from which batches are cut without a synchronisation.

    State lives here because the row ranges are kept on the CPU while the tensors lie on the device.

    Args:
        batch: all frames as one batch, neighbours included.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        counts = torch.bincount(batch.system_index.cpu(), minlength=batch.n_systems).numpy()
        self._n_atoms = counts.astype(np.int64)
        self._first_atom = (np.cumsum(counts) - counts).astype(np.int64)

    def __len__(self) -> int:
        return self.batch.n_systems

    def select(self, indices: Sequence[int] | NDArray[np.integer[Any]] | Tensor) -> Batch:
        """The systems with these indices, in this order, as one batch."""
        chosen = np.asarray(indices, dtype=np.int64)
        source, device = self.batch, self.batch.positions.device
        lengths = self._n_atoms[chosen]
        rows_numpy = concatenated_ranges(self._first_atom[chosen], lengths)
        # a row moves by the same amount as the first atom of its system, and so do the indices it holds
        moved = torch.from_numpy(np.repeat(np.cumsum(lengths) - lengths - self._first_atom[chosen], lengths))
        system_index = torch.from_numpy(np.repeat(np.arange(len(chosen)), lengths)).to(device, non_blocking=True)
        rows = torch.from_numpy(rows_numpy).to(device, non_blocking=True)
        systems = torch.from_numpy(chosen).to(device, non_blocking=True)
        moved = moved.to(device, non_blocking=True).unsqueeze(1)
        n_slots = source.neighbor_index.shape[1]

        def of_atoms(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.index_select(0, rows)

        def of_systems(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.index_select(0, systems)

        return Batch(
            positions=source.positions.index_select(0, rows),
            atomic_numbers=source.atomic_numbers.index_select(0, rows),
            system_index=system_index,
            pbc=source.pbc.index_select(0, systems),
            neighbor_index=source.neighbor_index.index_select(0, rows) + moved,
            neighbor_mask=source.neighbor_mask.index_select(0, rows),
            reverse_index=source.reverse_index.index_select(0, rows) + moved * n_slots,
            cell=of_systems(source.cell),
            neighbor_shift=of_atoms(source.neighbor_shift),
            energy=of_systems(source.energy),
            forces=of_atoms(source.forces),
        )
