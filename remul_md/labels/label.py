"""Geometries labelled by a potential: training data for a student, from one's own molecular dynamics.

An ensemble is slower than a model, and an accurate model slower than a small one: the student learns from as many
geometries as the teacher labels, instead of from the few that a reference calculation could pay for. What it learns
is the teacher, errors included, so labels on which an ensemble disagrees can be left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from remul_md._version import __version__
from remul_md.errors import InputError
from remul_md.potentials.domain import require_known_frames
from remul_md.potentials.potential import ForcesChoice, Potential
from remul_md.progress import progress_bar
from remul_md.structures.batch import BatchStore
from remul_md.structures.frames import Frames
from remul_md.structures.neighbors import build_batch

MAX_ATOMS = 4096  # atoms in one pass, all members together: bounds the memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """Frames with the labels of a potential.

    Args:
        frames: those kept, in their order, with its energies (eV) and forces (eV/Angstrom).
        forces_std: of an ensemble, that of the least certain atom of each kept frame: root mean square over its
            components, [B], eV/Angstrom; else None.
        n_left_out: frames that were too uncertain.
        provenance: which potential, head and geometries, JSON-able.
    """

    frames: Frames
    forces_std: NDArray[np.float64] | None
    n_left_out: int
    provenance: Mapping[str, Any]


def label_frames(
    potential: Potential,
    frames: Frames,
    *,
    forces: ForcesChoice = "auto",
    max_std_meV_per_A: float | None = None,
    progress: bool = False,
) -> Labelled:
    """Energies and forces of a potential on geometries; labels that the frames have are not looked at.

    Args:
        potential: the teacher, a single model or an ensemble.
        frames: geometries of compositions it was trained on.
        forces: its head; auto is what was trained. Energies belong to the conservative one.
        max_std_meV_per_A: of an ensemble, leave out frames with an atom whose `forces_std` is larger (root mean
            square over its three components).
        progress: show a bar.
    Raises:
        InputError: a limit <= 0 or for a single model, an unknown composition, or no frame within the limit.
    """
    if max_std_meV_per_A is not None:
        if not max_std_meV_per_A > 0:
            raise InputError(f"max_std must be > 0 meV/Angstrom, got {max_std_meV_per_A}")
        if potential.n_members == 1:
            raise InputError(
                f"max_std={max_std_meV_per_A:g} needs an ensemble, this potential is a single model; "
                "make one with `remul-md ensemble`, or leave the limit out"
            )
    head = potential.resolve_forces(forces)
    require_known_frames(potential.domain, frames, species=potential.species)
    geometries = frames.without_labels()
    store = BatchStore(build_batch(geometries, cutoff=potential.cutoff).to(potential.device))
    at_once = max(1, MAX_ATOMS // (int(frames.n_atoms.max()) * potential.n_members))
    energies, vectors, stds = [], [], []
    for start in progress_bar(range(0, len(frames), at_once), desc="label", unit="batch", shown=progress):
        chosen = np.arange(start, min(start + at_once, len(frames)))
        out = potential.predict(store.select(chosen), forces=head)
        predicted = out.of_head(head)
        std = out.std("forces" if head == "conservative" else "direct_forces")
        assert out.energy is not None
        energies.append(out.energy.cpu())
        vectors.append(predicted.double().cpu())
        if std is not None:
            stds.append(std.double().cpu())
    labelled = replace(geometries, energy=torch.cat(energies).numpy(), forces=torch.cat(vectors).numpy())
    of_frames = None
    kept = np.arange(len(frames))
    if stds:
        of_atoms = torch.cat(stds).square().mean(1).sqrt().numpy()
        of_frames = np.maximum.reduceat(of_atoms, frames.first_atom)
        if max_std_meV_per_A is not None:
            kept = np.flatnonzero(1000.0 * of_frames <= max_std_meV_per_A)
            if len(kept) == 0:
                raise InputError(
                    f"no frame of {frames.name} has forces_std within {max_std_meV_per_A:g} meV/Angstrom; the smallest "
                    f"is {1000.0 * of_frames.min():.3g}; raise the limit, or improve the teacher"
                )
    return Labelled(
        frames=labelled.select(kept),
        forces_std=None if of_frames is None else of_frames[kept],
        n_left_out=len(frames) - len(kept),
        provenance=label_record(potential, frames, forces=head, max_std_meV_per_A=max_std_meV_per_A),
    )


def label_record(
    potential: Potential, frames: Frames, *, forces: ForcesChoice, max_std_meV_per_A: float | None
) -> dict[str, Any]:
    """What labels of a potential on these geometries say of their origin, JSON-able; arguments as `label_frames`."""
    return {
        "labelled_by": f"remul-md {__version__}",
        "potential_sha256": potential.sha256,
        "n_members": potential.n_members,
        "forces": potential.resolve_forces(forces),
        "geometries": frames.name,
        "geometries_sha256": frames.content_hash(),
        "max_std_meV_per_A": max_std_meV_per_A,
    }
