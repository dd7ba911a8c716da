"""How far a molecule has rotated: the proper rotations that bring one geometry onto others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError

# Squared ratio of width to length below which a molecule counts as linear: its spin about the axis is then noise.
LINEAR = 5e-3


def superposition_rotations(
    positions: NDArray[np.float64], reference: NDArray[np.float64], *, masses: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Proper rotations g, [T, 3, 3], that bring the centred reference closest to each centred frame: x ~ g r.

    Never a reflection. For a linear molecule the spin about its axis is undefined: the smallest rotation that
    brings one axis onto the other is returned. A single atom has the identity.

    Args:
        positions: frames, [T, N, 3], Angstrom, unwrapped. Equal atoms keep their labels: an exchange of two
            hydrogens counts as a turn.
        reference: [N, 3], Angstrom, or one for each frame, [T, N, 3].
        masses: weights of the superposition, [N], amu; equal weights without.
    Raises:
        InputError: shapes that do not fit.
    Source: Kabsch, Acta Cryst. A 32 (1976), 922, with the sign of the determinant after Wahba.
    """
    frames, start = np.asarray(positions, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    fits = start.shape in (frames.shape, frames.shape[1:])
    if frames.ndim != 3 or not fits or start.shape[-1:] != (3,):
        raise InputError(f"positions {frames.shape} must be [T, N, 3] and fit the reference {start.shape}")
    weights = np.ones(frames.shape[1]) if masses is None else np.asarray(masses, dtype=np.float64)
    centred_start = np.broadcast_to(centred(start, weights), frames.shape)
    covariance = np.einsum("a,tai,taj->tij", weights, centred(frames, weights), centred_start)
    left, singular, right = np.linalg.svd(covariance)
    if singular.max(initial=0.0) < 1e-12:
        return np.tile(np.eye(3), (len(frames), 1, 1))
    if np.median(singular[:, 1] / np.maximum(singular[:, 0], 1e-300)) < LINEAR:
        return np.stack([_smallest_rotation(v[0], u[:, 0]) for u, v in zip(left, right, strict=True)])
    # The axis of least weight is flipped where the best orthogonal matrix would be a reflection.
    left[:, :, 2] *= np.sign(np.linalg.det(left) * np.linalg.det(right))[:, None]
    return left @ right


def angle_swept(
    positions: NDArray[np.float64],
    *,
    reference: NDArray[np.float64] | None = None,
    masses: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Rotation angle of each frame relative to the reference (frame 0 if none), [T], degrees, 0 to 180.

    Args and Raises: as `superposition_rotations`.
    """
    frames = np.asarray(positions, dtype=np.float64)
    turns = superposition_rotations(frames, frames[0] if reference is None else reference, masses=masses)
    # atan2 of sine and cosine: the arc cosine alone loses half the digits near 0 and 180 degrees.
    sine = np.stack([turns[:, 2, 1] - turns[:, 1, 2], turns[:, 0, 2] - turns[:, 2, 0], turns[:, 1, 0] - turns[:, 0, 1]])
    return np.degrees(np.arctan2(np.linalg.norm(sine, axis=0), np.trace(turns, axis1=1, axis2=2) - 1.0))


def centred(positions: NDArray[np.float64], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Positions [..., N, 3] about their centre, weighted by `weights` [N] if they are given, Angstrom."""
    if weights is None:
        return positions - positions.mean(axis=-2, keepdims=True)
    share = np.asarray(weights, dtype=np.float64) / np.sum(weights)
    return positions - np.einsum("a,...ai->...i", share, positions)[..., None, :]


def _smallest_rotation(start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation by the angle between two unit vectors that brings the first onto the second, [3, 3]."""
    cosine = float(start @ end)
    if cosine < -1.0 + 1e-12:  # opposite: half a turn about any axis across
        across = np.cross(start, np.eye(3)[np.argmin(np.abs(start))])
        across /= np.linalg.norm(across)
        return 2.0 * np.outer(across, across) - np.eye(3)
    x, y, z = np.cross(start, end)
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + skew + skew @ skew / (1.0 + cosine)
