"""Memory and time of `remul-md analyze` (without rotations), `spectrum` and `compare` against the number of frames.

python benchmarks/analysis_memory.py [--n-frames 10000 100000] [--format h5md traj]
    [--commands analyze spectrum compare] [--folder FOLDER] [--json FILE]

Writes trajectories of ethanol that shakes, turns and drifts in energy (made up, not simulated: the analysis costs the
same), runs each command on each in a process of its own and prints its largest resident memory, its time, and the time
that each frame adds to the shortest run. `compare` compares with the packaged test frames. Files of 100,000 frames are
70 MB (H5MD) and 110 MB (.traj).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import ase
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import TrajectoryWriter

from remul_md._version import __version__
from remul_md.datasets.structure_source import read_structure
from remul_md.dynamics.readers.h5md import export_h5md
from remul_md.dynamics.velocities import boltzmann_eV_per_K

COMMANDS = ("analyze", "spectrum", "compare")


def write_run(path: Path, *, n_frames: int, seed: int = 0) -> None:
    """Frames of ethanol, 2 fs apart: white thermal noise, a turn of 1 degree a frame, 1 meV/ps of drift."""
    rng = np.random.default_rng(seed)
    atoms = read_structure("ethanol")
    rest = atoms.positions - atoms.get_center_of_mass()
    spread = np.sqrt(boltzmann_eV_per_K() * 300.0 * atoms.get_masses())[:, None]  # of momenta, in ASE's unit
    with TrajectoryWriter(str(path), mode="w") as writer:
        for number in range(n_frames):
            turn = np.radians(number)
            axes = np.array([[np.cos(turn), -np.sin(turn), 0.0], [np.sin(turn), np.cos(turn), 0.0], [0.0, 0.0, 1.0]])
            atoms.set_positions(rest @ axes.T + rng.normal(scale=0.03, size=rest.shape))
            momenta = spread * rng.normal(size=rest.shape)
            atoms.set_momenta(momenta - momenta.mean(axis=0))
            energy = -4000.0 + 2e-6 * number - atoms.get_kinetic_energy()
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=rng.normal(size=rest.shape))
            atoms.info = {"time_ps": 2e-3 * number, "step": 4 * number}
            writer.write(atoms)


# A process counts the memory of the one that started it, up to its own start, as its own: a small one starts the
# command, so that the figure is not this script's.
LAUNCH = """
import json, os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
seconds = [time.perf_counter() - start, usage.ru_utime + usage.ru_stime]
print(json.dumps([status, usage.ru_maxrss, *seconds]))
"""


def measured(command_name: str, path: Path) -> dict[str, float]:
    """Largest resident memory, MB, wall and CPU seconds of the command on one file."""
    more = ["rmd17/ethanol/test-01"] if command_name == "compare" else []
    command = [sys.executable, "-c", "from remul_md.cli.app import main; main()", command_name, str(path), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, *command], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    status, peak, wall_s, cpu_s = json.loads(done.stdout)
    if status:
        raise SystemExit(f"error: {' '.join(command)} failed")
    return {"peak_MB": peak / (1e6 if sys.platform == "darwin" else 1e3), "wall_s": wall_s, "cpu_s": cpu_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-frames", type=int, nargs="+", default=[10000, 100000])
    parser.add_argument("--format", nargs="+", default=["h5md", "traj"], choices=["h5md", "traj"])
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=COMMANDS)
    parser.add_argument("--folder", type=Path, help="keep the trajectories here and use them again")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        bases: dict[tuple[str, str], dict[str, float]] = {}
        for form in options.format:
            for n_frames in sorted(options.n_frames):
                source = folder / f"run-{n_frames}.traj"
                path = source.with_suffix(f".{form}")
                if not source.is_file():
                    write_run(source, n_frames=n_frames)
                if not path.is_file():
                    export_h5md(source, path)
                for name in options.commands:
                    row = {"command": name, "format": form, "n_frames": n_frames, **measured(name, path)}
                    base = bases.setdefault((name, form), row)
                    added = n_frames - base["n_frames"]
                    row["ms_per_frame"] = 1e3 * (row["cpu_s"] - base["cpu_s"]) / added if added else None
                    row["bytes_per_frame"] = 1e6 * (row["peak_MB"] - base["peak_MB"]) / added if added else None
                    rows.append(row)
                    line = f"{name:8} {form:5} {n_frames:7} frames: {row['peak_MB']:6.0f} MB at most, "
                    line += f"{row['cpu_s']:.1f} s of CPU"
                    if added:
                        line += f"; a frame adds {row['ms_per_frame']:.3f} ms and {row['bytes_per_frame']:.0f} bytes"
                    print(line, flush=True)
    if options.json:
        versions = {"remul-md": __version__, "ase": ase.__version__, "numpy": np.__version__}
        machine = f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}"
        chosen = [
            "--n-frames",
            *map(str, options.n_frames),
            "--format",
            *options.format,
            "--commands",
            *options.commands,
        ]
        command = " ".join(["python benchmarks/analysis_memory.py", *chosen])
        content = {"command": command, "versions": versions, "machine": machine, "rows": rows}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
