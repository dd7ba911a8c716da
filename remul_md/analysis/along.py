"""What is measured on every frame of a run, some frames at a time: memory does not grow with positions and forces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from remul_md.analysis.distributions import Distribution, Histogram
from remul_md.analysis.extrapolation import RangeDeparture, joined_range_departure, range_departure
from remul_md.analysis.log import EnergyLog
from remul_md.analysis.momentum import MomentumChange, joined_momentum_change, momentum_change
from remul_md.analysis.rotation import about_axis, angle_swept, net_force, net_torque
from remul_md.analysis.structure import BondDeviation, bond_deviation, joined_bond_deviation
from remul_md.analysis.temperature import counted_degrees_of_freedom, stated_degrees_of_freedom
from remul_md.analysis.training_statistics import TrainingStatistics
from remul_md.analysis.wrapping import WrappedCoordinates
from remul_md.dynamics.constraints import Constraints, SeenConstraints
from remul_md.dynamics.momenta import kinetic_energy_eV
from remul_md.dynamics.trajectory import joined
from remul_md.structures.topology import all_pairs, bond_lengths, bond_pairs

if TYPE_CHECKING:
    from remul_md.dynamics.trajectory import FrameStream, TrajectoryArrays

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class RunMeasures:
    """Numbers of each of T frames; None where not all frames hold what they need.

    Args:
        first: frame 0.
        sample: the frames that were asked for, in order.
        time_ps: [T].
        potential_energy: [T], eV.
        kinetic_energy: [T], eV.
        angle_swept_deg: rotation angle from frame 0, [T].
        net_force_eV_per_A: of the forces in the frames, [T, 3].
        net_torque_eV: likewise, [T, 3].
        momentum: change of the momenta; None for a periodic system.
        bonds: deviation of the bonds of frame 0; None for a periodic system, or without bonds.
        departure: of the distances from the ranges of the training data; None without ranges, for a periodic system
            or a single atom.
        pair_distances: h(r); None for a periodic system, or a single atom.
        constraints: coordinates and bonds that stayed the same in all frames.
        wrapped_A: axes along which atoms jump by the length of a box that the file does not state, Angstrom.
    """

    first: TrajectoryArrays
    sample: TrajectoryArrays
    time_ps: Array
    potential_energy: Array | None
    kinetic_energy: Array | None
    angle_swept_deg: Array
    net_force_eV_per_A: Array | None
    net_torque_eV: Array | None
    momentum: MomentumChange | None
    bonds: BondDeviation | None
    departure: RangeDeparture | None
    pair_distances: Distribution | None
    constraints: Constraints
    wrapped_A: Mapping[str, float]

    @property
    def energies(self) -> EnergyLog | None:
        """Energies of the frames; None where some lack them."""
        potential, kinetic = self.potential_energy, self.kinetic_energy
        if potential is None or kinetic is None:
            return None
        return EnergyLog(time_ps=self.time_ps, potential_energy=potential, kinetic_energy=kinetic, source="frames")

    def degrees_of_freedom(self, run: Mapping[str, Any]) -> tuple[int | None, str]:
        """Their number and where it comes from: stated in `run.json`, or counted in frame 0; None without momenta."""
        stated = stated_degrees_of_freedom(run)
        if stated is not None:
            return stated, "stated by the run"
        first = self.first
        if self.kinetic_energy is None or first.momenta is None:
            return None, "unknown: no momenta"
        return counted_degrees_of_freedom(
            first.positions[0], first.momenta[0], masses=first.masses, pbc=first.pbc, constraints=self.constraints
        )


def measure_run(
    frames: FrameStream,
    *,
    sample: NDArray[np.int64],
    trained: TrainingStatistics | None = None,
    axis: Sequence[float] | None = None,
) -> RunMeasures:
    """Go through the frames once and keep some numbers of each, about 150 bytes, and the positions of a few.

    Args:
        frames: a file or arrays.
        sample: numbers of the frames to keep, ascending, >= 1 of them.
        trained: what bonds and distances are held against.
        axis: torques and angular momenta count along it only.
    Raises:
        InputError: frames that cannot be read, ranges for another structure.
    """
    ranges, unlike = (None, "") if trained is None else (trained.bonds, trained.unlike)
    time_ps: list[Array] = []
    energies: list[Array | None] = []
    kinetic: list[Array | None] = []
    angles: list[Array] = []
    forces: list[Array | None] = []
    torques: list[Array | None] = []
    momenta: list[MomentumChange | None] = []
    bonds: list[BondDeviation | None] = []
    departures: list[RangeDeparture] = []
    kept: list[TrajectoryArrays] = []
    first: TrajectoryArrays | None = None
    start = 0
    for block in frames.blocks():
        masses = block.masses
        if first is None:
            first = block.part(np.array([0]))
            place, isolated = first.positions[0], not block.pbc.any()
            pairs = bond_pairs(block.atomic_numbers, place) if isolated else np.empty((0, 2), dtype=np.int64)
            seen, wrapping = SeenConstraints(place, pairs), WrappedCoordinates()
            every_pair = all_pairs(len(masses))
            histogram = Histogram("distance", n_frames=frames.n_frames)
        time_ps.append(block.time_ps)
        seen.update(block.positions)
        wrapping.update(block.positions)
        energies.append(block.energy)
        angles.append(angle_swept(block.positions, reference=place, masses=masses))
        forces.append(None if block.forces is None else net_force(block.forces))
        if block.forces is None:
            torques.append(None)
        else:
            torques.append(about_axis(net_torque(block.positions, block.forces, masses=masses), axis))
        kinetic.append(None if block.momenta is None else kinetic_energy_eV(block.momenta, masses))
        if isolated:
            deviation = bond_deviation(block.positions, pairs, ranges=ranges, reference=place)
            bonds.append(deviation if deviation is None else replace(deviation, unlike=unlike))
            if trained is not None and trained.distance_ranges and len(masses) > 1:
                departures.append(range_departure(block.positions, block.atomic_numbers, trained.distance_ranges))
            histogram.update(bond_lengths(block.positions, every_pair))
        if isolated and block.momenta is not None and first.momenta is not None:
            reference = (place, first.momenta[0])
            change = momentum_change(block.positions, block.momenta, masses=masses, reference=reference, axis=axis)
            momenta.append(change)
        else:
            momenta.append(None)
        here = sample[(sample >= start) & (sample < start + len(block))] - start
        if len(here):
            kept.append(block.part(here))
        start += len(block)
    assert first is not None  # a trajectory has at least one frame
    changes = [part for part in momenta if part is not None]
    deviations = [part for part in bonds if part is not None]
    return RunMeasures(
        first=first,
        sample=joined(kept),
        time_ps=np.concatenate(time_ps),
        potential_energy=_together(energies),
        kinetic_energy=_together(kinetic),
        angle_swept_deg=np.concatenate(angles),
        net_force_eV_per_A=_together(forces),
        net_torque_eV=_together(torques),
        momentum=joined_momentum_change(changes) if len(changes) == len(momenta) else None,
        bonds=joined_bond_deviation(deviations) if deviations else None,
        departure=joined_range_departure(departures) if departures else None,
        pair_distances=histogram.result() if isolated and len(first.masses) > 1 else None,
        constraints=seen.result(),
        wrapped_A=wrapping.box_A() if isolated else {},
    )


def _together(parts: Sequence[Array | None]) -> Array | None:
    """One array; None where a part is missing."""
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if len(present) == len(parts) else None
