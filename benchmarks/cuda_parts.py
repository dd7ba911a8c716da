"""What `cuda_check.py` measures, part by part: tests, agreement with the CPU, calls, training, dynamics."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from ase import Atoms
from calculator_overhead import forces_of, medians_in_turns
from replicas import TIMESTEP_FS, with_torch_sim

from remul_md import RemulCalculator, load_potential, read_frames
from remul_md.datasets.structure_source import read_structure
from remul_md.dynamics import MDOptions, SimulationStopped
from remul_md.dynamics.replicas import run_replicas
from remul_md.files import read_json, write_json
from remul_md.structures.neighbors import build_batch
from remul_md.training.checkpoint import METRICS, read_metrics
from remul_md.training.config import load_config
from remul_md.training.train import train_potential

ROOT = Path(__file__).resolve().parents[1]
FRAMES_COMPARED = 20
MAX_COMPILING = 8  # processes at a time; each is busy with one core for a minute or two
PERIOD = 14  # steps after which the log (every 2) and the frames (every 7) of a run of 0.5 fs come round
ERROR_LENGTH = 600
SYMMETRIES = ("as trained", "exact")
COMPILED = ("calls", "training")
Row = dict[str, Any]
# A part: its cases, each with the function that measures it, given the options and the seconds that are left.
Cases = Iterator[tuple[Row, Callable[[], Row]]]
Part = Callable[[argparse.Namespace, Callable[[], float]], Cases]


def run_tests(options: argparse.Namespace, left: Callable[[], float]) -> Cases:
    """The tests marked `cuda`; without a device they are skipped."""

    def counts() -> Row:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider"]
            done = subprocess.run([*command, f"--junitxml={report}", *options.tests], cwd=ROOT, check=False)
            (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
        tests, failed, errors, skipped = (int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped"))
        row: Row = {"passed": tests - failed - errors - skipped, "failed": failed + errors, "skipped": skipped}
        if done.returncode != 0:
            names = [case.attrib["name"] for case in suite.iter("testcase") if case.find("failure") is not None]
            row["error"] = f"pytest ended with code {done.returncode}: {', '.join(names)}"
        return row

    yield {}, counts


def compare_with_cpu(options: argparse.Namespace, left: Callable[[], float]) -> Cases:
    """Energies and forces of test frames, the device's beside the CPU's; and what single precision costs."""
    name, file = options.molecules[0]
    frames = read_frames(f"rmd17/{name}/test-01").select(range(FRAMES_COMPARED))

    def evaluated(dtype: Any, forces: Any, device: str) -> tuple[torch.Tensor, torch.Tensor]:
        calculator = RemulCalculator(file, device=device, dtype=dtype, forces=forces)
        batch = build_batch(frames, cutoff=calculator.potential.cutoff).to(device)
        energies, found = calculator.evaluate_batch(batch)
        return energies.cpu(), found.double().cpu()

    def differences(dtype: str, forces: str) -> Row:
        exact = evaluated("float64", forces, "cpu")[1]
        cpu, found = (evaluated(dtype, forces, device) for device in ("cpu", options.device))
        return {
            "frames": FRAMES_COMPARED,
            "rms_force_eV_per_A": float(exact.square().mean().sqrt()),
            "largest_force_difference_eV_per_A": float((found[1] - cpu[1]).abs().max()),
            "largest_energy_difference_eV": float((found[0] - cpu[0]).abs().max()),
            "cpu_against_float64_eV_per_A": float((cpu[1] - exact).abs().max()),
        }

    for dtype, forces in product(("float64", "float32"), heads(file)):
        yield {"molecule": name, "dtype": dtype, "forces": forces}, partial(differences, dtype, forces)


def time_calls(options: argparse.Namespace, left: Callable[[], float]) -> Cases:
    """Milliseconds of a call; the compiled ones last, since compiling may take all the time there is."""
    cases = [
        {"molecule": name, "forces": forces, "symmetry": symmetry, "compiled": compiled}
        for compiled in (False, True)
        for symmetry in options.symmetries
        for name, file in options.molecules
        for forces in heads(file)
    ]
    half = len(cases) // 2
    for case in cases[:half]:
        yield case, partial(call_ms, case, options)
    if "calls" not in options.compile:
        return
    outcomes = compile_all(cases[half:], options, seconds=0.8 * left())
    for case, outcome in zip(cases[half:], outcomes, strict=True):
        if "error" in outcome:
            yield case, partial(dict, outcome)
        else:
            yield {**case, **outcome}, partial(call_ms, case, options)


def heads(file: str) -> tuple[str, ...]:
    """The kinds of forces that a potential was trained for."""
    trained = load_potential(file).provenance.trained_forces
    return ("conservative", "direct") if trained == "both" else (trained,)


def prepared_call(case: Row, options: argparse.Namespace) -> tuple[Callable[[Any], object], Any]:
    """Forces as a function of positions, and where the molecule stands."""
    atoms, symmetry = read_structure(case["molecule"]), case["symmetry"] if case["symmetry"] == "exact" else None
    chosen: Row = {"forces": case["forces"], "symmetry": symmetry, "compile": case["compiled"]}
    calculator = RemulCalculator(dict(options.molecules)[case["molecule"]], device=options.device, **chosen)
    return forces_of(calculator, atoms), atoms.get_positions()


def call_ms(case: Row, options: argparse.Namespace) -> Row:
    call, positions = prepared_call(case, options)
    return {"calls": options.calls, "median_ms": medians_in_turns({"": call}, positions, n_calls=options.calls)[""]}


def compile_all(cases: list[Row], options: argparse.Namespace, *, seconds: float) -> list[Row]:
    """Compile every case into the cache, several at a time; how long each took, or why there is nothing."""
    until, n_at_a_time = time.monotonic() + seconds, max(1, min(MAX_COMPILING, (os.cpu_count() or 2) // 2))
    context, running, waiting = multiprocessing.get_context("spawn"), dict[int, Any](), deque(range(len(cases)))
    print(f"  compiling {len(cases)} cases, {n_at_a_time} at a time, up to {seconds:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.json" for number in waiting]
        while (waiting or running) and time.monotonic() < until:
            while waiting and len(running) < n_at_a_time:
                number = waiting.popleft()
                running[number] = context.Process(target=compile_case, args=(cases[number], options, files[number]))
                running[number].start()
            time.sleep(0.1)
            running = {number: process for number, process in running.items() if process.is_alive()}
        for process in running.values():
            process.kill()
        late = {"error": f"not compiled within the {seconds:.0f} s that the cases have together"}
        died, unfinished = {"error": "the process that compiled it died"}, {*waiting, *running}
        return [
            read_json(file, hint="") if file.is_file() else late if number in unfinished else died
            for number, file in enumerate(files)
        ]


def compile_case(case: Row, options: argparse.Namespace, file: Path) -> None:
    """Run in a process of its own: what a compiled calculator's first call leaves in the cache."""
    torch.set_num_threads(1)  # as where it is timed: code is compiled for a number of threads
    began = time.perf_counter()
    try:
        call, positions = prepared_call(case, options)
        call(positions)
        outcome: Row = {"first_call_s": time.perf_counter() - began}
    except Exception as error:  # of many types; the row tells it
        outcome = {"error": described(error)}
    write_json(file, outcome, hint="free space")


def time_training(options: argparse.Namespace, left: Callable[[], float]) -> Cases:
    """Some steps of the demo's training, uncompiled and compiled; the speed is that of the second half."""
    n_steps = options.train_steps
    ours = {"n_steps": n_steps, "warmup_steps": min(200, n_steps // 5), "log_every": max(1, n_steps // 20)}

    def trained(compiled: bool) -> Row:
        chosen = {**ours, "device": options.device, "compile": str(compiled).lower()}
        overrides = [*(f"train.{key}={value}" for key, value in chosen.items()), *options.set]
        config = load_config(options.preset, overrides=overrides)
        with tempfile.TemporaryDirectory() as folder:
            record = train_potential(config, run_dir=folder, progress=False).provenance
            rows = read_metrics(Path(folder) / METRICS)
        middle = next(row for row in rows if row["step"] >= n_steps / 2)
        return {
            "steps_per_s": (rows[-1]["step"] - middle["step"]) / (rows[-1]["seconds"] - middle["seconds"]),
            "seconds": record.seconds,
            "validation_force_mae_meV_per_A": record.metrics["validation_force_mae_meV_per_A"],
        }

    for compiled in (False, True) if "training" in options.compile else (False,):
        yield {"preset": options.preset, "steps": n_steps, "compiled": compiled}, partial(trained, compiled)


def time_dynamics(options: argparse.Namespace, left: Callable[[], float]) -> Cases:
    """NVE of many copies of the first molecule: torch-sim's integrator, and replicas with all their files."""
    name, file = options.molecules[0]
    atoms, calculator = read_structure(name), RemulCalculator(file, device=options.device)
    for n_copies, (way, measure) in product(
        options.copies, (("torch-sim", torch_sim_speed), ("replicas", replica_speed))
    ):
        yield {"way": way, "molecule": name, "copies": n_copies}, partial(measure, calculator, atoms, n_copies)


def speed(n_copies: int, seconds: float, n_steps: int) -> Row:
    """Of all copies, which make `n_steps` in `seconds`."""
    ns_per_day = TIMESTEP_FS * 1e-6 * n_steps / seconds * 86400.0
    steps = {"steps": n_steps, "ms_per_step": 1000.0 * seconds / n_steps}
    return {**steps, "ns_per_day": n_copies * ns_per_day, "ns_per_day_of_each": ns_per_day}


def torch_sim_speed(calculator: RemulCalculator, atoms: Atoms, n_copies: int) -> Row:
    """About five seconds, after steps that warm up."""
    run = partial(with_torch_sim, calculator, atoms, n_replicas=n_copies)
    run(n_steps=2)
    n_steps = int(min(500.0, max(4.0, 5.0 / (run(n_steps=2)[0] / 2.0))))
    return speed(n_copies, run(n_steps=n_steps)[0], n_steps)


def replica_speed(calculator: RemulCalculator, atoms: Atoms, n_copies: int) -> Row:
    """Steps as `remul-md md --replicas` makes them, from one call of the potential to the next.

    Opening and closing the files of a thousand replicas takes longer than these steps, but is done once in a run.
    """
    n_timed, asked = PERIOD * max(1, 30 // max(1, n_copies // 16)), list[float]()
    start = atoms.copy()
    start.calc = calculator
    forces_at = calculator.copies(start, n_copies=n_copies)

    def evaluate(positions: Any) -> Any:
        asked.append(time.perf_counter())
        return forces_at(positions)

    n_steps = 2 + n_timed
    chosen = MDOptions(length_ps=n_steps * TIMESTEP_FS / 1000.0, equilibrate_ps=0.0, timestep_fs=TIMESTEP_FS)
    with tempfile.TemporaryDirectory() as folder:
        files: Row = {"output": Path(folder) / "run.traj", "progress": False}
        outcomes = run_replicas(start, chosen, n_replicas=n_copies, evaluate=evaluate, **files)
    for outcome in outcomes:
        if isinstance(outcome, SimulationStopped):
            raise outcome
    return speed(n_copies, asked[n_steps] - asked[2], n_timed)


def described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:ERROR_LENGTH]
