"""Energies of a run as its log has them: float64, at a finer interval than the frames."""

from __future__ import annotations

import csv
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from remul_md.dynamics.recording import SHADOW_COLUMN
from remul_md.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class EnergyLog:
    """Energies of a run at its own, finer interval.

    Args:
        time_ps: [L], ps.
        potential_energy: [L], eV.
        kinetic_energy: [L], eV.
        shadow_energy: over the step that ends at each time (`remul_md.dynamics.shadow`), [L], eV, nan where none does;
            None for runs that did not record it.
        source: `log` (float64, as the integrator had them) or `frames` of the trajectory.
    """

    time_ps: Array
    potential_energy: Array
    kinetic_energy: Array
    source: str
    shadow_energy: Array | None = None

    @property
    def total_energy(self) -> Array:
        """Potential + kinetic energy, [L], eV."""
        return self.potential_energy + self.kinetic_energy


def read_log(path: str | Path) -> EnergyLog | None:
    """Energies of `run.log.csv`; None if it has no row.

    A last line that a kill cut short is left out.

    Raises:
        InputError: a column is missing, or a number cannot be read.
    """
    columns = ["time_ps", "potential_energy_eV", "kinetic_energy_eV"]
    with Path(path).open(newline="", encoding="utf-8") as handle:
        rows = csv.reader(handle)
        header = next(rows, [])
        missing = [column for column in columns if column not in header]
        if missing:
            found = ", ".join(header) or "none"
            raise InputError(f"{path}: the log has no column {', '.join(missing)}; it has {found}")
        columns += [SHADOW_COLUMN] if SHADOW_COLUMN in header else []
        table: dict[str, array[float]] = {column: array("d") for column in columns}  # 8 bytes a number
        places = [header.index(column) for column in columns]
        row = next(rows, None)
        while row is not None:
            following = next(rows, None)
            if following is None and len(row) < len(header):
                break
            try:
                numbers = [float(row[place]) for place in places]
            except (ValueError, IndexError) as error:
                raise InputError(
                    f"{path}: the log cannot be read ({error}); restore it, or move it away to go on"
                ) from error
            for column, number in zip(columns, numbers, strict=True):
                table[column].append(number)
            row = following
    if not table["time_ps"]:
        return None
    time_ps, potential, kinetic, *shadow = (np.array(table[column], dtype=np.float64) for column in columns)
    return EnergyLog(
        time_ps=time_ps,
        potential_energy=potential,
        kinetic_energy=kinetic,
        source="log",
        shadow_energy=shadow[0] if shadow else None,
    )
