"""Linear and angular momentum along a run: what a free molecule keeps, and inexact symmetry changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
        angular_change_hbar: |L(t) - L(0)| about the centre of mass, [T], in units of hbar.
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
    positions: NDArray[np.float64], momenta: NDArray[np.float64], *, masses: NDArray[np.float64]
) -> MomentumChange | None:
    """Change of linear and angular momentum along a run; None for one atom or atoms at rest, which have no scale.

    Args:
        positions: [T, N, 3], Angstrom, unwrapped.
        momenta: [T, N, 3], amu Angstrom/fs.
        masses: [N], amu.
    Raises:
        InputError: shapes that do not fit.
    """
    if positions.shape != momenta.shape or positions.shape[1:] != (len(masses), 3):
        raise InputError(
            f"positions {positions.shape}, momenta {momenta.shape} and masses {masses.shape} must be "
            "[T, N, 3], [T, N, 3] and [N]"
        )
    angular = angular_momentum(positions, momenta, masses=masses)
    linear = linear_momentum(momenta)
    arms = positions[0] - center_of_mass(positions[0], masses)
    # The centre's own motion is taken off, or a molecule that flies would seem to turn.
    inner = momenta[0] - linear[0] * (masses / masses.sum())[:, None]
    atomic = float(np.sqrt((np.cross(arms, inner) ** 2).sum()))
    scale = float(np.linalg.norm(momenta[0], axis=1).sum())
    if atomic <= 0.0 or scale <= 0.0:
        return None
    initial = float(np.linalg.norm(angular[0]))
    turning = initial > AT_REST * atomic
    return MomentumChange(
        linear_change=np.linalg.norm(linear - linear[0], axis=1) / scale,
        angular_change_hbar=np.linalg.norm(angular - angular[0], axis=1) / HBAR,
        reference_hbar=(initial if turning else atomic) / HBAR,
        reference="initial angular momentum" if turning else "atomic angular momenta",
    )
