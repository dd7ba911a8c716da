"""The checks as MDAnalysis analyses: `NetTorque(universe.atoms).run().results.net_torque_eV` and alike.

MDAnalysis keeps Angstrom, ps and kJ/mol/Angstrom in single precision; results are in the units of this package.
Nothing of the Universe is changed. Frames are measured some at a time, so memory holds a few numbers of each; only
`RotationalConsistency` and `VibrationalSpectrum` need all of them at once. MDAnalysis takes half a second to import,
so nothing else of the package imports this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from MDAnalysis.core.groups import AtomGroup
from numpy.typing import NDArray

from remul_md.analysis.distributions import Histogram, StructureHistograms
from remul_md.analysis.energy import energy_drift
from remul_md.analysis.frame_check import FrameCheck
from remul_md.analysis.momentum import MomentumChange, joined_momentum_change, momentum_change
from remul_md.analysis.rotation import angle_swept, net_force, net_torque, rotational_error_along
from remul_md.analysis.spectrum import density_of_states, even_interval_fs
from remul_md.analysis.structure import BondDeviation, BondRanges, bond_deviation, joined_bond_deviation
from remul_md.analysis.temperature import temperatures
from remul_md.dynamics.constraints import SeenConstraints
from remul_md.dynamics.momenta import kinetic_energy_eV
from remul_md.dynamics.readers.universe import elements_of
from remul_md.errors import InputError
from remul_md.structures.topology import all_pairs, bond_lengths, bond_pairs

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]


class NetTorque(FrameCheck):
    """Net force and net torque of each frame: `results.net_force_eV_per_A`, `results.net_torque_eV`, [T, 3].

    Args:
        group: atoms of one isolated molecule, unwrapped, in a trajectory with forces.
    """

    def _begin(self) -> None:
        self._forces_found: list[Array] = []
        self._torques: list[Array] = []

    def _of_frame(self) -> Array:
        return self._forces()

    def _block(self, positions: Array, extra: Array) -> None:
        self._forces_found.append(net_force(extra))
        self._torques.append(net_torque(positions, extra, masses=self._masses))

    def _finish(self) -> None:
        self.results.net_force_eV_per_A = np.concatenate(self._forces_found)
        self.results.net_torque_eV = np.concatenate(self._torques)


class AngleSwept(FrameCheck):
    """Rotation angle of each frame from the first one analysed: `results.angle_swept_deg`, [T], degrees.

    Args:
        group: atoms of one molecule, unwrapped.
        mass_weighted: weight the superposition by mass.
    """

    def __init__(self, group: AtomGroup, *, mass_weighted: bool = True) -> None:
        super().__init__(group)
        self._mass_weighted = mass_weighted

    def _begin(self) -> None:
        self._angles: list[Array] = []

    def _block(self, positions: Array, extra: Array) -> None:
        masses = self._masses if self._mass_weighted else None
        self._angles.append(angle_swept(positions, reference=self._first, masses=masses))

    def _finish(self) -> None:
        self.results.angle_swept_deg = np.concatenate(self._angles)


class AngularMomentum(FrameCheck):
    """Change of linear and angular momentum: `results.change`, a `MomentumChange` (None for one atom).

    Args:
        group: atoms of one isolated molecule, unwrapped, in a trajectory with velocities.
    """

    def _begin(self) -> None:
        self._start: tuple[Array, Array] | None = None
        self._changes: list[MomentumChange] = []

    def _of_frame(self) -> Array:
        return self._momenta()

    def _block(self, positions: Array, extra: Array) -> None:
        self._start = (positions[0], extra[0]) if self._start is None else self._start
        change = momentum_change(positions, extra, masses=self._masses, reference=self._start)
        self._changes += [] if change is None else [change]

    def _finish(self) -> None:
        self.results.change = joined_momentum_change(self._changes) if self._changes else None


class Bonds(FrameCheck):
    """Deviation of bond lengths: `results.bonds`, a `BondDeviation` (None where there is no bond).

    `results.first_broken_bond_ps` is the time from the first frame analysed until a bond was 0.5 Angstrom off, or None.

    Args:
        group: atoms of one molecule, unwrapped.
        pairs: bonds as places in `group`, [M, 2].
        ranges: lengths seen in training; the first frame analysed is the reference without.
    """

    def __init__(self, group: AtomGroup, pairs: NDArray[np.int64], *, ranges: BondRanges | None = None) -> None:
        super().__init__(group)
        self._pairs, self._ranges = np.array(pairs, dtype=np.int64), ranges

    def _begin(self) -> None:
        self._deviations: list[BondDeviation] = []

    def _block(self, positions: Array, extra: Array) -> None:
        found = bond_deviation(positions, self._pairs, ranges=self._ranges, reference=self._first)
        self._deviations += [] if found is None else [found]

    def _finish(self) -> None:
        bonds = joined_bond_deviation(self._deviations) if self._deviations else None
        frame = None if bonds is None else bonds.first_off_frame
        times = self.results.time_ps
        self.results.bonds = bonds
        self.results.first_broken_bond_ps = None if frame is None else float(times[frame] - times[0])


class PairDistances(FrameCheck):
    """h(r), the distances of all pairs of atoms: `results.pair_distances`, a `Distribution`.

    Args:
        group: at least two atoms of one molecule, unwrapped.
    """

    def __init__(self, group: AtomGroup) -> None:
        super().__init__(group)
        if len(group) < 2:
            raise InputError(f"pair distances need at least two atoms, the group has {len(group)}")

    def _begin(self) -> None:
        self._histogram = Histogram("distance", n_frames=self.n_frames)

    def _block(self, positions: Array, extra: Array) -> None:
        self._histogram.update(bond_lengths(positions, all_pairs(len(self._group))))

    def _finish(self) -> None:
        self.results.pair_distances = self._histogram.result()


class StructureDistributions(FrameCheck):
    """Pair distances and each type of bond, angle and dihedral: `results.distributions`, by name.

    Args:
        group: at least two atoms of one molecule, unwrapped, whose topology has elements.
        pairs: bonds as places in `group`, [M, 2]; those of the first frame analysed without.
    """

    def __init__(self, group: AtomGroup, *, pairs: NDArray[np.int64] | None = None) -> None:
        super().__init__(group)
        if len(group) < 2:
            raise InputError(f"structure distributions need at least two atoms, the group has {len(group)}")
        self._numbers, self._pairs = elements_of(group, name="the topology"), pairs

    def _begin(self) -> None:
        self._histograms: StructureHistograms | None = None

    def _block(self, positions: Array, extra: Array) -> None:
        if self._histograms is None:
            pairs = bond_pairs(self._numbers, positions[0]) if self._pairs is None else self._pairs
            self._histograms = StructureHistograms(self._numbers, pairs, n_frames=self.n_frames)
        self._histograms.update(positions)

    def _finish(self) -> None:
        assert self._histograms is not None  # at least one frame was chosen
        self.results.distributions = self._histograms.result()


class Temperature(FrameCheck):
    """Temperature of each frame: `results.temperature_K`, [T], and `results.n_dof`, what it counts.

    Args:
        group: atoms in a trajectory with velocities.
        n_dof: degrees of freedom; counted in the first frame analysed without.
    """

    def __init__(self, group: AtomGroup, *, n_dof: int | None = None) -> None:
        super().__init__(group)
        self._n_dof = n_dof

    def _begin(self) -> None:
        self._kinetic: list[Array] = []
        self._seen: SeenConstraints | None = None
        self._first_momenta = np.empty((0, 3))

    def _of_frame(self) -> Array:
        return self._momenta()

    def _block(self, positions: Array, extra: Array) -> None:
        if self._seen is None:
            self._seen, self._first_momenta = self._constraints_seen(positions[0]), extra[0]
        self._seen.update(positions)
        self._kinetic.append(kinetic_energy_eV(extra, self._masses))

    def _finish(self) -> None:
        assert self._seen is not None  # at least one frame was chosen
        self.results.n_dof = self._n_dof or self._degrees_of_freedom(self._first_momenta, self._seen)
        self.results.temperature_K = temperatures(np.concatenate(self._kinetic), n_dof=self.results.n_dof)


class EnergyDrift(FrameCheck):
    """Drift of the total energy: `results.drift`, and `results.total_energy`, [T], eV.

    Of the formats that MDAnalysis reads only H5MD carries energies; `remul-md md` writes them.

    Args:
        group: all atoms of the system, with velocities.
        observable: the potential energy in the H5MD file; MDAnalysis hands it through in the unit of the file.
        eV_per_unit: one of that unit, eV.
    """

    def __init__(self, group: AtomGroup, *, observable: str = "potential_energy", eV_per_unit: float = 1.0) -> None:
        super().__init__(group)
        if len(group) != len(group.universe.atoms):
            raise InputError(
                f"the energy belongs to all {len(group.universe.atoms)} atoms, the group has {len(group)}; "
                "give universe.atoms"
            )
        self._observable, self._eV_per_unit = observable, eV_per_unit

    def _begin(self) -> None:
        self._kinetic: list[Array] = []
        self._potential: list[float] = []

    def _of_frame(self) -> Array:
        data = self._trajectory.ts.data
        if self._observable not in data:
            raise InputError(
                f"frame {self._trajectory.frame} carries no {self._observable!r} (it has {', '.join(sorted(data))}); "
                "write H5MD with energies, or use the log of the run"
            )
        self._potential.append(float(np.asarray(data[self._observable]).item()) * self._eV_per_unit)
        return self._momenta()

    def _block(self, positions: Array, extra: Array) -> None:
        self._kinetic.append(kinetic_energy_eV(extra, self._masses))

    def _finish(self) -> None:
        self.results.total_energy = np.array(self._potential) + np.concatenate(self._kinetic)
        self.results.drift = energy_drift(self.results.time_ps, self.results.total_energy / len(self._group))


class VibrationalSpectrum(FrameCheck):
    """Vibrational density of states from the velocities: `results.spectrum`, a `Spectrum`.

    Args:
        group: atoms in a trajectory with velocities at even times.
        resolution_per_cm: width of a sharp line that is asked for, 1/cm.
        n_dof: degrees of freedom of the temperature; counted in the first frame analysed without.
    """

    def __init__(self, group: AtomGroup, *, resolution_per_cm: float = 10.0, n_dof: int | None = None) -> None:
        super().__init__(group)
        self._resolution_per_cm, self._n_dof = resolution_per_cm, n_dof

    def _begin(self) -> None:
        self._all_momenta: list[Array] = []
        self._seen: SeenConstraints | None = None

    def _of_frame(self) -> Array:
        return self._momenta()

    def _block(self, positions: Array, extra: Array) -> None:
        self._seen = self._seen or self._constraints_seen(positions[0])
        self._seen.update(positions)
        self._all_momenta.append(extra)

    def _finish(self) -> None:
        momenta, masses, n_dof = np.concatenate(self._all_momenta), self._masses, self._n_dof
        if n_dof is None:
            assert self._seen is not None
            n_dof = self._degrees_of_freedom(momenta[0], self._seen)
        self.results.spectrum = density_of_states(
            momenta,
            masses=masses,
            frame_interval_fs=even_interval_fs(self.results.time_ps),
            temperature_K=float(temperatures(kinetic_energy_eV(momenta, masses), n_dof=n_dof).mean()),
            resolution_per_cm=self._resolution_per_cm,
        )


class RotationalConsistency(FrameCheck):
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

    def _begin(self) -> None:
        self._all_positions: list[Array] = []

    def _block(self, positions: Array, extra: Array) -> None:
        self._all_positions.append(positions)  # one seed draws the turns of all frames

    def _finish(self) -> None:
        positions = np.concatenate(self._all_positions)
        self.results.rotational = rotational_error_along(self._atoms, positions, n_draws=self._n_draws, seed=self._seed)
