"""Scans of the energy: where it jumps, where the forces jump, and wells that should not be there.

A jump cannot be told from a steep slope at one step size. So intervals whose energy difference is not the work of
the forces, or whose forces no cubic through their neighbours foretells, are halved until they either are explained
or are MIN_STEP_A wide: what is smooth falls with the fourth power of the step or faster, a jump stays.
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
EXPLAINED = 0.25  # of a limit: such an interval is not looked at more closely
MAX_HALVINGS = 60  # of one scan


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """Energies along one path, and what is wrong with them.

    Args:
        path: what was scanned.
        values: coordinate, [S], increasing, in the unit of the path.
        energies: relative to the structure, [S], eV.
        energy_jump: largest energy change that no slope explains, eV.
        force_jump: largest change of a force component that no slope explains, eV/Angstrom.
        jump_at: coordinates of jumps beyond the limits, for the plot.
        minima: (coordinate, depth in eV, barrier to it in eV) of all minima but the first, sorted by coordinate.
        ended_early: why a scan stops before its end; empty where it does not.
        n_unresolved: intervals that MAX_HALVINGS halvings left unexplained and wide.
    """

    path: Path
    values: Array
    energies: Array
    energy_jump: float
    force_jump: float
    jump_at: tuple[float, ...]
    minima: tuple[tuple[float, float, float], ...]
    ended_early: tuple[str, ...]
    n_unresolved: int

    def barrier_to(self, value: float) -> float:
        """Highest energy between the structure and a value of the coordinate, relative to the structure, eV."""
        low, high = sorted((self.path.start, value))
        return float(self.energies[(self.values >= low) & (self.values <= high)].max(initial=0.0))


class _Nodes:
    """Points of a scan that is being refined, sorted by coordinate."""

    def __init__(self, probe: Probe, path: Path) -> None:
        self.probe, self.path = probe, path
        self.ended: list[str] = []
        start = (path.start, path.place(path.start))
        first = (*start, probe(start[1]))
        inwards, outwards = self._walk(first[2], path.inwards), self._walk(first[2], path.outwards)
        self.nodes: list[tuple[float, Array, Sample]] = [*inwards[::-1], first, *outwards]

    def _walk(self, start: Sample, values: Array) -> list[tuple[float, Array, Sample]]:
        nodes = []
        for value in values:
            place = self.path.place(float(value))
            try:
                sample = self.probe(place)
            except CalculationFailed as error:
                self.ended.append(f"{self.path.label} ends at {value:.3g} {self.path.unit}: {error}")
                break
            nodes.append((float(value), place, sample))
            if sample.energy - start.energy > HIGHEST_eV:
                break
        return nodes

    def halve(self, interval: int) -> None:
        value = 0.5 * (self.nodes[interval][0] + self.nodes[interval + 1][0])
        place = self.path.place(value)
        self.nodes.insert(interval + 1, (value, place, self.probe(place)))

    def mismatches(self) -> Mismatches:
        """What no smooth curve explains in each interval."""
        values = np.array([node[0] for node in self.nodes])
        places = np.stack([node[1] for node in self.nodes])
        energies = np.array([node[2].energy for node in self.nodes])
        forces = np.stack([node[2].forces for node in self.nodes])
        widths = np.array([path_length(a, b) for a, b in pairwise(places)])
        along = np.array([(f * self._tangent(v)).sum() for v, f in zip(values, forces, strict=True)])
        energy = np.abs(np.diff(energies) + interval_integrals(values, along))
        force = np.zeros(len(widths))
        off = node_residuals(values, forces)
        if off is not None:
            # A jump shows at both ends of its interval, by half of its height where the points are evenly spaced.
            force = 2.0 * np.minimum(off[:-1], off[1:])
        return Mismatches(widths, energy, force)

    def _tangent(self, value: float) -> Array:
        """d positions / d coordinate, [N, 3]; a smooth function of known geometry, so differences are exact enough."""
        return (self.path.place(value + 1e-4) - self.path.place(value - 1e-4)) / 2e-4


class Mismatches(NamedTuple):
    """Of each interval: width, Angstrom, and unexplained changes of energy, eV, and force component, eV/Angstrom."""

    widths: Array
    energy: Array
    force: Array


def scan(probe: Probe, path: Path, *, energy_limit: float, force_limit: float, depth_limit: float) -> Scan:
    """Scan one path, halving where the limits ask for it.

    Args:
        probe: what is asked.
        path: where.
        energy_limit: jumps of the energy below it do not matter, eV.
        force_limit: jumps of the forces below it do not matter, eV/Angstrom.
        depth_limit: wells shallower than it do not matter, eV; below a tenth of it they are not listed.
    Raises:
        CalculationFailed: at the structure itself, or between two points where the calculator worked.
    """
    points = _Nodes(probe, path)
    found = points.mismatches()
    for _ in range(MAX_HALVINGS):
        score = np.maximum(found.energy / energy_limit, found.force / force_limit)
        open_score = np.where(found.widths > MIN_STEP_A, score, 0.0)
        if open_score.max(initial=0.0) <= EXPLAINED:
            break
        points.halve(int(np.argmax(open_score)))
        found = points.mismatches()
    score = np.maximum(found.energy / energy_limit, found.force / force_limit)
    settled = (found.widths <= MIN_STEP_A) | (score <= EXPLAINED)
    values = np.array([node[0] for node in points.nodes])
    energies = np.array([node[2].energy for node in points.nodes]) - points.probe.start.energy
    middles = 0.5 * (values[1:] + values[:-1])
    return Scan(
        path=path,
        values=values,
        energies=energies,
        energy_jump=float(found.energy[settled].max(initial=0.0)),
        force_jump=float(found.force[settled].max(initial=0.0)),
        jump_at=tuple(float(value) for value in middles[settled & (score > 1.0)]),
        minima=other_minima(values, energies, start=path.start, min_depth=0.1 * depth_limit) if path.one_well else (),
        ended_early=tuple(points.ended),
        n_unresolved=int((~settled).sum()),
    )
