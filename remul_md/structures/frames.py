"""Labelled geometries as readers give them: numpy, float64, eV and Angstrom, flat.

The atoms of all frames stand one after another, so one molecule, molecules of different sizes, replicas and periodic
systems share one code path. Letters: A atoms of all frames, B frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.structures.rows import Rows, no_labels, row_fields

if TYPE_CHECKING:
    from ase import Atoms


CHARGE_KEYS = ("charge", "total_charge")  # entries of `Atoms.info`
# Entries of `Atoms.info` by which programs state a spin, and their values for closed shells; some count unpaired
# electrons under "spin", some the multiplicity.
CLOSED_SHELL: dict[str, tuple[int, ...]] = {
    "spin": (0, 1),
    "multiplicity": (1,),
    "spin_multiplicity": (1,),
    "uhf": (0,),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """Geometries with their labels as the readers give them: numpy, float64, eV and Angstrom.

    Args:
        positions: Cartesian coordinates of the atoms of all frames, [A, 3], Angstrom.
        atomic_numbers: nuclear charges, [A].
        n_atoms: atoms of each frame, [B].
        cell: lattice vectors as rows, [B, 3, 3], Angstrom, or None if no frame has a cell.
        pbc: periodic flags, [B, 3].
        charge: total charges, [B], elementary charges, or None if all are neutral.
        energy: potential energies, [B], eV, or None.
        forces: forces, [A, 3], eV/Angstrom, or None.
        field_V_per_A: the uniform electric field in which the labels were computed, [B, 3], V/Angstrom, or None.
        name: where the frames come from, such as `rmd17/ethanol/train-01` or a file name.
        trajectory_step: where in a trajectory each frame was taken from, in its steps, [B], or None if that is not
            known; no part of the content.
    Raises:
        InputError: shapes that do not fit together, no frame, a frame without atoms, numbers that are not finite.
    """

    positions: NDArray[np.float64] = field(metadata={"rows": Rows(per="atom", shape=(3,))})
    atomic_numbers: NDArray[np.int64] = field(metadata={"rows": Rows(per="atom")})
    n_atoms: NDArray[np.int64] = field(metadata={"rows": Rows(per="system")})
    pbc: NDArray[np.bool_] = field(metadata={"rows": Rows(per="system", shape=(3,))})
    cell: NDArray[np.float64] | None = field(
        default=None, metadata={"rows": Rows(per="system", shape=(3, 3), zero_if_absent=True)}
    )
    charge: NDArray[np.int64] | None = field(default=None, metadata={"rows": Rows(per="system", zero_if_absent=True)})
    energy: NDArray[np.float64] | None = field(default=None, metadata={"rows": Rows(per="system", label=True)})
    forces: NDArray[np.float64] | None = field(
        default=None, metadata={"rows": Rows(per="atom", shape=(3,), label=True)}
    )
    field_V_per_A: NDArray[np.float64] | None = field(
        default=None, metadata={"rows": Rows(per="system", shape=(3,), label=True)}
    )
    name: str = "frames"
    trajectory_step: NDArray[np.int64] | None = field(default=None, metadata={"rows": Rows(per="system")})

    def __post_init__(self) -> None:
        n_total, n_frames = len(self.positions), len(self.n_atoms)
        if n_frames == 0:
            raise InputError(f"{self.name}: holds no frame; give a file with at least one structure")
        if (self.n_atoms < 1).any():
            raise InputError(f"{self.name}: frame {int(np.argmin(self.n_atoms))} has no atoms; remove empty frames")
        if int(self.n_atoms.sum()) != n_total:
            raise InputError(
                f"{self.name}: n_atoms sums to {int(self.n_atoms.sum())}, but there are {n_total} positions"
            )
        for key, rows, array in self._arrays():
            shape = (n_frames if rows.per == "system" else n_total, *rows.shape)
            if array.shape != shape:
                raise InputError(f"{self.name}: {key} has shape {array.shape}, expected {shape}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                row = int(np.argwhere(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0, 0])
                what = "frame" if rows.per == "system" else "atom row"
                raise InputError(
                    f"{self.name}: {key} holds a value that is not finite (first at {what} {row}); "
                    "remove or recompute that frame"
                )
        if (self.atomic_numbers < 1).any() or (self.atomic_numbers > 118).any():
            bad = self.atomic_numbers[(self.atomic_numbers < 1) | (self.atomic_numbers > 118)][0]
            raise InputError(f"{self.name}: atomic number {int(bad)} is no element; numbers run from 1 to 118")

    def __len__(self) -> int:
        return len(self.n_atoms)

    def _arrays(self) -> list[tuple[str, Rows, NDArray[Any]]]:
        """The arrays that are there: name, what their rows are, values."""
        found = [(key, rows, getattr(self, key)) for key, rows in row_fields(type(self)).items()]
        return [entry for entry in found if entry[2] is not None]

    @property
    def first_atom(self) -> NDArray[np.int64]:
        """Row of the first atom of each frame, [B]."""
        return np.concatenate([[0], np.cumsum(self.n_atoms)[:-1]]).astype(np.int64)

    def select(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> Frames:
        """The frames with these indices, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        places = {"atom": concatenated_ranges(self.first_atom[chosen], self.n_atoms[chosen]), "system": chosen}
        arrays: dict[str, Any] = {key: array[places[rows.per]] for key, rows, array in self._arrays()}
        return replace(self, **arrays)

    def atoms(self, index: int) -> Atoms:
        """Frame `index` as `ase.Atoms`, without a calculator."""
        from ase import Atoms

        start, stop = self.first_atom[index], self.first_atom[index] + self.n_atoms[index]
        return Atoms(
            numbers=self.atomic_numbers[start:stop],
            positions=self.positions[start:stop],
            cell=None if self.cell is None else self.cell[index],
            pbc=self.pbc[index],
            info={} if self.charge is None else {"charge": int(self.charge[index])},
        )

    def frame_positions(self, index: int) -> NDArray[np.float64]:
        """Positions of frame `index`, [n_atoms, 3], Angstrom."""
        start = self.first_atom[index]
        return self.positions[start : start + self.n_atoms[index]]

    def frame_numbers(self, index: int) -> NDArray[np.int64]:
        """Atomic numbers of frame `index`, [n_atoms]."""
        start = self.first_atom[index]
        return self.atomic_numbers[start : start + self.n_atoms[index]]

    @property
    def distinct_fields(self) -> list[list[float]]:
        """The electric fields in which the frames were labelled, V/Angstrom, each once; empty if that is not known."""
        if self.field_V_per_A is None:
            return []
        found: list[list[float]] = np.unique(self.field_V_per_A, axis=0).tolist()
        return found

    def without_labels(self) -> Frames:
        """The geometries alone, as for hashes that labels must not change."""
        return replace(self, **no_labels(type(self)))

    def isolated(self) -> Frames:
        """The same molecules without the boxes that they stand in."""
        return replace(self, cell=None, pbc=np.zeros_like(self.pbc))

    def content_hash(self) -> str:
        """sha256 over the arrays: the same geometries and labels give the same hash, whatever file held them."""
        digest = hashlib.sha256()
        for key, _, array in self._arrays():
            if key != "trajectory_step":
                digest.update(key.encode() + str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def frames_from_atoms(structures: Sequence[Atoms], *, name: str = "atoms") -> Frames:
    """Unlabelled frames from ASE structures (labels are read by `remul_md.datasets`, which knows their units)."""
    if len(structures) == 0:
        raise InputError(f"{name}: holds no frame; give at least one structure")
    has_cell = any(atoms.cell.rank > 0 for atoms in structures)
    charges = [total_charge(atoms) for atoms in structures]
    return Frames(
        positions=np.concatenate([atoms.get_positions() for atoms in structures]).reshape(-1, 3),
        atomic_numbers=np.concatenate([atoms.numbers for atoms in structures]).astype(np.int64),
        n_atoms=np.array([len(atoms) for atoms in structures], dtype=np.int64),
        pbc=np.array([atoms.pbc for atoms in structures], dtype=bool),
        cell=np.array([atoms.cell.array for atoms in structures], dtype=np.float64) if has_cell else None,
        charge=np.array(charges, dtype=np.int64) if any(charges) else None,
        name=name,
    )


def total_charge(atoms: Atoms) -> int:
    """Total charge that a structure states: `info["charge"]`, else the sum of its initial charges, rounded; else 0.

    Raises:
        InputError: a charge that is no whole number.
    """
    stated = next((atoms.info[key] for key in CHARGE_KEYS if atoms.info.get(key) is not None), None)
    if stated is None:
        charges = atoms.arrays.get("initial_charges")
        if charges is None or charges.ndim != 1 or not np.issubdtype(charges.dtype, np.floating):
            return 0  # a column of that name which is none of ASE's
        stated = float(charges.sum())
        stated = round(stated) if np.isfinite(stated) else stated
    try:
        value = float(stated)
    except (TypeError, ValueError):
        value = np.nan
    if not (np.isfinite(value) and abs(value - round(value)) < 1e-3):
        raise InputError(f"the structure states the total charge {stated!s}; give a whole number")
    return round(value)


def field_axis(fields_V_per_A: Sequence[Sequence[float]]) -> tuple[float, float, float] | None:
    """The direction, of length 1, of the one electric field of some labels; None without a field.

    Args:
        fields_V_per_A: as `Frames.distinct_fields`.
    Raises:
        InputError: fields that differ, of which a potential, that reads none, could learn only a mean.
    """
    if len(fields_V_per_A) > 1:
        told = ", ".join(str(list(field)) for field in fields_V_per_A[:3])
        raise InputError(
            f"the labels are those of {len(fields_V_per_A)} electric fields ({told}; V/Angstrom), a potential reads "
            "none; train one for each field"
        )
    size = float(np.linalg.norm(fields_V_per_A[0])) if len(fields_V_per_A) else 0.0
    if size == 0.0:
        return None
    x, y, z = (float(component) / size for component in fields_V_per_A[0])
    return x, y, z


def states_spin(atoms: Atoms) -> bool:
    """Whether a structure states magnetic moments, or a spin other than that of closed shells."""
    moments = atoms.arrays.get("initial_magmoms")
    if moments is not None and np.any(moments):
        return True
    return any(key in atoms.info and not np.isin(atoms.info[key], closed).all() for key, closed in CLOSED_SHELL.items())


def joined(parts: Sequence[Frames], *, name: str) -> Frames:
    """The frames of all parts, one after another; where they stood in their trajectories is left out.

    Raises:
        InputError: a label that only some of the parts have.
    """
    found: dict[str, Any] = {}
    for key, rows in row_fields(Frames).items():
        arrays = [getattr(part, key) for part in parts]
        lacking = [part for part, array in zip(parts, arrays, strict=True) if array is None]
        if key == "trajectory_step" or len(lacking) == len(parts):
            continue
        if lacking and not rows.zero_if_absent:
            raise InputError(f"{lacking[0].name}: has no {key}, others to be joined have; give it to all or to none")
        sizes = [len(part) if rows.per == "system" else len(part.positions) for part in parts]
        kind = next(array.dtype for array in arrays if array is not None)
        full = [np.zeros((n, *rows.shape), kind) if a is None else a for n, a in zip(sizes, arrays, strict=True)]
        found[key] = np.concatenate(full)
    return Frames(**found, name=name)


def concatenated_ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """[start_0, start_0 + 1, ..., start_1, ...]: the rows of the chosen systems in a flat array."""
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)


def real_numbers(value: Any) -> NDArray[np.float64]:
    """What stands in a file as float64, of any shape.

    Raises:
        ValueError: no numbers, or truth values or complex ones, which numpy would take for 1.0 or cut.
    """
    array = np.asarray(value)
    if array.dtype.kind in "bc":
        raise ValueError(f"type {array.dtype}")
    try:
        return array.astype(np.float64)
    except TypeError as error:
        raise ValueError(str(error)) from error
