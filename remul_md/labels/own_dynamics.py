"""Geometries of a potential's own dynamics with its own labels, as long as the molecule is whole."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from remul_md.analysis.structure import BOUND_STABLE_A, bond_deviation
from remul_md.analysis.training_statistics import trained_bonds
from remul_md.datasets import write_frames
from remul_md.dynamics import MDResult, read_trajectory
from remul_md.dynamics.recording import OutputFiles
from remul_md.dynamics.replicas import replica_output, run_replicas
from remul_md.errors import InputError
from remul_md.labels.label import label_frames
from remul_md.labels.sampling_options import Sampling
from remul_md.potentials.domain import Domain
from remul_md.potentials.potential import Potential
from remul_md.structures.frames import Frames, joined

logger = logging.getLogger(__name__)

LABELS, HELD_OUT, DYNAMICS = "labels.npz", "held-out.npz", "md"
HELD_OUT_SHARE = 0.05  # of the runs: frames of one run resemble each other, so whole runs are held out


def label_own_dynamics(
    teacher: Potential,
    calculator: Callable[..., Any],
    *,
    run_dir: Path,
    sampling: Sampling,
    compile: bool,
    progress: bool,
    positions: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Run dynamics and label the frames in which the molecule is whole with the potential's conservative forces.

    Args:
        teacher: on the device to use.
        calculator: (potential, device=, forces=, compile=) to an ASE calculator with `copies`, such as
            `RemulCalculator`.
        run_dir: gets the trajectories in `md/`, `labels.npz` and the labels of whole runs in `held-out.npz`.
        sampling: see there; interrupted dynamics goes on.
        compile: compile the forces of the dynamics.
        progress: show bars.
        positions: where the runs start, [R, N, 3], Angstrom; None: all from the training reference frame.
    Returns:
        JSON-able: `n_frames`, `n_held_out`, `broken` (a line for each run of which frames are left out), `md_seconds`.
    Raises:
        InputError: there are not enough frames in which the molecule is whole.
    """
    reference = teacher.domain
    atoms = Atoms(numbers=reference.reference_numbers, positions=reference.reference_positions)
    atoms.info["charge"] = reference.charges[0]
    atoms.calc = calculator(teacher, device=str(teacher.device), forces="conservative", compile=compile)
    output = run_dir / DYNAMICS / "run.traj"
    outcomes = run_replicas(
        atoms,
        sampling.md_options(),
        n_replicas=sampling.n_replicas,
        output=output,
        evaluate=atoms.calc.copies(atoms, n_copies=sampling.n_replicas),
        positions=positions,
        resume=True,
        progress=progress,
        provenance={"potential_sha256": teacher.sha256, "forces": "conservative"},
    )
    runs: list[Frames] = []
    broken: list[str] = []
    for replica, outcome in enumerate(outcomes):
        path = OutputFiles.for_output(replica_output(output, replica)).trajectory
        frames, reason = None, "" if isinstance(outcome, MDResult) else str(outcome)
        if path.is_file() and path.stat().st_size > 0:
            trajectory = read_trajectory(path)
            n_whole, why = whole_frames(trajectory.positions, reference)
            reason = (
                f"{len(trajectory) - n_whole} of its {len(trajectory)} frames are left out: {why}" if why else reason
            )
            frames = _frames_of(trajectory.positions[:n_whole], reference, name=path.name) if n_whole else None
        if reason:
            broken.append(f"replica {replica}: {reason}")
            logger.warning("%s", broken[-1])
        if frames is not None:
            runs.append(frames)
    n_held_out = max(1, round(HELD_OUT_SHARE * len(runs)))
    taught, held_out = runs[:-n_held_out], runs[-n_held_out:]
    if sum(map(len, taught)) < 2:  # one to learn from, one to choose the best weights by
        raise InputError(
            f"the molecule is whole at the start of {len(runs)} of {sampling.n_replicas} runs only, in "
            f"{sum(map(len, runs))} frames; lower --final-temperature-K (now {sampling.final_temperature_K:g}), "
            "or improve the potential"
        )
    for part, name in ((held_out, HELD_OUT), (taught, LABELS)):
        labelled = label_frames(teacher, joined(part, name=DYNAMICS), forces="conservative", progress=progress)
        write_frames(labelled.frames, run_dir / name, provenance=labelled.provenance)
    return {
        "n_frames": sum(map(len, taught)),
        "n_held_out": sum(map(len, held_out)),
        "broken": broken,
        "md_seconds": max((outcome.wall_s for outcome in outcomes if isinstance(outcome, MDResult)), default=0.0),
    }


def start_positions(
    initial_structures: Frames, reference: Domain, *, n_replicas: int, seed: int
) -> NDArray[np.float64]:
    """Where the runs start, [R, N, 3], Angstrom: frames in random order, each of them before any comes again.

    A stiff molecule does not leave its conformer within the picoseconds of a run, so runs from one frame know one
    conformer (docs/direct-forces.md).

    Args:
        initial_structures: frames of the potential's molecule; their labels are not looked at.
        reference: of the potential.
        n_replicas: runs. If there are more than frames, some of those held out share a start with others.
        seed: of the order.
    Raises:
        InputError: cells, another molecule or another order of its atoms, a frame in which a bond is broken.
    """
    if initial_structures.cell is not None or initial_structures.pbc.any():
        raise InputError(f"{initial_structures.name}: has cells; runs start from isolated molecules only")
    for index in range(len(initial_structures)):
        if initial_structures.frame_numbers(index).tolist() != reference.reference_numbers:
            raise InputError(
                f"{initial_structures.name}: the atoms of frame {index} are not the potential's molecule in its "
                f"order (atomic numbers {reference.reference_numbers}); give frames of its training data"
            )
    positions = initial_structures.positions.reshape(len(initial_structures), -1, 3)
    n_whole, why = whole_frames(positions, reference)
    if why:
        raise InputError(f"{initial_structures.name}: frame {n_whole} cannot be started from: {why}; leave it out")
    order = np.random.default_rng(seed).permutation(len(initial_structures))
    return positions[np.resize(order, n_replicas)]


def whole_frames(positions: NDArray[np.float64], reference: Domain) -> tuple[int, str]:
    """How many frames come before the first in which a bond is broken, and which bond that is ("" if none breaks).

    Args:
        positions: [T, N, 3], Angstrom, atoms in the order of the reference frame.
        reference: whose bonds and their lengths are the right ones; see `BOUND_STABLE_A`.
    """
    ranges = trained_bonds(reference)
    found = bond_deviation(positions, ranges.pairs, ranges=ranges)
    if found is None or found.first_off_frame is None or found.first_off_pair is None:
        return len(positions), ""
    first, second = found.first_off_pair
    why = f"bond {first}-{second} is more than {BOUND_STABLE_A:g} Angstrom off in frame {found.first_off_frame}"
    return found.first_off_frame, why


def _frames_of(positions: NDArray[np.float64], reference: Domain, *, name: str) -> Frames:
    n_frames, n_atoms, _ = positions.shape
    return Frames(
        positions=positions.reshape(-1, 3),
        atomic_numbers=np.tile(np.array(reference.reference_numbers, dtype=np.int64), n_frames),
        n_atoms=np.full(n_frames, n_atoms, dtype=np.int64),
        pbc=np.zeros((n_frames, 3), dtype=bool),
        charge=np.full(n_frames, reference.charges[0]) if any(reference.charges) else None,
        name=name,
    )
