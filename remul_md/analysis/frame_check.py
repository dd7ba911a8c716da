"""What the MDAnalysis classes of this package share: frames in blocks, and the units of MDAnalysis in ours."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from MDAnalysis.analysis.base import AnalysisBase
from MDAnalysis.core.groups import AtomGroup
from numpy.typing import NDArray

from remul_md.analysis.temperature import counted_degrees_of_freedom
from remul_md.dynamics.constraints import SeenConstraints
from remul_md.dynamics.readers.universe import PER_PS, elements_of
from remul_md.dynamics.trajectory import block_length
from remul_md.errors import InputError
from remul_md.structures.topology import bond_pairs

Array = NDArray[np.float64]


def kj_per_mol() -> float:
    """One kJ/mol in eV, as ASE has it."""
    from ase import units

    return float(units.kJ / units.mol)


class FrameCheck(AnalysisBase):
    """Hands the frames to a check some at a time; the check itself is a function on arrays.

    Args:
        group: the atoms, at least one; their Universe is left as it is.
    Raises:
        InputError: no atom, or no frame chosen by `run`.
    """

    def __init__(self, group: AtomGroup) -> None:
        if len(group) == 0:
            raise InputError("the atom group is empty; select at least one atom")
        super().__init__(group.universe.trajectory)
        self._group = group

    def _prepare(self) -> None:
        if self.n_frames == 0:
            raise InputError("no frame was chosen; check start, stop and step")
        self._positions: list[Array] = []
        self._extra: list[Array] = []
        self._first: Array | None = None
        self._begin()

    def _single_frame(self) -> None:
        self._positions.append(self._group.positions.astype(np.float64))
        if self._first is None:
            self._first = self._positions[0]
        extra = self._of_frame()
        if extra is not None:
            self._extra.append(extra)
        if len(self._positions) == block_length(len(self._group)):
            self._measure()

    def _measure(self) -> None:
        if self._positions:
            self._block(np.array(self._positions), np.array(self._extra))
        self._positions, self._extra = [], []

    def _conclude(self) -> None:
        self._measure()
        self.results.time_ps = np.array(self.times, dtype=np.float64)
        self._finish()

    def _begin(self) -> None:
        """Make what is collected empty: an analysis may run twice."""

    def _of_frame(self) -> Array | None:
        """What a check needs of the present frame besides the positions."""
        return None

    @abstractmethod
    def _block(self, positions: Array, extra: Array) -> None:
        """Measure some frames: positions [T, N, 3], Angstrom, and `_of_frame` of each."""

    @abstractmethod
    def _finish(self) -> None:
        """Results from what the blocks left."""

    @property
    def _masses(self) -> Array:
        return np.asarray(self._group.masses, dtype=np.float64)

    def _forces(self) -> Array:
        """eV/Angstrom."""
        if not self._trajectory.ts.has_forces:
            raise InputError(f"frame {self._trajectory.frame} has no forces; the net torque needs them")
        return np.asarray(self._group.forces, dtype=np.float64) * kj_per_mol()

    def _momenta(self) -> Array:
        """amu Angstrom/fs."""
        if not self._trajectory.ts.has_velocities:
            raise InputError(f"frame {self._trajectory.frame} has no velocities; momenta need them")
        return np.asarray(self._group.velocities, dtype=np.float64) * PER_PS * self._masses[:, None]

    def _constraints_seen(self, positions: Array) -> SeenConstraints:
        """A look at what is held; at bonds only where the topology has elements."""
        bonds = np.empty((0, 2), dtype=np.int64)
        if hasattr(self._group, "elements") and not self._pbc.any():
            bonds = bond_pairs(elements_of(self._group, name="the atom group"), positions)
        return SeenConstraints(positions, bonds)

    def _degrees_of_freedom(self, momenta: Array, seen: SeenConstraints) -> int:
        """Counted in the first frame, with what was held in all of them; `momenta` are that frame's, [N, 3]."""
        assert self._first is not None  # at least one frame was chosen
        found, _ = counted_degrees_of_freedom(
            self._first, momenta, masses=self._masses, pbc=self._pbc, constraints=seen.result()
        )
        return found

    @property
    def _pbc(self) -> NDArray[np.bool_]:
        return np.full(3, self._trajectory.ts.dimensions is not None)
