"""Multiple time steps against plain conservative ones: drift of the energy, and computing time per fs of dynamics.

For each M the inner steps have direct forces, and every M-th is corrected to the conservative ones (reversible RESPA).
All methods of a seed begin at the same positions and momenta, after an equilibration with plain conservative steps.

python benchmarks/multiple_time_steps.py POTENTIAL --run-dir FOLDER [--n-inner 1 2 4 8 16] [--plain-fs 0.5 1]
    [--timestep-fs 0.5] [--seeds 0 1 2] [--length-ps 5] [--equilibrate-ps 2] [--calculator KEY=VALUE ...]
    [--json results/multiple_time_steps.json]

The same command goes on where it was stopped; finished runs are kept, and a folder of another potential or of other
options is refused. Prints a table and the verdict. A rehearsal of some minutes: --length-ps 0.2 --equilibrate-ps 0.1
--seeds 0 --timing-rounds 3 --json FILE
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import dynamics_methods as dynamics
from dynamics_methods import Method
from script import run_script

from remul_md import RemulCalculator
from remul_md.datasets.structure_source import read_structure

GAIN = 1.2  # what a second integrator and a second head are worth


def methods_of(options: argparse.Namespace, chosen: Mapping[str, Any]) -> list[Method]:
    """Plain steps first, then a method for each number of inner steps."""
    accurate = RemulCalculator(options.potential, forces="conservative", **chosen)
    fast = RemulCalculator(accurate.potential, forces="direct", **chosen)
    plain = [
        Method(
            name=f"plain-{timestep_fs:g}",
            label=f"plain, {timestep_fs:g} fs",
            calculator=accurate,
            timestep_fs=timestep_fs,
            facts={"n_inner": None, "step_fs": timestep_fs},
        )
        for timestep_fs in options.plain_fs
    ]
    inner_fs = options.timestep_fs
    multiple = [
        Method(
            name=f"inner-{n_inner}-of-{inner_fs:g}",
            label=f"M = {n_inner}, outer {n_inner * inner_fs:g} fs",
            calculator=accurate,
            fast=fast,
            timestep_fs=inner_fs,
            n_inner=n_inner,
            facts={"n_inner": n_inner, "step_fs": n_inner * inner_fs},
        )
        for n_inner in options.n_inner
    ]
    return [*plain, *multiple]


def verdict(summaries: Sequence[Mapping[str, Any]], *, bound: float = dynamics.BOUND, gain: float = GAIN) -> str:
    """Whether multiple time steps are worth it, in words: against the fastest plain steps that conserve the energy."""
    conserving = [row for row in summaries if row["conservation"] == "conserves"]
    plain = [row for row in conserving if row["n_inner"] is None]
    multiple = [row for row in conserving if row["n_inner"] is not None]
    limits = f"drift within +-{bound:g} meV/atom/ps"
    unsure = [row["label"] for row in summaries if row["conservation"] == "undecided"]
    doubt = f" Not decided by runs of this length: {'; '.join(unsure)}." if unsure else ""
    if not plain:
        return f"No plain steps are shown to keep the {limits}, so there is nothing to compare with; run longer.{doubt}"
    if not multiple:
        return f"No M is shown to keep the {limits}: not recommended.{doubt}"
    best = min(multiple, key=lambda row: row["cpu_ms_per_fs"])
    base = min(plain, key=lambda row: row["cpu_ms_per_fs"])
    ratio = base["cpu_ms_per_fs"] / best["cpu_ms_per_fs"]
    word = (
        f"gains at least {gain:g}x at {limits}: recommended"
        if ratio >= gain
        else f"gains less than {gain:g}x at {limits}: not recommended"
    )
    others = [
        f"{row['cpu_ms_per_fs'] / best['cpu_ms_per_fs']:.2f}x that of plain steps of {row['step_fs']:g} fs"
        for row in summaries
        if row["n_inner"] is None and row is not base
    ]
    further = f" (and {', '.join(others)})" if others else ""
    return (
        f"The fastest M within the bound, {best['n_inner']}, has {ratio:.2f}x the speed of the fastest plain steps "
        f"within it, those of {base['step_fs']:g} fs{further}: {word}.{doubt}"
    )


def table(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown; speed is relative to the first method."""
    lines = [
        "| steps | drift, meV/atom/ps (95 %) | energy | fluctuation, meV/atom | mean T, K | ms per fs | speed |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in summaries:
        figures = "| |"
        if row["drift_meV_per_atom_ps"] is not None:
            figures = f"{row['fluctuation_meV_per_atom']:.3f} | {row['temperature_K']:.0f} |"
        lines.append(
            f"| {row['label']} | {dynamics.interval_text(row)} | {row['conservation']} | {figures} "
            f"{row['cpu_ms_per_fs']:.2f} | {row['speed']:.2f} |"
        )
    return lines


def run(options: argparse.Namespace, given: Sequence[str]) -> None:
    """All methods and seeds; the file of results is written after each run."""
    chosen = {"device": "cpu", **dynamics.calculator_options(options.calculator)}
    methods = methods_of(options, chosen)
    structure = read_structure(options.structure)
    potential = methods[0].calculator.potential
    facts = {"potential_sha256": potential.sha256, "structure": options.structure, "calculator": chosen}
    rows: list[dict[str, Any]] = []
    times: dict[str, float] = {}
    for seed in options.seeds:
        start = dynamics.start_of(
            structure,
            methods[0].calculator,
            options=options,
            rotation="thermal",
            seed=seed,
            provenance=facts,
        )
        times = times or dynamics.kept_timing(options, methods, start, facts=facts)
        for method in methods:
            print(f"{method.label}, seed {seed}", file=sys.stderr, flush=True)
            rows.append(
                dynamics.finished_run(
                    method, start, run_dir=options.run_dir, length_ps=options.length_ps, seed=seed, provenance=facts
                )
            )
            done = [done for done in methods if any(row["method"] == done.name for row in rows)]
            summaries = [
                {
                    **dynamics.method_summary([row for row in rows if row["method"] == one.name]),
                    "cpu_ms_per_fs": times[one.name],
                    "speed": times[methods[0].name] / times[one.name],
                }
                for one in done
            ]
            result = {**facts, "verdict": verdict(summaries), "methods": summaries, "runs": rows}
            dynamics.write_result("multiple_time_steps", options, given, result)
    print("\n".join([*table(summaries), "", result["verdict"]]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    dynamics.add_arguments(parser, name="multiple_time_steps", length_ps=5.0, seeds=(0, 1, 2))
    parser.add_argument("--n-inner", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--plain-fs", nargs="+", type=float, default=[0.5, 1.0])
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
