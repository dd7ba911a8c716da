"""The part of the energy that no network has to learn: a reference energy for each element."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from remul_md.structures.batch import Prediction, mapped
from remul_md.structures.frames import Frames


def fit_reference_energies(frames: Frames, species: tuple[int, ...]) -> Tensor:
    """Reference energy of each species, [S], eV, float64, by ridge least squares of the energies on the composition.

    For a single composition the references add up to the mean energy. The residual is what the model learns:
    totals of -4e3 to -2e4 eV would leave float32 no digits.
    """
    assert frames.energy is not None
    counts = np.zeros((len(frames), len(species)))
    rows = np.repeat(np.arange(len(frames)), frames.n_atoms)
    np.add.at(counts, (rows, np.searchsorted(species, frames.atomic_numbers)), 1.0)
    if (counts == counts[0]).all():  # exact: the solution of least norm that gives the mean
        return torch.from_numpy(counts[0] * frames.energy.mean() / (counts[0] @ counts[0]))
    centre = frames.energy.sum() / counts.sum()  # ridge pulls towards the mean energy of an atom, not towards 0
    normal = counts.T @ counts + 1e-6 * len(frames) * np.eye(len(species))
    return torch.from_numpy(centre + np.linalg.solve(normal, counts.T @ (frames.energy - counts.sum(1) * centre)))


def atomic_references(atomic_numbers: Tensor, species: tuple[int, ...], reference_energies: Tensor) -> Tensor:
    """Reference energy of each atom, [A], eV, float64."""
    table = reference_energies.new_zeros(119)
    table[list(species)] = reference_energies
    return table[atomic_numbers]


def with_references(out: Prediction, atomic: Tensor) -> Prediction:
    """The prediction of a model with the reference energies of its atoms, [A], eV, put back in float64; no graph."""
    assert out.energy is not None
    assert out.atomic_energies is not None
    return replace(
        mapped(replace(out, members=None), Tensor.detach),
        energy=out.energy.double().index_add(0, out.system_index, atomic).detach(),
        atomic_energies=(out.atomic_energies.double() + atomic).detach(),
    )
