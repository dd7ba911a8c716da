"""How often the interval of a drift covers it, and how often its verdict is wrong: simulated noise, and real runs.

python benchmarks/drift_coverage.py --run-dir FOLDER [--potential ethanol] [--n-runs 30] [--trials 1000]
    [--json results/drift_coverage.json]

The runs are NVE of a cluster of 13 copper atoms with ASE's EMT (10 ps, steps of 5 fs) and of ethanol with the
potential (2 ps, 0.5 fs), both at 300 K, `n-runs` of each, whole and cut into thirds. Their potentials
are exact gradients, so the true drift of every window is far below the bound. Finished runs in FOLDER are kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron
from scipy.signal import lfilter
from script import run_script, told_command

from remul_md import RemulCalculator, read_structure
from remul_md.analysis.energy import DRIFT_BOUND, Drift, energy_drift, mean_drift, within
from remul_md.analysis.log import EnergyLog, read_log
from remul_md.dynamics import MDOptions, run_md
from remul_md.files import write_json
from remul_md.studies.record import provenance

ROOT = Path(__file__).resolve().parent.parent
N_SAMPLES = 1000
Array = np.ndarray
# Root mean square slope of the noise over that of the white noise on top of it; inf: none on top.
OVER_WHITE = (np.inf, 100.0, 30.0, 10.0, 3.0)
# Of the noise's root mean square slope over the bound: which noise would fool a verdict most is not known beforehand.
OVER_BOUND = (0.02, 0.1, 0.3, 0.6, 1.0, 2.0, 5.0, 20.0)


def white(rng: np.random.Generator, n: int = N_SAMPLES) -> Array:
    """Independent normal values, [n]."""
    return rng.normal(size=n)


def exponential(rng: np.random.Generator, *, share_of_run: float) -> Array:
    """AR(1) noise of unit variance whose correlation time is that share of the run."""
    memory = np.exp(-1.0 / (share_of_run * N_SAMPLES))
    warm_up = int(6 * share_of_run * N_SAMPLES)
    return lfilter([1.0], [1.0, -memory], rng.normal(size=N_SAMPLES + warm_up))[warm_up:] * np.sqrt(1.0 - memory**2)


def cosine(rng: np.random.Generator, *, period: float) -> Array:
    """One cosine of that many runs' length, its phase drawn."""
    return np.cos(2.0 * np.pi * (np.linspace(0.0, 1.0, N_SAMPLES) / period + rng.uniform()))


def power_law(rng: np.random.Generator, *, exponent: float) -> Array:
    """Noise whose power grows as frequency^-exponent, down to a sixteenth of one period in the run."""
    frequency = np.fft.rfftfreq(16 * N_SAMPLES)
    amplitude = np.zeros_like(frequency)
    amplitude[1:] = frequency[1:] ** (-0.5 * exponent)
    parts = rng.normal(size=(2, len(frequency)))
    return np.fft.irfft((parts[0] + 1j * parts[1]) * amplitude)[:N_SAMPLES]


def transient(rng: np.random.Generator, *, share_of_run: float) -> Array:
    """A decay from the start, of either sign."""
    return rng.choice([-1.0, 1.0]) * np.exp(-np.linspace(0.0, 1.0, N_SAMPLES) / share_of_run)


KINDS: dict[str, Callable[[np.random.Generator], Array]] = {
    "white": white,
    **{
        f"AR(1), {told}": partial(exponential, share_of_run=share)
        for told, share in (("1/100 of the run", 0.01), ("1/20", 0.05), ("1/10", 0.1), ("the run", 1.0))
    },
    "cosine of 1 run": partial(cosine, period=1.0),
    **{f"cosine of {period:g} runs": partial(cosine, period=period) for period in (1.5, 2.0, 3.0)},
    "1/f": partial(power_law, exponent=1.0),
    **{f"1/f^{exponent:g}": partial(power_law, exponent=exponent) for exponent in (1.5, 2.0)},
    "decay at the start, 1/20 of the run": partial(transient, share_of_run=0.05),
    "decay, 1/5": partial(transient, share_of_run=0.2),
}


def simulated_drifts(kind: str, *, trials: int, over_white: float, seed: int) -> list[Drift]:
    """Drifts of noise without any drift: its root mean square slope is 1 meV/atom/ps, the run is 1 ps long."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0.0, 1.0, N_SAMPLES)
    series = np.stack([KINDS[kind](rng) for _ in range(trials)])
    series = series / np.sqrt(np.mean([np.polyfit(time, row, 1)[0] ** 2 for row in series[:200]]))
    if np.isfinite(over_white):
        series = series + rng.normal(size=series.shape) / over_white * (N_SAMPLES / 12.0) ** 0.5
    return [energy_drift(time, 1e-3 * row) for row in series]


def wrong_verdicts(drifts: Sequence[Drift], *, true: float, wrong: str, noise_over_bound: float) -> float:
    """Share of runs with that wrong verdict, for a true drift `true` and the noise in units of the bound."""
    intervals = np.array([drift.ci95_meV_per_atom_ps for drift in drifts]) * noise_over_bound + true
    return float(np.mean([within((low, high), bound_meV_per_atom_ps=1.0) == wrong for low, high in intervals]))


def simulated(trials: int) -> list[dict[str, Any]]:
    """One row for each kind of noise; rates are the worst over the white noise on top and over its size."""
    rows = []
    for number, kind in enumerate(KINDS):
        cases = [
            simulated_drifts(kind, trials=trials, over_white=over, seed=100 * number + place)
            for place, over in enumerate(OVER_WHITE if kind != "white" else (np.inf,))
        ]

        def worst(true: float, wrong: str, of: Sequence[Sequence[Drift]] = cases) -> float:
            return max(
                wrong_verdicts(drifts, true=true, wrong=wrong, noise_over_bound=size)
                for drifts in of
                for size in OVER_BOUND
            )

        covered = [np.mean([d.ci95_meV_per_atom_ps[0] <= 0.0 <= d.ci95_meV_per_atom_ps[1] for d in c]) for c in cases]
        rows.append(
            {
                "noise": kind,
                "coverage": float(min(covered)),
                "false_conserves_at_bound": worst(1.0001, "conserves"),
                "false_conserves_at_twice": worst(2.0, "conserves"),
                "false_drifts_at_bound": worst(0.9999, "drifts"),
                "false_drifts_without": worst(0.0, "drifts"),
                **{f"coverage_mean_of_{n}": mean_coverage(cases[0], n) for n in (2, 5)},
            }
        )
        print(rows[-1])
    return rows


def mean_coverage(drifts: Sequence[Drift], n: int) -> float:
    """Share of means of n runs whose interval covers zero, the true drift."""
    means = [mean_drift(drifts[first : first + n]) for first in range(0, len(drifts) - n + 1, n)]
    return float(np.mean([m.interval_meV_per_atom_ps[0] <= 0.0 <= m.interval_meV_per_atom_ps[1] for m in means]))


def sequential(trials: int, *, n_looks: int = 4) -> list[dict[str, Any]]:
    """A growing run looked at after each quarter, stopped at the first verdict: share of wrong ones, the worst size."""
    rows = []
    time = np.linspace(0.0, 1.0, N_SAMPLES)
    ends = [N_SAMPLES * (look + 1) // n_looks for look in range(n_looks)]
    for number, kind in enumerate(KINDS):
        rng = np.random.default_rng(7000 + number)
        series = np.stack([KINDS[kind](rng) for _ in range(trials)])
        series = series / np.sqrt(np.mean([np.polyfit(time, row, 1)[0] ** 2 for row in series[:200]]))
        found = {}
        for corrected in (False, True):
            looks = [(look, n_looks) if corrected else (1, 1) for look in range(1, n_looks + 1)]
            intervals = np.array(
                [
                    [
                        energy_drift(time[:end], 1e-3 * row[:end], look=look).ci95_meV_per_atom_ps
                        for end, look in zip(ends, looks, strict=True)
                    ]
                    for row in series
                ]
            )
            for true, wrong in ((1.0001, "conserves"), (0.9999, "drifts")):
                found[f"{wrong}{'_corrected' if corrected else ''}"] = max(
                    float(np.mean([_first_verdict(row * size + true) == wrong for row in intervals]))
                    for size in OVER_BOUND
                )
        rows.append({"noise": kind, **found})
        print(rows[-1])
    return rows


def _first_verdict(intervals: Array) -> str:
    for low, high in intervals:
        verdict = within((low, high), bound_meV_per_atom_ps=1.0)
        if verdict != "undecided":
            return verdict
    return "undecided"


def real_runs(options: argparse.Namespace) -> dict[str, list[EnergyLog]]:
    """Logs of NVE runs; those that are finished are read."""
    options.run_dir.mkdir(parents=True, exist_ok=True)
    calculator = RemulCalculator(options.potential, compile=True)
    logs: dict[str, list[EnergyLog]] = {"Cu13": [], "ethanol": []}
    for seed in range(options.n_runs):
        copper, molecule = Icosahedron("Cu", 2), read_structure("ethanol")
        copper.calc, molecule.calc = EMT(), calculator
        cases = {
            "Cu13": (copper, MDOptions(timestep_fs=5.0, length_ps=10.0, equilibrate_ps=1.0, log_interval=1, seed=seed)),
            "ethanol": (molecule, MDOptions(length_ps=2.0, equilibrate_ps=0.2, seed=seed)),
        }
        for name, (atoms, chosen) in cases.items():
            result = run_md(atoms, chosen, output=options.run_dir / f"{name}-{seed}.traj", resume=True, progress=False)
            log = read_log(result.log)
            assert log is not None
            logs[name].append(log)
    return logs


def windows(logs: Sequence[EnergyLog], n_parts: int, *, n_atoms: int) -> list[tuple[Array, Array, Array]]:
    """Times, total and shadow energies per atom of equal parts of the runs."""
    found = []
    for log in logs:
        assert log.shadow_energy is not None
        rows = np.array_split(np.arange(1, len(log.time_ps)), n_parts)
        found += [(log.time_ps[r], log.total_energy[r] / n_atoms, log.shadow_energy[r] / n_atoms) for r in rows]
    return found


def real(logs: Mapping[str, Sequence[EnergyLog]]) -> list[dict[str, Any]]:
    """Verdicts on windows of real runs, as they are and with a drift of twice the bound added."""
    rows = []
    for name, n_atoms in (("Cu13", 13), ("ethanol", 9)):
        for n_parts in (1, 3):
            parts = windows(logs[name], n_parts, n_atoms=n_atoms)
            for judged in ("shadow energy", "total energy"):
                drifts, leaking = [], []
                for number, (time, total, shadow) in enumerate(parts):
                    leak = (-1) ** number * 2e-3 * DRIFT_BOUND * time
                    for added, into in ((0.0, drifts), (leak, leaking)):
                        more = {"shadow_energy_per_atom": shadow + added} if judged == "shadow energy" else {}
                        into.append(energy_drift(time, total + added, **more))
                verdicts = [within(d.ci95_meV_per_atom_ps, bound_meV_per_atom_ps=DRIFT_BOUND) for d in drifts]
                planted = [within(d.ci95_meV_per_atom_ps, bound_meV_per_atom_ps=DRIFT_BOUND) for d in leaking]
                halves = [0.5 * (d.ci95_meV_per_atom_ps[1] - d.ci95_meV_per_atom_ps[0]) for d in drifts]
                slopes = [d.slope_meV_per_atom_ps for d in drifts]
                rows.append(
                    {
                        "system": name,
                        "judged": judged,
                        "length_ps": float(drifts[0].length_ps),
                        "n_windows": len(drifts),
                        "rms_slope": float(np.sqrt(np.mean(np.square(slopes)))),
                        "mean_slope": float(np.mean(slopes)),
                        "median_half_width": float(np.median(halves)),
                        "largest_half_width": float(max(halves)),
                        "conserves": verdicts.count("conserves"),
                        "drifts": verdicts.count("drifts"),
                        "planted_conserves": planted.count("conserves"),
                        "planted_drifts": planted.count("drifts"),
                    }
                )
                print(rows[-1])
    return rows


def run(options: argparse.Namespace, given: list[str]) -> None:
    """Measure and write the file of results."""
    told = {str(options.run_dir): "FOLDER", str(options.json): options.json.name}
    logs = real_runs(options)
    write_json(
        options.json,
        {
            **provenance(told_command("drift_coverage", given, told), n_jobs=1),
            "trials": options.trials,
            "n_runs": options.n_runs,
            "bound_meV_per_atom_ps": DRIFT_BOUND,
            "simulated": simulated(options.trials),
            "sequential": sequential(options.trials),
            "real": real(logs),
        },
        hint="choose another file, then run the same command again: finished runs are kept",
    )


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, required=True, help="keeps the runs; the same command goes on")
    parser.add_argument("--potential", default="ethanol")
    parser.add_argument("--n-runs", type=int, default=30, help="of each system")
    parser.add_argument("--trials", type=int, default=1000, help="simulated series of each kind")
    parser.add_argument("--json", type=Path, default=ROOT / "results" / "drift_coverage.json")
    run_script(parser, run)


if __name__ == "__main__":
    main()
