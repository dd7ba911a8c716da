"""Do the forces of a data set belong to its energies? Energy differences of near frames against the work of the forces.

Between two geometries of one molecule the energy changes by minus the work of the forces, to second order by
E2 - E1 = -(F1 + F2)/2 . (x2 - x1). Of all pairs of nearest neighbours, laid over each other, the nearer half is
compared: the ratio of both sides is 1, and so is their correlation. Measured on both sets of the seven packaged
molecules: with 1,000 frames ratios of 0.96 to 1.03 and correlations of 0.94 to 1.00; with 50, where the correlation is
above `CLEAR`, ratios of 0.8 to 1.25. Forces with the wrong sign or in a unit of their own make it -1, 23, 1.9.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from remul_md.datasets.units import energy_factor, length_factor
from remul_md.structures.alignment import superposition_rotations
from remul_md.structures.frames import Frames

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]

CLEAR = 0.85  # correlation of energy differences and work, beyond which their ratio can be told
UNRELATED = 0.3  # below, the forces of near frames say nothing of their energies
MAX_RATIO = 1.5  # and its inverse: 1 for labels that belong together
NEAR = 0.3  # Angstrom, root mean square over the atoms: beyond, the work of two forces says little
SAME = 1e-4  # Angstrom: copies
MIN_PAIRS, MAX_FRAMES, BLOCK = 10, 1000, 50
MAX_ATOMS = 40  # whose distances find the nearest frames


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Energy differences held against work.

    Args:
        n_pairs: pairs of near frames.
        ratio: root mean square of the energy differences over that of the work, with the sign of the correlation.
        correlation: of both, about zero, -1 to 1.
        ratio_range: the ratio with one pair left out, whichever makes it smallest and largest, without the sign.
        n_atoms: of the largest frames among them.
    """

    n_pairs: int
    ratio: float
    ratio_range: tuple[float, float]
    correlation: float
    n_atoms: int

    @property
    def complaint(self) -> str:
        """What is probably wrong with the labels, or "" if nothing is, or nothing can be told."""
        said = f"ratio {self.ratio:.3g}, correlation {self.correlation:.2f}, {self.n_pairs} pairs of near frames"
        if abs(self.correlation) < UNRELATED:
            return (
                f"energies do not follow the forces ({said}): they belong to other frames or methods, or depend on "
                "something else, such as the orientation in a field"
            )
        if abs(self.correlation) < CLEAR:
            return ""
        causes = [] if self.ratio > 0 else ["the forces have the wrong sign: they are gradients"]
        least, most = self.ratio_range
        if least > MAX_RATIO or most < 1.0 / MAX_RATIO:  # whichever pair is left out
            causes.append(_factor_told(abs(self.ratio), n_atoms=self.n_atoms))
        return f"energies and forces contradict each other ({said}): {'; and '.join(causes)}" if causes else ""

    def __str__(self) -> str:
        told = f"ratio {self.ratio:.3g} to the work of the forces, correlation {self.correlation:.2f}"
        return f"{told}, {self.n_pairs} pairs"


def label_agreement(frames: Frames) -> Agreement | None:
    """Hold the energies of a data set against its forces; None where too few frames are near each other to tell.

    Frames with the same atoms in the same order are compared, of isolated molecules after superposition, periodic ones
    of one cell and those in a field as they stand. At most `MAX_FRAMES` are looked at, in blocks of neighbours in the
    file.
    """
    if frames.energy is None or frames.forces is None:
        return None
    parts = [_near_pairs(frames, chosen) for chosen in _alike(frames)]
    distances, work, differences = np.concatenate([np.zeros((3, 0)), *map(np.stack, parts)], axis=1)
    near = np.flatnonzero((distances > SAME) & (distances < NEAR))
    if len(near) < MIN_PAIRS:
        return None
    nearer = near[np.argsort(distances[near])][: max(MIN_PAIRS, len(near) // 2)]
    work, differences = work[nearer], differences[nearer]
    if np.count_nonzero(work) < MIN_PAIRS or np.count_nonzero(differences) < MIN_PAIRS:
        return None
    squares = work @ work, differences @ differences
    correlation = work @ differences / np.sqrt(squares[0] * squares[1])
    without_one = np.sqrt((squares[1] - differences**2) / (squares[0] - work**2))
    return Agreement(
        n_pairs=len(nearer),
        ratio=float(np.copysign(np.sqrt(squares[1] / squares[0]), correlation)),
        ratio_range=(float(without_one.min()), float(without_one.max())),
        correlation=float(correlation),
        n_atoms=int(frames.n_atoms.max()),
    )


def warn_of_contradictions(frames: Frames) -> None:
    """Log a warning where the energies of a data set contradict its forces."""
    found = label_agreement(frames)
    if found is not None and found.complaint:
        logger.warning("%s: %s", frames.name, found.complaint)


def _alike(frames: Frames) -> list[NDArray[np.int64]]:
    """Frames with the same atoms in the same order and the same kind of cell, the largest sets first."""
    n_frames = len(frames)
    if n_frames > MAX_FRAMES:  # in blocks: in a trajectory the nearest frame is the next one
        n_blocks = MAX_FRAMES // BLOCK
        starts = np.linspace(0, n_frames - BLOCK, n_blocks).astype(np.int64)
        looked_at = np.unique(starts[:, None] + np.arange(BLOCK))
    else:
        looked_at = np.arange(n_frames)
    sets: dict[tuple[bytes, ...], list[int]] = defaultdict(list)
    for index in looked_at.tolist():
        cell = b"" if frames.cell is None or not frames.pbc[index].any() else np.round(frames.cell[index], 6).tobytes()
        field = b"" if frames.field_V_per_A is None else frames.field_V_per_A[index].tobytes()
        sets[frames.frame_numbers(index).tobytes(), frames.pbc[index].tobytes(), cell, field].append(index)
    return [np.array(some) for some in sorted(sets.values(), key=len, reverse=True) if len(some) > 1]


def _near_pairs(frames: Frames, chosen: NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """Distance (Angstrom), work and energy difference (eV) of each frame and its nearest neighbour, each [P]."""
    assert frames.energy is not None
    assert frames.forces is not None
    some = frames.select(chosen)
    n_atoms = int(some.n_atoms[0])
    assert some.energy is not None
    assert some.forces is not None
    positions, forces = some.positions.reshape(-1, n_atoms, 3), some.forces.reshape(-1, n_atoms, 3)
    periodic = bool(some.pbc[0].any())
    turnable = not periodic and some.field_V_per_A is None
    positions = positions - positions.mean(axis=1, keepdims=True)
    one, other = _nearest(positions, by_distances=turnable)
    there, forces_there = positions[other], forces[other]
    if turnable:
        rotations = superposition_rotations(positions[one], there)
        there = np.einsum("tij,taj->tai", rotations, there)
        forces_there = np.einsum("tij,taj->tai", rotations, forces_there)
    step = there - positions[one]
    if periodic and some.cell is not None:
        step = _least_image(step, some.cell[0], pbc=some.pbc[0])
    work = -0.5 * ((forces[one] + forces_there) * step).sum(axis=(1, 2))
    return np.sqrt((step**2).sum(axis=(1, 2)) / n_atoms), work, some.energy[other] - some.energy[one]


def _nearest(positions: Array, *, by_distances: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each frame and the one whose distances between atoms (or positions) are most like its own; no pair twice."""
    n_frames, n_atoms, _ = positions.shape
    if by_distances:
        atoms = np.unique(np.linspace(0, n_atoms - 1, min(n_atoms, MAX_ATOMS)).astype(np.int64))
        first, second = np.triu_indices(len(atoms), k=1)
        some = positions[:, atoms]
        features = np.linalg.norm(some[:, first] - some[:, second], axis=2)
    else:
        features = positions.reshape(n_frames, -1)
    features = features - features.mean(axis=0)
    squares = (features**2).sum(axis=1)
    apart = squares[:, None] + squares[None] - 2.0 * features @ features.T
    apart[apart < len(positions[0]) * SAME**2] = np.inf  # the frame itself and its copies
    nearest = apart.argmin(axis=1)
    frames = np.arange(n_frames)
    once = (nearest[nearest] != frames) | (nearest > frames)
    once &= np.isfinite(apart[frames, nearest])
    return frames[once], nearest[once]


def _least_image(step: Array, cell: Array, *, pbc: NDArray[np.bool_]) -> Array:
    """Steps [P, N, 3] without what whole lattice vectors and a drift of all atoms add."""
    fractions = step @ np.linalg.pinv(cell)
    fractions -= np.where(pbc, np.round(fractions), 0.0)
    least: Array = fractions @ cell
    return least - least.mean(axis=1, keepdims=True)


def _factor_told(ratio: float, *, n_atoms: int) -> str:
    """Which mistakes make energies `ratio` times too large for the forces."""
    kcal, kj, hartree = (energy_factor(unit) for unit in ("kcal/mol", "kJ/mol", "Hartree"))
    bohr = length_factor("Bohr")
    known = {
        "energies in kcal/mol, forces in eV/Angstrom": 1 / kcal,
        "energies in eV, forces in kcal/mol/Angstrom": kcal,
        "energies in kJ/mol, forces in eV/Angstrom": 1 / kj,
        "energies in eV, forces in kJ/mol/Angstrom": kj,
        "energies in Hartree, forces in eV/Angstrom": 1 / hartree,
        "energies in eV, forces in Hartree/Angstrom": hartree,
        "energies in eV, forces in Hartree/Bohr": hartree / bohr,
        "energies in Hartree, forces in kcal/mol/Angstrom": kcal / hartree,
        "energies in kcal/mol, forces in Hartree/Angstrom": hartree / kcal,
        "energies in kcal/mol, forces in Hartree/Bohr": hartree / bohr / kcal,
        "energies in kJ/mol, forces in kcal/mol/Angstrom": kcal / kj,
        "energies in kcal/mol, forces in kJ/mol/Angstrom": kj / kcal,
        "forces per Bohr, positions in Angstrom": 1 / bohr,
        "forces per Angstrom, positions in Bohr": bohr,
        f"energies per atom ({n_atoms} of them)": 1 / n_atoms,
    }
    off = {cause: abs(np.log(ratio / factor)) for cause, factor in known.items()}
    likely = sorted((cause for cause in off if off[cause] < np.log(1.3)), key=off.__getitem__)[:2]
    told = " or ".join(f"{cause} ({known[cause]:.4g})" for cause in likely) or "a wrong unit"
    return f"energy differences are {ratio:.3g} times the work of the forces, probably {told}; set the units"
