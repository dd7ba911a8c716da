"""Which atoms hang together, and what comes off when a bond is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remul_md.analysis.audit.probe import Array
from remul_md.structures.topology import bond_pairs

if TYPE_CHECKING:
    from ase import Atoms


class BondGraph:
    """Bond graph of a molecule with its positions.

    Args:
        atoms: a molecule; periodic images are not seen.
    """

    def __init__(self, atoms: Atoms) -> None:
        self.positions: Array = atoms.get_positions()
        self.numbers = atoms.numbers
        self.names = [f"{symbol}{index}" for index, symbol in enumerate(atoms.get_chemical_symbols())]
        self.bonds = bond_pairs(self.numbers, self.positions)
        self.neighbours: list[list[int]] = [[] for _ in self.numbers]
        for i, j in self.bonds.tolist():
            self.neighbours[i].append(j)
            self.neighbours[j].append(i)

    def reached(self, start: int, *, without: tuple[int, int] | None = None) -> dict[int, int]:
        """Atoms connected to `start` with their number of bonds from it, as if the bond `without` were not."""
        distance, front = {start: 0}, [start]
        while front:
            atom = front.pop(0)
            for other in self.neighbours[atom]:
                if other not in distance and {atom, other} != set(without or ()):
                    distance[other] = distance[atom] + 1
                    front.append(other)
        return distance

    def part(self, fixed: int, moved: int) -> tuple[list[int], bool]:
        """What hangs on `moved` when its bond to `fixed` is cut; the atom alone, and False, in a ring."""
        part = self.reached(moved, without=(fixed, moved))
        return ([moved], False) if fixed in part else (sorted(part), True)
