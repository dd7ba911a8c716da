"""What a model reads (`Batch`) and gives (`Prediction`): torch, flat, eV and Angstrom.

Letters: A atoms of all systems, B systems, K neighbours of an atom (padded).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remul_md.errors import InputError
from remul_md.structures.frames import concatenated_ranges
from remul_md.structures.rows import IndexOf, Rows, no_labels, row_fields

Head = Literal["conservative", "direct"]
Flat = TypeVar("Flat", "Batch", "Prediction")


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
        field_V_per_A: uniform electric field, [B, 3], V/Angstrom, float64, or None; it turns with its system.
        energy: labels, [B], eV, float64, or None.
        forces: labels, [A, 3], eV/Angstrom, float64, or None.
    """

    positions: Tensor = field(metadata={"rows": Rows(per="atom", turns=True)})
    atomic_numbers: Tensor = field(metadata={"rows": Rows(per="atom")})
    system_index: Tensor = field(metadata={"rows": Rows(per="atom", index_of="system")})
    pbc: Tensor = field(metadata={"rows": Rows(per="system")})
    neighbor_index: Tensor = field(metadata={"rows": Rows(per="pair", index_of="atom")})
    neighbor_mask: Tensor = field(metadata={"rows": Rows(per="pair")})
    reverse_index: Tensor = field(metadata={"rows": Rows(per="pair", index_of="slot")})
    cell: Tensor | None = field(
        default=None, metadata={"rows": Rows(per="system", turns=True, zero_if_absent=True, shape=(3, 3))}
    )
    neighbor_shift: Tensor | None = field(
        default=None, metadata={"rows": Rows(per="pair", zero_if_absent=True, shape=(3,))}
    )
    field_V_per_A: Tensor | None = field(
        default=None, metadata={"rows": Rows(per="system", turns=True, zero_if_absent=True, shape=(3,))}
    )
    energy: Tensor | None = field(default=None, metadata={"rows": Rows(per="system", label=True)})
    forces: Tensor | None = field(default=None, metadata={"rows": Rows(per="atom", turns=True, label=True)})

    @property
    def n_systems(self) -> int:
        """Number of systems B, known without a device synchronisation."""
        return int(self.pbc.shape[0])

    @property
    def n_atoms(self) -> int:
        """Number of atoms A of all systems."""
        return int(self.positions.shape[0])

    @property
    def sizes(self) -> dict[IndexOf, int]:
        """How many atoms, slots and systems there are: by so much the indices of the next batch are shifted."""
        return {"atom": self.n_atoms, "slot": self.neighbor_index.numel(), "system": self.n_systems}

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return mapped(self, lambda tensor: tensor.to(device, non_blocking=True))

    def labels_as(self, dtype: torch.dtype) -> Batch:
        """The same batch with its labels in another precision; positions stay in float64."""
        return replace(self, **{name: value.to(dtype) for name, rows, value in _present(self) if rows.label})

    def without_labels(self) -> Batch:
        """The geometries alone."""
        return replace(self, **no_labels(type(self)))

    def repeated(self, n_copies: int) -> Batch:
        """`n_copies` copies of all systems in one batch (copy-major); every copy keeps its neighbour list."""
        return self if n_copies == 1 else repeat_rows(self, n_copies, sizes=self.sizes)

    def widened(self, n_slots: int) -> Batch:
        """The same batch with rows of `n_slots` neighbours, K or more: the new slots are padding.

        Raises:
            InputError: fewer slots than there are.
        """
        n_atoms, before = self.neighbor_index.shape
        if n_slots < before:
            raise InputError(f"a batch of {before} slots an atom cannot have {n_slots}; give at least as many")
        if n_slots == before:
            return self
        atoms = torch.arange(n_atoms, device=self.positions.device).unsqueeze(1)
        slots = atoms * n_slots + torch.arange(n_slots, device=self.positions.device)
        paddings = {"atom": atoms.expand(-1, n_slots), "slot": slots}
        wide: dict[str, Any] = {}
        for name, rows, value in _present(self):
            if rows.per != "pair":
                continue
            if rows.index_of is None:
                padding = value.new_zeros(n_atoms, n_slots, *value.shape[2:])
            else:
                padding = paddings[rows.index_of]
            old = value if rows.index_of != "slot" else value // before * n_slots + value % before
            wide[name] = torch.cat([old, padding[:, before:]], dim=1)
        return replace(self, **wide)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Output of every model, and the labels in the same form; what was not asked for is None.

    Args:
        system_index: system of each atom, [A]; turning a prediction needs it.
        energy: [B], eV.
        forces: -dE/dr, [A, 3], eV/Angstrom.
        direct_forces: forces of the direct head, [A, 3], eV/Angstrom.
        atomic_energies: [A], eV.
        members: of an ensemble, what each member predicts; the other fields are the means.
        std_scale: of an ensemble, by which its scatter is multiplied to be an error bar.
    """

    system_index: Tensor = field(metadata={"rows": Rows(per="atom", index_of="system")})
    energy: Tensor | None = field(default=None, metadata={"rows": Rows(per="system")})
    forces: Tensor | None = field(default=None, metadata={"rows": Rows(per="atom", turns=True)})
    direct_forces: Tensor | None = field(default=None, metadata={"rows": Rows(per="atom", turns=True)})
    atomic_energies: Tensor | None = field(default=None, metadata={"rows": Rows(per="atom")})
    members: tuple[Prediction, ...] | None = None
    std_scale: float = 1.0

    def of_head(self, head: Head) -> Tensor:
        """The forces of a head that was asked for, [A, 3], eV/Angstrom."""
        forces = self.forces if head == "conservative" else self.direct_forces
        assert forces is not None
        return forces

    def std(self, name: Literal["energy", "forces", "direct_forces"]) -> Tensor | None:
        """Standard deviation (M - 1) over the members of an ensemble, by component, times `std_scale`: [B] eV or [A, 3]
        eV/Angstrom.

        None for a single model, or where that output was not asked for.
        """
        if self.members is None or getattr(self, name) is None:
            return None
        return torch.stack([getattr(member, name) for member in self.members]).std(0) * self.std_scale


class BatchStore:
    """All frames of a data set on one device, from which batches are cut without a synchronisation.

    State lives here because the row ranges are kept on the CPU while the tensors lie on the device.

    Args:
        batch: all frames as one batch, neighbours included.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch, self._present = batch, _present(batch)
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
        moved_numpy = np.repeat(np.cumsum(lengths) - lengths - self._first_atom[chosen], lengths)
        numbers = np.repeat(np.arange(len(chosen)), lengths)
        atoms, systems, moved, system_index = (
            torch.from_numpy(array).to(device, non_blocking=True)
            for array in (rows_numpy, chosen, moved_numpy, numbers)
        )
        shifts = {"atom": moved, "slot": moved * source.neighbor_index.shape[1]}
        found: dict[str, Any] = {}
        for name, rows, value in self._present:
            if rows.index_of == "system":
                found[name] = system_index
                continue
            cut = value.index_select(0, systems if rows.per == "system" else atoms)
            if rows.index_of is not None:
                shift = shifts[rows.index_of]
                cut = cut + (shift.unsqueeze(1) if rows.per == "pair" else shift)
            found[name] = cut
        return type(source)(**found)


def sums_of_systems(values: Tensor, system_index: Tensor, *, n_systems: int) -> Tensor:
    """Sums [B, ...] of the values [A, ...] of the atoms of each system."""
    return values.new_zeros(n_systems, *values.shape[1:]).index_add(0, system_index, values)


def mapped(data: Flat, change: Callable[[Tensor], Tensor]) -> Flat:
    """The same with every tensor changed on its own; the members of an ensemble likewise."""
    found: dict[str, Any] = {}
    for entry in fields(data):
        value = getattr(data, entry.name)
        if isinstance(value, Tensor):
            found[entry.name] = change(value)
        elif isinstance(value, tuple):
            found[entry.name] = tuple(mapped(member, change) for member in value)
    return replace(data, **found)


def repeat_rows(data: Flat, n_copies: int, *, sizes: Mapping[IndexOf, int]) -> Flat:
    """`n_copies` copies of all rows, copy-major.

    Args:
        data: without members.
        n_copies: >= 1.
        sizes: of `data`: how far the indices of each copy are shifted.
    """
    copy = torch.arange(n_copies, device=data.system_index.device)
    found: dict[str, Any] = {}
    for name, rows, value in _present(data):
        ones = [1] * (value.ndim - 1)
        if rows.index_of is None:
            found[name] = value.repeat(n_copies, *ones)
        else:
            found[name] = (value.unsqueeze(0) + (copy * sizes[rows.index_of]).view(-1, 1, *ones)).flatten(0, 1)
    return type(data)(**found)


def concatenate(batches: Sequence[Batch]) -> Batch:
    """The systems of all batches, one after another, on the device of these; every system keeps its neighbour list.

    Raises:
        InputError: a label that only some of the batches have.
    """
    width = max(batch.neighbor_index.shape[1] for batch in batches)
    wide = [batch.widened(width) for batch in batches]
    found = {}
    for name, rows in row_fields(type(batches[0])).items():
        values = [getattr(batch, name) for batch in wide]
        there = [value for value in values if value is not None]
        if not there:
            continue
        if len(there) < len(values):
            if not rows.zero_if_absent:
                raise InputError(f"{len(there)} of {len(values)} batches have {name}; give it to all or to none")
            n_rows = [batch.n_systems if rows.per == "system" else batch.n_atoms for batch in wide]
            shape = there[0].shape[1:]
            values = [there[0].new_zeros(n, *shape) if v is None else v for n, v in zip(n_rows, values, strict=True)]
        if rows.index_of is not None:
            starts = accumulate((batch.sizes[rows.index_of] for batch in wide[:-1]), initial=0)
            values = [value + start for value, start in zip(values, starts, strict=True)]
        found[name] = torch.cat(values)
    return type(batches[0])(**found)


def _present(data: Batch | Prediction) -> list[tuple[str, Rows, Tensor]]:
    """The fields that hold rows and are there: name, what they are, tensor."""
    found = [(name, rows, getattr(data, name)) for name, rows in row_fields(type(data)).items()]
    return [entry for entry in found if entry[2] is not None]
