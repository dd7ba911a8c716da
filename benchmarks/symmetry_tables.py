"""Tables of docs/symmetry.md: what was learned of symmetry, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from measured import described, figures_of, measured


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
