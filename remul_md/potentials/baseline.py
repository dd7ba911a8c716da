"""The part of the energy that no network has to learn: a reference energy for each element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from remul_md.structures.batch import Prediction, mapped
from remul_md.structures.frames import Frames


def fit_reference_energies(
    frames: Frames, species: tuple[int, ...], *, isolated_eV: Mapping[int, float] | None = None
) -> Tensor:
    """Reference energy of each species, [S], eV, float64, by ridge least squares of the energies on the composition.

    For a single composition the references add up to the mean energy. The residual is what the model learns:
    totals of -4e3 to -2e4 eV would leave float32 no digits.

    Args:
        frames: with energies.
        species: atomic numbers, ascending.
        isolated_eV: energy of the isolated atom of each species: then what is shared out is the energy that binds
            them, and the references are sums of both (`binding_energies` gives the second part).
    """
    assert frames.energy is not None
    counts = np.zeros((len(frames), len(species)))
    rows = np.repeat(np.arange(len(frames)), frames.n_atoms)
    np.add.at(counts, (rows, np.searchsorted(species, frames.atomic_numbers)), 1.0)
    atoms = np.zeros(len(species)) if isolated_eV is None else np.array([isolated_eV[number] for number in species])
    energy = frames.energy - counts @ atoms
    centre = energy.sum() / counts.sum()  # ridge pulls towards the mean energy of an atom, not towards 0
    shared = np.full(len(species), centre)  # all that one composition tells
    if not (counts == counts[0]).all():
        normal = counts.T @ counts + 1e-6 * len(frames) * np.eye(len(species))
        shared += np.linalg.solve(normal, counts.T @ (energy - counts.sum(1) * centre))
    if isolated_eV is not None:
        # As the network holds them, so that a lone atom comes out to the last digit.
        shared = shared.astype(np.float32).astype(np.float64)
    return torch.from_numpy(atoms + shared)


def binding_energies(
    references: Tensor, species: tuple[int, ...], *, isolated_eV: Mapping[int, float] | None
) -> Tensor:
    """The share of each species in the energy that holds molecules together, [S], eV, float64.

    Zero where the energies of isolated atoms are not known: a lone atom then has its reference energy.
    """
    if isolated_eV is None:
        return torch.zeros_like(references)
    return references - references.new_tensor([isolated_eV[number] for number in species])


def atomic_references(atomic_numbers: Tensor, species: tuple[int, ...], reference_energies: Tensor) -> Tensor:
    """Reference energy of each atom, [A], eV, float64."""
    table = reference_energies.new_zeros(119)
    table[list(species)] = reference_energies
    return table[atomic_numbers]


def with_references(out: Prediction, atomic: Tensor, of_members: Sequence[Tensor] = ()) -> Prediction:
    """The prediction of a model with the reference energies of its atoms, [A], eV, put back in float64; no graph.

    Args:
        out: what the model says.
        atomic: of its atoms.
        of_members: of an ensemble, those of each member, put back into `members`, which without them are left out.
    """
    assert out.energy is not None
    assert out.atomic_energies is not None
    members = tuple(with_references(*each) for each in zip(out.members or (), of_members, strict=bool(of_members)))
    return replace(
        mapped(replace(out, members=None), Tensor.detach),
        energy=out.energy.double().index_add(0, out.system_index, atomic).detach(),
        atomic_energies=(out.atomic_energies.double() + atomic).detach(),
        members=members or None,
    )
