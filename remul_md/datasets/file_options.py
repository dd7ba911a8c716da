"""What a file does not say by itself: the names of its label entries, and its units. One class for every command."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from remul_md.datasets.units import Units, choose_units
from remul_md.errors import InputError

KEYS, UNITS = ("energy_key", "forces_key"), ("energy_unit", "length_unit", "force_unit")


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Names and units of a data file, as `read_frames` and the readers take them; None: those usual in its format.

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
        default=None, metadata={"help": "name of the energies in the file, such as REF_energy"}
    )
    forces_key: str | None = field(
        default=None, metadata={"help": "name of the forces in the file, such as REF_forces"}
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
        self.units(("eV", "Angstrom"))

    @classmethod
    def of(cls, config: Any) -> FileOptions:
        """Those of a config that has them among others."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})

    def units(self, default: tuple[str, str]) -> Units:
        """All units of the file: those named, else `default` (energy, length)."""
        named = {name: getattr(self, name) for name in UNITS}
        return choose_units(**named, default=default)

    @property
    def given(self) -> dict[str, str]:
        """Those that are not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def about_labels(self) -> bool:
        """Whether any says something of energies or forces, not of positions alone."""
        return bool(set(self.given) - {"length_unit"})


HELP = {field.name: str(field.metadata["help"]) for field in fields(FileOptions)}
