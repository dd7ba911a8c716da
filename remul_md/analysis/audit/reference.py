"""Bond stretches beside a reference: how far the force is off, and which bumps the reference does not have.

After the bond smoothness test of Liu et al. (arXiv:2602.04861), whose idea this is: pull one bond and hold the force
along it against that of a reference. The numbers here are others than theirs, and nothing is judged by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from remul_md.analysis.audit.limits import THERMAL_ENERGY
from remul_md.analysis.audit.paths import NEAR_SHARES, REACH_A, Path
from remul_md.analysis.audit.probe import Array, CalculationFailed, Probe, Sample
from remul_md.analysis.audit.smoothness import HIGHEST_eV

STRETCH_A = 2.5  # beyond the length at rest; from there on references of one configuration know little
FORCE_BUMP = 0.1  # eV/Angstrom; a smaller maximum or minimum of the force is no bump
SAME_PLACE_A = 0.25  # of two extrema


@dataclass(frozen=True, kw_only=True, eq=False)
class Stretch:
    """One bond pulled, by the calculator that is audited and by the reference.

    Args:
        label: such as `bond C0-O2`.
        lengths: of the bond, [S], increasing, Angstrom, where both could be calculated.
        energies, reference_energies: each relative to the structure at rest, [S], eV.
        forces, reference_forces: along the bond, positive where it is pushed apart, [S], eV/Angstrom.
        n_failed: points where one of the two failed.
    """

    label: str
    lengths: Array
    energies: Array
    reference_energies: Array
    forces: Array
    reference_forces: Array
    n_failed: int

    @property
    def force_rms(self) -> float:
        """RMS deviation of the force along the bond, eV/Angstrom."""
        return float(np.sqrt(np.mean((self.forces - self.reference_forces) ** 2)))

    @property
    def spurious_energy_extrema(self) -> tuple[float, ...]:
        """Where the energy has a maximum or minimum of kT at 300 K or more that the reference has not, Angstrom."""
        return _spurious(self.lengths, self.energies, self.reference_energies, THERMAL_ENERGY)

    @property
    def spurious_force_extrema(self) -> tuple[float, ...]:
        """The same of the force along the bond, of FORCE_BUMP or more."""
        return _spurious(self.lengths, self.forces, self.reference_forces, FORCE_BUMP)

    def to_json(self) -> dict[str, Any]:
        """The figures and the curves."""
        return {
            "label": self.label,
            "force_rms_eV_per_A": self.force_rms,
            "spurious_energy_extrema_A": list(self.spurious_energy_extrema),
            "spurious_force_extrema_A": list(self.spurious_force_extrema),
            "n_failed": self.n_failed,
            **{
                name: getattr(self, name).tolist()
                for name in ("lengths", "energies", "reference_energies", "forces", "reference_forces")
            },
        }


def bond_stretches(probe: Probe, reference: Probe, paths: list[Path]) -> tuple[Stretch, ...]:
    """Both calculators along every bond that is pulled apart: from 0.75 of its length to STRETCH_A beyond it."""
    pulled = [path for path in paths if path.kind == "bond" and path.outwards[-1] > path.start + 0.9 * REACH_A]
    return tuple(_stretch(probe, reference, path) for path in pulled)


def _stretch(probe: Probe, reference: Probe, path: Path) -> Stretch:
    values = np.array([*path.inwards[::-1], path.start, *path.outwards])
    values = values[(values >= NEAR_SHARES[0] * path.start) & (values <= path.start + STRETCH_A)]
    places = [path.place(float(value)) for value in values]
    axis = path.place(path.start + 1.0) - path.place(path.start)  # of the atoms that move, length 1 each
    lengths, rows, n_failed = [], [], 0
    for value, own, known in zip(values, probe.many(places), reference.many(places), strict=True):
        if isinstance(own, CalculationFailed) or isinstance(known, CalculationFailed):
            n_failed += 1
            continue
        if known.energy - reference.start.energy > HIGHEST_eV:
            continue
        lengths.append(float(value))
        rows.append([*_along(own, probe, axis), *_along(known, reference, axis)])
    energies, forces, reference_energies, reference_forces = np.array(rows).reshape(-1, 4).T
    return Stretch(
        label=path.label,
        lengths=np.array(lengths),
        energies=energies,
        reference_energies=reference_energies,
        forces=forces,
        reference_forces=reference_forces,
        n_failed=n_failed,
    )


def _along(sample: Sample, probe: Probe, axis: Array) -> tuple[float, float]:
    return sample.energy - probe.start.energy, float((sample.forces * axis).sum())


def _spurious(x: Array, values: Array, reference: Array, prominence: float) -> tuple[float, ...]:
    """Extrema of a curve that have none of the same kind in the reference within SAME_PLACE_A."""
    from scipy.signal import find_peaks

    found = []
    for sign in (1.0, -1.0):
        own, _ = find_peaks(sign * values, prominence=prominence)
        known, _ = find_peaks(sign * reference, prominence=0.5 * prominence)  # one just below is there all the same
        found += [float(at) for at in x[own] if not (np.abs(x[known] - at) <= SAME_PLACE_A).any()]
    return tuple(sorted(found))
