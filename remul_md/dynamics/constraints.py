"""What cannot move: fixed coordinates and bonds of fixed length, as ASE's constraints state them or a run shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from remul_md.dynamics.momenta import Array
from remul_md.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

# Angstrom: what SHAKE with its usual tolerance, or a file in single precision, leaves of a bond that is fixed. A free
# bond of a molecule at 10 K swings by ten times as much.
SAME_LENGTH = 5e-4


@dataclass(frozen=True, kw_only=True, eq=False)
class Constraints:
    """Coordinates and bonds that are held.

    Args:
        fixed: coordinates that do not move, [N, 3].
        bonds: pairs of atoms at a fixed distance, [M, 2], none of them fixed itself.
    """

    fixed: NDArray[np.bool_]
    bonds: NDArray[np.int64]

    @property
    def held(self) -> bool:
        """Whether something outside holds the molecule: then it keeps neither its momentum nor its angular momentum."""
        return bool(self.fixed.any())

    @property
    def n_removed(self) -> int:
        """Degrees of freedom that are gone: fixed coordinates and bonds."""
        return int(self.fixed.sum()) + len(self.bonds)

    def project(self, velocities: Array, *, positions: Array, masses: Array) -> Array:
        """The part of velocities [N, 3] that the constraints allow: what is closest to them in the kinetic energy.

        An orthogonal projection in mass-weighted space, so a Maxwell-Boltzmann draw stays one.

        Args:
            velocities: [N, 3], in any unit.
            positions: [N, 3], Angstrom, of an isolated molecule or unwrapped.
            masses: [N], amu.
        """
        allowed = np.where(self.fixed, 0.0, velocities)
        if len(self.bonds) == 0:
            return allowed
        first, second = self.bonds.T
        weights = 1.0 / np.sqrt(masses)
        rows = np.zeros((len(self.bonds), len(masses), 3))
        along = positions[first] - positions[second]
        number = np.arange(len(self.bonds))
        rows[number, first] = along * weights[first, None]
        rows[number, second] = -along * weights[second, None]
        flat = rows.reshape(len(self.bonds), -1)
        weighted = (allowed / weights[:, None]).reshape(-1)
        weighted = weighted - np.linalg.pinv(flat) @ (flat @ weighted)
        return np.asarray(weighted.reshape(-1, 3) * weights[:, None])

    def to_json(self) -> dict[str, Any]:
        """For the record of a run: numbers of the atoms, with the axes that are fixed, and pairs."""
        axes = {int(atom): "".join(np.array(list("xyz"))[row]) for atom, row in enumerate(self.fixed) if row.any()}
        return {"fixed_atoms": {str(atom): names for atom, names in axes.items()}, "fixed_bonds": self.bonds.tolist()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], *, n_atoms: int) -> Constraints:
        """The inverse of `to_json`.

        Raises:
            InputError: something else, or atoms that are not there.
        """
        fixed = np.zeros((n_atoms, 3), dtype=bool)
        try:
            for atom, names in values["fixed_atoms"].items():
                fixed[int(atom), ["xyz".index(name) for name in names]] = True
            bonds = np.array(values["fixed_bonds"], dtype=np.int64).reshape(-1, 2)
            if len(bonds) and not 0 <= bonds.min() <= bonds.max() < n_atoms:
                raise IndexError(f"atom {bonds.max()}")
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"constraints in the record of the run cannot be read ({error!r}): {values}") from error
        return cls(fixed=fixed, bonds=bonds)

    @classmethod
    def none(cls, n_atoms: int) -> Constraints:
        """Of a molecule that is free."""
        return cls(fixed=np.zeros((n_atoms, 3), dtype=bool), bonds=np.empty((0, 2), dtype=np.int64))


def constraints_of(atoms: Atoms) -> Constraints:
    """What a structure's own constraints hold.

    Raises:
        InputError: a constraint of another kind than FixAtoms, FixCartesian and FixBondLengths (FixBondLength), or a
            bond that ends at a fixed atom.
    """
    from ase.constraints import FixAtoms, FixBondLengths, FixCartesian

    fixed = np.zeros((len(atoms), 3), dtype=bool)
    pairs: set[tuple[int, int]] = set()
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
        elif isinstance(constraint, FixCartesian):
            fixed[constraint.index] |= np.asarray(constraint.mask, dtype=bool)
        elif isinstance(constraint, FixBondLengths):
            pairs |= {(min(pair), max(pair)) for pair in np.asarray(constraint.pairs).tolist()}
        else:
            raise InputError(
                f"the structure has a constraint of the kind {type(constraint).__name__}, whose degrees of freedom are "
                "not counted here; use FixAtoms, FixCartesian or FixBondLengths, or remove it with "
                "atoms.set_constraint()"
            )
    bonds = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    touching = fixed[bonds].any(axis=(1, 2)) if len(bonds) else np.empty(0, dtype=bool)
    if touching.any():
        raise InputError(
            f"the bond of atoms {bonds[touching][0].tolist()} has a fixed length and a fixed end, which ASE's "
            "constraints cannot hold together; leave one of them out"
        )
    return Constraints(fixed=fixed, bonds=bonds)


def set_bond_lengths(atoms: Atoms, positions: Array) -> None:
    """Fix bonds at their lengths in `positions`, [N, 3]: the same for a run that goes on as for one that begins."""
    from ase.constraints import FixBondLengths

    reference = atoms.copy()
    reference.set_positions(positions, apply_constraint=False)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixBondLengths) and constraint.bondlengths is None:
            constraint.bondlengths = constraint.initialize_bond_lengths(reference)


class SeenConstraints:
    """Coordinates and bonds that stay the same to the last frame, from frames that come some at a time.

    Args:
        positions: of frame 0, [N, 3], Angstrom.
        bonds: pairs that are looked at, [M, 2].
    """

    def __init__(self, positions: Array, bonds: NDArray[np.int64]) -> None:
        self._start, self._bonds = positions, bonds
        self._moves = np.zeros(positions.shape, dtype=bool)
        self._lengths = self._lengths_of(positions)
        self._largest = np.zeros(len(bonds))
        self._n_frames = 0

    def update(self, positions: Array) -> None:
        """Look at the next frames, [T, N, 3]."""
        self._n_frames += len(positions)
        self._moves |= (positions != self._start).any(axis=0)
        if len(self._bonds):
            change = np.abs(self._lengths_of(positions) - self._lengths).max(axis=0)
            self._largest = np.maximum(self._largest, change)

    def _lengths_of(self, positions: Array) -> Array:
        ends = positions[..., self._bonds, :]
        return np.asarray(np.linalg.norm(ends[..., 0, :] - ends[..., 1, :], axis=-1))

    def result(self) -> Constraints:
        """What was held; nothing for a single frame, or where nothing moved at all."""
        if self._n_frames < 2 or not self._moves.any():
            return Constraints.none(len(self._start))
        fixed = ~self._moves
        free = ~fixed[self._bonds].any(axis=(1, 2)) if len(self._bonds) else np.empty(0, dtype=bool)
        return Constraints(fixed=fixed, bonds=self._bonds[free & (self._largest < SAME_LENGTH)])
