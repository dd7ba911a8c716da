"""Kill commands at random moments, resume them, and compare with what nobody killed; start two on one output.

    nice python tests/soak.py --kills 200 --races 50 --json results/soak.json

Each command is the real one in a process of its own, forked from this one after the imports, so that a kill costs no
start-up. A chain of kills ends when a command has finished; its files must then hold the bits of an uninterrupted run,
no lock and no half-written file. In a race two processes get one output and the same command (the second one with
--resume in half of the races); one must finish with the right bits, and the other end with exit code 2.

Not collected by pytest: `tests/test_soak.py` runs a few of each.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SAVE_INTERVAL_S = 0.05  # of calculated labels, 10 s otherwise: a command of two seconds has something to lose


def tensors_of(path: Path) -> Any:
    """Weights and reference energies of a potential; the rest of the file tells the time."""
    import torch

    payload = torch.load(path, weights_only=True)
    return {name: value.tolist() for name, value in payload["weights"].items()}, payload["reference_energies"].tolist()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def frames_of(path: Path) -> list[Any]:
    from ase.io import read

    return [
        (atoms.info, atoms.positions.tolist(), atoms.get_momenta().tolist(), atoms.get_forces().tolist())
        for atoms in read(path, index=":")
    ]


def training(folder: Path) -> Any:
    return tensors_of(folder / "run" / "potential.pt"), rows_of(folder / "run" / "metrics.csv")


def dynamics(folder: Path) -> Any:
    logs = [path.read_bytes() for path in sorted(folder.glob("*.csv"))]
    return logs, [frames_of(path) for path in sorted(folder.glob("*.traj"))]


def labels(folder: Path) -> Any:
    return (folder / "labels.npz").read_bytes()


def distilled(folder: Path) -> Any:
    run = folder / "run"
    return (
        training(folder),
        [(run / name).read_bytes() for name in ("labels.npz", "held-out.npz")],
        dynamics(run / "md"),
    )


def study(folder: Path) -> Any:
    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(entry) for key, entry in value.items() if not key.endswith("seconds")}
        return [timeless(entry) for entry in value] if isinstance(value, list) else value

    return timeless(json.loads((folder / "run" / "results.json").read_text())["runs"])


def sets(*options: str) -> list[str]:
    return [part for option in options for part in ("--set", option)]


_MODEL = ("width=16", "n_layers=1", "n_heads=2", "pair_width=12", "n_radial=6", "n_tensors=4")
_TRAIN = ("batch_size=4", "warmup_steps=5", "validate_every=20", "checkpoint_every=7", "log_every=3", "device=cpu")
_MD = ["ethanol", "--structure", "ethanol", "--timestep-fs", "0.5", "--equilibrate-ps", "0.005", "--device", "cpu"]
_MD += ["--frame-interval-fs", "1.5", *sets("md.checkpoint_interval=4", "md.log_interval=2")]


@dataclass(kw_only=True)
class Job:
    """A command with `{}` for the folder of its outputs, what is compared of them, and what was counted."""

    command: list[str]
    result: Callable[[Path], Any]
    expected: Any = None
    seconds: float = 0.0
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("kills", "kills_after_first_output", "finished", "races"), 0)
    )


def all_jobs() -> dict[str, Job]:
    train = [*(f"model.{option}" for option in _MODEL), *(f"train.{option}" for option in (*_TRAIN, "n_steps=40"))]
    head = [f"train.{option}" for option in (*_TRAIN, "n_steps=14", "monitor_per_decade=0")]
    bodies = ["n_steps=60", "width=8", "n_layers=1"]
    bodies += ["n_heads=2", "egnn_width=6", "batch_size=5", "n_train=11", "n_validation=7", "n_test=13"]
    bodies += ["n_draws=3", "n_draw_systems=4", "methods=[plain, remul-1]", "seeds=[0]"]
    run = ["--run-dir", "{}/run"]
    return {
        "train": Job(
            command=["train", "--molecule", "ethanol", *run, *sets(*train, "data.n_train=23", "data.n_validation=6")],
            result=training,
        ),
        "md": Job(
            command=["md", *_MD, "--ensemble", "langevin", "--length-ps", "0.03", "--output", "{}/run.traj"],
            result=dynamics,
        ),
        "replicas": Job(
            command=["md", *_MD, "--length-ps", "0.02", "--replicas", "3", "--output", "{}/run.traj"], result=dynamics
        ),
        "label": Job(
            command=["label", "ase.calculators.emt:EMT", "rmd17/ethanol/test-01", "{}/labels.npz", "--every", "4"],
            result=labels,
        ),
        "distill": Job(
            command=[
                *("distill", "ethanol", *run, "--n-frames", "12", "--n-replicas", "4", "--frame-interval-fs", "3"),
                *("--equilibrate-ps", "0.005", *sets(*head)),
            ],
            result=distilled,
        ),
        "study": Job(command=["study", "nbody", "--size", "quick", *run, *sets(*bodies)], result=study),
    }


def start(command: list[str], folder: Path, *more: str) -> int:
    """Fork a process that is the command; returns its number. What it says goes to `folder.log`."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [part.replace("{}", str(folder)) for part in (*command, *more)]
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = ["remul-md", *arguments]
        from remul_md.cli.app import main

        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        except BaseException:
            import traceback

            traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int, *, seconds: float = 600.0) -> int | None:
    """Exit code of a process, negative for a signal; None if it still runs after that time."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.002)


def problems(job: Job, folder: Path) -> list[str]:
    """What is wrong with the files of a command that has finished."""
    found = [f"{path.relative_to(folder)} is left" for path in folder.rglob(".*") if path.suffix in (".lock", ".part")]
    try:
        if job.result(folder) != job.expected:
            found.append("other bits than an uninterrupted run")
    except (OSError, ValueError, KeyError) as error:
        found.append(f"{type(error).__name__}: {error}")
    return found


def kill_chain(job: Job, folder: Path, *, n_kills: int, rng: random.Random) -> list[str]:
    """Kill a command up to `n_kills` times, then let it finish; what went wrong."""
    for k in range(n_kills):
        begun = time.monotonic()
        pid = start(job.command, folder, "--resume")
        code = wait(pid, seconds=rng.uniform(0.0, 0.9 * job.seconds))
        if code is None:
            os.kill(pid, signal.SIGKILL)
            code = wait(pid)
        if code != -signal.SIGKILL:
            if k == 0:  # the machine was busier when the time was taken
                job.seconds = min(job.seconds, time.monotonic() - begun)
            break  # it was faster
        job.counts["kills"] += 1
        job.counts["kills_after_first_output"] += any(path.is_file() for path in folder.rglob("[!.]*"))
    if code == -signal.SIGKILL:
        code = wait(start(job.command, folder, "--resume"))
    job.counts["finished"] += 1
    return (
        problems(job, folder) if code == 0 else [f"exit code {code}: {folder.with_suffix('.log').read_text()[-400:]}"]
    )


def race(job: Job, folder: Path, *, rng: random.Random) -> list[str]:
    """Two processes on one output; what went wrong."""
    pids = [start(job.command, folder)]
    # Shorter than any of the commands: a second one that resumes what has ended would rightly have nothing to do.
    time.sleep(rng.choice((0.0, rng.uniform(0.0, 0.2))))
    pids.append(start(job.command, folder, *(["--resume"] if rng.random() < 0.5 else [])))
    codes = [wait(pid) for pid in pids]
    job.counts["races"] += 1
    said = folder.with_suffix(".log").read_text()
    if sorted(codes, key=str) != [0, 2] or not ("is being written by process" in said or "exists already" in said):
        return [f"exit codes {codes}: {said[-400:]}"]
    return problems(job, folder)


def soak(*, n_kills: int, n_races: int, seed: int, folder: Path, names: list[str]) -> dict[str, Any]:
    """Run it all; JSON-able."""
    import torch

    import remul_md.labels.calculated as calculated

    torch.set_num_threads(1)
    calculated.SAVE_INTERVAL_S = SAVE_INTERVAL_S
    rng, failures, started = random.Random(seed), [], time.monotonic()
    jobs = {name: job for name, job in all_jobs().items() if name in names}
    for name, job in jobs.items():
        before, place = time.monotonic(), folder / f"{name}-whole"
        code = wait(start(job.command, place))
        assert code == 0, place.with_suffix(".log").read_text()
        job.seconds, job.expected = time.monotonic() - before, job.result(place)
    number = 0

    def attempt(kind: str, check: Callable[[Job, Path], list[str]]) -> None:
        nonlocal number
        name = [*jobs][number % len(jobs)]
        place = folder / f"{name}-{kind}-{number}"
        found = check(jobs[name], place)
        failures.extend(f"{place.name}: {each}" for each in found)
        if not found:
            shutil.rmtree(place)
            place.with_suffix(".log").unlink()
        number += 1

    while (done := sum(job.counts["kills"] for job in jobs.values())) < n_kills:
        most = min(rng.randint(1, 4), n_kills - done)
        attempt("killed", lambda job, place, most=most: kill_chain(job, place, n_kills=most, rng=rng))
    for _ in range(n_races):
        attempt("race", lambda job, place: race(job, place, rng=rng))
    return {
        "kills": sum(job.counts["kills"] for job in jobs.values()),
        "races": sum(job.counts["races"] for job in jobs.values()),
        "failures": failures,
        "seed": seed,
        "seconds": round(time.monotonic() - started),
        "commands": {
            name: {
                "command": shlex.join(["remul-md", *job.command]).replace("{}", "FOLDER"),
                "seconds_alone": round(job.seconds, 2),
                **job.counts,
            }
            for name, job in jobs.items()
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--races", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=[*all_jobs()], help="This command only; may be repeated.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from remul_md.studies.record import provenance

    folder = Path(tempfile.mkdtemp(prefix="remul-md-soak-"))
    command = shlex.join(["python", "tests/soak.py", *sys.argv[1:]])
    found = {
        "study": "soak",
        **provenance(command, n_jobs=1),
        **soak(
            n_kills=options.kills,
            n_races=options.races,
            seed=options.seed,
            folder=folder,
            names=options.only or [*all_jobs()],
        ),
    }
    text = json.dumps(found, indent=1) + "\n"
    print(text)
    if options.json is not None:
        options.json.write_text(text)
    if found["failures"]:
        print(f"what is left of the failures: {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
