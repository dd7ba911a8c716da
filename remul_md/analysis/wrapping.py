"""Are coordinates wrapped into a box that the file does not state: atoms that jump by one length along one axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SHORTEST_BOX = 4.0  # Angstrom; no program that wraps coordinates runs a molecule in a smaller box
SLACK = 2.0  # Angstrom by which a jump may differ from the box: what an atom moves from frame to frame itself
MIN_JUMPS = 3


class WrappedCoordinates:
    """Looks for jumps in frames that come some at a time.

    A jump moves some atoms, and not the whole molecule, from one frame to the next by at least `SHORTEST_BOX` along one
    axis and by less than `SLACK` along the others. Jumps along an axis are all of one length if they are of a box;
    atoms that fly apart go any way by any length.
    """

    def __init__(self) -> None:
        self._last: Array | None = None
        self._jumps: list[list[float]] = [[], [], []]
        self._n_other = 0

    def update(self, positions: Array) -> None:
        """Look at the next frames, [T, N, 3], Angstrom."""
        before = positions if self._last is None else np.concatenate([self._last[None], positions])
        self._last = positions[-1]
        steps = np.diff(before, axis=0)
        steps = np.abs(steps - np.median(steps, axis=1, keepdims=True))  # what the molecule does as a whole is no jump
        far = steps.max(axis=2) >= SHORTEST_BOX
        for step in steps[far]:
            long = np.flatnonzero(step >= SLACK)
            if len(long) == 1:
                self._jumps[long[0]].append(float(step[long[0]]))
            else:
                self._n_other += 1

    def box_A(self) -> dict[str, float]:
        """Axes along which atoms jump, with the length; empty if they do not, or jump in other ways, too."""
        n_jumps = sum(map(len, self._jumps))
        # Atoms in a corner of the box jump along two axes at once; of atoms that fly apart that is the rule.
        if n_jumps < MIN_JUMPS or self._n_other > n_jumps:
            return {}
        found = {axis: np.array(jumps) for axis, jumps in zip("xyz", self._jumps, strict=True) if jumps}
        if any(np.ptp(jumps) > 2.0 * SLACK for jumps in found.values()):
            return {}
        return {axis: float(np.median(jumps)) for axis, jumps in found.items()}
