"""Labelled geometries as readers give them: numpy, float64, eV and Angstrom, flat.

The atoms of all frames stand one after another, so one molecule, molecules of different sizes, replicas and periodic
systems share one code path. Letters: A atoms of all frames, B frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
