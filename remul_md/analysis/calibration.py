"""Is an error bar right? Predicted standard deviations against the errors that were really made; and by which factor
they have to be multiplied."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.potentials.domain import require_known_frames
from remul_md.potentials.potential import Potential
from remul_md.structures.batch import Head
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch

COVERED = 0.954  # share of normal errors within two standard deviations
MAX_ATOMS = 4096  # in one pass, all members together


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Figures of `calibration`.

    Args:
        n_values: pairs of an error and a standard deviation.
        spearman: rank correlation of |error| with the standard deviation: does it know where the errors are large?
            For normal errors of exactly that standard deviation it stays below 1, and is 0 if all are alike. Over
            frames of several temperatures it tells which frames are hot, too: give those of one.
        spearman_null: the same with a predictor that costs nothing, such as the RMS force of the frame.
        rms_error: root mean square error, in the unit of the errors.
        rms_std: root mean square of the standard deviations, likewise.
        error_over_std: rms_error / rms_std; 1 if the size is right, above 1 where the error bar promises too much.
        within_1_std: share of the errors within one standard deviation, percent; 68.3 for normal errors.
        within_2_std: within two; 95.4.
    """

    n_values: int
    spearman: float
    rms_error: float
    rms_std: float
    error_over_std: float
    within_1_std: float
    within_2_std: float
    spearman_null: float | None = None


def calibration(
    errors: NDArray[np.float64], stds: NDArray[np.float64], *, null: NDArray[np.float64] | None = None
) -> Calibration:
    """How well standard deviations describe errors; arrays of one shape and unit, every entry counts alike.

    The scatter of M members is that of one member, while the error is that of their mean plus what all of them share:
    so a ratio of 1 is nothing that an ensemble gives by itself, and is worth being measured.

    Args:
        errors: any shape.
        stds: of that shape and unit.
        null: of that shape: what ranks the errors without any error bar, to be ranked beside it.
    Raises:
        InputError: shapes that differ, fewer than 2 values, a negative standard deviation, or none above 0.
    """
    if errors.shape != stds.shape:
        raise InputError(f"errors have shape {errors.shape}, standard deviations {stds.shape}; they must be one")
    if null is not None and null.shape != errors.shape:
        raise InputError(f"errors have shape {errors.shape}, the null predictor {null.shape}; they must be one")
    if errors.size < 2:
        raise InputError(f"calibration needs at least 2 errors, got {errors.size}")
    if (stds < 0).any() or not (stds > 0).any():
        raise InputError(f"standard deviations must be >= 0 and not all 0, got {stds.min()} to {stds.max()}")
    size, std = np.abs(errors).ravel(), stds.ravel()
    rms_error, rms_std = float(np.sqrt(np.mean(size**2))), float(np.sqrt(np.mean(std**2)))
    return Calibration(
        n_values=size.size,
        spearman=_rank_correlation(size, std),
        rms_error=rms_error,
        rms_std=rms_std,
        error_over_std=rms_error / rms_std,
        within_1_std=100.0 * float(np.mean(size <= std)),
        within_2_std=100.0 * float(np.mean(size <= 2.0 * std)),
        spearman_null=None if null is None else _rank_correlation(size, null.ravel()),
    )


def _rank_correlation(size: NDArray[np.float64], predictor: NDArray[np.float64]) -> float:
    from scipy.stats import spearmanr

    alike = size.min() == size.max() or predictor.min() == predictor.max()
    return 0.0 if alike else float(spearmanr(size, predictor).statistic)


def std_scale(errors: NDArray[np.float64], stds: NDArray[np.float64]) -> float:
    """The factor for which `COVERED` of the errors lie within two standard deviations, that share as its rank says.

    Further errors that are drawn like these lie within with the same probability, whatever their distribution is: the
    factor is half of an order statistic of |error| / std. Errors of one frame resemble each other, so frames, not
    components, are what has to be many. Errors elsewhere, of hotter runs say, have another factor.

    Args:
        errors: [n], any shape.
        stds: of that shape and unit, > 0.
    Raises:
        InputError: shapes that differ, too few errors for that share, a standard deviation that is not above 0.
    Source: split conformal prediction with the ratio as its score; Vovk, Gammerman and Shafer, Algorithmic Learning in
        a Random World (2005), chapter 4.
    """
    if errors.shape != stds.shape:
        raise InputError(f"errors have shape {errors.shape}, standard deviations {stds.shape}; they must be one")
    rank = math.ceil(COVERED * (errors.size + 1))
    if rank > errors.size:
        raise InputError(
            f"a factor for {100 * COVERED:g} % needs at least 21 errors, got {errors.size}; give more frames"
        )
    if not (stds > 0).all():
        raise InputError(f"standard deviations must be > 0, got {stds.min()}; two members predict the same")
    ratios = np.abs(errors).ravel() / stds.ravel()
    return 0.5 * float(np.partition(ratios, rank - 1)[rank - 1])


def force_errors_of(
    potential: Potential, frames: Frames, *, head: Head = "conservative"
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Errors of the forces on labelled frames, and their error bars if the potential is an ensemble, [A, 3],
    eV/Angstrom.

    Raises:
        InputError: frames without forces, or of what the potential was never trained on.
    """
    if frames.forces is None:
        raise InputError(f"{frames.name}: has no forces; give labelled frames")
    require_known_frames(potential.domain, frames, species=potential.species)
    forces, stds = [], []
    at_once = max(1, MAX_ATOMS // (int(frames.n_atoms.max()) * potential.n_members))
    for start in range(0, len(frames), at_once):
        part = frames.select(np.arange(start, min(start + at_once, len(frames)))).without_labels()
        batch = build_batch(part, cutoff=potential.cutoff).to(potential.device)
        out = potential.predict(batch, forces=head)
        forces.append(out.of_head(head).double().cpu().numpy())
        std = out.std("forces" if head == "conservative" else "direct_forces")
        if std is not None:
            stds.append(std.double().cpu().numpy())
    return np.concatenate(forces) - frames.forces, np.concatenate(stds) if stds else None
