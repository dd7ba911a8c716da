"""The tables of the force-field study, from a file of results alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.studies.forcefield.methods import METHODS, Budget
from remul_md.studies.jobs import read_json
from remul_md.studies.summary import SMALL_PERCENT, History, mean_and_scatter, step_of_percent

PERCENT = "forces_percent"
MARKS = (100, 1000, 10_000)  # steps whose percent stands in the table: a decade each
# The aim that a beta is held against: half the spread of augmentation at equal wall time, at most 5 % less accurate.
AIM_SPREAD, AIM_ACCURACY = 0.5, 1.05
BUDGET_TITLES = {"steps": "equal steps", "time": "equal wall time"}


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """What a method reached on a molecule with a budget: one run a seed.

    Args:
        molecule, method, budget: which.
        runs: as in the file of results.
        seconds_a_step: measured before the study; None where it was not.
    """

    molecule: str
    method: str
    budget: Budget
    runs: list[dict[str, Any]]
    seconds_a_step: float | None = None

    @property
    def label(self) -> str:
        """Name in tables and pictures."""
        return METHODS[self.method].label

    @property
    def beta(self) -> float | None:
        """Weight of the equivariance loss of the methods whose only difference it is; None for all others."""
        options = METHODS[self.method].train
        swept = set(options) == {"alpha", "beta"} and options["alpha"] > 0 and options["beta"] > 0
        return float(options["beta"]) if swept else None

    @property
    def minutes(self) -> float:
        """What training takes: steps by their measured time, which other work on the machine does not change much."""
        if self.seconds_a_step is None:
            return float(np.mean([run["train_seconds"] for run in self.runs])) / 60.0
        return self.runs[0]["n_steps"] * self.seconds_a_step / 60.0

    def accuracy(self, name: str) -> NDArray[np.float64]:
        """A figure of `Accuracy`, one value a seed."""
        return np.array([run["accuracy"][name] for run in self.runs], dtype=np.float64)


def read_results(results: str | Path) -> dict[str, Any]:
    """A file of results of this study.

    Raises:
        InputError: another file, or a method in it that this version does not know.
    """
    path = Path(results)
    content = read_json(path)
    if content.get("study") != "force-field" or not content.get("runs"):
        raise InputError(
            f"{path}: holds no results of the force-field study; make them with `remul-md study force-field`"
        )
    unknown = sorted({run["method"] for run in content["runs"]} - METHODS.keys())
    if unknown:
        raise InputError(
            f"{path}: methods {', '.join(unknown)} are unknown to this version; known: {', '.join(METHODS)}"
        )
    return content


def summaries(content: dict[str, Any], *, molecule: str, budget: Budget) -> list[MethodSummary]:
    """The methods of a molecule that were run with a budget, in the order of `METHODS`."""
    methods: dict[str, list[dict[str, Any]]] = {}
    for run in content["runs"]:
        if run["part"] == "methods" and run["molecule"] == molecule and budget in run["budgets"]:
            methods.setdefault(run["method"], []).append(run)
    costs = content.get("seconds_a_step", {}).get(molecule, {})
    return [
        MethodSummary(
            molecule=molecule,
            method=method,
            budget=budget,
            runs=methods[method],
            seconds_a_step=costs.get(METHODS[method].cost),
        )
        for method in sorted(methods, key=[*METHODS].index)
    ]


def molecules_of(content: dict[str, Any]) -> list[str]:
    """Molecules with runs of methods, in the order of the file."""
    return list(dict.fromkeys(run["molecule"] for run in content["runs"] if run["part"] == "methods"))


def markdown_report(results: str | Path) -> str:
    """All tables: accuracy and symmetry, dynamics, the aim, and the grid of sizes; means ± deviations over seeds.

    Raises:
        InputError: see `read_results`.
    """
    content = read_results(results)
    parts: list[str] = []
    for molecule in molecules_of(content):
        for budget in ("steps", "time"):
            methods = summaries(content, molecule=molecule, budget=budget)
            if not methods:
                continue
            parts += [f"### {molecule}, {BUDGET_TITLES[budget]}", "", *accuracy_table(methods), ""]
            parts += [*dynamics_table(methods), ""]
            if budget == "time":
                parts += [f"- {line}" for line in aim_lines(methods)] + [""]
    grid = grid_table(content)
    return "\n".join([*parts, *(["### Percent against model and data size", "", *grid] if grid else [])]).rstrip()


def accuracy_table(methods: Sequence[MethodSummary]) -> list[str]:
    """Errors in meV/Angstrom and meV, symmetry, and how training got there."""
    marks = " / ".join(str(mark) for mark in MARKS)
    lines = [
        "| method | seeds | steps | training, min | force MAE original | rotated | energy MAE rotated "
        f"| rotational error | spread | percent "
        f"| steps to {SMALL_PERCENT:g} % | percent in validation at step {marks} |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method in methods:
        steps = [step_of_percent(run["history"], key=PERCENT) for run in method.runs]
        cells = [
            method.label,
            str(len(method.runs)),
            str(method.runs[0]["n_steps"]),
            f"{method.minutes:.1f}",
            *(
                mean_and_scatter(method.accuracy(name))
                for name in (
                    *("force_mae_original", "force_mae_rotated", "energy_mae_rotated"),
                    *("rotational_error", "rotational_spread"),
                )
            ),
            mean_and_scatter(method.accuracy("equivariance_percent")),
            ", ".join("never" if step is None else str(step) for step in steps),
            " / ".join(f"{np.mean([at_step(run['history'], mark) for run in method.runs]):.2g}" for mark in MARKS),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def at_step(history: History, step: int) -> float:
    """The percent at the measured step nearest to `step` on a log axis."""
    return min(history, key=lambda row: abs(np.log(row["step"] / step)))[PERCENT]


def dynamics_table(methods: Sequence[MethodSummary]) -> list[str]:
    """NVE with each potential: drift, momenta and rotational error, one value a seed."""
    lines = [
        "| method | NVE | drift [95 %], meV/atom/ps | mean temperature, K | angular momentum, change "
        "| rotational error along it, meV/A | rotated by, degrees |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in methods:
        found = [run["dynamics"] for run in method.runs]
        cells = [
            method.label,
            ", ".join("whole" if run["stopped"] is None else _stopped(run["stopped"]) for run in found),
            ", ".join(_interval(run["drift_meV_per_atom_ps"], run["drift_ci95"]) for run in found),
            *(
                ", ".join("" if run[name] is None else format(run[name], spec) for run in found)
                for name, spec in (
                    ("temperature_K", ".0f"),
                    ("angular_momentum_change", ".2g"),
                    ("rotational_error", ".2f"),
                    ("angle_swept_deg", ".0f"),
                )
            ),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _stopped(stopped: dict[str, Any]) -> str:
    return f"broke at {stopped['time_ps']:.2g} ps of {stopped['phase']}"


def _interval(value: float | None, ci95: Sequence[float] | None) -> str:
    if value is None or ci95 is None:
        return ""
    return f"{value:+.4f} [{ci95[0]:+.4f}, {ci95[1]:+.4f}]"


def aim_lines(methods: Sequence[MethodSummary]) -> list[str]:
    """Whether any beta halves the spread of augmentation at equal wall time at no more than 5 % loss of accuracy."""
    by_name = {method.method: method for method in methods}
    base = by_name.get("augmentation")
    swept = [method for method in methods if method.method.startswith(("remul-", "consistent-"))]
    if base is None or not swept:
        return []
    lines = []
    for method in swept:
        of_spread, of_error = ratios(method, base)
        reached = of_spread <= AIM_SPREAD and of_error <= AIM_ACCURACY
        beside = ""
        if "augmentation-2" in by_name:
            beside = " ({:.2f} x and {:.2f} x of 2-orientation augmentation)".format(
                *ratios(method, by_name["augmentation-2"])
            )
        lines.append(
            f"{method.label}: {of_spread:.2f} x the spread and {of_error:.2f} x the error of augmentation{beside}; "
            f"the aim (at most {AIM_SPREAD:g} x and {AIM_ACCURACY:g} x) is {'reached' if reached else 'NOT reached'}."
        )
    return lines


def ratios(method: MethodSummary, base: MethodSummary) -> tuple[float, float]:
    """Spread and rotated force MAE of a method over those of another one; of the means over seeds."""
    spread, error = (
        float(method.accuracy(name).mean() / base.accuracy(name).mean())
        for name in ("rotational_spread", "force_mae_rotated")
    )
    return spread, error


def grid_table(content: dict[str, Any]) -> list[str]:
    """Percent (and rotated force MAE) by width and number of frames; empty if there is no grid in the file."""
    cells: dict[tuple[str, str, int], dict[int, list[dict[str, Any]]]] = {}
    for run in content["runs"]:
        if run["part"] == "grid":
            row = cells.setdefault((run["molecule"], run["method"], run["width"]), {})
            row.setdefault(run["n_train"], []).append(run["accuracy"])
    if not cells:
        return []
    frames = sorted({n_train for row in cells.values() for n_train in row})
    lines = [
        "| molecule | method | width | " + " | ".join(f"{n_train} frames" for n_train in frames) + " |",
        "|---|---|---|" + "---|" * len(frames),
    ]
    for (molecule, method, width), row in sorted(cells.items()):
        texts = []
        for n_train in frames:
            found = row.get(n_train)
            percent = found and mean_and_scatter([each["equivariance_percent"] for each in found])
            error = found and np.mean([each["force_mae_rotated"] for each in found])
            texts.append(f"{percent} % ({error:.1f} meV/A)" if found else "")
        lines.append(f"| {molecule} | {METHODS[method].label} | {width} | " + " | ".join(texts) + " |")
    return lines
