"""Trajectories of the potentials of the package, for studies of dynamics: replicas with conservative forces.

Letters: R replicas, T frames, N heavy atoms.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remul_md.datasets import read_frames
from remul_md.datasets.readers.npz import load_arrays
from remul_md.dynamics import MDOptions, MDResult, read_trajectory
from remul_md.dynamics.replicas import replica_output, run_replicas
from remul_md.errors import InputError
from remul_md.files import replace_atomically
from remul_md.studies.lab import CalculatorFactory


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """The heavy atoms of all replicas of a molecule.

    Args:
        positions: [R, T, N, 3], Angstrom.
        velocities: [R, T, N, 3], Angstrom/fs.
        numbers: of the heavy atoms, [N].
        facts: JSON-able: potential and sha256 of its file, forces, seed, start frames, sha256 of the arrays.
    """

    positions: NDArray[np.float32]
    velocities: NDArray[np.float32]
    numbers: NDArray[np.int64]
    facts: dict[str, Any]


def trajectory_file(study_dir: Path, molecule: str) -> Path:
    """File of the heavy atoms of a molecule; `trajectory-ethanol-0.traj` and so on hold all of replica 0."""
    return study_dir / f"trajectory-{molecule}.npz"


def run_trajectory(
    molecule: str, options: MDOptions, *, n_replicas: int, study_dir: Path, calculator: CalculatorFactory
) -> None:
    """Run replicas of a molecule from the first frames of test split 01 of rMD17, and keep its heavy atoms.

    The potential is that of the package in its exact mode: a world that prefers no direction, in which a molecule
    without angular momentum stays so. Goes on where it was stopped.

    Raises:
        InputError: a molecule fell apart, other options than before, or the forces cannot be compiled.
    """
    calc = calculator(molecule, symmetry="exact", forces="conservative", device="cpu")
    source = f"rmd17/{molecule}/test-01"
    frames = read_frames(source, with_labels=False).select(range(n_replicas))
    atoms = frames.atoms(0)
    facts: dict[str, Any] = {
        "potential": molecule,
        "potential_sha256": calc.potential.sha256,
        "forces": calc.head,
        "symmetry": calc.potential.symmetry,
        "compiled": calc.parameters["compile"],
        "structures": f"{source}:0 to {n_replicas - 1}",
    }
    output = study_dir / f"trajectory-{molecule}.traj"
    outcomes = run_replicas(
        atoms,
        options,
        n_replicas=n_replicas,
        output=output,
        evaluate=calc.copies(atoms, n_copies=n_replicas),
        positions=frames.positions.reshape(n_replicas, -1, 3),
        resume=True,
        provenance=facts,
    )
    for replica, outcome in enumerate(outcomes):
        if not isinstance(outcome, MDResult):
            raise InputError(f"{replica_output(output, replica)}: {outcome}; try another seed in a new --run-dir")
    heavy = np.flatnonzero(atoms.numbers > 1)
    positions, velocities = [], []
    for replica in range(n_replicas):
        run = read_trajectory(replica_output(output, replica))
        assert run.momenta is not None
        positions.append(run.positions[:, heavy].astype(np.float32))
        velocities.append((run.momenta[:, heavy] / atoms.get_masses()[heavy, None]).astype(np.float32))
    arrays = {"positions": np.stack(positions), "velocities": np.stack(velocities)}
    facts |= {"seed": options.seed, "replica_ps": options.length_ps, "temperature_K": options.temperature_K}
    facts["trajectory_sha256"] = sha256_of(**arrays)
    content = io.BytesIO()
    np.savez_compressed(
        content,
        numbers=atoms.numbers[heavy],
        facts=np.array(json.dumps(facts)),
        positions=arrays["positions"],
        velocities=arrays["velocities"],
    )
    replace_atomically(trajectory_file(study_dir, molecule), content.getvalue())


def sha256_of(*, positions: NDArray[np.float32], velocities: NDArray[np.float32]) -> str:
    """Of both arrays as they lie in memory: what a result was made from."""
    return hashlib.sha256(positions.tobytes() + velocities.tobytes()).hexdigest()


def read_heavy_atoms(study_dir: Path, molecule: str) -> Trajectory:
    """What `run_trajectory` wrote.

    Raises:
        InputError: the arrays are not those whose hash the file holds.
    """
    path = trajectory_file(study_dir, molecule)
    arrays = load_arrays(path)
    facts = json.loads(str(arrays["facts"]))
    positions, velocities = arrays["positions"], arrays["velocities"]
    if sha256_of(positions=positions, velocities=velocities) != facts["trajectory_sha256"]:
        raise InputError(f"{path}: positions and velocities are not those that were written; remove it and --resume")
    return Trajectory(positions=positions, velocities=velocities, numbers=arrays["numbers"], facts=facts)
