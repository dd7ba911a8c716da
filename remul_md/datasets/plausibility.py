"""Do the numbers fit the units that were assumed? Refuses what no molecule or crystal shows.

Two checks, both on medians or means over frames, so that one odd frame does not decide:

- RMS force component. Thermal molecules: 0.9 to 1.3 eV/Angstrom in rMD17 (500 K), 0.9 in a set of carbon phases,
  0.04 in steps of a crystal relaxation. kcal/mol read as eV gives 21 to 30, kJ/mol 90 to 130. So more than
  `MAX_RMS_FORCE` is refused. Small forces are legitimate (relaxed structures), so less than `MIN_RMS_FORCE`
  warns only: Hartree/Bohr read as eV/Angstrom gives 0.02 to 0.03.
- Nearest pair in units of the sum of covalent radii, median over frames: 0.84 to 1.12 in the same sets (benzene,
  aspirin, ..., magnesium compounds). Bohr read as Angstrom multiplies it by 1.89, Angstrom read as Bohr by 0.53.
  A bare distance cannot tell: a C-H bond in Bohr, 2.06, is a common distance in Angstrom.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.structures.frames import Frames

if TYPE_CHECKING:
    from remul_md.structures.neighbors import Backend

logger = logging.getLogger(__name__)

MIN_RMS_FORCE, MAX_RMS_FORCE = 0.1, 12.0  # eV/Angstrom
MIN_BOND_RATIO, MAX_BOND_RATIO = 0.65, 1.5  # nearest distance / sum of covalent radii, dimensionless
# Angstrom, tried in turn until a pair is found: a cell in nanometres read as Angstrom would have millions within 8.
# A pair at 1.5 sums of covalent radii is closer than the last, caesium (7.3) included.
SEARCH_RADII = (2.0, 4.0, 8.0)
_NOBLE_GASES = (2, 10, 18, 36, 54, 86)  # no covalent bonds: argon's nearest pair stands at a ratio of 1.77


def check_plausible(frames: Frames, *, n_sampled: int = 200) -> None:
    """Raise if forces or distances cannot be eV/Angstrom and Angstrom, or charges are mixed.

    Args:
        frames: as read, in eV and Angstrom.
        n_sampled: frames, evenly spaced, whose distances are looked at.
    Raises:
        InputError: with the measured value, the interval and the units to try.
    """
    _require_one_charge(frames)
    if frames.forces is not None:
        rms = rms_force(frames.forces)
        if rms > MAX_RMS_FORCE:
            raise InputError(
                f"{frames.name}: the RMS force component is {rms:.3g} eV/Angstrom, implausible above {MAX_RMS_FORCE:g} "
                "(thermal molecules have 0.5 to 3); the file is probably in another unit: set energy_unit "
                "(kcal/mol, kJ/mol) or force_unit, or allow_implausible=True if the numbers are right"
            )
        if rms < MIN_RMS_FORCE:
            logger.warning(
                "%s: the RMS force component is %.2g eV/Angstrom, usual for relaxed structures only; "
                "if these are thermal frames, the unit is wrong (Hartree/Bohr?)",
                frames.name, rms,
            )  # fmt: skip
    sample = np.unique(np.linspace(0, len(frames) - 1, min(n_sampled, len(frames))).astype(np.int64))
    ratios = np.array([nearest_pair(frames, int(index))[1] for index in sample])
    ratios = ratios[~np.isnan(ratios)]
    if len(ratios) == 0:
        return
    ratio = float(np.median(ratios))
    noble_only = bool(np.isin(frames.atomic_numbers, _NOBLE_GASES).all())
    if ratio < MIN_BOND_RATIO or (ratio > MAX_BOND_RATIO and not noble_only):
        raise InputError(
            f"{frames.name}: the nearest atoms are {ratio:.3g} sums of covalent radii apart (median over frames), "
            f"implausible outside {MIN_BOND_RATIO:g} to {MAX_BOND_RATIO:g}; the file is probably in another unit: "
            "set length_unit (Angstrom, Bohr), or allow_implausible=True if the numbers are right"
        )


def rms_force(forces: NDArray[np.float64]) -> float:
    """Root mean square over all force components [A, 3], eV/Angstrom."""
    with np.errstate(over="ignore"):  # infinite is what forces of 1e200 are here
        return float(np.sqrt(np.mean(forces**2)))


def nearest_pair(frames: Frames, index: int) -> tuple[float, float]:
    """The shortest distance in a frame (Angstrom), and the smallest distance / sum of covalent radii.

    Images in periodic cells count. Pairs are those within the first of `SEARCH_RADII` that holds any. Both numbers
    are infinite where there is none, and nan where an atom is alone and not periodic.

    Raises:
        InputError: two atoms at one place, or a periodic frame without a cell.
    """
    from ase.data import covalent_radii

    from remul_md.structures.neighbors import neighbor_pairs  # loads torch, which reading alone does not need

    numbers, pbc = frames.frame_numbers(index), frames.pbc[index]
    if len(numbers) < 2 and not pbc.any():
        return float("nan"), float("nan")
    positions, cell = frames.frame_positions(index), None if frames.cell is None else frames.cell[index]
    # dense needs no import and wins for small molecules; its memory grows with the square of the atoms
    backend: Backend = "vesin" if pbc.any() or len(numbers) > 300 else "dense"
    for radius in SEARCH_RADII:
        try:
            i, j, shift = neighbor_pairs(positions, cutoff=radius, cell=cell, pbc=pbc, backend=backend)
        except InputError as error:
            raise InputError(f"{frames.name}, frame {index}: {error}") from error
        if len(i) > 0:
            displacements = positions[j] - positions[i] + (shift @ cell if cell is not None else 0.0)
            distances = np.linalg.norm(displacements, axis=1)
            radii = covalent_radii[numbers]
            return float(distances.min()), float((distances / (radii[i] + radii[j])).min())
    return float("inf"), float("inf")


def _require_one_charge(frames: Frames) -> None:
    """Refuse one composition in two charges: the networks read no charge, so its labels would contradict each other."""
    if frames.charge is None:
        return
    charges: dict[bytes, int] = {}
    for index in range(len(frames)):
        charge = int(frames.charge[index])
        known = charges.setdefault(np.sort(frames.frame_numbers(index)).tobytes(), charge)
        if known != charge:
            raise InputError(
                f"{frames.name}: frame {index} has the total charge {charge:+d}, an earlier frame of the same "
                f"composition {known:+d}; a potential knows one charge of a molecule: split the file by charge"
            )
