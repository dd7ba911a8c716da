"""A uniform electric field in which labels are computed: its form, and orientations to be labelled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from remul_md.errors import InputError

if TYPE_CHECKING:
    from remul_md.structures.frames import Frames

Field = Sequence[float]
# Far above any field in which a molecule holds its electrons; a laboratory's strongest are near 1 V/Angstrom.
MAX_FIELD_V_PER_A = 10.0


def check_field(field_V_per_A: Field) -> tuple[float, float, float]:
    """Three numbers, volt/Angstrom.

    Raises:
        InputError: not three finite numbers, or a field that strips any molecule of its electrons.
    """
    values = tuple(float(value) for value in field_V_per_A)
    if len(values) != 3 or not all(map(math.isfinite, values)):
        raise InputError(f"a field has three components in V/Angstrom, got {list(field_V_per_A)}")
    if math.hypot(*values) > MAX_FIELD_V_PER_A:
        raise InputError(
            f"a field of {math.hypot(*values):.3g} V/Angstrom ionises every molecule; give it in V/Angstrom, "
            f"at most {MAX_FIELD_V_PER_A:g}"
        )
    return values[0], values[1], values[2]


def in_random_orientations(frames: Frames, *, seed: int, n_orientations: int | None = None) -> Frames:
    """The geometries, each rotated about its centre; no labels are kept.

    Args:
        frames: isolated molecules.
        seed: of the rotations, uniform over SO(3); the first n are the same for any number of frames.
        n_orientations: None gives each frame a rotation of its own. A number superposes all frames on the first one and
            then rotates frame i by rotation i modulo this number: the molecule is seen in so few orientations.
    Raises:
        InputError: a periodic frame, whose cell would have to turn with it; `n_orientations` below 1, or with frames
            that differ in their atoms and cannot be superposed.
    """
    import torch

    from remul_md.labels.stretched import require_one_molecule
    from remul_md.structures.alignment import superposition_rotations
    from remul_md.symmetry.rotations import random_rotations

    if frames.pbc.any():
        raise InputError(
            f"{frames.name}: frame {int(np.argmax(frames.pbc.any(axis=1)))} is periodic, it has no "
            "orientation of its own; leave --random-orientations out"
        )
    if n_orientations is not None and n_orientations < 1:
        raise InputError(f"the number of orientations must be >= 1, got {n_orientations}")
    generator = torch.Generator().manual_seed(seed)
    rotations = torch.cat([random_rotations(1, generator=generator) for _ in range(n_orientations or len(frames))])
    rotated = [rotations[index % len(rotations)].numpy() for index in range(len(frames))]
    if n_orientations is not None:
        numbers = require_one_molecule(frames)
        places = frames.positions.reshape(len(frames), len(numbers), 3)
        there = superposition_rotations(places, places[0])  # from the first frame to each
        rotated = [rotation @ back.T for rotation, back in zip(rotated, there, strict=True)]
    positions = frames.positions.copy()
    for rotation, start, n_atoms in zip(rotated, frames.first_atom, frames.n_atoms, strict=True):
        rows = slice(start, start + n_atoms)
        centre = positions[rows].mean(axis=0)
        positions[rows] = (positions[rows] - centre) @ rotation.T + centre
    return replace(frames.without_labels(), positions=positions)
