"""What inexact symmetry does in dynamics, and what averaging over rotations or taking off net torque does about it.

Direct and conservative forces, as they are, averaged over 12 or 24 fixed rotations, without net force and torque, and
both; NVE of a molecule that turns (`thermal`) and of one that does not (`zero`). All methods of a seed begin at the
same positions and momenta, after an equilibration with plain conservative forces.

python benchmarks/rotational_noise.py POTENTIAL --run-dir FOLDER [--forces conservative direct]
    [--treatments plain tetrahedral octahedral torque both] [--rotations thermal zero] [--timestep-fs 0.5]
    [--seeds 0 1] [--length-ps 2] [--equilibrate-ps 2] [--calculator KEY=VALUE ...]
    [--json results/rotational_noise.json]

The same command goes on where it was stopped; finished runs are kept, and a folder of another potential or of other
options is refused. A rehearsal of some minutes: --length-ps 0.1 --equilibrate-ps 0.1 --seeds 0 --timing-rounds 3
--json FILE
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

HEADS = ("conservative", "direct")
ROTATIONS = ("thermal", "zero")
TREATMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("as it is", {}),
    "tetrahedral": ("12 rotations", {"symmetrize": "tetrahedral"}),
    "octahedral": ("24 rotations", {"symmetrize": "octahedral"}),
    "torque": ("no net torque", {"remove_net_torque": True}),
    "both": ("24 rotations, no net torque", {"symmetrize": "octahedral", "remove_net_torque": True}),
}


def methods_of(options: argparse.Namespace, chosen: Mapping[str, Any]) -> list[Method]:
    """All combinations; those of one head and treatment share their calculator."""
    first = RemulCalculator(options.potential, forces=options.forces[0], **chosen)
    methods = []
    for head in options.forces:
        for treatment in options.treatments:
            label, settings = TREATMENTS[treatment]
            calculator = RemulCalculator(first.potential, forces=head, **{**chosen, **settings})
            methods += [
                Method(
                    name=f"{head}-{treatment}-{rotation}",
                    label=label,
                    calculator=calculator,
                    timestep_fs=options.timestep_fs,
                    rotation=rotation,
                    facts={"forces": head, "treatment": treatment, "rotation": rotation},
                )
                for rotation in options.rotations
            ]
    return methods


def table(summaries: Sequence[Mapping[str, Any]], *, n_atoms: int) -> list[str]:
    """Markdown, a line for each head, treatment and way of starting."""
    lines = [
        "| forces | | start | drift, meV/atom/ps (95 %) | energy | heating, K/ps | largest change of L "
        "| net torque, meV | cost |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in summaries:
        figures = "| | |"
        if row["drift_meV_per_atom_ps"] is not None:
            figures = (
                f"{row['heating_K_per_ps']:.3g} | {row['angular_momentum_change']:.2g} "
                f"| {1000.0 * row['net_torque_rms_eV']:.2g} |"
            )
        lines.append(
            f"| {row['forces']} | {row['label']} | {row['rotation']} | {dynamics.interval_text(row)} "
            f"| {row['conservation']} | {figures} {row['cost']:.2f} |"
        )
    lines += ["", f"{n_atoms} atoms; L relative to its start, from rest to the atoms' own; cost of a step: {COST}."]
    return lines


COST = "computing time relative to the first line"


def run(options: argparse.Namespace, given: Sequence[str]) -> None:
    """All methods and seeds; the file of results is written after each run."""
    chosen = {"device": "cpu", **dynamics.calculator_options(options.calculator)}
    methods = methods_of(options, chosen)
    structure = read_structure(options.structure)
    plain = RemulCalculator(methods[0].calculator.potential, forces="conservative", **chosen)
    facts = {"potential_sha256": plain.potential.sha256, "structure": options.structure, "calculator": chosen}
    timed = {(method.facts["forces"], method.facts["treatment"]): method for method in methods}
    rows: list[dict[str, Any]] = []
    times: dict[str, float] = {}
    for seed in options.seeds:
        starts = {
            rotation: dynamics.start_of(
                structure,
                plain,
                options=options,
                rotation=rotation,
                seed=seed,
                provenance=facts,
            )
            for rotation in options.rotations
        }
        start = starts[options.rotations[-1]]
        times = times or dynamics.kept_timing(options, list(timed.values()), start, facts=facts)
        for method in methods:
            head, treatment, rotation = (method.facts[key] for key in ("forces", "treatment", "rotation"))
            print(f"{head}, {method.label}, {rotation}, seed {seed}", file=sys.stderr, flush=True)
            told = {**facts, "forces": head, "treatment": treatment}
            kept = {"run_dir": options.run_dir, "length_ps": options.length_ps, "seed": seed}
            rows.append(dynamics.finished_run(method, starts[rotation], **kept, provenance=told))
            summaries = []
            for one in methods:
                of_method = [row for row in rows if row["method"] == one.name]
                if of_method:
                    cpu = times[timed[one.facts["forces"], one.facts["treatment"]].name]
                    first = times[timed[methods[0].facts["forces"], methods[0].facts["treatment"]].name]
                    cost = {"cpu_ms_per_step": cpu * options.timestep_fs, "cost": cpu / first}
                    summaries.append({**dynamics.method_summary(of_method), **cost})
            result = {**facts, "timestep_fs": options.timestep_fs, "n_atoms": len(structure), "cost_is": COST}
            result |= {"methods": summaries, "runs": rows}
            dynamics.write_result("rotational_noise", options, given, result)
    print("\n".join(table(summaries, n_atoms=len(structure))))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    dynamics.add_arguments(parser, name="rotational_noise", length_ps=2.0, seeds=(0, 1))
    parser.add_argument("--forces", nargs="+", default=list(HEADS), choices=HEADS)
    parser.add_argument("--treatments", nargs="+", default=list(TREATMENTS), choices=list(TREATMENTS))
    parser.add_argument("--rotations", nargs="+", default=list(ROTATIONS), choices=ROTATIONS)
    run_script(parser, run, arguments)


if __name__ == "__main__":
    main()
