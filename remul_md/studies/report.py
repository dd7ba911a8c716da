"""The tables of a study, from a file of results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.studies.jobs import read_json
from remul_md.studies.lab import Column, Task, cost_of
from remul_md.studies.methods import METHODS
from remul_md.studies.tasks import TASKS, find_task

SMALL_PERCENT = 2.0  # the share of the loss that is called small by Shen et al. (2025), arXiv:2512.02303
# The percent is read from where a network has learned something: one whose output is near 0 passes trivially.
LEARNED_SHARE = 0.5
BUDGET_TITLES = {"steps": "equal steps", "time": "equal computing time"}
RUN_KEYS = {"case", "model", "method", "figures", "baselines", "zero_error", "history", "learning"}


@dataclass(frozen=True, kw_only=True)
class Group:
    """The runs of one model by one method on one case with one budget: one for each seed.

    Args:
        task: what was run.
        case, model, method, budget: which.
        runs: as in the file of results.
        seconds_a_step: measured before the study; None where it was not.
    """

    task: Task[Any]
    case: str
    model: str
    method: str
    budget: str
    runs: list[dict[str, Any]]
    seconds_a_step: float | None = None

    @property
    def label(self) -> str:
        """Name in tables and pictures."""
        model, method = self.task.models[self.model], METHODS[self.method].label
        return f"{model}, {method}"

    @property
    def beta(self) -> float | None:
        """Weight of the equivariance loss, where the methods differ by it alone; of the first model only."""
        return METHODS[self.method].beta if self.model == next(iter(self.task.models)) else None

    def values(self, figure: str) -> NDArray[np.float64]:
        """A figure times the factor of its column, a value for each run that has it as a number."""
        found = [run["figures"].get(figure) for run in self.runs]
        scale = self.task.column(figure).scale
        return scale * np.array([value for value in found if isinstance(value, int | float)], dtype=np.float64)


def read_results(results: str | Path, *, task: Task[Any] | None = None) -> tuple[Task[Any], dict[str, Any]]:
    """The task of a file of results, and what the file holds.

    Args:
        results: written by `run_study`.
        task: where it is none of `TASKS`.
    Raises:
        InputError: no file of results, or names in it that this version does not know.
    """
    path = Path(results)
    content = read_json(path)
    name = content.get("study")
    if task is None and name not in TASKS:
        raise InputError(f"{path}: holds no results of a study; make them with `remul-md study TASK --run-dir DIR`")
    found = find_task(str(name)) if task is None else task
    if not content.get("runs") or not content["runs"][0].keys() >= RUN_KEYS:
        raise InputError(f"{path}: holds no finished runs of this version; make them with `remul-md study {name}`")
    for key, known in (("case", found.cases), ("model", found.models), ("method", METHODS)):
        unknown = sorted({run[key] for run in content["runs"]} - set(known))
        if unknown:
            raise InputError(
                f"{path}: {key}s {', '.join(unknown)} are unknown to this version; known: {', '.join(known)}"
            )
    return found, content


def tables_of(task: Task[Any], content: Mapping[str, Any]) -> list[tuple[str, str, list[Group]]]:
    """(case, budget, groups) of everything that was run; models and methods in the order of the file."""
    tables = []
    for case, budget in product(task.cases, BUDGET_TITLES):
        costs = content.get("seconds_a_step", {}).get(case, {})
        found: dict[tuple[str, str], Group] = {}
        for run in content["runs"]:
            if run["case"] == case and budget in run["budgets"]:
                of = {name: run[name] for name in ("case", "model", "method")}
                cost = costs.get(cost_of(run["model"], run["method"]))
                new = Group(task=task, **of, budget=budget, runs=[], seconds_a_step=cost)
                found.setdefault((run["model"], run["method"]), new).runs.append(run)
        if found:
            tables.append((case, budget, [*found.values()]))
    return tables


def markdown_report(results: str | Path, *, task: Task[Any] | None = None) -> str:
    """All tables, means ± deviations over seeds, published figures beside, and what was not run.

    Raises:
        InputError: see `read_results`.
    """
    known, content = read_results(results, task=task)
    parts: list[str] = []
    for case, budget, found in tables_of(known, content):
        parts += [f"### {known.cases[case]}, {BUDGET_TITLES[budget]}", ""]
        for number, (title, columns) in enumerate(known.tables.items()):
            shown = {name: column for name, column in columns.items() if any(_has(group, name) for group in found)}
            if shown:
                head = ["model, method", *(column.label for column in shown.values())]
                rows = [[group.label, *(_cell(group, name) for name in shown)] for group in found]
                parts += [f"{title}:", "", *(_table(head, rows) if number else _first_table(found, shown)), ""]
        if case in known.notes:
            parts += [known.notes[case], ""]
    return "\n".join([*parts, *_by_case(known, content), *not_run(known, content)]).rstrip()


def _by_case(task: Task[Any], content: Mapping[str, Any]) -> list[str]:
    """The first error of every model and method beside that on the other cases, where there are several."""
    found = [(case, group) for case, budget, each in tables_of(task, content) if budget == "steps" for group in each]
    cases = [*dict.fromkeys(case for case, _ in found)]
    if len(cases) < 2:
        return []
    rows: dict[str, dict[str, str]] = {}
    for case, group in found:
        rows.setdefault(group.label, {})[case] = _cell(group, task.errors[0])
    title = f"### {task.title}: {task.column(task.errors[0]).label}, {task.error_label}"
    cells = [[label, *(row.get(case, "") for case in cases)] for label, row in rows.items()]
    return [title, "", *_table(["model, method", *cases], cells), ""]


def _has(group: Group, figure: str) -> bool:
    return any(run["figures"].get(figure) is not None for run in group.runs)


def _first_table(found: Sequence[Group], columns: Mapping[str, Column]) -> list[str]:
    task, case = found[0].task, found[0].case
    published = {key[1:]: value for key, value in task.published.items() if key[0] == case}
    head = ["model, method", "seeds", "steps", *(column.label for column in columns.values())]
    head += [" / ".join(task.column(name).label for name in reversed(task.ratio))] if task.ratio is not None else []
    head += [task.published_label] * bool(published)
    head += [f"steps to {SMALL_PERCENT:g} %", "lowest percent (step)", "best step", "training, s"]
    rows = []
    for group in found:
        cells = [group.label, str(len(group.runs)), str(group.runs[0]["n_steps"])]
        cells += [_cell(group, name) for name in columns]
        if task.ratio is not None:
            first, second = (group.values(name) for name in task.ratio)
            cells.append(f"{second.mean() / first.mean():.2f}")
        if published:
            name = "remul" if group.beta is not None else group.method
            cells.append(published.get((group.model, name), ""))
        below = task.learned_below
        steps = [step_of_percent(run, below=below) for run in group.runs]
        cells.append(", ".join("never" if step is None else str(step) for step in steps))
        cells.append(", ".join(lowest_percent(run, below=below) for run in group.runs))
        cells.append(", ".join(str(run["best_step"]) for run in group.runs))
        seconds = [float(run["train_seconds"]) for run in group.runs]
        if group.seconds_a_step is not None:  # other work on the machine does not change it much
            seconds = [run["n_steps"] * group.seconds_a_step for run in group.runs]
        rows.append([*cells, f"{np.mean(seconds):.0f}"])
    scale = task.column(task.errors[0]).scale
    for label in found[0].runs[0]["baselines"]:
        error = scale * np.mean([run["baselines"][label] for group in found for run in group.runs])
        rows.append([label, "", "", *(_number(float(error)) if name in task.errors else "" for name in columns)])
    for (model, _), figures in published.items():
        if model not in task.models or (model in task.exact and model not in {group.model for group in found}):
            rows.append([f"{task.models.get(model, model)} (not run)", *[""] * (len(head) - 6), figures])
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown; the ends of short rows stay empty."""
    filled = [[*row, *[""] * (len(head) - len(row))] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *filled)]


def _cell(group: Group, figure: str) -> str:
    texts = [value for run in group.runs if isinstance(value := run["figures"].get(figure), str)]
    values = group.values(figure)
    return ", ".join([*([mean_and_deviation(values)] if len(values) else []), *texts])


def mean_and_deviation(values: Sequence[float] | NDArray[np.float64]) -> str:
    """Mean ± standard deviation over seeds; a single value stands alone."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) == 1:
        return _number(array[0])
    return f"{_number(array.mean())} ± {_number(array.std(ddof=1), digits=2)}"


def _number(value: float, *, digits: int = 3) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"  # 1370, not 1.37e+03


def learned(run: Mapping[str, Any], *, below: str | None = None) -> list[dict[str, float]]:
    """The rows of a run's history from the first whose error is half that of an output of 0, or less.

    Args:
        run: of a file of results.
        below: instead, at most the error of the baseline of this name.
    """
    limit = LEARNED_SHARE * run["zero_error"] if below is None else run["baselines"][below]
    return [*dropwhile(lambda row: row["error"] > limit, run["history"])]


def step_of_percent(run: Mapping[str, Any], *, percent: float = SMALL_PERCENT, below: str | None = None) -> int | None:
    """The first measured step from which the percent stays at or below `percent`; None if it never does.

    `below`: see `learned`.
    """
    rows = learned(run, below=below)
    above = [row["step"] for row in rows if row["percent"] > percent]
    later = [row["step"] for row in rows if not above or row["step"] > max(above)]
    return int(min(later)) if later else None


def lowest_percent(run: Mapping[str, Any], *, below: str | None = None) -> str:
    """The lowest percent during training, and its step: it can rise again while the error falls."""
    rows = learned(run, below=below)
    if not rows:
        return "nothing learned"
    best = min(rows, key=lambda row: row["percent"])
    return f"{best['percent']:.2g} ({best['step']:g})"


def not_run(task: Task[Any], content: Mapping[str, Any]) -> list[str]:
    """What the task knows and the file does not hold."""
    lines = []
    for kind, known in (("cases", [*task.cases]), ("models", [*task.models]), ("methods", task.methods)):
        missing = [name for name in known if name not in {run[kind[:-1]] for run in content["runs"]}]
        if missing:
            lines.append(f"{kind} {', '.join(missing)}")
    return [f"Not run: {'; '.join(lines)}."] if lines else []
