"""Are the forces the slope of the energy, and are they the slope of anything: finite differences of any calculator.

Calculators know no automatic differentiation, so the energy and the forces are differentiated along random
directions of all coordinates. For v with independent components of mean 0 and variance 1, E (d v)^2 = |d|^2 for
every vector d and E (v^T M w)^2 = |M|^2 for every matrix M: a few directions measure all atoms.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np

from remul_md.analysis.audit.probe import Array, Probe, ProbedFrames

# Ethanol, gradient error as a share of the RMS force at 0.0025, 0.005 and 0.01 Angstrom: 5e-5, 3e-5, 3e-4 in single
# precision, 1e-6, 2e-5, 3e-4 in double: rounding on the one side, step^4/30 times the fifth derivative on the other.
STEP_A = 0.005
STENCIL = {-2: 1.0 / 12.0, -1: -8.0 / 12.0, 1: 8.0 / 12.0, 2: -1.0 / 12.0}


@dataclass(frozen=True, kw_only=True, eq=False)
class Derivatives:
    """Finite differences along P random directions v at each of T frames.

    Args:
        slope: -dE/dv by central differences, [T, P], eV/Angstrom (v has RMS component 1).
        force_along: f v, [T, P], eV/Angstrom.
        products: v_i^T J v_j with the Jacobian J of the forces, [T, P, P], eV/Angstrom^2.
        squared_norms: |J v|^2, [T, P], eV^2/Angstrom^4.
        n_coordinates: 3 N.
    """

    slope: Array
    force_along: Array
    products: Array
    squared_norms: Array
    n_coordinates: int

    @property
    def gradient_error(self) -> float:
        """RMS component of forces + dE/dx, eV/Angstrom."""
        return float(np.sqrt(np.mean((self.force_along - self.slope) ** 2) / self.n_coordinates))

    @property
    def jacobian_asymmetry(self) -> float | None:
        """lambda = |(J - J^T)/2| / |J| (Frobenius norms): 0 for a gradient, at most about 1; None where J is 0.

        From v_i^T J v_j - v_j^T J v_i of all pairs of directions, so that no product with J^T is needed.
        """
        n_probes = self.products.shape[1]
        pairs = np.triu_indices(n_probes, k=1)
        antisymmetric = 0.5 * (self.products - self.products.swapaxes(1, 2))[:, pairs[0], pairs[1]]
        size = float(self.squared_norms.mean())
        return None if size == 0.0 else float(np.sqrt(np.mean(antisymmetric**2) / size))


def finite_differences(probe: Probe, frames: ProbedFrames, *, n_probes: int, rng: np.random.Generator) -> Derivatives:
    """Slopes of the energy and Jacobian products along random directions; 4 calls a direction.

    Args:
        probe: what is asked.
        frames: T geometries.
        n_probes: directions of each, >= 2.
        rng: source of the directions.
    Source: trace estimator of Hutchinson, Commun. Stat. Simul. Comput. 18 (1989), 1059, on finite differences.
    """
    n_frames, n_atoms, _ = frames.positions.shape
    directions = rng.standard_normal((n_frames, n_probes, n_atoms, 3))
    slope = np.empty((n_frames, n_probes))
    along = np.empty((n_frames, n_probes, n_atoms, 3))
    places = [
        frames.positions[frame] + steps * STEP_A * directions[frame, p]
        for frame in range(n_frames)
        for p in range(n_probes)
        for steps in STENCIL
    ]
    samples = iter(probe.all(places))
    for frame in range(n_frames):
        for p in range(n_probes):
            energy, forces = 0.0, np.zeros((n_atoms, 3))
            for weight, sample in zip(STENCIL.values(), islice(samples, len(STENCIL)), strict=True):
                # Relative to the frame: total energies of -1e4 eV would cost digits in the sum.
                energy += weight * (sample.energy - frames.energies[frame])
                forces += weight * (sample.forces - frames.forces[frame])
            slope[frame, p], along[frame, p] = -energy / STEP_A, forces / STEP_A
    return Derivatives(
        slope=slope,
        force_along=np.einsum("tpnc,tnc->tp", directions, frames.forces),
        products=np.einsum("tinc,tjnc->tij", directions, along),
        squared_norms=(along**2).sum(axis=(2, 3)),
        n_coordinates=3 * n_atoms,
    )


def loop_works(
    probe: Probe, frames: ProbedFrames, *, n_loops: int, n_points: int, amplitude_A: float, rng: np.random.Generator
) -> Array:
    """Work of the forces round closed loops, [T, n_loops], eV; zero for every gradient.

    Each loop is an ellipse about the frame in a random plane of all coordinates. The sum over equidistant points of
    a smooth periodic function converges faster than any power, so 16 points leave rounding only.

    Args:
        probe: what is asked.
        frames: T geometries, the centres.
        n_loops: loops about each.
        n_points: calls of a loop.
        amplitude_A: standard deviation of a coordinate's half axis, Angstrom.
        rng: source of the planes.
    """
    angles = 2.0 * np.pi * np.arange(n_points) / n_points
    works = np.empty((len(frames.positions), n_loops))
    for frame, place in enumerate(frames.positions):
        for loop in range(n_loops):
            first, second = amplitude_A * rng.standard_normal((2, *place.shape))
            work = 0.0
            samples = probe.all([place + np.cos(angle) * first + np.sin(angle) * second for angle in angles])
            for angle, sample in zip(angles, samples, strict=True):
                work += float((sample.forces * (np.cos(angle) * second - np.sin(angle) * first)).sum())
            works[frame, loop] = work * 2.0 * np.pi / n_points
    return works
