"""The table of measured numbers in the README, from the JSON files in results/; with --write it is put into the README.

python benchmarks/readme_table.py [--write]
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def measured(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "results" / f"{name}.json").read_text()))


def table() -> str:
    accuracy, run = measured("demo_evaluation"), measured("demo_analysis")
    speed, gradient, machine = measured("calculator_overhead"), measured("gradient_check"), measured("machine")
    low, high = accuracy["equivariance_percent_ci95"]
    drift_low, drift_high = run["drift_ci95"]
    rows = [
        ("force MAE, stock / turned poses", "{force_mae_stock:.1f} / {force_mae_turned:.1f} meV/Å", "evaluate"),
        ("energy MAE, stock / turned poses", "{energy_mae_stock:.1f} / {energy_mae_turned:.1f} meV", "evaluate"),
        ("rotational error / spread", "{rotational_error:.2f} / {rotational_spread:.2f} meV/Å", "evaluate"),
        ("equivariance percent, forces", f"{{equivariance_percent:.2f}} [{low:.2f}, {high:.2f}] %", "evaluate"),
        ("equivariance percent, energy", "{equivariance_percent_energy:.2f} %", "evaluate"),
        ("drift, 5 ps NVE at 300 K, 0.5 fs", f"[{drift_low:+.4f}, {drift_high:+.4f}] meV/atom/ps", "demo"),
        ("mean temperature, 300 K asked", "{temperature_K:.0f} K", "demo"),
        ("rotational error along the run", "{rotational_error:.2f} meV/Å", "demo"),
        ("angular momentum, largest change", "{angular_momentum_change:.0%}", "demo"),
        ("forces against central differences, float64", "{ratio:.0e} of the RMS force", "gradient"),
        ("calculator call, 1 thread, float32", "{median_ms[calculator]:.1f} ms", "overhead"),
        ("... over bare model + neighbour list", "{ratio:.2f} x", "overhead"),
    ]
    values = {"evaluate": accuracy, "demo": run, "gradient": gradient, "overhead": speed}
    commands = {
        "evaluate": "`remul-md evaluate ethanol rmd17/ethanol/test-01`",
        "demo": "`make demo`",
        "gradient": "`python benchmarks/gradient_check.py`",
        "overhead": "`python benchmarks/calculator_overhead.py`",
    }
    lines = [
        f"The shipped ethanol potential: {machine['training']}, on {machine['machine']}, torch {machine['torch']}.",
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
