"""The tables of the force-field study, from a file of results alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.studies.forcefield.arms import ARMS, Budget
from remul_md.studies.jobs import read_json
from remul_md.studies.summary import SMALL_PERCENT, History, mean_and_scatter, step_of_percent

PERCENT = "forces_percent"
MARKS = (100, 1000, 10_000)  # steps whose percent stands in the table: a decade each
# The aim that a beta is held against: half the spread of augmentation at equal wall time, at most 5 % less accurate.
AIM_SPREAD, AIM_ACCURACY = 0.5, 1.05
BUDGET_TITLES = {"steps": "equal steps", "time": "equal wall time"}


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """What an arm reached on a molecule with a budget: one run a seed.

    Args:
        molecule, arm, budget: which.
        runs: as in the file of results.
        seconds_a_step: measured before the study; None where it was not.
    """

    molecule: str
    arm: str
    budget: Budget
    runs: list[dict[str, Any]]
    seconds_a_step: float | None = None

    @property
    def label(self) -> str:
        """Name in tables and pictures."""
        return ARMS[self.arm].label

    @property
    def beta(self) -> float | None:
        """Weight of the equivariance loss of the arms whose only difference it is; None for all others."""
        options = ARMS[self.arm].train
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
        InputError: another file, or an arm in it that this version does not know.
    """
    path = Path(results)
    content = read_json(path)
    if content.get("study") != "force-field" or not content.get("runs"):
        raise InputError(
            f"{path}: holds no results of the force-field study; make them with `remul-md study force-field`"
        )
    unknown = sorted({run["arm"] for run in content["runs"]} - ARMS.keys())
    if unknown:
        raise InputError(f"{path}: arms {', '.join(unknown)} are unknown to this version; known: {', '.join(ARMS)}")
    return content


def summaries(content: dict[str, Any], *, molecule: str, budget: Budget) -> list[ArmSummary]:
    """The arms of a molecule that were run with a budget, in the order of `ARMS`."""
    arms: dict[str, list[dict[str, Any]]] = {}
    for run in content["runs"]:
        if run["part"] == "arms" and run["molecule"] == molecule and budget in run["budgets"]:
            arms.setdefault(run["arm"], []).append(run)
    costs = content.get("seconds_a_step", {}).get(molecule, {})
    return [
        ArmSummary(molecule=molecule, arm=arm, budget=budget, runs=arms[arm], seconds_a_step=costs.get(ARMS[arm].cost))
        for arm in sorted(arms, key=[*ARMS].index)
    ]


def molecules_of(content: dict[str, Any]) -> list[str]:
    """Molecules with runs of arms, in the order of the file."""
    return list(dict.fromkeys(run["molecule"] for run in content["runs"] if run["part"] == "arms"))


def markdown_report(results: str | Path) -> str:
    """All tables: accuracy and symmetry, dynamics, the aim, and the grid of sizes; means ± deviations over seeds.

    Raises:
        InputError: see `read_results`.
    """
    content = read_results(results)
    parts: list[str] = []
    for molecule in molecules_of(content):
        for budget in ("steps", "time"):
            arms = summaries(content, molecule=molecule, budget=budget)
            if not arms:
                continue
            parts += [f"### {molecule}, {BUDGET_TITLES[budget]}", "", *accuracy_table(arms), ""]
            parts += [*dynamics_table(arms), ""]
            if budget == "time":
                parts += [f"- {line}" for line in aim_lines(arms)] + [""]
    grid = grid_table(content)
    return "\n".join([*parts, *(["### Percent against model and data size", "", *grid] if grid else [])]).rstrip()


def accuracy_table(arms: Sequence[ArmSummary]) -> list[str]:
    """Errors in meV/Angstrom and meV, symmetry, and how training got there."""
    marks = " / ".join(str(mark) for mark in MARKS)
    lines = [
        "| arm | seeds | steps | training, min | force MAE stock | turned | energy MAE turned | rotational error "
        f"| spread | percent [95 %] | steps to {SMALL_PERCENT:g} % | percent in validation at step {marks} |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in arms:
        intervals = [run["accuracy"]["equivariance_percent_ci95"] for run in arm.runs]
        steps = [step_of_percent(run["history"], key=PERCENT) for run in arm.runs]
        low, high = np.mean(intervals, axis=0)
        cells = [
            arm.label,
            str(len(arm.runs)),
            str(arm.runs[0]["n_steps"]),
            f"{arm.minutes:.1f}",
            *(
                mean_and_scatter(arm.accuracy(name))
                for name in (
                    *("force_mae_stock", "force_mae_turned", "energy_mae_turned"),
                    *("rotational_error", "rotational_spread"),
                )
            ),
            f"{mean_and_scatter(arm.accuracy('equivariance_percent'))} [{low:.2g}, {high:.2g}]",
            ", ".join("never" if step is None else str(step) for step in steps),
            " / ".join(f"{np.mean([at_step(run['history'], mark) for run in arm.runs]):.2g}" for mark in MARKS),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def at_step(history: History, step: int) -> float:
    """The percent at the measured step nearest to `step` on a log axis."""
    return min(history, key=lambda row: abs(np.log(row["step"] / step)))[PERCENT]


def dynamics_table(arms: Sequence[ArmSummary]) -> list[str]:
    """NVE with each potential: drift, momenta and rotational error, one value a seed."""
    lines = [
        "| arm | NVE | drift [95 %], meV/atom/ps | mean temperature, K | angular momentum, change "
        "| rotational error along it, meV/A | turned by, degrees |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in arms:
        found = [run["dynamics"] for run in arm.runs]
        cells = [
            arm.label,
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


def aim_lines(arms: Sequence[ArmSummary]) -> list[str]:
    """Whether any beta halves the spread of augmentation at equal wall time at no more than 5 % loss of accuracy."""
    by_name = {arm.arm: arm for arm in arms}
    base = by_name.get("augmentation")
    swept = [arm for arm in arms if arm.arm.startswith(("remul-", "consistent-"))]
    if base is None or not swept:
        return []
    lines = []
    for arm in swept:
        of_spread, of_error = ratios(arm, base)
        reached = of_spread <= AIM_SPREAD and of_error <= AIM_ACCURACY
        beside = ""
        if "augmentation-2pose" in by_name:
            beside = " ({:.2f} x and {:.2f} x of 2-pose augmentation)".format(
                *ratios(arm, by_name["augmentation-2pose"])
            )
        lines.append(
            f"{arm.label}: {of_spread:.2f} x the spread and {of_error:.2f} x the error of augmentation{beside}; "
            f"the aim (at most {AIM_SPREAD:g} x and {AIM_ACCURACY:g} x) is {'reached' if reached else 'NOT reached'}."
        )
    return lines


def ratios(arm: ArmSummary, base: ArmSummary) -> tuple[float, float]:
    """Spread and turned force MAE of an arm over those of another one; of the means over seeds."""
    spread, error = (
        float(arm.accuracy(name).mean() / base.accuracy(name).mean())
        for name in ("rotational_spread", "force_mae_turned")
    )
    return spread, error


def grid_table(content: dict[str, Any]) -> list[str]:
    """Percent (and turned force MAE) by width and number of frames; empty if there is no grid in the file."""
    cells: dict[tuple[str, str, int], dict[int, list[dict[str, Any]]]] = {}
    for run in content["runs"]:
        if run["part"] == "grid":
            row = cells.setdefault((run["molecule"], run["arm"], run["width"]), {})
            row.setdefault(run["n_train"], []).append(run["accuracy"])
    if not cells:
        return []
    frames = sorted({n_train for row in cells.values() for n_train in row})
    lines = [
        "| molecule | arm | width | " + " | ".join(f"{n_train} frames" for n_train in frames) + " |",
        "|---|---|---|" + "---|" * len(frames),
    ]
    for (molecule, arm, width), row in sorted(cells.items()):
        texts = []
        for n_train in frames:
            found = row.get(n_train)
            percent = found and mean_and_scatter([each["equivariance_percent"] for each in found])
            error = found and np.mean([each["force_mae_turned"] for each in found])
            texts.append(f"{percent} % ({error:.1f} meV/A)" if found else "")
        lines.append(f"| {molecule} | {ARMS[arm].label} | {width} | " + " | ".join(texts) + " |")
    return lines
