"""Labelled geometries around given ones: short walks of Langevin dynamics with the forces of a cheap method.

Each walk starts from one of the given frames with a calculator and random numbers of its own, so walks do not depend on
each other: a run that was killed goes on after its last complete walk and ends with the same geometries.

Many short walks instead of few long ones, and a label every few steps instead of every step, because that was measured:
kernel ridge regression of the GFN2-xTB energy of ethanol from 1,000 labels, error on 500 rMD17 frames. Labels 1, 2, 4,
8, 15 fs apart (walks from 50 frames, 500 K): 21, 16, 14, 12, 14 meV. Walks of 100, 200, 500 fs with labels 5 fs apart
(from 5 frames, 700 K, two seeds): 13.5, 14.0, 15.7 meV.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from remul_md._version import __version__
from remul_md.datasets import read_frames
from remul_md.datasets.readers.npz import load_arrays
from remul_md.datasets.writers import write_frames
from remul_md.errors import InputError
from remul_md.files import changed_values
from remul_md.labels.sources import LabelSource
from remul_md.labels.stretched import require_one_molecule
from remul_md.progress import progress_bar
from remul_md.structures.frames import Frames, joined
from remul_md.structures.topology import bond_lengths, bond_pairs

if TYPE_CHECKING:
    from ase import Atoms

logger = logging.getLogger(__name__)

TIMESTEP_FS = 1.0
FRICTION_PER_FS = 0.02
STEPS_PER_LABEL = 5
LABELS_PER_WALK = 20
MAX_BOND_STRETCH = 1.6  # times the length at the start of a walk; beyond, the molecule is another one
MAX_EMPTY_WALKS = 10  # one after another: the method cannot do this molecule
SAVE_INTERVAL_S = 30.0  # between two writes of the file; a kill loses no more


@dataclass(frozen=True, kw_only=True, eq=False)
class Walk:
    """Labelled geometries of one walk.

    Args:
        positions: [F, N, 3], Angstrom.
        energy: [F], eV.
        forces: [F, N, 3], eV/Angstrom.
        ended: why it ended before its last label, or "".
    """

    positions: NDArray[np.float64]
    energy: NDArray[np.float64]
    forces: NDArray[np.float64]
    ended: str


def walk_from(atoms: Atoms, *, temperature_K: float, n_labels: int, rng: np.random.Generator) -> Walk:
    """Langevin dynamics from a geometry, with a label every `STEPS_PER_LABEL` steps; the start is not among them.

    Args:
        atoms: an isolated molecule with its calculator; moved.
        temperature_K: of the thermostat and of the first velocities.
        n_labels: labels, fewer if the calculator fails or a bond breaks.
        rng: source of the random numbers.
    Raises:
        InputError: the calculator raises what no ASE calculator should.
    """
    from ase import units
    from ase.calculators.calculator import CalculatorError
    from ase.md.langevin import Langevin

    bonds = bond_pairs(atoms.numbers, atoms.positions)
    longest = MAX_BOND_STRETCH * bond_lengths(atoms.positions, bonds)
    width = np.sqrt(atoms.get_masses() * units.kB * temperature_K)
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)) * width[:, None])
    dynamics = Langevin(
        atoms,
        TIMESTEP_FS * units.fs,
        temperature_K=temperature_K,
        friction=FRICTION_PER_FS / units.fs,
        fixcm=False,
        rng=rng,
    )
    found: list[tuple[NDArray[np.float64], float, NDArray[np.float64]]] = []
    ended = ""
    while len(found) < n_labels and not ended:
        try:
            dynamics.run(STEPS_PER_LABEL)
            energy, forces = float(atoms.get_potential_energy()), np.array(atoms.get_forces(), dtype=np.float64)
        except CalculatorError as error:
            ended = f"{type(error).__name__}: {error}"
            break
        except Exception as error:  # a user's calculator raises whatever it raises
            raise InputError(
                f"the calculator failed on {atoms.get_chemical_formula()} ({type(error).__name__}: {error}); "
                "try it on one frame of the data first"
            ) from error
        positions = atoms.get_positions()
        if not (np.isfinite(energy) and np.isfinite(forces).all() and np.isfinite(positions).all()):
            ended = "energy or forces are not finite"
        elif (bond_lengths(positions, bonds) > longest).any():
            ended = "a bond broke"
        else:
            found.append((positions, energy, forces))
    n_atoms = len(atoms)
    return Walk(
        positions=np.array([label[0] for label in found]).reshape(-1, n_atoms, 3),
        energy=np.array([label[1] for label in found], dtype=np.float64),
        forces=np.array([label[2] for label in found]).reshape(-1, n_atoms, 3),
        ended=ended,
    )


def sample_labels(
    initial_structures: Frames,
    source: LabelSource,
    *,
    n_labels: int,
    temperature_K: float,
    seed: int,
    path: Path,
    progress: bool = False,
) -> tuple[Frames, dict[str, Any]]:
    """Sample geometries around `initial_structures` and keep them with their labels in a data file; goes on where it
    was stopped.

    The same seed gives the same geometries on one machine, whether it was stopped or not.

    Args:
        initial_structures: frames of one molecule without a cell; each is the start of as many walks as the others,
            give or take one. Their labels are not looked at.
        source: the method.
        n_labels: how many geometries.
        temperature_K: of the walks.
        seed: of the order of the structures, velocities and thermostat.
        path: an npz file that `read_frames` reads; holds what was sampled so far.
        progress: show a bar.
    Returns:
        The labelled frames, and how they were made, JSON-able.
    Raises:
        InputError: several molecules or a cell, a file of other labels, a method that cannot do the molecule.
    """
    require_one_molecule(initial_structures)
    source.require_charges(initial_structures)
    asked = {
        "method": source.name,
        "calculator": source.version,
        "n_labels": n_labels,
        "temperature_K": temperature_K,
        "seed": seed,
        "initial_structures_sha256": initial_structures.without_labels().content_hash(),
        "steps_per_label": STEPS_PER_LABEL,
        "labels_per_walk": LABELS_PER_WALK,
    }
    record: dict[str, Any] = {**asked, "n_walks": 0, "seconds": 0.0}
    parts: list[Frames] = []
    if path.is_file():
        record = _record_of(path, asked=asked)
        parts = [read_frames(path, allow_implausible=True)] if record["n_walks"] else []
    n_done = sum(len(part) for part in parts)
    before, started, saved = record["seconds"], time.perf_counter(), time.perf_counter()
    reasons: Counter[str] = Counter()
    n_empty = 0
    bar = progress_bar(shown=progress, total=n_labels, initial=n_done, desc="label", unit="frame")
    with bar, _one_thread():
        while n_done < n_labels:
            walk = _walk(initial_structures, source, number=record["n_walks"], temperature_K=temperature_K, seed=seed)
            if walk.ended:
                reasons[walk.ended] += 1
            n_new = min(len(walk.energy), n_labels - n_done)
            n_empty = 0 if n_new else n_empty + 1
            if n_empty == MAX_EMPTY_WALKS:
                raise InputError(
                    f"{source.name} labelled no geometry in {n_empty} walks from {initial_structures.name}, the last "
                    f"ended with: {walk.ended}; try the method on one frame of the data first, or lower the temperature"
                )
            if n_new:
                parts.append(_frames(initial_structures, walk, n_frames=n_new))
            n_done += n_new
            record["n_walks"] += 1
            bar.update(n_new)
            now = time.perf_counter()
            if n_new and (n_done == n_labels or now - saved > SAVE_INTERVAL_S):
                record["seconds"], saved = before + now - started, now
                parts = [joined(parts, name=path.name)]
                write_frames(parts[0], path, provenance={"labelled_by": f"remul-md {__version__}", **record})
    for reason, count in reasons.most_common():
        logger.warning("%s: %d of %d walks ended early: %s", source.name, count, record["n_walks"], reason)
    return replace(parts[0], name=path.name), record


def _walk(initial_structures: Frames, source: LabelSource, *, number: int, temperature_K: float, seed: int) -> Walk:
    """Walk of this number; every start comes once before any comes again."""
    turn, place = divmod(number, len(initial_structures))
    atoms = initial_structures.atoms(
        int(np.random.default_rng([seed, turn]).permutation(len(initial_structures))[place])
    )
    atoms.calc = source.make()
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
    return walk_from(atoms, temperature_K=temperature_K, n_labels=LABELS_PER_WALK, rng=rng)


def _record_of(path: Path, *, asked: Mapping[str, Any]) -> dict[str, Any]:
    """How the labels in a file were made; they must be those that are asked for."""
    written = load_arrays(path).get("provenance")
    record = json.loads(str(written)) if written is not None else {}
    if unlike := changed_values(record, asked):
        raise InputError(f"{path}: holds other labels: {'; '.join(unlike)}; remove it, or give a new --run-dir")
    del record["labelled_by"]
    return dict(record)


def _frames(initial_structures: Frames, walk: Walk, *, n_frames: int) -> Frames:
    numbers = initial_structures.frame_numbers(0)
    return Frames(
        positions=walk.positions[:n_frames].reshape(-1, 3),
        atomic_numbers=np.tile(numbers, n_frames),
        n_atoms=np.full(n_frames, len(numbers), dtype=np.int64),
        pbc=np.zeros((n_frames, 3), dtype=bool),
        charge=None if initial_structures.charge is None else np.full(n_frames, initial_structures.charge[0]),
        energy=walk.energy[:n_frames],
        forces=walk.forces[:n_frames].reshape(-1, 3),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for what shares torch's OpenMP, as tblite does: on a busy machine two threads that wait for each other
    took 1,300 ms a call of ethanol instead of 1.5.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
