"""What the benchmarks of dynamics share: one start for all methods, runs that are kept, what they show, time of a
step."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from script import told_command

from remul_md import RemulCalculator
from remul_md.analysis.energy import Drift, energy_drift, mean_drift, within
from remul_md.analysis.log import read_log
from remul_md.analysis.trajectory import analyze_trajectory
from remul_md.dynamics import MDOptions, SimulationStopped, read_trajectory, run_md
from remul_md.dynamics.integrators import make_integrator
from remul_md.dynamics.options import FRAME_INTERVAL_FS
from remul_md.dynamics.recording import OutputFiles
from remul_md.dynamics.velocities import Rotation
from remul_md.errors import InputError
from remul_md.files import read_json, write_json
from remul_md.studies.record import provenance

ROOT = Path(__file__).resolve().parent.parent
HINT = "choose another file, then run the same command again: finished runs are kept"
BOUND = 0.05  # meV/atom/ps, about 230 K/ns of ethanol: multiple steps have no shadow energy, so theirs is resolved less


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way of integrating.

    Args:
        name: of its files.
        label: in the table.
        calculator: gives the forces of every step; of the outer steps where there are inner ones.
        fast: of the inner steps.
        timestep_fs: integration step; of the inner steps where there are some.
        n_inner: inner steps to an outer one.
        rotation: thermal, or zero: no angular momentum at the start.
        facts: further columns of its rows.
    """

    name: str
    label: str
    calculator: RemulCalculator
    fast: RemulCalculator | None = None
    timestep_fs: float = 0.5
    n_inner: int | None = None
    rotation: Rotation = "thermal"
    facts: Mapping[str, Any]

    def options(self, *, length_ps: float, seed: int) -> MDOptions:
        """Of its runs: NVE from given velocities, a frame about every 4 fs, twenty of them at least."""
        step_fs = self.timestep_fs * (self.n_inner or 1)
        frame_steps = max(round(min(FRAME_INTERVAL_FS, 1000.0 * length_ps / 20) / step_fs), 1)
        return MDOptions(
            timestep_fs=self.timestep_fs,
            n_inner=self.n_inner,
            frame_interval_fs=frame_steps * step_fs,
            length_ps=length_ps,
            equilibrate_ps=0.0,
            velocities="given",
            rotation=self.rotation,
            seed=seed,
        )


def start_of(
    structure: Atoms,
    calculator: RemulCalculator,
    *,
    options: argparse.Namespace,
    rotation: Rotation,
    seed: int,
    provenance: Mapping[str, Any],
) -> Atoms:
    """Positions and momenta after an equilibration with plain conservative forces: where all methods begin."""
    atoms = structure.copy()
    atoms.calc = calculator
    timestep_fs = options.timestep_fs
    chosen = MDOptions(
        temperature_K=options.temperature_K,
        rotation=rotation,
        timestep_fs=timestep_fs,
        frame_interval_fs=timestep_fs,
        length_ps=timestep_fs / 1000.0,  # one step: the first frame is what is wanted
        equilibrate_ps=options.equilibrate_ps,
        seed=seed,
    )
    output = options.run_dir / f"start-{rotation}-{seed}.traj"
    result = run_md(atoms, chosen, output=output, resume=True, provenance=provenance)
    return read_trajectory(result.trajectory).atoms(0)


def finished_run(
    method: Method, start: Atoms, *, run_dir: Path, length_ps: float, seed: int, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Run, go on, or read what is there; figures of the run, of one that fell apart up to there."""
    atoms = start.copy()
    atoms.calc = method.calculator
    output = run_dir / f"{method.name}-{seed}.traj"
    options = method.options(length_ps=length_ps, seed=seed)
    stopped = None
    try:
        run_md(atoms, options, output=output, fast=method.fast, resume=True, provenance=provenance)
    except SimulationStopped as stop:
        stopped = str(stop)
    row = {"method": method.name, "label": method.label, "seed": seed, "stopped": stopped, **method.facts}
    try:
        found = analyze_trajectory(output)
    except InputError:
        if stopped is None:
            raise
        return {**row, "drift": None}  # it fell apart before there was anything to analyse
    figures = found.to_json()
    kept = ("fluctuation_meV_per_atom", "temperature_K", "net_torque_rms_eV", "angular_momentum_change")
    row |= {"drift": None, "heating_K_per_ps": None, "heating_ci95": None} | {name: figures[name] for name in kept}
    log = read_log(OutputFiles.for_output(output).log)
    if found.drift is not None and log is not None:
        # The total energy of all methods: those with an inner step, or another integrator, log no shadow energy.
        drift, rate = energy_drift(log.time_ps, log.total_energy / len(atoms)), found.heating_rate_K_per_ps
        heating = [None if rate is None else rate * slope for slope in drift.ci95_meV_per_atom_ps]
        row |= {"drift": asdict(drift), "heating_ci95": heating}
        row["heating_K_per_ps"] = None if rate is None else rate * drift.slope_meV_per_atom_ps
    return row


def method_summary(rows: Sequence[Mapping[str, Any]], *, bound: float = BOUND) -> dict[str, Any]:
    """One method over its seeds: mean drift with its interval and what follows from it, means of the rest.

    A seed that fell apart is counted; the means are over the others, and a method with such a seed does not conserve.
    """
    whole = [row for row in rows if row["stopped"] is None and row["drift"] is not None]
    first = rows[0]
    summary = {key: first[key] for key in first if key not in FIGURES}
    summary |= {"seeds": [row["seed"] for row in rows], "n_stopped": sum(row["stopped"] is not None for row in rows)}
    if not whole:
        return {**summary, "conservation": "drifts", "drift_meV_per_atom_ps": None}
    drift = mean_drift([Drift(**row["drift"]) for row in whole])
    judged = within(drift.interval_meV_per_atom_ps, bound_meV_per_atom_ps=bound)
    means = ("fluctuation_meV_per_atom", "heating_K_per_ps", "temperature_K", "net_torque_rms_eV")
    return {
        **summary,
        "conservation": judged if len(whole) == len(rows) else "drifts",
        "drift_meV_per_atom_ps": drift.slope_meV_per_atom_ps,
        "drift_interval": list(drift.interval_meV_per_atom_ps),
        **{name: float(np.mean([row[name] for row in whole])) for name in means},
        # The largest, since it is a bound that one looks for.
        "angular_momentum_change": max(row["angular_momentum_change"] for row in whole),
    }


FIGURES = (
    "seed",
    "stopped",
    "drift",
    "fluctuation_meV_per_atom",
    "heating_K_per_ps",
    "heating_ci95",
    "temperature_K",
    "net_torque_rms_eV",
    "angular_momentum_change",
)


def cpu_ms_per_fs(methods: Sequence[Method], start: Atoms, *, block_fs: float, n_rounds: int) -> dict[str, float]:
    """Computing time of each method, ms per fs of dynamics: median over rounds in which the methods take turns.

    CPU time of this process, so that what else runs on the machine counts as little as it can; the methods take turns,
    so that it counts for all alike. Without logs and frames.
    """
    blocks = {method.name: _Block(method, start, block_fs) for method in methods}
    times: dict[str, list[float]] = {name: [] for name in blocks}
    for number in range(n_rounds + 1):
        for name, block in blocks.items():
            elapsed = block.ms_per_fs()
            if number > 0:  # the first round compiles and warms up
                times[name].append(elapsed)
        print(f"\rtiming: round {number} of {n_rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {name: float(np.median(values)) for name, values in times.items()}


class _Block:
    """A run of one method that goes on by a stretch at each call."""

    def __init__(self, method: Method, start: Atoms, block_fs: float) -> None:
        atoms = start.copy()
        atoms.calc = method.calculator
        options = method.options(length_ps=1.0, seed=0)
        rng, n_dof = np.random.default_rng(0), 3 * len(atoms)  # neither matters in NVE
        self.integrator = make_integrator(atoms, options, ensemble="nve", n_dof=n_dof, rng=rng, fast=method.fast)
        self.n_steps = max(round(block_fs / options.step_fs), 1)
        self.length_fs = self.n_steps * options.step_fs
        self.forces = atoms.get_forces(md=True)

    def ms_per_fs(self) -> float:
        # One step before the clock: the methods share calculators, which have forgotten this one's fast forces.
        self.forces = self.integrator.step(self.forces)
        began = time.process_time()
        for _ in range(self.n_steps):
            self.forces = self.integrator.step(self.forces)
        return 1000.0 * (time.process_time() - began) / self.length_fs


def kept_timing(
    options: argparse.Namespace, methods: Sequence[Method], start: Atoms, *, facts: Mapping[str, Any]
) -> dict[str, float]:
    """Computing time of each method: from the folder of runs if it was measured of the same, else measured now."""
    timing = {"block_fs": options.block_fs, "n_rounds": options.timing_rounds}
    case = {**facts, **timing, "timestep_fs": options.timestep_fs, "methods": [method.name for method in methods]}
    path = options.run_dir / "timing.json"
    if path.is_file():
        found = read_json(path, hint="remove it, and the times are measured again")
        if found.get("case") == json.loads(json.dumps(case)):
            return found["cpu_ms_per_fs"]
    times = cpu_ms_per_fs(methods, start, **timing)
    write_json(path, {"case": case, "cpu_ms_per_fs": times}, hint=HINT)
    return times


def calculator_options(given: Sequence[str]) -> dict[str, Any]:
    """Options of `RemulCalculator` from KEY=VALUE, values as JSON (true, 3) or else as text.

    Raises:
        InputError: no such option, or one that the methods set.
    """
    known = set(inspect.signature(RemulCalculator).parameters) - set(SET_BY_METHODS)
    chosen: dict[str, Any] = {}
    for part in given:
        key, equals, value = part.partition("=")
        if not equals or key not in known:
            raise InputError(f"--calculator {part!r} is not KEY=VALUE with one of {', '.join(sorted(known))}")
        try:
            chosen[key] = json.loads(value)
        except json.JSONDecodeError:
            chosen[key] = value
    return chosen


SET_BY_METHODS = ("potential", "forces", "symmetrize", "remove_net_torque")


def add_arguments(parser: argparse.ArgumentParser, *, name: str, length_ps: float, seeds: Sequence[int]) -> None:
    """Options that both benchmarks have."""
    parser.add_argument("potential", help="with both heads (`remul-md distill`, or train.forces=both)")
    parser.add_argument("--run-dir", type=Path, required=True, help="keeps the runs; the same command goes on")
    parser.add_argument("--structure", default="ethanol")
    parser.add_argument("--temperature-K", type=float, default=300.0, dest="temperature_K")
    parser.add_argument("--timestep-fs", type=float, default=0.5)
    parser.add_argument("--length-ps", type=float, default=length_ps, help="of each run")
    parser.add_argument("--equilibrate-ps", type=float, default=2.0, help="once for each seed")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(seeds))
    parser.add_argument(
        "--calculator", nargs="+", default=[], metavar="KEY=VALUE", help="of RemulCalculator: dtype=float64"
    )
    parser.add_argument("--block-fs", type=float, default=32.0, help="of one timing")
    parser.add_argument("--timing-rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, default=ROOT / "results" / f"{name}.json")


def told_names(options: argparse.Namespace) -> dict[str, str]:
    """What the command of the results says for names of this machine's folders."""
    told = {str(options.run_dir): "FOLDER", str(options.json): options.json.name}
    return told | {options.potential: Path(options.potential).name}


def write_result(script: str, options: argparse.Namespace, given: Sequence[str], result: Mapping[str, Any]) -> None:
    """Write the file of results, with what both benchmarks tell of their runs."""
    told = {
        **provenance(told_command(script, given, told_names(options)), n_jobs=1),
        "threads": 1,
        "temperature_K": options.temperature_K,
        "length_ps": options.length_ps,
        "bound_meV_per_atom_ps": BOUND,
    }
    write_json(options.json, {**told, **result}, hint=HINT)


def interval_text(row: Mapping[str, Any]) -> str:
    """`0.012 (0.003 to 0.021)`, or why there is none."""
    if row["drift_meV_per_atom_ps"] is None:
        return "fell apart"
    low, high = row["drift_interval"]
    digits = 1 if max(abs(low), abs(high)) >= 10.0 else 3
    lost = f", {row['n_stopped']} of {len(row['seeds'])} fell apart" if row["n_stopped"] else ""
    return f"{row['drift_meV_per_atom_ps']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f}){lost}"
