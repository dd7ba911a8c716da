"""What the MD17 task costs without learning, on MD17 itself: standing still for 3,000 steps, and the mean geometry.

The trajectories of MD17 are not to be had, but the geometries of rMD17 are frames of them and know their numbers. The
2,000 frames of split 01 of a molecule hold thousands of pairs that are 3,000 frames apart to within 100: how far the
heavy atoms of such a pair are apart is the error of standing still. Standard errors are those of means over 20 blocks
in time. Mean squared errors a coordinate, A^2, heavy atoms, in the lab frame as the published loader has them.

python benchmarks/md17_baselines.py [--molecules aspirin ethanol salicylic] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from script import run_script, told_command
from study_tables import md17_baseline_rows

from remul_md.datasets import read_frames
from remul_md.structures.alignment import superposition_rotations
from remul_md.studies.record import provenance
from remul_md.studies.tasks.md17 import mean_geometry

MOLECULES = ("aspirin", "ethanol", "salicylic", "naphthalene", "toluene", "malonaldehyde")
HORIZON, WITHIN, N_BLOCKS = 3000, 100, 20
Array = NDArray[np.float64]


def heavy_atoms(molecule: str) -> tuple[Array, NDArray[np.int64]]:
    """Positions [T, N, 3], Angstrom, of both halves of split 01 in the order of time, and their numbers in MD17."""
    halves = [read_frames(f"rmd17/{molecule}/{part}-01", with_labels=False) for part in ("train", "test")]
    heavy = halves[0].frame_numbers(0) > 1
    positions = np.concatenate([half.positions.reshape(len(half), -1, 3)[:, heavy] for half in halves])
    steps = np.concatenate([half.trajectory_step for half in halves if half.trajectory_step is not None])
    order = np.argsort(steps)
    return positions[order], steps[order]


def pairs_apart(steps: NDArray[np.int64], lag: int, *, within: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of all pairs of frames (first, second) whose numbers differ by `lag`, give or take `within`."""
    first = np.searchsorted(steps, steps + lag - within, side="left")
    last = np.searchsorted(steps, steps + lag + within, side="right")
    starts = np.repeat(np.arange(len(steps)), last - first)
    ends = np.concatenate([np.arange(low, high) for low, high in zip(first, last, strict=True)])
    return starts, ends.astype(np.int64)


def mean_and_error(values: Array, steps: NDArray[np.int64]) -> tuple[float, float]:
    """Mean, and its standard error from the means of blocks in time that hold as many values each."""
    blocks = [values[rows].mean() for rows in np.array_split(np.argsort(steps, kind="stable"), N_BLOCKS)]
    return float(values.mean()), float(np.std(blocks, ddof=1) / np.sqrt(N_BLOCKS))


def baselines_of(molecule: str) -> dict[str, Any]:
    """Errors and standard errors of a molecule, and what 100 frames cost, which says that numbers are times."""
    positions, steps = heavy_atoms(molecule)
    centred = positions - positions.mean(1, keepdims=True)
    mean = mean_geometry(positions)
    rotated = np.einsum("tij,aj->tai", superposition_rotations(positions, mean), mean)
    starts, ends = pairs_apart(steps, HORIZON, within=WITHIN)
    moved = np.square(positions[ends] - positions[starts]).mean((1, 2))
    # The mean geometry in the orientation of the input, against the target 3,000 frames later.
    superposed = np.square(centred[ends] - rotated[starts]).mean((1, 2))
    soon, then = pairs_apart(steps, 100, within=10)
    return {
        "molecule": molecule,
        "n_heavy": positions.shape[1],
        "n_pairs": len(starts),
        "no_motion": mean_and_error(moved, steps[starts]),
        "mean_geometry": mean_and_error(np.square(positions - positions.mean(0)).mean((1, 2)), steps),
        "mean_superposed": mean_and_error(superposed, steps[starts]),
        "no_motion_100": float(np.square(positions[then] - positions[soon]).mean()),
    }


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Measure the molecules; a table."""
    rows = [baselines_of(molecule) for molecule in options.molecules]
    print(md17_baseline_rows(rows))
    if options.json:
        told = {str(options.json): options.json.name}
        content = {**provenance(told_command("md17_baselines", given, told), n_jobs=1), "horizon": HORIZON}
        content |= {"within": WITHIN, "blocks": N_BLOCKS, "rows": rows}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--molecules", nargs="+", default=[*MOLECULES], choices=MOLECULES)
    parser.add_argument("--json", type=Path)
    run_script(parser, run)


if __name__ == "__main__":
    main()
