"""How long molecules hold at 500 K, as the field measures it: breaks per nanosecond with their interval.

    python benchmarks/stability.py ethanol benzene --replicas 5 --length-ps 300 --run-dir FOLDER --json OUT.json

Nose-Hoover, steps of 0.5 fs, each replica from an rMD17 test frame after 1 ps of Langevin dynamics. A break is a bond
0.5 Angstrom off the middle of its trained range (Fu et al. 2023, arXiv:2210.07237), or a hydrogen atom more than 2.5
Angstrom from the atom it was bonded to (MLIPAudit); both are looked for in frames 25 fs apart, and a run ends with the
first. What is in the folder is kept: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2
from script import run_script, told_command

from remul_md.analysis.distributions import Distribution, density_gap, pair_distance_distribution
from remul_md.analysis.structure import BondRanges, bond_deviation
from remul_md.datasets import read_frames
from remul_md.dynamics.read import read_trajectory
from remul_md.dynamics.replicas import replica_output
from remul_md.errors import InputError
from remul_md.files import read_json, write_json
from remul_md.potentials.domain import Domain
from remul_md.potentials.potential import load_potential
from remul_md.structures.topology import bond_lengths
from remul_md.studies.record import provenance

FRAME_INTERVAL_FS = 25.0
HYDROGEN_GONE_A = 2.5
MAX_BOND_STRETCH = 2.0  # md itself stops there; beyond, nothing is left to be learned


def rate_interval(n_breaks: int, nanoseconds: float) -> tuple[float, float]:
    """95 % interval of the breaks per nanosecond, exact for a Poisson process that was watched so long."""
    low = 0.0 if n_breaks == 0 else float(chi2.ppf(0.025, 2 * n_breaks)) / 2.0
    # Of no break at all the one-sided bound is the honest one: 3.0 events, not 3.7.
    high = float(chi2.ppf(0.95 if n_breaks == 0 else 0.975, 2 * (n_breaks + 1))) / 2.0
    return low / nanoseconds, high / nanoseconds


def replica(path: Path, domain: Domain, reference: Distribution) -> dict[str, Any]:
    """What became of one copy: time until the first break, or all of it, and its pair distances.

    Args:
        path: of its trajectory.
        domain: of its potential, which knows the bonds.
        reference: pair distances of the test frames.
    """
    numbers, bonds = np.array(domain.reference_numbers), np.array(domain.bonds)
    run = read_trajectory(path)
    ranges = BondRanges(pairs=bonds, min_A=np.array(domain.bond_min), max_A=np.array(domain.bond_max))
    deviation = bond_deviation(run.positions, bonds, ranges=ranges)
    assert deviation is not None
    gone = (bond_lengths(run.positions, bonds) > HYDROGEN_GONE_A) & (numbers[bonds] == 1).any(axis=1)
    times = run.time_ps - run.time_ps[0]
    stopped = read_json(path.with_suffix(".json"), hint="remove the run and begin again").get("stopped")
    broken = deviation.first_off_frame
    whole = run.positions[: broken or len(times)]
    return {
        "intact_ps": float(times[-1 if broken is None else broken]),
        "broken": broken is not None or stopped is not None,
        "bond": None if deviation.first_off_pair is None else list(deviation.first_off_pair),
        "hydrogen_gone": bool(gone.any()),
        "stopped": stopped,
        "pair_distance_gap": density_gap(pair_distance_distribution(whole), reference),
    }


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run the copies of one molecule and judge them."""
    potential = dict(entry.split("=", 1) for entry in options.potential).get(name, name)
    output = options.run_dir / f"{name}.traj"
    command = ["remul-md", "md", potential, "--structure", f"rmd17/{name}/test-01:{options.frame}"]
    command += ["--output", str(output), "--ensemble", "nose-hoover", "--temperature-K", f"{options.temperature_K:g}"]
    command += ["--length-ps", f"{options.length_ps:g}", "--equilibrate-ps", "1", "--replicas", str(options.replicas)]
    command += ["--frame-interval-fs", f"{FRAME_INTERVAL_FS:g}", "--seed", str(options.seed), "--resume", "--compile"]
    command += ["--set", f"md.max_bond_stretch={MAX_BOND_STRETCH}", "--set", "md.log_interval=50"]
    subprocess.run([Path(sys.executable).with_name(command[0]), *command[1:]], check=False)  # a break is a result
    copies = range(options.replicas)
    paths = [replica_output(output, copy) for copy in copies] if options.replicas > 1 else [output]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise InputError(f"{name}: {', '.join(missing)} was not written; look at what the run said")
    run_by, test = load_potential(potential), read_frames(f"rmd17/{name}/test-01")
    reference = pair_distance_distribution(test.positions.reshape(len(test), -1, 3))
    rows = [replica(path, run_by.domain, reference) for path in paths]
    told = {str(output): f"FOLDER/{output.name}", potential: Path(potential).name}
    nanoseconds = sum(row["intact_ps"] for row in rows) / 1000.0
    n_breaks = sum(row["broken"] for row in rows)
    return {
        "potential_sha256": run_by.sha256,
        "command": shlex.join(told.get(part, part) for part in command),
        "nanoseconds": nanoseconds,
        "n_breaks": n_breaks,
        "breaks_per_ns": n_breaks / nanoseconds,
        "breaks_per_ns_ci95": rate_interval(n_breaks, nanoseconds),
        "copies": rows,
    }


def run(options: argparse.Namespace, given: list[str]) -> None:
    """All molecules, one after another; the file is written after each."""
    options.run_dir.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = {}
    for name in options.molecules:
        rows[name] = measured(name, options)
        low, high = rows[name]["breaks_per_ns_ci95"]
        watched = f"{rows[name]['nanoseconds']:.3f} ns ({low:.1f} to {high:.1f} per ns)"
        print(f"{name}: {rows[name]['n_breaks']} breaks in {watched}")
        if options.json is not None:
            files = {entry: f"{entry.split('=', 1)[0]}={Path(entry).name}" for entry in options.potential}
            command = told_command("stability", given, {str(options.run_dir): "FOLDER", **files})
            content = {**provenance(command, n_jobs=1), "molecules": rows}
            write_json(options.json, content, hint="choose another --json")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="How long molecules hold.")
    parser.add_argument("molecules", nargs="+", help="of rMD17 split 01, as ethanol")
    parser.add_argument(
        "--potential", action="append", default=[], metavar="MOLECULE=FILE", help="else the shipped one"
    )
    parser.add_argument("--replicas", type=int, default=5)
    parser.add_argument("--length-ps", type=float, default=300.0)
    parser.add_argument("--temperature-K", type=float, default=500.0)
    parser.add_argument("--frame", type=int, default=0, help="test frame that all copies start from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
