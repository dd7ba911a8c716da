"""Scans of the energy: where it jumps, where the forces jump or bend, and wells that should not be there.

A jump cannot be told from a steep slope at one step size. So intervals whose energy difference is not the work of
the forces, or whose forces no cubic through their neighbours foretells, are halved until they are explained or as
wide as a limit needs: what is smooth falls with the fourth power of the step or faster, a jump of the energy stays
down to MIN_STEP_A. Forces are looked at down to FORCE_STEP_A, about the way of an atom in a time step: what they do
within it no integrator sees, whether it is a jump or a kink (which falls with the step).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from remul_md.analysis.audit.curves import interval_integrals, node_residuals, other_minima
from remul_md.analysis.audit.paths import Path, path_length
from remul_md.analysis.audit.probe import Array, CalculationFailed, Probe, Sample

HIGHEST_eV = 10.0  # above the structure: a scan ends there, no dynamics comes that far
MIN_STEP_A = 5e-4
FORCE_STEP_A = 0.0063  # an eighth of a step of a scan; a hydrogen of 300 K moves by 0.008 in 0.5 fs
EXPLAINED = 0.25  # of a limit: such an interval is not looked at more closely
MAX_HALVINGS = 144  # of one scan
NOISE_SHOWS = 48  # halvings; if most intervals are unexplained even then, that is noise and stays
HALVED_AT_ONCE = 16  # the worst ones
MAX_FAILURES = 2  # one after the other: the scan ends there; a single one is passed over


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """Energies along one path, and what is wrong with them.

    Args:
        path: what was scanned.
        values: coordinate, [S], increasing, in the unit of the path.
        energies: relative to the structure, [S], eV.
        energy_jump: largest energy change that no slope explains, eV.
        force_jump: largest change of a force component within FORCE_STEP_A that no smooth curve explains, eV/Angstrom.
        jump_at: coordinates of jumps beyond the limits, for the plot.
        minima: (coordinate, depth in eV, barrier to it in eV) of all minima but the first, sorted by coordinate.
        ended_early: why a scan stops before its end; empty where it does not.
        failures: why single points are missing, in the middle of the scan.
        n_unresolved: intervals that may hide a jump beyond the limits: too wide to say, where the calculator failed
            within or MAX_HALVINGS were not enough.
    """

    path: Path
    values: Array
    energies: Array
    energy_jump: float
    force_jump: float
    jump_at: tuple[float, ...]
    minima: tuple[tuple[float, float, float], ...]
    ended_early: tuple[str, ...]
    failures: tuple[str, ...]
    n_unresolved: int

    @property
    def n_intervals(self) -> int:
        """Intervals of the scan as it was refined."""
        return len(self.values) - 1

    def barrier_to(self, value: float) -> float:
        """Highest energy between the structure and a value of the coordinate, relative to the structure, eV."""
        low, high = sorted((self.path.start, value))
        return float(self.energies[(self.values >= low) & (self.values <= high)].max(initial=0.0))


class _Node(NamedTuple):
    """A point of a scan: coordinate, positions, what was calculated, and the force along the path."""

    value: float
    place: Array
    sample: Sample
    along: float


class _Nodes:
    """Points of a scan that is being refined, sorted by coordinate."""

    def __init__(self, probe: Probe, path: Path) -> None:
        self.probe, self.path = probe, path
        self.ended: list[str] = []
        self.failures: list[str] = []
        self.closed: set[float] = set()  # left ends of intervals in whose middle the calculator failed
        place = path.place(path.start)
        first = self._node(path.start, place, probe(place))
        inwards, outwards = self._walk(first.sample, path.inwards), self._walk(first.sample, path.outwards)
        self.nodes: list[_Node] = [*inwards[::-1], first, *outwards]

    def _node(self, value: float, place: Array, sample: Sample) -> _Node:
        # Of known geometry and smooth, so that differences are exact enough.
        tangent = (self.path.place(value + 1e-4) - self.path.place(value - 1e-4)) / 2e-4
        return _Node(value, place, sample, float((sample.forces * tangent).sum()))

    def _walk(self, start: Sample, values: Array) -> list[_Node]:
        nodes: list[_Node] = []
        missing: list[str] = []
        for first in range(0, len(values), self.probe.batch_size):
            chosen = [float(value) for value in values[first : first + self.probe.batch_size]]
            places = [self.path.place(value) for value in chosen]
            for value, place, found in zip(chosen, places, self.probe.many(places), strict=True):
                if isinstance(found, CalculationFailed):
                    missing.append(f"at {value:.3g} {self.path.unit}: {found}")
                    if len(missing) == MAX_FAILURES:
                        break
                    continue
                self.failures += [f"{self.path.label} {reason}" for reason in missing]
                missing = []
                nodes.append(self._node(value, place, found))
                if found.energy - start.energy > HIGHEST_eV:
                    return nodes
            if len(missing) == MAX_FAILURES:
                break
        if missing:
            self.ended.append(f"{self.path.label} ends {missing[0]}")
        return nodes

    def halve(self, intervals: list[int]) -> None:
        values = [0.5 * (self.nodes[i].value + self.nodes[i + 1].value) for i in intervals]
        places = [self.path.place(value) for value in values]
        for i, value, place, found in zip(intervals, values, places, self.probe.many(places), strict=True):
            if isinstance(found, CalculationFailed):
                self.closed.add(self.nodes[i].value)
                self.failures.append(f"{self.path.label} at {value:.3g} {self.path.unit}: {found}")
            else:
                self.nodes.append(self._node(value, place, found))
        self.nodes.sort(key=lambda node: node.value)

    def mismatches(self) -> Mismatches:
        """What no smooth curve explains in each interval."""
        values = np.array([node.value for node in self.nodes])
        energies = np.array([node.sample.energy for node in self.nodes])
        forces = np.stack([node.sample.forces for node in self.nodes])
        widths = np.array([path_length(a.place, b.place) for a, b in pairwise(self.nodes)])
        along = np.array([node.along for node in self.nodes])
        energy = np.abs(np.diff(energies) + interval_integrals(values, along))
        force = np.zeros(len(widths))
        off = node_residuals(values, forces)
        if off is not None:
            # A jump shows at both ends of its interval, by half of its height where the points are evenly spaced.
            force = 2.0 * np.minimum(off[:-1], off[1:])
        closed = np.array([node.value in self.closed for node in self.nodes[:-1]], dtype=bool)
        return Mismatches(widths, energy, force, closed)


class Mismatches(NamedTuple):
    """Of each interval: width, Angstrom, unexplained changes of energy, eV, and force component, eV/Angstrom, and
    whether the calculator failed in its middle."""

    widths: Array
    energy: Array
    force: Array
    closed: Array


def scan(probe: Probe, path: Path, *, energy_limit: float, force_limit: float, depth_limit: float) -> Scan:
    """Scan one path, halving where the limits ask for it.

    Args:
        probe: what is asked.
        path: where.
        energy_limit: jumps of the energy below it do not matter, eV.
        force_limit: changes of the forces within FORCE_STEP_A below it do not matter, eV/Angstrom.
        depth_limit: wells shallower than it do not matter, eV; below a tenth of it they are not listed.
    Raises:
        CalculationFailed: at the structure itself.
    """
    points = _Nodes(probe, path)
    found = points.mismatches()
    n_halved = 0
    while n_halved < MAX_HALVINGS:
        score = np.maximum(
            np.where(found.widths > MIN_STEP_A, found.energy / energy_limit, 0.0),
            np.where(found.widths > FORCE_STEP_A, found.force / force_limit, 0.0),
        )
        score[found.closed.astype(bool)] = 0.0
        worst = np.argsort(-score, kind="stable")[:HALVED_AT_ONCE]
        chosen = [int(interval) for interval in worst if score[interval] > EXPLAINED]
        if not chosen or (n_halved >= NOISE_SHOWS and np.mean(score > EXPLAINED) > 0.5):
            break
        points.halve(chosen)
        n_halved += len(chosen)
        found = points.mismatches()
    # A mismatch of a wide interval is at least the jump in it: below the limit it is one, above it nobody knows.
    energy_told = (found.widths <= MIN_STEP_A) | (found.energy <= energy_limit)
    force_told = (found.widths <= FORCE_STEP_A) | (found.force <= force_limit)
    beyond = (energy_told & (found.energy > energy_limit)) | (force_told & (found.force > force_limit))
    values = np.array([node.value for node in points.nodes])
    energies = np.array([node.sample.energy for node in points.nodes]) - points.probe.start.energy
    middles = 0.5 * (values[1:] + values[:-1])
    return Scan(
        path=path,
        values=values,
        energies=energies,
        energy_jump=float(found.energy[energy_told].max(initial=0.0)),
        force_jump=float(found.force[force_told].max(initial=0.0)),
        jump_at=tuple(float(value) for value in middles[beyond]),
        minima=other_minima(values, energies, start=path.start, min_depth=0.1 * depth_limit) if path.one_well else (),
        ended_early=tuple(points.ended),
        failures=tuple(points.failures),
        n_unresolved=int((~(energy_told & force_told)).sum()),
    )
