"""What a file does not say by itself: the names of its label entries, and its units. One class for every command."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from remul_md.datasets.readers.ase_files import FORMATS, entries_of_first
from remul_md.datasets.readers.npz import array_names
from remul_md.datasets.units import choose_units
from remul_md.errors import InputError

logger = logging.getLogger(__name__)

KEYS, UNITS = ("energy_key", "forces_key"), ("energy_unit", "length_unit", "force_unit")


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Names and units of a data file, as `read_frames` takes them; None: the usual ones of its format.

    Args:
        energy_key: entry of the energies.
        forces_key: entry of the forces.
        energy_unit: unit of the energies.
        length_unit: unit of the positions.
        force_unit: unit of the forces.
    Raises:
        InputError: a unit that is not known, a key that is no text.
    """

    energy_key: str | None = field(
        default=None, metadata={"help": "key of the energy in an extxyz file, such as REF_energy"}
    )
    forces_key: str | None = field(
        default=None, metadata={"help": "key of the forces in an extxyz file, such as REF_forces"}
    )
    energy_unit: str | None = field(
        default=None, metadata={"help": "unit of the energies where the file does not say it"}
    )
    length_unit: str | None = field(
        default=None, metadata={"help": "unit of the positions where the file does not say it"}
    )
    force_unit: str | None = field(
        default=None, metadata={"help": "unit of the forces; default: energy unit per length unit"}
    )

    def __post_init__(self) -> None:
        for name in KEYS:
            key = getattr(self, name)
            if key is not None and not (isinstance(key, str) and key):
                raise InputError(f"{name} must be the name of an entry, got {key!r}")
        units = {name: getattr(self, name) for name in UNITS}
        choose_units(**units, default=("eV", "Angstrom"))

    @classmethod
    def of(cls, config: Any) -> FileOptions:
        """Those of a config that has them among others."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})

    @property
    def given(self) -> dict[str, str]:
        """Those that are not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def about_labels(self) -> bool:
        """Whether any says something of energies or forces, not of positions alone."""
        return bool(set(self.given) - {"length_unit"})


HELP = {field.name: str(field.metadata["help"]) for field in fields(FileOptions)}


def recorded_options(
    source: str | Path, given: FileOptions, *, record: Mapping[str, Any], trained_on: str
) -> FileOptions:
    """The options for a file, with those of a potential's training data where the user gives none.

    Keys: the record's if no key is given and the file has them all. Units: the record's if no unit is given, the keys
    in use are the record's, and the file is of the format that was trained on. Registered data sets say their own.

    Args:
        source: the file; what cannot be read here says so where it is read in earnest.
        given: by the user.
        record: `FileOptions` by name, of the training data.
        trained_on: name of the file that was trained on.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        return given
    recorded = {name: str(value) for name in (*KEYS, *UNITS) if (value := record.get(name)) is not None}
    keys = {name: recorded[name] for name in KEYS if name in recorded}
    chosen = dict(given.given)
    if keys and not set(KEYS) & set(chosen) and set(keys.values()) <= _entry_names(path):
        chosen |= keys
    own_keys = {name: chosen[name] for name in KEYS if name in chosen}
    same_format = _format(path) == _format(Path(trained_on))
    if own_keys == keys and same_format and not set(UNITS) & set(chosen):
        chosen |= {name: recorded[name] for name in UNITS if name in recorded}
    taken = {name: value for name, value in chosen.items() if name not in given.given}
    if taken:
        logger.info(
            "%s: read with %s, as the training data of the potential were; options of yours replace them",
            path, ", ".join(f"{name}={value}" for name, value in taken.items()),
        )  # fmt: skip
    return FileOptions(**chosen)


def _format(path: Path) -> str:
    return FORMATS.get(path.suffix.lower(), path.suffix.lower())


def _entry_names(path: Path) -> set[str]:
    """All that could be labels in a file; empty for what cannot be read, which its reader will say."""
    try:
        if path.suffix.lower() == ".npz":
            return array_names(path)
        return entries_of_first(path) if path.suffix.lower() in FORMATS else set()
    except InputError:
        return set()
