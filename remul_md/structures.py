"""What flows through the package: labelled geometries (`Frames`), model input (`Batch`), model output (`Prediction`).

Everything is flat: the atoms of all systems stand one after another, so one molecule, molecules of different
sizes, replicas and periodic systems share one code path. Letters: A atoms of all systems, B systems,
K neighbours of an atom (padded). Units: eV, Angstrom.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remul_md.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """Geometries with their labels as the readers give them: numpy, float64, eV and Angstrom.

    Args:
        positions: Cartesian coordinates of the atoms of all frames, [A, 3], Angstrom.
        atomic_numbers: nuclear charges, [A].
        n_atoms: atoms of each frame, [B].
        cell: lattice vectors as rows, [B, 3, 3], Angstrom, or None if no frame has a cell.
        pbc: periodic flags, [B, 3].
        energy: potential energies, [B], eV, or None.
        forces: forces, [A, 3], eV/Angstrom, or None.
        name: where the frames come from, such as `rmd17/ethanol/train-01` or a file name.
        trajectory_step: where in a trajectory each frame was taken from, in its steps, [B], or None if that is not
            known; no part of the content.
    Raises:
        InputError: shapes that do not fit together, no frame, a frame without atoms, numbers that are not finite.
    """

    positions: NDArray[np.float64]
    atomic_numbers: NDArray[np.int64]
    n_atoms: NDArray[np.int64]
    pbc: NDArray[np.bool_]
    cell: NDArray[np.float64] | None = None
    energy: NDArray[np.float64] | None = None
    forces: NDArray[np.float64] | None = None
    name: str = "frames"
    trajectory_step: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n_total, n_frames = len(self.positions), len(self.n_atoms)
        if n_frames == 0:
            raise InputError(f"{self.name}: holds no frame; give a file with at least one structure")
        if (self.n_atoms < 1).any():
            raise InputError(f"{self.name}: frame {int(np.argmin(self.n_atoms))} has no atoms; remove empty frames")
        shapes = {
            "positions": (self.positions, (n_total, 3)),
            "atomic_numbers": (self.atomic_numbers, (n_total,)),
            "pbc": (self.pbc, (n_frames, 3)),
            "cell": (self.cell, (n_frames, 3, 3)),
            "energy": (self.energy, (n_frames,)),
            "forces": (self.forces, (n_total, 3)),
            "trajectory_step": (self.trajectory_step, (n_frames,)),
        }
        if int(self.n_atoms.sum()) != n_total:
            raise InputError(
                f"{self.name}: n_atoms sums to {int(self.n_atoms.sum())}, but there are {n_total} positions"
            )
        for key, (array, shape) in shapes.items():
            if array is None:
                continue
            if array.shape != shape:
                raise InputError(f"{self.name}: {key} has shape {array.shape}, expected {shape}")
            if key not in ("atomic_numbers", "pbc") and not np.isfinite(array).all():
                row = int(np.argwhere(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0, 0])
                what = "frame" if len(array) == n_frames and key in ("cell", "energy") else "atom row"
                raise InputError(
                    f"{self.name}: {key} holds a value that is not finite (first at {what} {row}); "
                    "remove or recompute that frame"
                )
        if (self.atomic_numbers < 1).any() or (self.atomic_numbers > 118).any():
            bad = self.atomic_numbers[(self.atomic_numbers < 1) | (self.atomic_numbers > 118)][0]
            raise InputError(f"{self.name}: atomic number {int(bad)} is no element; numbers run from 1 to 118")

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def first_atom(self) -> NDArray[np.int64]:
        """Row of the first atom of each frame, [B]."""
        return np.concatenate([[0], np.cumsum(self.n_atoms)[:-1]]).astype(np.int64)

    def select(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> Frames:
        """The frames with these indices, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        rows = concatenated_ranges(self.first_atom[chosen], self.n_atoms[chosen])
        return replace(
            self,
            positions=self.positions[rows],
            atomic_numbers=self.atomic_numbers[rows],
            n_atoms=self.n_atoms[chosen],
            pbc=self.pbc[chosen],
            cell=None if self.cell is None else self.cell[chosen],
            energy=None if self.energy is None else self.energy[chosen],
            forces=None if self.forces is None else self.forces[rows],
            trajectory_step=None if self.trajectory_step is None else self.trajectory_step[chosen],
        )

    def atoms(self, index: int) -> Atoms:
        """Frame `index` as `ase.Atoms`, without a calculator."""
        from ase import Atoms

        start, stop = self.first_atom[index], self.first_atom[index] + self.n_atoms[index]
        return Atoms(
            numbers=self.atomic_numbers[start:stop],
            positions=self.positions[start:stop],
            cell=None if self.cell is None else self.cell[index],
            pbc=self.pbc[index],
        )

    def frame_positions(self, index: int) -> NDArray[np.float64]:
        """Positions of frame `index`, [n_atoms, 3], Angstrom."""
        start = self.first_atom[index]
        return self.positions[start : start + self.n_atoms[index]]

    def frame_numbers(self, index: int) -> NDArray[np.int64]:
        """Atomic numbers of frame `index`, [n_atoms]."""
        start = self.first_atom[index]
        return self.atomic_numbers[start : start + self.n_atoms[index]]

    def without_labels(self) -> Frames:
        """The geometries alone, as for hashes that labels must not change."""
        return replace(self, energy=None, forces=None)

    def content_hash(self) -> str:
        """sha256 over the arrays: the same geometries and labels give the same hash, whatever file held them."""
        digest = hashlib.sha256()
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray) and field.name != "trajectory_step":
                digest.update(field.name.encode() + str(value.shape).encode() + np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()


def frames_from_atoms(structures: Sequence[Atoms], *, name: str = "atoms") -> Frames:
    """Unlabelled frames from ASE structures (labels are read by `remul_md.datasets`, which knows their units)."""
    if len(structures) == 0:
        raise InputError(f"{name}: holds no frame; give at least one structure")
    has_cell = any(atoms.cell.rank > 0 for atoms in structures)
    return Frames(
        positions=np.concatenate([atoms.get_positions() for atoms in structures]).reshape(-1, 3),
        atomic_numbers=np.concatenate([atoms.numbers for atoms in structures]).astype(np.int64),
        n_atoms=np.array([len(atoms) for atoms in structures], dtype=np.int64),
        pbc=np.array([atoms.pbc for atoms in structures], dtype=bool),
        cell=np.array([atoms.cell.array for atoms in structures], dtype=np.float64) if has_cell else None,
        name=name,
    )


def joined_geometries(parts: Sequence[Frames], *, name: str) -> Frames:
    """The frames of all parts, one after another, without labels."""
    has_cell = any(part.cell is not None for part in parts)
    cells = [np.zeros((len(part), 3, 3)) if part.cell is None else part.cell for part in parts]
    return Frames(
        positions=np.concatenate([part.positions for part in parts]),
        atomic_numbers=np.concatenate([part.atomic_numbers for part in parts]),
        n_atoms=np.concatenate([part.n_atoms for part in parts]),
        pbc=np.concatenate([part.pbc for part in parts]),
        cell=np.concatenate(cells) if has_cell else None,
        name=name,
    )


def concatenated_ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """[start_0, start_0 + 1, ..., start_1, ...]: the rows of the chosen systems in a flat array."""
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)


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
