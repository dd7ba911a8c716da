"""Units of data files and their factors to eV and Angstrom: the one place where they are converted.

Factors come from `ase.units` (CODATA 2014): 1 kcal/mol = 0.0433641 eV, 1 Bohr = 0.529177 Angstrom.
"""

from __future__ import annotations

from dataclasses import dataclass

from remul_md.errors import InputError

FIELD = "field_V_per_A"  # entry of a frame: the uniform electric field of its labels, always in volt/Angstrom
ENERGY_UNITS = ("eV", "kcal/mol", "kJ/mol", "Hartree")
LENGTH_UNITS = ("Angstrom", "Bohr")

# spellings met in files: sGDML writes "Ang", quantum-chemistry codes "Ha" and "a0"
_ENERGY_SPELLINGS = {"ev": "eV", "kcal/mol": "kcal/mol", "kj/mol": "kJ/mol", "hartree": "Hartree", "ha": "Hartree"}
_LENGTH_SPELLINGS = {"angstrom": "Angstrom", "ang": "Angstrom", "å": "Angstrom", "bohr": "Bohr", "a0": "Bohr"}


@dataclass(frozen=True, kw_only=True)
class Units:
    """The units of one file, by their names in `ENERGY_UNITS` and `LENGTH_UNITS`.

    Args:
        energy: unit of the energies.
        length: unit of positions and cells.
        force_energy: energy in the unit of the forces; differs from `energy` in files with Hartree and eV/Angstrom.
        force_length: length in the unit of the forces.
    """

    energy: str
    length: str
    force_energy: str
    force_length: str

    @property
    def to_eV(self) -> float:
        """Factor from the file's energy to eV."""
        return energy_factor(self.energy)

    @property
    def to_angstrom(self) -> float:
        """Factor from the file's length to Angstrom."""
        return length_factor(self.length)

    @property
    def to_eV_per_angstrom(self) -> float:
        """Factor from the file's force to eV/Angstrom."""
        return energy_factor(self.force_energy) / length_factor(self.force_length)

    def __str__(self) -> str:
        return f"energy {self.energy}, length {self.length}, force {self.force_energy}/{self.force_length}"


def choose_units(
    *, energy_unit: str | None, length_unit: str | None, force_unit: str | None, default: tuple[str, str]
) -> Units:
    """The units of a file: what the user says, else `default` (energy, length); forces follow unless given.

    Raises:
        InputError: a unit that is not known.
    """
    energy = canonical_energy(energy_unit) if energy_unit is not None else canonical_energy(default[0])
    length = canonical_length(length_unit) if length_unit is not None else canonical_length(default[1])
    if force_unit is None:
        return Units(energy=energy, length=length, force_energy=energy, force_length=length)
    if not isinstance(force_unit, str):
        raise InputError(f"force unit must be a name, got {force_unit!r}; write one such as eV/Angstrom")
    force_energy, slash, force_length = force_unit.rpartition("/")
    if not slash:
        raise InputError(f"force unit {force_unit!r} is no energy per length; write one such as eV/Angstrom")
    return Units(
        energy=energy,
        length=length,
        force_energy=canonical_energy(force_energy),
        force_length=canonical_length(force_length),
    )


def canonical_energy(unit: str) -> str:
    """The name in `ENERGY_UNITS` of any accepted spelling."""
    return _canonical(unit, kind="energy", known=ENERGY_UNITS, spellings=_ENERGY_SPELLINGS)


def canonical_length(unit: str) -> str:
    """The name in `LENGTH_UNITS` of any accepted spelling."""
    return _canonical(unit, kind="length", known=LENGTH_UNITS, spellings=_LENGTH_SPELLINGS)


def energy_factor(unit: str) -> float:
    """Electronvolts in one `unit`, a name of `ENERGY_UNITS`."""
    from ase import units

    factors = {"eV": 1.0, "kcal/mol": units.kcal / units.mol, "kJ/mol": units.kJ / units.mol, "Hartree": units.Hartree}
    return float(factors[unit])


def length_factor(unit: str) -> float:
    """Angstroms in one `unit`, a name of `LENGTH_UNITS`."""
    from ase import units

    return float({"Angstrom": 1.0, "Bohr": units.Bohr}[unit])


def _canonical(unit: str, *, kind: str, known: tuple[str, ...], spellings: dict[str, str]) -> str:
    if not isinstance(unit, str):
        raise InputError(f"{kind} unit must be a name, got {unit!r}; choose one of {', '.join(known)}")
    spelling = unit.strip().lower()
    if spelling not in spellings:
        raise InputError(f"{kind} unit {unit!r} is unknown; choose one of {', '.join(known)}")
    return spellings[spelling]
