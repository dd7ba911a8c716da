"""Energies of isolated atoms at a level of theory: what a molecule is held together against."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from remul_md.errors import InputError
from remul_md.labels.calculated import calculate_labels
from remul_md.labels.sources import LabelSource
from remul_md.structures.frames import frames_from_atoms


def isolated_atoms(source: LabelSource, elements: Iterable[int]) -> dict[int, float]:
    """Energy of one atom of each element, eV, by atomic number; the same as `remul-md label` gives a file of one atom.

    The method decides the spin: "pbe" takes that of Hund's rules, GFN2-xTB knows none.

    Args:
        source: the level of theory.
        elements: atomic numbers, in any order.
    Raises:
        InputError: the method fails, or finds no solution for one of them.
    """
    from ase import Atoms
    from ase.data import chemical_symbols

    numbers = sorted({int(number) for number in elements})
    frames = frames_from_atoms(
        [Atoms(numbers=[number], positions=np.zeros((1, 3))) for number in numbers], name="atoms"
    )
    with TemporaryDirectory() as folder:
        made = calculate_labels(frames, source, partial=Path(folder) / "atoms.part")
    if made.refused:
        told = "; ".join(f"{chemical_symbols[numbers[index]]}: {why}" for index, why in made.refused.items())
        raise InputError(f"{source.name} gives no energy of every atom ({told}); leave those elements out")
    assert made.frames.energy is not None
    return dict(zip(numbers, made.frames.energy.tolist(), strict=True))
