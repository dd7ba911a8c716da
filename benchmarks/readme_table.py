"""The tables of measured numbers in README and docs, from JSON files; with --write they are put there.

python benchmarks/readme_table.py [--write]

Each stands on its page between two marks that say which one it is: `<!-- measured: symmetry-potentials begin -->` and
the like with `end`. A mark of an unknown table, one without its other half and tables out of their order are refused.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from remul_md.analysis.audit.limits import NAMES
from remul_md.potentials.zoo import ShippedPotential, describe_shipped
from remul_md.studies.report import markdown_report

ROOT = Path(__file__).resolve().parent.parent
MARK = re.compile(r"<!-- measured: (.*?) ?(begin|end) -->")


def measured(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "results" / f"{name}.json").read_text()))


@cache
def described() -> list[ShippedPotential]:
    """The potentials that ship."""
    return describe_shipped(measure_latency=False)


def figures_of(row: ShippedPotential, ending: str = ".json") -> dict[str, Any]:
    """The figures beside a potential."""
    return dict(json.loads((ROOT / "data" / "potentials" / f"{row.name}{ending}").read_text()))


def in_a_field() -> list[str]:
    """Rows of the potentials that ship and were taught in an electric field."""
    lines = []
    for row in (row for row in described() if row.field_V_per_A is not None):
        figures = figures_of(row)
        lines.append(
            f"| {row.name} | {' '.join(f'{part:g}' for part in row.field_V_per_A or ())} | {row.group} "
            f"| {figures['force_mae_original']:.1f} / {figures['force_mae_rotated']:.1f} "
            f"| {figures['force_rmse_rotated']:.0f} | {figures['force_mae_exact']:.0f} "
            f"| {figures['direction_load']:.1f} | {figures['energy_mae_rotated']:.1f} "
            f"| {row.rotational_spread:.2f} | {row.training_minutes:.0f} | {row.megabytes:.1f} |"
        )
    return lines


def zoo() -> list[str]:
    """Rows of the other potentials that ship, from the files and the figures beside them."""
    lines = []
    for row in (row for row in described() if row.field_V_per_A is None):
        figures = figures_of(row)
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
        "Seven potentials of isolated molecules, each trained on 950 + 50 frames of rMD17 (split 01), on the 1,000 of",
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
        "In an electric field, on test frames that are packaged with the potential; errors are taken about the field.",
        "",
        "| potential | field, V/Å | trained rotations | force MAE, as it stands / rotated, meV/Å | RMSE, rotated "
        "| MAE with raw directions cut | direction load | energy MAE, meV | rotational spread, meV/Å | training, min "
        "| MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *in_a_field(),
        "",
        "Dynamics and speed of the shipped ethanol potential, 5 ps of NVE at 300 K where no other length is given.",
        "Runs of 100 ps, PBE labels and differences are from before its raw directions were trained on by",
        "consistency; all other weights are the same.",
        "",
        "| what | measured | command |",
        "|---|---|---|",
        *(f"| {what} | {text.format(**values[by])} | {commands[by]} |" for what, text, by in rows),
    ]
    return "\n".join(lines)


def symmetry_table() -> str:
    """What cutting the raw directions does to each head of each potential of an isolated molecule."""
    lines = [
        "| potential | forces | force MAE, meV/Å | exact mode | direction load | rotational error, meV/Å |",
        "|---|---|---|---|---|---|",
    ]
    for row in (row for row in described() if row.field_V_per_A is None):
        for head, ending in (("conservative", ".json"), ("direct", ".direct.json")):
            figures = figures_of(row, ending)
            assert figures["forces"] == head
            lines.append(
                f"| {row.name} | {head} | {figures['force_mae_original']:.3g} | {figures['force_mae_exact']:.3g} "
                f"| {figures['direction_load']:.3f} | {figures['rotational_error']:.2f} |"
            )
    return "\n".join(lines)


def screening_table() -> str:
    """Ways of training on for symmetry, the most symmetric first; means over seeds."""
    lines = [
        "| forces | trained on by | ms a step | steps | seeds | rotated force MAE, meV/Å | rotational spread, meV/Å "
        "| equivariance percent | net torque, meV |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for head, found in measured("remul_screening").items():
        groups: dict[str, list[dict[str, Any]]] = {"nothing (the base)": [found["before"]]}
        for run in found["runs"]:
            groups.setdefault(run["candidate"], []).append(run)

        def mean(runs: list[dict[str, Any]], name: str) -> float:
            return float(np.mean([run[name] for run in runs]))

        for name, runs in sorted(groups.items(), key=lambda group: mean(group[1], "rotational_spread")):
            lines.append(
                f"| {head} | {name} | {1000 * mean(runs, 'step_seconds'):.0f} | {mean(runs, 'n_steps'):.0f} "
                f"| {len(runs)} | {mean(runs, 'force_mae_rotated'):.2f} | {mean(runs, 'rotational_spread'):.3f} "
                f"| {mean(runs, 'equivariance_percent'):.3f} | {mean(runs, 'net_torque_rms_meV'):.3f} |"
            )
    return "\n".join(lines)


def before_after_table() -> str:
    """What training on in the raw directions alone made of both heads of the shipped potentials."""
    named = {
        "force_mae_rotated": "rotated force MAE, meV/Å",
        "rotational_spread": "rotational spread, meV/Å",
        "rotational_error": "rotational error, meV/Å",
        "net_torque_rms_meV": "net torque, meV",
    }
    lines = [
        "| potential | forces | " + " | ".join(f"{title} | ratio" for title in named.values()) + " |",
        "|" + "---|" * (2 + 2 * len(named)),
    ]
    for run in measured("remul_before_after")["runs"]:
        cells = [run["molecule"], run["forces"]]
        for name in named:
            before, after = run["before"][name], run["after"][name]
            told = run["forces"] == "conservative" or name != "net_torque_rms_meV"
            cells += [f"{before:.3g} → {after:.3g}", f"{after / before:.2f}"] if told else ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


# Methods of `molecule_in_a_field.py` in words, in the order of the table.
IN_A_FIELD = {
    "about_z": "relaxed, rotations about z",
    "none": "relaxed, no rotations",
    **{f"beta_{beta:g}": f"relaxed, REMUL about all axes, beta {beta:g}" for beta in (0.01, 0.1, 1, 10)},
    "all": "relaxed, rotations about all axes",
    "exact": "exact",
    "exact_told": "exact, told the field vector",
}


def field_table() -> str:
    """Ways of training in an electric field, most frames first."""
    order = list(IN_A_FIELD)
    rows = measured("molecule_in_a_field")["rows"]
    lines = ["| training | frames | steps " + FIELD_HEAD, "|---|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (-row["n_train"], row["n_steps"], order.index(row["method"]))):
        lines.append(f"| {IN_A_FIELD[row['method']]} | {row['n_train']} | {row['n_steps']:,} " + in_field(row))
    return "\n".join(lines)


def few_orientations_table() -> str:
    """The same where the training frames stand in a few orientations."""
    order = list(IN_A_FIELD)
    lines = ["| training | orientations " + FIELD_HEAD, "|---|---|---|---|---|---|"]
    for name in ("molecule_in_a_field_4_orientations", "molecule_in_a_field_1_orientation"):
        found = measured(name)
        for row in sorted(found["rows"], key=lambda row: order.index(row["method"])):
            lines.append(f"| {IN_A_FIELD[row['method']]} | {found['n_orientations']} " + in_field(row))
    return "\n".join(lines)


FIELD_HEAD = "| force MAE as it stands, meV/Å | rotated about z | direction load | raw directions cut |"


def in_field(row: Mapping[str, Any]) -> str:
    """The figures of a row of `molecule_in_a_field.py`."""
    return (
        f"| {row['force_mae_original']:.1f} | {row['force_mae_rotated']:.1f} | {row['direction_load']:.2f} "
        f"| {row['force_mae_exact']:.1f} |"
    )


def plain_table() -> str:
    """What a plain network learned, as its screening lists the runs."""
    lines = [
        "| displacements and | forces | optimiser, learning rate | ms a step | steps | rotated force MAE, meV/Å "
        "| rotational spread | equivariance percent | directions cut | direction load |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    found = measured("plain_screening")
    for row in sorted(found["rows"], key=lambda row: (list(found["costs"]).index(row["run"]), row["n_steps"])):
        *what, optimizer = row["run"].split(", ")
        head = "direct" if "direct" in what else "conservative"
        inputs = {"distances": "distances", "rank 1": "nothing", "rank 4": "nothing, rank 4"}[what[-1]]
        lines.append(
            f"| {inputs} | {head} | {optimizer} | {1e3 * found['costs'][row['run']]:.0f} | {row['n_steps']:,} "
            f"| {row['force_mae_rotated']:.1f} | {row['rotational_spread']:.1f} | {row['equivariance_percent']:.2g} "
            f"| {row['force_mae_exact']:.1f} | {row['direction_load']:.2f} |"
        )
    return "\n".join(lines)


def beyond_table() -> str:
    """Ethanol where no training frame is, from `benchmarks/beyond_the_data.py`."""
    result = measured("beyond_the_data")
    lines = [
        "| potential | O-H pulled off: largest error to 3 Å, eV | deepest fall on the way out, eV | RMSE to 6.6 Å, eV "
        "| mode 874, RMSE, eV | mode 3005, RMSE, eV |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result["figures"].items():
        values = (
            row["H_removal_largest_error_to_3_A_eV"],
            row["H_removal_deepest_fall_to_3_A_eV"],
            row["H_removal_rmse_eV"],
            row["norm_mode_874_rmse_eV"],
            row["norm_mode_3005_rmse_eV"],
        )
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    return "\n".join(lines)


def drift_noise_table() -> str:
    """Coverage and wrong verdicts on simulated noise."""
    found = measured("drift_coverage")
    looks = {row["noise"]: row for row in found["sequential"]}
    lines = [
        "| noise | interval covers | *conserves*, drift just beyond the bound / twice it | *drifts*, just within / "
        "none | mean of 2 / 5 runs covers | four looks: *conserves* / *drifts*, corrected |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["simulated"]:
        look = looks[row["noise"]]
        lines.append(
            f"| {row['noise']} | {100 * row['coverage']:.1f} % "
            f"| {100 * row['false_conserves_at_bound']:.1f} / {100 * row['false_conserves_at_twice']:.1f} % "
            f"| {100 * row['false_drifts_at_bound']:.1f} / {100 * row['false_drifts_without']:.1f} % "
            f"| {100 * row['coverage_mean_of_2']:.0f} / {100 * row['coverage_mean_of_5']:.0f} % "
            f"| {100 * look['conserves_corrected']:.1f} / {100 * look['drifts_corrected']:.1f} % |"
        )
    return "\n".join(lines)


def drift_real_table() -> str:
    """Verdicts on windows of real runs."""
    lines = [
        "| run | judged | windows | RMS slope | median half width | *conserves* / *drifts* / undecided | "
        "... with twice the bound added |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in measured("drift_coverage")["real"]:
        n = row["n_windows"]
        plain, planted = (
            f"{row[f'{kind}conserves']} / {row[f'{kind}drifts']} / {n - row[f'{kind}conserves'] - row[f'{kind}drifts']}"
            for kind in ("", "planted_")
        )
        lines.append(
            f"| {row['system']}, {row['length_ps']:.2g} ps | {row['judged']} | {n} | {row['rms_slope']:.1g} "
            f"| {row['median_half_width']:.1g} | {plain} | {planted} |"
        )
    return "\n".join(lines)


def audit_faults_table() -> str:
    """From what size on each check of an audit finds each planted fault."""
    found = measured("audit_faults")
    lines = ["| fault | at | sizes tried | found by | not found by any check |", "|---|---|---|---|---|"]
    for row in found["rows"]:
        sizes = list(row["found_by"])
        checks: dict[str, str] = {}
        for name in NAMES:
            n_found = 0  # from the largest size downwards
            while n_found < len(sizes) and name in row["found_by"][sizes[-1 - n_found]]:
                n_found += 1
            if n_found:
                checks[name] = sizes[-n_found]
        by_size = sorted(checks.items(), key=lambda entry: float(entry[1]))
        missed = [size for size in sizes if not row["found_by"][size]]
        lines.append(
            f"| {row['fault']} | {row['where']} | {', '.join(sizes)} {row['unit']} | "
            + ("; ".join(f"`{name}` from {size}" for name, size in by_size) or "none")
            + f" | {', '.join(missed) or 'none'} |"
        )
    return "\n".join(lines)


def audit_honest_table() -> str:
    """Audits of calculators that plant nothing."""
    found = measured("audit_honest")
    lines = [
        "| calculator | audits | failed | may rightly fail | false alarms |",
        "|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        failed = ", ".join(f"`{name}` {n}" for name, n in row["failed"].items()) or "none"
        rightly = ", ".join(f"`{name}`" for name in row["rightly"])
        reason = f"{rightly}: {row['reason']}" if rightly else "nothing"
        lines.append(f"| {row['kind']} | {row['runs']} | {failed} | {reason} | {len(row['false_alarms'])} |")
    lines += [f"| {name} | 0 | not run: {reason} | | |" for name, reason in found["not_run"].items()]
    n_runs = sum(row["runs"] for row in found["rows"])
    n_alarms = sum(len(row["false_alarms"]) for row in found["rows"])
    lines.append(f"| **all** | {n_runs} | | | **{n_alarms}** |")
    return "\n".join(lines)


def study_table(name: str) -> str:
    """All tables of a study."""
    return markdown_report(ROOT / "results" / f"{name}.json")


def network_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of `network_speed.py`; behind each time, that of GATr over it."""
    lines = [
        "| task | network | weights | forward, MFLOP | forward, ms | compiled, ms | step, ms | compiled, ms | MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    gatr = {row["task"]: row for row in rows if row["network"] == "gatr"}

    def cell(row: Mapping[str, Any], kind: str, what: str) -> str:
        if f"{what}_ms" not in row[kind]:
            return ""
        ms, of_gatr = row[kind][f"{what}_ms"], gatr.get(row["task"])
        return (f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}") + (
            f" ({of_gatr[kind][f'{what}_ms'] / ms:.1f})" if of_gatr else ""
        )

    for row in rows:
        times = [cell(row, kind, what) for what in ("forward", "step") for kind in ("eager", "compiled")]
        name = {"gatr": "GATr", "egnn": "EGNN", "se3": "SE(3)-Transformer"}.get(row["network"], row["network"])
        sizes = [f"{row['parameters']:,}", f"{row['forward_mflops']:.0f}"]
        lines.append("| " + " | ".join([row["task"], name, *sizes, *times, f"{row['step_MiB']:.0f}"]) + " |")
    return "\n".join(lines)


def network_table() -> str:
    """What the networks of the particle tasks cost at the published sizes."""
    return network_rows(measured("network_speed")["rows"])


def on_front(points: Mapping[Any, tuple[float, float]]) -> set[Any]:
    """Which (ms, error) no other is below in both."""
    return {
        key
        for key, (ms, error) in points.items()
        if not any(a <= ms and b <= error and (a, b) != (ms, error) for a, b in points.values())
    }


def potential_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of `potential_speed.py`, fastest first; the front in bold."""
    front = on_front({(row["name"], kind): (ms, row["force_mae"]) for row in rows for kind, ms in row["ms"].items()})
    lines = [
        "| potential | forces | trained | force MAE, meV/Å | uncompiled, ms | compiled, ms |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["ms"]["eager"]):
        times = []
        for kind in ("eager", "compiled"):
            text = f"{row['ms'][kind]:.1f}" if kind in row["ms"] else ""
            times.append(f"**{text}**" if (row["name"], kind) in front else text)
        cells = [row["name"], row["forces"], row["trained"], f"{row['force_mae']:.1f}", *times]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def potential_table() -> str:
    """Force error beside milliseconds."""
    return potential_rows(measured("potential_speed")["rows"])


# By page, in the order in which they stand there.
TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"potentials": table},
    "docs/audit.md": {"audit-faults": audit_faults_table, "audit-honest": audit_honest_table},
    "docs/beyond-the-data.md": {"beyond-ethanol": beyond_table},
    "docs/forcefield.md": {"study-force-field": partial(study_table, "force_field_quick")},
    "docs/nbody.md": {
        "study-nbody": partial(study_table, "nbody_quick"),
        "study-nbody-default": partial(study_table, "nbody_default"),
        "study-nbody-gatr": partial(study_table, "nbody_gatr"),
    },
    "docs/papers/scale.md": {"study-rigid-bodies": partial(study_table, "rigid_bodies_quick")},
    "docs/papers/symmetry-learning.md": {
        "study-flow": partial(study_table, "flow_quick"),
        "study-voxels": partial(study_table, "voxels_quick"),
    },
    "docs/speed.md": {"potential-speed": potential_table, "network-speed": network_table},
    "docs/statistics.md": {"drift-noise": drift_noise_table, "drift-real": drift_real_table},
    "docs/studies.md": {
        "study-mocap": partial(study_table, "mocap_quick"),
        "study-charged": partial(study_table, "charged_quick"),
        "study-field": partial(study_table, "field_quick"),
        "study-freedom": partial(study_table, "freedom_quick"),
    },
    "docs/symmetry.md": {
        "symmetry-potentials": symmetry_table,
        "symmetry-plain": plain_table,
        "symmetry-screening": screening_table,
        "symmetry-before-after": before_after_table,
        "symmetry-field": field_table,
        "symmetry-field-few": few_orientations_table,
    },
}


def with_tables(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """The text of a page with each of its tables as the files have it now, in the marks of that table.

    Raises:
        ValueError: marks that are not those of `tables`, each once and in their order.
    """
    found = [match.groups() for match in MARK.finditer(text)]
    expected = [(name, edge) for name in tables for edge in ("begin", "end")]
    if found != expected:
        raise ValueError(f"the page has the marks {found}, and should have {expected}")
    for name, made in tables.items():
        begin, end = (f"<!-- measured: {name} {edge} -->" for edge in ("begin", "end"))
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{made()}\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    for page, tables in TABLES.items():
        if "--write" in sys.argv[1:]:
            path = ROOT / page
            path.write_text(with_tables(path.read_text(), tables))
        for name, made in tables.items():
            print(f"{page}: {name}\n\n{made()}\n")
