"""The checks as MDAnalysis analyses: `NetTorque(universe.atoms).run().results.net_torque_eV` and alike.

The only module that imports MDAnalysis (half a second). MDAnalysis keeps Angstrom, ps and kJ/mol/Angstrom in single
precision; results are in the units of this package. Nothing of the Universe is changed.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from MDAnalysis.analysis.base import AnalysisBase
from MDAnalysis.core.groups import AtomGroup
from numpy.typing import NDArray

from remul_md.analysis.momentum import momentum_change
from remul_md.analysis.rotation import angle_swept, net_force, net_torque, rotational_error_along
from remul_md.analysis.structure import BondRanges, bond_deviation
from remul_md.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

PER_PS = 1e-3  # Angstrom/ps in Angstrom/fs


def kj_per_mol() -> float:
    """One kJ/mol in eV, as ASE has it."""
    from ase import units

    return float(units.kJ / units.mol)


class _Frames(AnalysisBase):
    """Collects what a check needs frame by frame; the check itself is a function on arrays."""

    def __init__(self, group: AtomGroup) -> None:
        if len(group) == 0:
            raise InputError("the atom group is empty; select at least one atom")
        super().__init__(group.universe.trajectory)
        self._group = group

    def _prepare(self) -> None:
        self._positions: list[NDArray[np.float64]] = []
        self._extra: list[NDArray[np.float64]] = []

    def _single_frame(self) -> None:
        self._positions.append(self._group.positions.astype(np.float64))
        extra = self._of_frame()
        if extra is not None:
            self._extra.append(extra)

    def _of_frame(self) -> NDArray[np.float64] | None:
        return None

    def _conclude(self) -> None:
        if not self._positions:
            raise InputError("no frame was chosen; check start, stop and step")
        self.results.time_ps = np.array(self.times, dtype=np.float64)
        self._measure(np.array(self._positions))

    @abstractmethod
    def _measure(self, positions: NDArray[np.float64]) -> None:
        """Results from the positions of all frames, [T, N, 3], Angstrom."""


class NetTorque(_Frames):
    """Net force and net torque of each frame: `results.net_force_eV_per_A`, `results.net_torque_eV`, [T, 3].

    Args:
        group: atoms of one isolated molecule, unwrapped, in a trajectory with forces.
    """

    def _of_frame(self) -> NDArray[np.float64]:
        if not self._trajectory.ts.has_forces:
            raise InputError(f"frame {self._trajectory.frame} has no forces; the net torque needs them")
        return np.asarray(self._group.forces, dtype=np.float64) * kj_per_mol()

    def _measure(self, positions: NDArray[np.float64]) -> None:
        forces = np.array(self._extra)
        masses = np.asarray(self._group.masses, dtype=np.float64)
        self.results.net_force_eV_per_A = net_force(forces)
        self.results.net_torque_eV = net_torque(positions, forces, masses=masses)


class AngleSwept(_Frames):
    """Rotation angle of each frame from the first one analysed: `results.angle_swept_deg`, [T], degrees.

    Args:
        group: atoms of one molecule, unwrapped.
        mass_weighted: weight the superposition by mass.
    """

    def __init__(self, group: AtomGroup, *, mass_weighted: bool = True) -> None:
        super().__init__(group)
        self._mass_weighted = mass_weighted

    def _measure(self, positions: NDArray[np.float64]) -> None:
        masses = np.asarray(self._group.masses, dtype=np.float64) if self._mass_weighted else None
        self.results.angle_swept_deg = angle_swept(positions, masses=masses)


class AngularMomentum(_Frames):
    """Change of the momenta along the run: `results.change`, a `MomentumChange` (None for one atom).

    Args:
        group: atoms of one isolated molecule, unwrapped, in a trajectory with velocities.
    """

    def _of_frame(self) -> NDArray[np.float64]:
        if not self._trajectory.ts.has_velocities:
            raise InputError(f"frame {self._trajectory.frame} has no velocities; momenta need them")
        velocities = np.asarray(self._group.velocities, dtype=np.float64) * PER_PS
        return velocities * np.asarray(self._group.masses, dtype=np.float64)[:, None]

    def _measure(self, positions: NDArray[np.float64]) -> None:
        masses = np.asarray(self._group.masses, dtype=np.float64)
        self.results.change = momentum_change(positions, np.array(self._extra), masses=masses)


class Bonds(_Frames):
    """Deviation of bond lengths: `results.bonds`, a `BondDeviation` (None where there is no bond).

    Args:
        group: atoms of one molecule, unwrapped.
        pairs: bonds as places in `group`, [M, 2].
        ranges: lengths seen in training; the first frame analysed is the reference without.
    """

    def __init__(self, group: AtomGroup, pairs: NDArray[np.int64], *, ranges: BondRanges | None = None) -> None:
        super().__init__(group)
        self._pairs, self._ranges = np.array(pairs, dtype=np.int64), ranges

    def _measure(self, positions: NDArray[np.float64]) -> None:
        self.results.bonds = bond_deviation(positions, self._pairs, ranges=self._ranges)


class RotationalConsistency(_Frames):
    """Rotational error of a calculator's forces on each frame: `results.rotational`, a `RotationalError`.

    Args:
        group: atoms in the order of `atoms`.
        atoms: structure with any ASE calculator attached.
        n_draws: random turns a frame, >= 2.
        seed: of the draws.
    """

    def __init__(self, group: AtomGroup, atoms: Atoms, *, n_draws: int = 8, seed: int = 0) -> None:
        super().__init__(group)
        self._atoms, self._n_draws, self._seed = atoms, n_draws, seed

    def _measure(self, positions: NDArray[np.float64]) -> None:
        self.results.rotational = rotational_error_along(self._atoms, positions, n_draws=self._n_draws, seed=self._seed)
