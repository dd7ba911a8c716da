"""Small potentials and molecules that many tests share; nothing in here is a stand-in, only small."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from remul_md.datasets import read_frames
from remul_md.models import build_model
from remul_md.potentials.baseline import fit_reference_energies
from remul_md.potentials.domain import domain_of
from remul_md.potentials.potential import Potential, shipped_potentials
from remul_md.potentials.provenance import Provenance
from remul_md.structures.frames import Frames

# Sizes of small models of each kind, every path of the kind in use.
SMALL: dict[str, dict[str, int]] = {
    "transformer": {"width": 24, "n_layers": 2, "n_heads": 4, "pair_width": 20, "n_radial": 7, "n_tensors": 5},
    "painn": {"width": 24, "n_layers": 2, "n_radial": 7},
    "plain": {"width": 24, "n_layers": 2, "n_heads": 4, "pair_width": 20, "n_radial": 7, "rank": 2},
}


def random_model(
    *,
    kind: str = "transformer",
    seed: int = 0,
    cutoff: float = 5.0,
    species: tuple[int, ...] = (1, 6, 8),
    **options: Any,
) -> Any:
    """A small model with random weights, larger than those training starts from: its energies are not near 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(kind, {"species": species, "cutoff": cutoff, **SMALL[kind], **options})
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=parameter.shape[-1] ** -0.5)
    return model


def read_test_frames(name: str) -> Frames:
    """The test frames of a shipped potential, as the figures beside it name them: packaged ones or a file there too."""
    file = shipped_potentials()[name]
    told = json.loads(file.with_suffix(".json").read_text())["data"]
    beside = file.with_name(told.rpartition("/")[2])
    return read_frames(beside if beside.is_file() else told)


def unknown_shape_letters(module: ModuleType) -> set[str]:
    """Suffixes such as x_AE in a model file whose letters its legend does not name."""
    source = inspect.getsource(module)
    legend = source.split("Letters of the shape suffixes:")[1].split('"""')[0]
    known = set(re.findall(r"\b([A-Z])\b", legend))
    suffixes = set(re.findall(r"\b[a-z][a-z_]*_([A-Z][A-Z0-9]*)\b", source))
    assert len(suffixes) > 10
    return {suffix for suffix in suffixes if not set(re.sub(r"\d", "", suffix)) <= known}


def molecule_frames(*, seed: int = 0) -> Frames:
    """Two unlike molecules of 7 and 5 atoms of C, H and O with labels, atoms at least 0.9 Angstrom apart."""
    rng = np.random.default_rng(seed)
    blocks = []
    for n_atoms in (7, 5):
        placed: list[np.ndarray] = []
        while len(placed) < n_atoms:
            candidate = rng.uniform(-2.4, 2.4, 3)
            if all(np.linalg.norm(candidate - other) > 0.9 for other in placed):
                placed.append(candidate)
        blocks.append(np.array(placed))
    return Frames(
        positions=np.concatenate(blocks),
        atomic_numbers=np.array([6, 8, 1, 1, 6, 1, 8, 6, 1, 1, 8, 1]),
        n_atoms=np.array([7, 5]),
        pbc=np.zeros((2, 3), dtype=bool),
        energy=rng.normal(size=2) - 700.0,
        forces=rng.normal(size=(12, 3)),
        name="two molecules",
    )


def untrained_potential(frames: Frames, *, trained_forces: Any = "both", seed: int = 0, **options: Any) -> Potential:
    """A potential around a random model that covers `frames`."""
    species = tuple(int(number) for number in np.unique(frames.atomic_numbers))
    model = random_model(seed=seed, species=species, **options).eval().requires_grad_(False)
    labelled = frames if frames.energy is not None else replace(frames, energy=np.zeros(len(frames)))
    return Potential(
        model=model,
        reference_energies=fit_reference_energies(labelled, species),
        domain=domain_of(frames),
        provenance=Provenance(trained_forces=trained_forces),
    )


def ethanol_potential(path: Path, *, trained_forces: Any, **options: Any) -> Path:
    """The file of a potential with random weights that covers five frames of ethanol."""
    frames = read_frames("rmd17/ethanol/train-01").select(range(0, 40, 8))
    untrained_potential(frames, trained_forces=trained_forces, seed=3, **options).save(path)
    return path
