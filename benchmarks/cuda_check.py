"""What a CUDA device has to say, in eight minutes at most: `make cuda-check` (docs/cuda-runs.md).

python benchmarks/cuda_check.py [--device cuda] [--budget-seconds 460] [--json results/cuda_check.json]

Do the CUDA tests pass, are the forces those of the CPU, what do calls, training and dynamics cost? Each part is a
process of its own with a share of the time, so that one that fails, hangs or leaves the device broken costs the others
nothing. Results are written after each part. Exit code: 0 if every part is complete, 1 if not, 2 without a device.

With --device cpu the same path runs on the CPU, to rehearse it; the results then go to the folder of temporary files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Any

import torch
from cuda_parts import (
    COMPILED,
    ERROR_LENGTH,
    ROOT,
    SYMMETRIES,
    Part,
    Row,
    compare_with_cpu,
    described,
    run_tests,
    time_calls,
    time_dynamics,
    time_training,
)

from remul_md.errors import InputError
from remul_md.files import read_json, write_json
from remul_md.potentials.potential import resolve_device
from remul_md.studies.record import provenance

# In the order in which they run, each with its share of the time. Those of the first ones are ample, for a cold disk:
# what they leave goes to the later ones, most of all to the compiler of the last.
PARTS: dict[str, tuple[float, Part]] = {
    "tests": (0.15, run_tests),
    "agreement": (0.08, compare_with_cpu),
    "calls": (0.28, time_calls),
    "dynamics": (0.20, time_dynamics),
    "training": (0.29, time_training),
}


def measure_part(options: argparse.Namespace) -> None:
    """All cases of a part, in its process; the rows are on disk after each of them."""
    torch.set_num_threads(1)
    until, rows = time.monotonic() + options.part_seconds, list[Row]()
    for case, measure in PARTS[options.part][1](options, lambda: until - time.monotonic()):
        try:
            row = {**case, **(measure() if time.monotonic() < until else {"error": "out of time"})}
            json.dumps(row, allow_nan=False)
        except Exception as error:  # whatever it is, the other cases are worth their time
            traceback.print_exc()
            row = {**case, "error": described(error)}
        rows.append(row)
        write_json(options.part_json, {"rows": rows}, hint="free space")
        told = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
        print("  " + ", ".join(told), flush=True)


def run_part(name: str, arguments: list[str], *, seconds: float) -> Row:
    """What a part found, and how it ended; after `seconds` everything that it started is ended."""
    began, last = time.monotonic(), deque[str](maxlen=5)
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "rows.json"
        hidden = ["--part", name, "--part-seconds", str(seconds), "--part-json", str(found)]
        process = subprocess.Popen(
            [sys.executable, __file__, *arguments, *hidden],
            env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        reader = threading.Thread(target=echo, args=(process.stdout, last))
        reader.start()
        try:
            code: int | None = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_group(process.pid)
            process.wait()
            reader.join()
        rows = read_json(found, hint="")["rows"] if found.is_file() else []
    times = {"seconds": round(time.monotonic() - began, 1), "allotted_seconds": round(seconds, 1)}
    if code is None:
        how = {"status": "out of time", "error": f"ended after {seconds:.0f} s"}
    elif code != 0:
        how = {"status": "failed", "error": f"exit code {code}: {' | '.join(last)}"[:ERROR_LENGTH]}
    else:
        good = rows and not any("error" in row for row in rows)
        how = {"status": "complete" if good else "incomplete"}
    return {**how, **times, "rows": rows}


def echo(stream: Any, last: deque[str]) -> None:
    for line in stream:
        print(line, end="", flush=True)
        last.append(line.strip())


def end_group(process_id: int) -> None:
    try:
        os.killpg(process_id, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # all of it has ended
        return


def device_facts(device: torch.device) -> Row:
    facts: Row = {"type": device.type, "torch": torch.__version__, "cuda": torch.version.cuda}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            driver = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
        except (OSError, subprocess.SubprocessError, IndexError):
            driver = None
        facts |= {"name": properties.name, "capability": f"{properties.major}.{properties.minor}", "driver": driver}
        facts["memory_GiB"] = round(properties.total_memory / 2**30, 1)
    return {**facts, "processor": platform.machine(), "cores": os.cpu_count()}


def molecule(text: str) -> tuple[str, str]:
    """Name and potential."""
    name, _, file = text.partition("=")
    return name, file or name


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help="default: cuda; cpu rehearses")
    parser.add_argument("--budget-seconds", type=float, default=460.0, help="of all parts, without its own start")
    parser.add_argument("--json", type=Path, help="default: results/cuda_check.json")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument(
        "--molecules",
        type=molecule,
        nargs="+",
        default=[molecule("ethanol"), molecule("aspirin")],
        metavar="NAME[=FILE]",
        help="packaged molecules, with their own potentials or other ones; agreement and dynamics take the first",
    )
    parser.add_argument("--calls", type=int, default=200, help="whose median counts")
    parser.add_argument("--symmetries", nargs="+", choices=SYMMETRIES, default=SYMMETRIES, help="of the calls")
    parser.add_argument(
        "--compile", nargs="+", choices=COMPILED, default=COMPILED, help="parts that are measured compiled, too"
    )
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 64, 1024], help="in dynamics")
    parser.add_argument("--preset", default="demo-ethanol", help="of the training")
    parser.add_argument("--train-steps", type=int, default=500)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="of the training")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="where the tests are")
    for hidden, kind in (("--part", str), ("--part-seconds", float), ("--part-json", Path)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    if options.device is None and not torch.cuda.is_available():
        hint = "docs/cuda-runs.md says how to install a build that does; --device cpu rehearses"
        print(f"torch {torch.__version__} sees no CUDA device: {hint}", file=sys.stderr)
        return 2
    try:
        device = resolve_device(options.device or "cuda")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if options.part is not None:
        options.device = str(device)
        measure_part(options)
        return 0
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # the part is ended, too
    until = time.monotonic() + options.budget_seconds
    file = (
        options.json or (ROOT / "results" if device.type == "cuda" else Path(tempfile.gettempdir())) / "cuda_check.json"
    )
    shown = {str(options.json): file.name}  # no folder of this machine in the results
    command = " ".join(["python benchmarks/cuda_check.py", *(shown.get(part, part) for part in arguments)])
    content: Row = {**provenance(command, n_jobs=1), "device": device_facts(device), "parts": {}}
    print(
        f"{content['device'].get('name', 'CPU')}, torch {torch.__version__}, {options.budget_seconds:.0f} s", flush=True
    )
    for number, name in enumerate(options.parts):
        # What earlier parts did not need is shared among those to come.
        share = PARTS[name][0] / sum(PARTS[later][0] for later in options.parts[number:])
        seconds = max(1.0, share * (until - time.monotonic()))
        print(f"{name}: up to {seconds:.0f} s", flush=True)
        part = run_part(name, arguments, seconds=seconds)
        content["parts"][name] = part
        write_json(file, content, hint="choose another --json file")
        print(f"{name}: {part['status']} after {part['seconds']} s {part.get('error', '')}".rstrip(), flush=True)
    print(f"wrote {file}")
    return int(any(part["status"] != "complete" for part in content["parts"].values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
