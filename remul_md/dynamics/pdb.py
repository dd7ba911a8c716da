"""The topology that lies beside an H5MD file: a PDB file with elements, names that are unique, and bonds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from remul_md.dynamics.recording import write_atomically
from remul_md.structures.topology import bond_pairs

if TYPE_CHECKING:
    from ase import Atoms

MAX_SERIAL = 99_999  # five columns
MAX_BONDS_A_LINE = 4


def write_topology(atoms: Atoms, path: Path) -> None:
    """Write a structure as PDB 3.3: one molecule MOL, atoms C1, C2, H1, ..., and CONECT records of its bonds.

    Bonds are those of the covalent radii; a periodic system has none written, since they may cross its faces.

    Raises:
        InputError: the file cannot be written.
    """
    lines = []
    if atoms.pbc.any():
        lengths, angles = atoms.cell.lengths(), atoms.cell.angles()
        box = "".join(f"{value:9.3f}" for value in lengths) + "".join(f"{value:7.2f}" for value in angles)
        lines.append(f"CRYST1{box} P 1           1")
    counted: Counter[str] = Counter()
    for serial, (symbol, place) in enumerate(zip(atoms.symbols, atoms.positions, strict=True), start=1):
        counted[symbol] += 1
        name = f"{symbol}{counted[symbol]}"
        # The symbol ends in column 14; four characters start in column 13.
        column = f" {name:<3}" if len(symbol) == 1 and len(name) < 4 else f"{name[:4]:<4}"
        coordinates = "".join(f"{value:8.3f}" for value in place)
        lines.append(
            f"HETATM{min(serial, MAX_SERIAL):5d} {column} MOL A   1    {coordinates}  1.00  0.00          {symbol:>2}"
        )
    if not atoms.pbc.any() and len(atoms) <= MAX_SERIAL:
        bonded: dict[int, list[int]] = {}
        for first, second in bond_pairs(atoms.numbers, atoms.positions).tolist():
            bonded.setdefault(first + 1, []).append(second + 1)
            bonded.setdefault(second + 1, []).append(first + 1)
        for atom, others in sorted(bonded.items()):
            for start in range(0, len(others), MAX_BONDS_A_LINE):
                some = others[start : start + MAX_BONDS_A_LINE]
                lines.append(f"CONECT{atom:5d}" + "".join(f"{other:5d}" for other in some))
    lines.append("END")
    write_atomically(path, "".join(f"{line:<80}\n" for line in lines).encode())
