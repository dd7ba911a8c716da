"""Which torsions training saw: for each kind of them, which sixths of the half turn.

Angles are taken without their sign: mirror images have one energy, and training sees them (docs/remul.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from remul_md.structures.topology import dihedral_angles, torsion_chains

BIN_DEGREES = 30
N_BINS = 180 // BIN_DEGREES
# An angle may be so far from a range that training saw: dynamics at the training temperature leaves it at its edges.
MARGIN_DEGREES = 15
_NEXT, _LAST = [1, 2, 0], [2, 0, 1]  # of the components, in a cross product


def trained_torsions(
    numbers: NDArray[np.int64], bonds: NDArray[np.int64], positions: NDArray[np.float64]
) -> dict[str, list[int]]:
    """Ranges of `BIN_DEGREES` in which each kind of torsion was seen, by their numbers, 0 to 5.

    Args:
        numbers: atomic numbers, [N].
        bonds: [M, 2].
        positions: of the training frames, atoms in this order, [T, N, 3], Angstrom.
    """
    chains, kinds = torsion_chains(numbers, bonds)
    bins = _bins(dihedral_angles(positions, chains))
    found: dict[str, set[int]] = {}
    for column, kind in enumerate(kinds):
        found.setdefault(kind, set()).update(np.unique(bins[:, column]).tolist())
    return {kind: sorted(seen) for kind, seen in sorted(found.items())}


def merged_torsions(parts: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, list[int]]:
    """What several trainings saw together; nothing where one of them does not say it."""
    if not all(parts):
        return {}
    kinds = sorted({kind for part in parts for kind in part})
    return {kind: sorted({number for part in parts for number in part.get(kind, ())}) for kind in kinds}


@dataclass(frozen=True, kw_only=True, eq=False)
class TorsionLimits:
    """Torsions of one molecule in one order of its atoms, of which training did not see all angles.

    Args:
        chains: [P, 4].
        names: such as `H-O-C-C`, [P].
        allowed: whether an angle of so many whole degrees without its sign is near one that training saw, [P, 181].
    """

    chains: NDArray[np.int64]
    names: list[str]
    allowed: NDArray[np.bool_]
    _gap: NDArray[np.float64] = field(init=False)
    _columns: NDArray[np.int64] = field(init=False)
    _rows: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        # Of each whole degree how far the nearest one is that is not allowed, less one: they are rounded.
        degrees = np.arange(181)
        steps = np.abs(degrees[:, None] - degrees[None])
        nearest = np.where(self.allowed[:, None, :], 181, steps[None]).min(axis=2)
        object.__setattr__(self, "_columns", np.ascontiguousarray(self.chains.T))
        object.__setattr__(self, "_rows", np.arange(len(self.chains)))
        object.__setattr__(self, "_gap", np.radians(np.maximum(nearest - 1, 0).astype(np.float64)))

    @classmethod
    def of(
        cls, numbers: NDArray[np.int64], bonds: NDArray[np.int64], trained: Mapping[str, Sequence[int]]
    ) -> TorsionLimits | None:
        """Of a molecule with these bonds; None where every angle was seen, or training does not say what it saw."""
        if not trained:
            return None
        chains, kinds = torsion_chains(numbers, bonds)
        allowed = np.array([_allowed(trained.get(kind, range(N_BINS))) for kind in kinds]).reshape(-1, 181)
        chosen = np.flatnonzero(~allowed.all(axis=1))
        if len(chosen) == 0:
            return None
        symbols = [chemical_symbols[int(number)] for number in numbers]
        names = ["-".join(symbols[atom] for atom in chains[row]) for row in chosen]
        return cls(
            chains=chains[chosen],
            names=[min(name, name[::-1]) if len(name) == 7 else name for name in names],
            allowed=allowed[chosen],
        )

    def inside(self, positions: NDArray[np.float64]) -> bool:
        """Whether all torsions of all geometries [..., N, 3] are near angles that training saw."""
        return bool(self._inside(positions).all())

    def room(self, positions: NDArray[np.float64]) -> float:
        """How far all atoms together may move before a torsion of one geometry [N, 3] can leave what is allowed,
        Angstrom; negative outside.

        With rho the smaller distance of the two end atoms from the axis, the gradient of the angle has a norm of about
        3 / rho (Blondel and Karplus, J. Comput. Chem. 17, 1132, 1996); twice that is used.
        """
        # Between two steps of dynamics the cost is that of calls of numpy, so `dihedral_angles` is written out here.
        i, j, k, end = positions[self._columns]
        axis, bonds = k - j, np.concatenate([j - i, k - end])
        one, other = bonds[:, _NEXT] * self._twice(axis)[:, _LAST], bonds[:, _LAST] * self._twice(axis)[:, _NEXT]
        normals = one - other
        before, after = normals[: len(axis)], normals[len(axis) :]
        lengths = np.sqrt(np.einsum("pc,pc->p", axis, axis))
        sine = lengths * np.einsum("pc,pc->p", j - i, after)
        angles = np.abs(np.arctan2(sine, np.einsum("pc,pc->p", before, after)))
        whole = np.nan_to_num(np.degrees(angles), nan=0.0).astype(np.int64)
        if not self.allowed[self._rows, whole].all():
            return -1.0
        areas = np.sqrt(np.einsum("pc,pc->p", normals, normals).reshape(2, -1).min(axis=0))
        return float(np.min(self._gap[self._rows, whole] * areas / (6.0 * lengths)))

    @staticmethod
    def _twice(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([vectors, vectors])

    def outside(self, positions: NDArray[np.float64]) -> list[str]:
        """A line for each kind of torsion of one geometry [N, 3] at an angle that training did not see."""
        angles = np.abs(dihedral_angles(positions, self.chains))
        found = set()
        for row in np.flatnonzero(~self._inside(positions)):
            number = int(_bins(angles[row]))
            low = BIN_DEGREES * number
            found.add(
                f"a {self.names[row]} torsion is at {low} to {low + BIN_DEGREES} degrees, which training did not see"
            )
        return sorted(found)

    def _inside(self, positions: NDArray[np.float64]) -> NDArray[np.bool_]:
        return self.allowed[self._rows, self._whole_degrees(positions)]

    def _whole_degrees(self, positions: NDArray[np.float64]) -> NDArray[np.int64]:
        degrees = np.abs(dihedral_angles(positions, self.chains))
        return np.nan_to_num(degrees, nan=0.0).astype(np.int64)  # what is not finite is not judged


def _bins(angles: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.minimum(np.abs(angles) // BIN_DEGREES, N_BINS - 1).astype(np.int64)


def _allowed(seen: Sequence[int]) -> NDArray[np.bool_]:
    degrees = np.arange(181)
    allowed = np.zeros(181, dtype=bool)
    for number in seen:
        low = BIN_DEGREES * number
        allowed |= (degrees >= low - MARGIN_DEGREES) & (degrees < low + BIN_DEGREES + MARGIN_DEGREES)
    allowed[180] |= allowed[179]
    return allowed
