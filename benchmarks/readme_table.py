"""The tables of measured numbers in README and docs/symmetry.md, from JSON files; with --write they are put there.

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


def zoo() -> list[str]:
    """Rows of the potentials that ship, from the files and the figures beside them."""
    lines = []
    for row in describe_shipped(measure_latency=False):
        figures = json.loads((ROOT / "data" / "potentials" / f"{row.name}.json").read_text())
        far = figures.get("far_from_training")
        direct = "none yet" if row.force_mae_direct is None else format(row.force_mae_direct, ".2g")
        lines.append(
            f"| {row.name} | {row.force_mae_original:.2g} / {row.force_mae_rotated:.2g} "
            f"| {'not told' if far is None else format(far['force_mae_original'], '.2g')} "
            f"| {figures['force_rmse_rotated']:.2g} | {figures['force_error_p99']:.0f} "
            f"| {figures['force_error_max']:.0f} | {figures['force_mae_exact']:.2g} | {figures['direction_load']:.3f} "
            f"| {figures['energy_mae_rotated']:.2f} | {row.rotational_spread:.2f} "
            f"| {figures['equivariance_percent_median']:.2g} | {direct} | {row.training_minutes:.0f} "
            f"| {row.megabytes:.1f} |"
        )
    return lines


def table() -> str:
    run, demo = measured("ethanol_nve"), measured("demo_evaluation")
    speed, gradient, machine = measured("calculator_overhead"), measured("gradient_check"), measured("machine")
    drift_low, drift_high = run["drift_ci95"]
    long_run, long_aspirin = measured("ethanol_nve_100ps"), measured("aspirin_nve_100ps")
    long_low, long_high = long_run["drift_ci95"]
    aspirin_low, aspirin_high = long_aspirin["drift_ci95"]
    rows = [
        ("drift, steps of 0.5 fs", f"[{drift_low:+.4f}, {drift_high:+.4f}] meV/atom/ps", "nve"),
        (
            "drift, 100 ps NVE at 300 K, 0.5 fs",
            f"[{long_low:+.4f}, {long_high:+.4f}] meV/atom/ps (twice that is judged: slow noise is not resolved), at "
            f"{long_run['temperature_K']:.0f} K; angular momentum changes by {long_run['angular_momentum_change']:.1%}",
            "long",
        ),
        (
            "... of aspirin",
            f"[{aspirin_low:+.5f}, {aspirin_high:+.5f}] meV/atom/ps, at {long_aspirin['temperature_K']:.0f} K; "
            f"angular momentum changes by {long_aspirin['angular_momentum_change']:.1%}",
            "aspirin",
        ),
        ("mean temperature, 300 K asked", "{temperature_K:.0f} K", "nve"),
        ("rotational error along the run", "{rotational_error:.2f} meV/Å", "nve"),
        ("angular momentum, largest change", "{angular_momentum_change:.1%}", "nve"),
        ("... in exact mode: rotational error", "{rotational_error:.4f} meV/Å", "exact"),
        ("... angular momentum, largest change", "{angular_momentum_change:.1e}", "exact"),
        (
            "... drift",
            "[{drift_ci95[0]:+.4f}, {drift_ci95[1]:+.4f}] meV/atom/ps",
            "exact",
        ),
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
            "another potential, that of `make demo`: force MAE, original / rotated",
            "{force_mae_original:.1f} / {force_mae_rotated:.1f} meV/Å",
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
        "exact": measured("ethanol_nve_exact"),
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
        "nve": "`remul-md md ethanol --structure ethanol --output run.traj`, "
        "`remul-md analyze run.traj --potential ethanol`",
        "exact": "the same with `md ... --symmetry exact`",
        "gradient": "`python benchmarks/gradient_check.py`",
        "overhead": "`python benchmarks/calculator_overhead.py`",
        "demo": f"`make demo` ({machine['demo']})",
    }
    lines = [
        "The potentials in the package, each trained on 950 + 50 frames of rMD17 (split 01), on the 1,000 frames of",
        f"test split 01. Machine: {machine['machine']}, torch {machine['torch']}. `remul-md potentials` lists them,",
        "`remul-md evaluate NAME rmd17/NAME/test-01` measures them, `make potentials MOLECULE=NAME` trains one",
        "by today's recipe; how these were made: [data/potentials](data/potentials/README.md).",
        "",
        "| potential | force MAE, original / rotated, meV/Å | ... original, without near copies of training frames "
        "| RMSE, rotated | error vector of an atom, 99th percentile | ... the worst | MAE in exact mode "
        "| direction load | energy MAE, meV | rotational spread, meV/Å | equivariance percent, median frame "
        "| direct forces: MAE, rotated | training, min | MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        *zoo(),
        "",
        "Dynamics and speed of the shipped ethanol potential, 5 ps of NVE at 300 K where no other length is given.",
        "Runs of 100 ps, PBE labels, differences and call times are from before its raw directions were trained on by",
        "consistency; all other weights are the same.",
        "",
        "| what | measured | command |",
        "|---|---|---|",
        *(f"| {what} | {text.format(**values[by])} | {commands[by]} |" for what, text, by in rows),
    ]
    return "\n".join(lines)


def symmetry_table() -> str:
    """What cutting the raw directions does to each head of each potential."""
    lines = [
        "| potential | forces | force MAE, meV/Å | exact mode | direction load | rotational error, meV/Å |",
        "|---|---|---|---|---|---|",
    ]
    for row in describe_shipped(measure_latency=False):
        for head, ending in (("conservative", ".json"), ("direct", ".direct.json")):
            figures = json.loads((ROOT / "data" / "potentials" / f"{row.name}{ending}").read_text())
            assert figures["forces"] == head
            lines.append(
                f"| {row.name} | {head} | {figures['force_mae_original']:.3g} | {figures['force_mae_exact']:.3g} "
                f"| {figures['direction_load']:.3f} | {figures['rotational_error']:.2f} |"
            )
    return "\n".join(lines)


TABLES = {"README.md": table, "docs/symmetry.md": symmetry_table}


def with_table(text: str, name: str) -> str:
    """The text of a page with its table as the files have it now."""
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{TABLES[name]()}\n{END}", text, flags=re.DOTALL)


if __name__ == "__main__":
    for page in TABLES:
        if "--write" in sys.argv[1:]:
            path = ROOT / page
            path.write_text(with_table(path.read_text(), page))
        print(f"{page}\n\n{TABLES[page]()}\n")
