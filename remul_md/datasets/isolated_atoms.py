"""Energies of isolated atoms at the level of theory of a data set: what its molecules are held together against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from remul_md.datasets.file_options import FileOptions
from remul_md.datasets.read import Label, read_frames
from remul_md.datasets.registry import ENTRIES, PACKAGED_DATA
from remul_md.errors import InputError
from remul_md.structures.frames import Frames


@dataclass(frozen=True, kw_only=True)
class IsolatedAtoms:
    """Energy of one atom of each element.

    Args:
        energies_eV: by atomic number.
        source: the file they stand in.
    """

    energies_eV: Mapping[int, float]
    source: str

    def require(self, species: tuple[int, ...]) -> None:
        """Refuse to go on where an element is missing.

        Raises:
            InputError: it names the elements.
        """
        missing = [chemical_symbols[number] for number in species if number not in self.energies_eV]
        if missing:
            raise InputError(
                f"{self.source}: has no isolated atom of {', '.join(missing)}, which the training data hold; add a "
                "frame of one atom for each element, or leave isolated atoms out"
            )

    def to_json(self) -> dict[str, object]:
        """As a potential records them."""
        return {
            "source": self.source,
            "energies_eV": {chemical_symbols[number]: energy for number, energy in sorted(self.energies_eV.items())},
        }


def split_off_atoms(frames: Frames) -> tuple[Frames, IsolatedAtoms | None]:
    """The frames of more than one atom, and the energies of those of one atom, if there are any.

    Raises:
        InputError: nothing but single atoms, two energies of one element.
    """
    alone = frames.n_atoms == 1
    if not alone.any() or frames.energy is None:
        return frames, None
    if alone.all():
        raise InputError(f"{frames.name}: holds single atoms only; give frames of molecules, too")
    atoms = _energies(frames.select(np.flatnonzero(alone)))
    return frames.select(np.flatnonzero(~alone)), IsolatedAtoms(energies_eV=atoms, source=frames.name)


def read_isolated_atoms(source: str | Path, *, options: FileOptions) -> IsolatedAtoms:
    """The energies in a file whose frames are single atoms.

    Args:
        source: any file that `read_frames` reads.
        options: names and units of its entries: those of the data it belongs to.
    Raises:
        InputError: no such file, no energies, a frame of several atoms, two energies of one element.
    """
    # No force acts on a lone atom, which elsewhere looks like a wrong unit.
    needed: tuple[Label, ...] = ("energy",)
    frames = read_frames(source, **asdict(options), require=needed, allow_implausible=True)
    if (frames.n_atoms > 1).any():
        raise InputError(
            f"{frames.name}: frame {int(np.argmax(frames.n_atoms > 1))} has {int(frames.n_atoms.max())} atoms; a file "
            "of isolated atoms has one atom in each frame"
        )
    return IsolatedAtoms(energies_eV=_energies(frames), source=frames.name)


def packaged_isolated_atoms(source: str) -> IsolatedAtoms | None:
    """Those that the package has at the level of a registered data set; None where it has none, and for files."""
    entry = None if Path(source).is_file() else ENTRIES.get(source)
    if entry is None or not entry.isolated_atoms:
        return None
    path = Path(str(resources.files(PACKAGED_DATA))) / entry.isolated_atoms
    return read_isolated_atoms(path, options=FileOptions(energy_unit="eV", length_unit="Angstrom"))


def _energies(atoms: Frames) -> dict[int, float]:
    assert atoms.energy is not None
    found: dict[int, float] = {}
    for number, energy in zip(atoms.atomic_numbers.tolist(), atoms.energy.tolist(), strict=True):
        if abs(found.setdefault(number, energy) - energy) > 1e-6:
            raise InputError(
                f"{atoms.name}: isolated {chemical_symbols[number]} has the energies {found[number]:.6f} and "
                f"{energy:.6f} eV; keep one frame of each element"
            )
    return found
