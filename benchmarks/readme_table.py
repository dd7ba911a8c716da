"""The table of measured numbers in the README, from the JSON files in results/; with --write it is put into the README.

python benchmarks/readme_table.py [--write]
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from remul_md.potentials.zoo import describe_shipped

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def measured(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "results" / f"{name}.json").read_text()))


def shelf() -> list[str]:
    """Rows of the potentials that ship, from the files and the figures beside them."""
    lines = []
    for row in describe_shipped(measure_latency=False):
        figures = json.loads((ROOT / "data" / "potentials" / f"{row.name}.json").read_text())
        apart = figures.get("apart")
        direct = "none yet" if row.force_mae_direct is None else format(row.force_mae_direct, ".2g")
        lines.append(
            f"| {row.name} | {row.force_mae_stock:.2g} / {row.force_mae_turned:.2g} "
            f"| {'not told' if apart is None else format(apart['force_mae_stock'], '.2g')} "
            f"| {figures['energy_mae_turned']:.2f} | {row.rotational_spread:.2f} "
            f"| {figures['equivariance_percent']:.2f} | {direct} | {row.training_minutes:.0f} | {row.megabytes:.1f} |"
        )
    return lines


def table() -> str:
    run, demo = measured("ethanol_nve"), measured("demo_evaluation")
    speed, gradient, machine = measured("calculator_overhead"), measured("gradient_check"), measured("machine")
    drift_low, drift_high = run["drift_ci95"]
    long_low, long_high = measured("ethanol_nve_100ps")["drift_ci95"]
    aspirin_low, aspirin_high = measured("aspirin_nve_100ps")["drift_ci95"]
    rows = [
        ("drift, 5 ps NVE at 300 K, 0.5 fs", f"[{drift_low:+.4f}, {drift_high:+.4f}] meV/atom/ps", "nve"),
        (
            "drift, 100 ps NVE at 300 K, 0.5 fs",
            f"[{long_low:+.4f}, {long_high:+.4f}] meV/atom/ps (twice that is judged: slow noise is not resolved)",
            "long",
        ),
        ("... of aspirin", f"[{aspirin_low:+.5f}, {aspirin_high:+.5f}] meV/atom/ps", "aspirin"),
        ("mean temperature, 300 K asked", "{temperature_K:.0f} K", "nve"),
        ("rotational error along the run", "{rotational_error:.2f} meV/Å", "nve"),
        ("angular momentum, largest change", "{angular_momentum_change:.1%}", "nve"),
        (
            "true force MAE along its own dynamics, 300 / 500 K",
            "{cool:.1f} / {hot:.1f} meV/Å (PBE, 100 frames)",
            "truth",
        ),
        ("harmonic wavenumbers, mean difference from PBE", "{modes:.1f} 1/cm", "truth"),
        ("forces against central differences, float64", "{ratio:.0e} of the RMS force", "gradient"),
        ("calculator call, 1 thread, float32", "{median_ms[calculator]:.1f} ms", "overhead"),
        ("... compiled (`compile=True`)", "{median_ms[compiled]:.1f} ms", "overhead"),
        ("... not compiled, over bare model + neighbour list", "{ratio:.2f} x", "overhead"),
        (
            "the demo's own potential, force MAE, stock / turned",
            "{force_mae_stock:.1f} / {force_mae_turned:.1f} meV/Å",
            "demo",
        ),
    ]
    truth = measured("independent_truth")
    truth_values = {
        "cool": truth["potential"]["300 K"]["force_mae"],
        "hot": truth["potential"]["500 K"]["force_mae"],
        "modes": truth["vibrations"]["mean_absolute_difference_per_cm"],
    }
    values = {
        "truth": truth_values,
        "nve": run,
        "long": {},
        "aspirin": {},
        "gradient": gradient,
        "overhead": speed,
        "demo": demo,
    }
    commands = {
        "truth": "`python benchmarks/independent_truth.py`: [docs/independent-truth.md](docs/independent-truth.md)",
        "long": "the same with `--length-ps 100 --frame-interval-fs 20 --compile` (9 minutes, 350 steps/s)",
        "aspirin": "the same for `aspirin` (53 steps/s beside three other jobs)",
        "nve": "`remul-md md ethanol ...`, `remul-md analyze` as `make demo` calls them",
        "gradient": "`python benchmarks/gradient_check.py`",
        "overhead": "`python benchmarks/calculator_overhead.py`",
        "demo": f"`make demo` ({machine['demo']})",
    }
    lines = [
        "The potentials in the package, each trained on 950 + 50 frames of rMD17 (split 01), on the 1,000 frames of",
        f"test split 01. Machine: {machine['machine']}, torch {machine['torch']}. `remul-md potentials` lists them,",
        "`remul-md evaluate NAME rmd17/NAME/test-01` measures them, `make potentials MOLECULE=NAME` trains them anew.",
        "",
        "| potential | force MAE, stock / turned, meV/Å | ... stock, without near copies of training frames "
        "| energy MAE, meV | rotational spread, meV/Å | equivariance percent "
        "| direct forces, turned, meV/Å | training, min | MB |",
        "|---|---|---|---|---|---|---|---|---|",
        *shelf(),
        "",
        "Dynamics and speed of the ethanol potential:",
        "",
        "| what | measured | command |",
        "|---|---|---|",
        *(f"| {what} | {text.format(**values[by])} | {commands[by]} |" for what, text, by in rows),
    ]
    return "\n".join(lines)


def with_table(readme: str) -> str:
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{table()}\n{END}", readme, flags=re.DOTALL)


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        path = ROOT / "README.md"
        path.write_text(with_table(path.read_text()))
    print(table())
