"""Linear and angular momentum along a run: what a free molecule keeps, and inexact symmetry changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.rotation import about_axis
from remul_md.dynamics.momenta import angular_momentum, center_of_mass, linear_momentum
from remul_md.errors import InputError

HBAR = 6.350779922e-3  # amu Angstrom^2/fs
# Below this share of the atoms' own angular momenta the run was started without rotation.
AT_REST = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class MomentumChange:
    """Change of linear and angular momentum relative to frame 0.

    Args:
        linear_change: |P(t) - P(0)| / sum of |p_i| in frame 0, [T], dimensionless.
        angular_change_hbar: |L(t) - L(0)| about the centre of mass, or its part along an axis, [T], in units of hbar.
        reference_hbar: what the relative change is relative to, in units of hbar.
        reference: `initial angular momentum`, or `atomic angular momenta` (root of the summed squares of r_i x p_i
            in frame 0) for a run that starts without rotation, whose initial angular momentum is about zero.
    """

    linear_change: NDArray[np.float64]
    angular_change_hbar: NDArray[np.float64]
    reference_hbar: float
    reference: str

    @property
    def max_relative_change(self) -> float:
        """Largest change of the angular momentum, dimensionless."""
        return float(self.angular_change_hbar.max() / self.reference_hbar)

    @property
    def end_relative_change(self) -> float:
        """Change of the angular momentum from the first to the last frame, dimensionless."""
        return float(self.angular_change_hbar[-1] / self.reference_hbar)

    @property
    def max_linear_change(self) -> float:
        """Largest change of the linear momentum, relative to the summed sizes of the atoms' momenta."""
        return float(self.linear_change.max())


def momentum_change(
    positions: NDArray[np.float64],
    momenta: NDArray[np.float64],
    *,
    masses: NDArray[np.float64],
    reference: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    axis: Sequence[float] | None = None,
) -> MomentumChange | None:
    """Change of linear and angular momentum along a run; None for one atom or atoms at rest, which have no scale.

    Args:
        positions: [T, N, 3], Angstrom, unwrapped.
        momenta: [T, N, 3], amu Angstrom/fs.
        masses: [N], amu.
        reference: positions and momenta, [N, 3] each, of frame 0 of the run where these frames are a later part.
        axis: angular momenta count along it only: a field along it changes the others.
    Raises:
        InputError: shapes that do not fit.
    """
    if positions.shape != momenta.shape or positions.shape[1:] != (len(masses), 3):
        raise InputError(
            f"positions {positions.shape}, momenta {momenta.shape} and masses {masses.shape} must be "
            "[T, N, 3], [T, N, 3] and [N]"
        )
    start, start_momenta = (positions[0], momenta[0]) if reference is None else reference
    angular = about_axis(angular_momentum(positions, momenta, masses=masses), axis)
    linear = linear_momentum(momenta)
    first_angular = about_axis(angular_momentum(start, start_momenta, masses=masses), axis)
    first_linear = linear_momentum(start_momenta)
    levers = start - center_of_mass(start, masses)
    # The centre's own motion is taken off, or a molecule that flies would seem to turn.
    inner = start_momenta - first_linear * (masses / masses.sum())[:, None]
    atomic = float(np.sqrt((about_axis(np.cross(levers, inner), axis) ** 2).sum()))
    scale = float(np.linalg.norm(start_momenta, axis=1).sum())
    if atomic <= 0.0 or scale <= 0.0:
        return None
    initial = float(np.linalg.norm(first_angular))
    turning = initial > AT_REST * atomic
    return MomentumChange(
        linear_change=np.linalg.norm(linear - first_linear, axis=1) / scale,
        angular_change_hbar=np.linalg.norm(angular - first_angular, axis=1) / HBAR,
        reference_hbar=(initial if turning else atomic) / HBAR,
        reference="initial angular momentum" if turning else "atomic angular momenta",
    )


def joined_momentum_change(parts: Sequence[MomentumChange]) -> MomentumChange:
    """The change along a whole run from consecutive parts that have one reference."""
    return replace(
        parts[0],
        linear_change=np.concatenate([part.linear_change for part in parts]),
        angular_change_hbar=np.concatenate([part.angular_change_hbar for part in parts]),
    )
