"""What must not change the physics: turns, mirrors, translations, the order of the atoms, and asking twice."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from remul_md.analysis.audit.probe import Array, Probe, ProbedFrames, Sample
from remul_md.symmetry.evaluate import rotated_back
from remul_md.symmetry.remul import Turn
from remul_md.symmetry.rotations import rotated_about_centre


class Changes(NamedTuple):
    """Deviations under operations that should change nothing, of K = frames x draws.

    forces: g^-1 f(g x) - f(x), [K, N, 3], eV/Angstrom; energies: E(g x) - E(x), [K], eV.
    """

    forces: Array
    energies: Array


def orientation_changes(probe: Probe, frames: ProbedFrames, matrices: Array) -> Changes:
    """Deviations when each frame is rotated (or mirrored) about its centre; a cell turns with its atoms.

    Args:
        probe: what is asked.
        frames: T geometries.
        matrices: orthogonal, [T, K, 3, 3].
    """
    cell = torch.from_numpy(np.array(probe.atoms.cell))
    turn = Turn(
        inputs=lambda at, g: (rotated_about_centre(at[0], g[0, 0]), at[1] @ g[0, 0].mT),
        outputs=lambda sample, g: Sample(sample.energy, sample.forces @ g[0, 0].numpy().T),
    )
    forces, energies = [], []
    for place, energy, reference, draws in zip(*frames, torch.from_numpy(matrices), strict=True):
        back = rotated_back(
            lambda at: probe(at[0].numpy(), cell=at[1].numpy()),
            (torch.from_numpy(place), cell),
            turn=turn,
            rotations=draws.unsqueeze(1),
        )
        forces += [sample.forces - reference for sample in back]
        energies += [sample.energy - energy for sample in back]
    return Changes(np.stack(forces), np.array(energies))


def translation_changes(probe: Probe, frames: ProbedFrames, shifts: Array) -> Changes:
    """Deviations when all atoms are moved by [T, K, 3] Angstrom."""
    forces, energies = [], []
    for place, energy, reference, draws in zip(*frames, shifts, strict=True):
        for shift in draws:
            moved = probe(place + shift)
            forces.append(moved.forces - reference)
            energies.append(moved.energy - energy)
    return Changes(np.stack(forces), np.array(energies))


def permutation_changes(probe: Probe, frames: ProbedFrames, orders: NDArray[np.int64]) -> Changes:
    """Deviations when the atoms are handed over in the orders [T, K, N]."""
    forces, energies = [], []
    for place, energy, reference, draws in zip(*frames, orders, strict=True):
        for order in draws:
            reordered = probe(place, order=order)
            forces.append(reordered.forces - reference)
            energies.append(reordered.energy - energy)
    return Changes(np.stack(forces), np.array(energies))


def repeat_changes(probe: Probe, frames: ProbedFrames, *, n_repeats: int) -> Changes:
    """Deviations when frames are asked again, each time after another geometry.

    Another geometry in between empties ASE's cache and shows what a calculator carries over: stale neighbour lists,
    wave functions, sums in another order.
    """
    forces, energies = [], []
    for _ in range(n_repeats):
        for place, energy, reference in zip(*frames, strict=True):
            probe(probe.atoms.get_positions())
            again = probe(place)
            forces.append(again.forces - reference)
            energies.append(again.energy - energy)
    return Changes(np.stack(forces), np.array(energies))
