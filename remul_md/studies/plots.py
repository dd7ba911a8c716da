"""The pictures of a study, from a file of results alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from remul_md.analysis.drawing import SERIES, SOFT
from remul_md.studies.figures import plain_numbers, style, write_panels
from remul_md.studies.lab import Task
from remul_md.studies.methods import METHODS
from remul_md.studies.report import BUDGET_TITLES, SMALL_PERCENT, Group, learned, read_results, tables_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROUNDING = 1e-3  # percent, or of the largest E': an exactly equivariant model would squeeze everything else


def write_plots(results: str | Path, folder: str | Path, *, task: Task[Any] | None = None) -> list[Path]:
    """Error against beta, percent and error against step, error against E', learning curves; returns the PNG files.

    Learning curves stand against computing time, too, where the study measured what a step costs.

    Args:
        results: file of results.
        folder: where the pictures go; made if it is not there.
        task: where it is none of `TASKS`.
    Raises:
        InputError: no file of results, or the folder cannot be written.
    """
    known, content = read_results(results, task=task)
    panels: dict[str, Sequence[Callable[[Axes], None]]] = {}
    for case, budget, found in tables_of(known, content):
        time = "_equal_time" if budget == "time" else ""
        name = f"{known.name}_{case}{time}".replace("-", "_")
        if _swept(found):
            panels[f"{name}_error_against_beta"] = [partial(_error_against_beta, found=found)]
        sides = (_percent_against_step, _error_against_step)
        panels[f"{name}_percent_against_step"] = [partial(side, found=found) for side in sides]
        panels[f"{name}_error_against_symmetry"] = [partial(_error_against_symmetry, found=found)]
        timed = all(group.seconds_a_step is not None for group in found)
        clocks = (_learning, _learning_by_time) if timed else (_learning,)
        panels[f"{name}_learning"] = [partial(clock, found=found) for clock in clocks]
    return write_panels(folder, panels)


def write_beta_figure(results: Sequence[str | Path], folder: str | Path) -> list[Path]:
    """One curve a case of several studies: error against beta, over the lowest of the curve; where is the best beta?

    Raises:
        InputError: see `write_plots`.
    """
    curves = [
        found
        for each in results
        for case, budget, found in tables_of(*read_results(each))
        if budget == "steps" and len(_swept(found)) > 1
    ]
    return write_panels(folder, {"error_against_beta_by_task": partial(_best_beta, curves=curves)}) if curves else []


def _swept(found: Sequence[Group]) -> dict[float, Group]:
    """The groups that differ by beta alone, in its order."""
    return dict(sorted((group.beta, group) for group in found if group.beta is not None))


def _of_same_seeds(found: Sequence[Group]) -> list[Group]:
    """The groups with the seeds that all have, since a seed may decide the data; as they are if there is none."""
    seeds = set.intersection(*({run["seed"] for run in group.runs} for group in found))
    kept = [replace(group, runs=[run for run in group.runs if run["seed"] in seeds]) for group in found]
    return kept if seeds else [*found]


def _best_beta(axes: Axes, curves: Sequence[list[Group]]) -> None:
    titles = [found[0].task.title for found in curves]
    for number, found in enumerate(curves):
        task, swept = found[0].task, _swept(found)
        means = np.array([group.values(task.errors[0]).mean() for group in _of_same_seeds([*swept.values()])])
        several = titles.count(task.title) > 1
        label = f"{task.title}, {task.cases[found[0].case]}" if several else task.title
        axes.plot([*swept], means / means.min(), label=label, **style(number))
    axes.set(xscale="log", yscale="log", xlabel="beta (alpha = 1)", ylabel="error over the lowest of the curve")
    plain_numbers(axes)


def _style(group: Group) -> dict[str, Any]:
    """Colour and marker: a method looks the same in all pictures of a task, models are told apart by the line."""
    place = [*group.task.models].index(group.model)
    shift = 17 + 3 * place if place else 0  # unlike those of the methods of the first model
    line = "-." if METHODS[group.method].about_axis else ("-", "--", ":", (0, (4, 1, 1, 1, 1, 1)))[place % 4]
    return {**style([*METHODS].index(group.method) + shift), "ls": line}


def _title(axes: Axes, found: Sequence[Group], text: str) -> None:
    first = found[0]
    axes.set_title(f"{first.task.cases[first.case]}, {BUDGET_TITLES[first.budget]}; {text}", fontsize=8, loc="left")


def _error_against_beta(axes: Axes, found: Sequence[Group]) -> None:
    # Beside the sweep its limits (no symmetry loss, nothing but rotated orientations) and what is exact.
    methods = ("plain", "augmentation", "augmentation-2")
    drawn = _of_same_seeds([group for group in found if group.beta is not None or group.method in methods])
    task, swept = found[0].task, _swept(drawn)
    limits = [group for group in drawn if group.method in methods]
    for color, name in zip(SERIES, task.errors[:2], strict=False):
        label = task.column(name).label
        values = [group.values(name) for group in swept.values()]
        means, spans = [v.mean() for v in values], [np.abs(v - v.mean()).max() for v in values]
        axes.errorbar([*swept], means, yerr=spans, color=color, marker="o", capsize=3, label=f"REMUL, {label}")
        for group, dashes in zip(limits, ("-", "--", "-.", ":", (0, (1, 3)), (0, (5, 5))), strict=False):
            named = group.label if name == task.errors[0] else None  # the dashes are the same in both colours
            axes.axhline(group.values(name).mean(), color=color, lw=0.9, ls=dashes, label=named)
    axes.set(xscale="log", yscale="log", xlabel="beta (alpha = 1)", ylabel=task.error_label)
    plain_numbers(axes)
    seeds = ", ".join(map(str, sorted({run["seed"] for group in drawn for run in group.runs})))
    _title(axes, found, f"bars span the seeds {seeds}" if "," in seeds else f"seed {seeds}")


def _against_step(
    axes: Axes,
    found: Sequence[Group],
    *,
    key: str,
    rows_of: Callable[[Any], Any],
    named: bool = True,
    unit_of: Callable[[Group], float] = lambda group: 1.0,
) -> None:
    for group in found:
        for number, run in enumerate(group.runs):
            # A run without rows draws nothing and still names its curve in the panel beside this one.
            x, y = (np.array([row[each] for row in rows_of(run)]) for each in ("step", key))
            label = group.label if named and number == 0 else None
            axes.plot(x * unit_of(group), y, label=label, lw=1.2, ms=3, **_style(group))
    axes.set(xscale="log", yscale="log", xlabel="step")


def _percent_against_step(axes: Axes, found: Sequence[Group]) -> None:
    below = found[0].task.learned_below

    def rows(run: Any) -> list[dict[str, float]]:
        return [row for row in learned(run, below=below) if row["percent"] > ROUNDING]

    _against_step(axes, found, key="percent", rows_of=rows)
    axes.axhline(SMALL_PERCENT, color=SOFT, lw=0.9, ls="--", label=f"{SMALL_PERCENT:g} %")
    axes.set_ylabel("share of the squared error, broken symmetry, %")
    plain_numbers(axes)
    _title(axes, found, f"from {'half the error of no output' if below is None else f'the error of {below}'} on")


def _error_against_step(axes: Axes, found: Sequence[Group]) -> None:
    _against_step(axes, found, key="error", rows_of=itemgetter("history"), named=False)
    axes.axhline(found[0].runs[0]["zero_error"], color=SOFT, lw=0.9, ls=":", label="output of 0")
    axes.set_ylabel("squared error a coordinate, all orientations")
    axes.set_title("averaged weights, validation", fontsize=8, loc="left")


def _error_against_symmetry(axes: Axes, found: Sequence[Group]) -> None:
    task, shown = found[0].task, found[0].task.errors[:2]
    largest = max(group.values(task.symmetry).max(initial=0.0) for group in found)
    for group in found:
        look, symmetry = _style(group), group.values(task.symmetry)
        if symmetry.max(initial=0.0) < ROUNDING * largest:
            level = group.values(shown[0]).mean()
            axes.axhline(level, color=look["color"], lw=0.9, ls="--", label=f"{group.label}: exact")
            continue
        axes.plot(symmetry, group.values(shown[0]), label=group.label, **{**look, "ls": "none", "ms": 6})
        axes.plot(symmetry, group.values(shown[-1]), **{**look, "ls": "none", "ms": 6, "mfc": "none"})
    for label, fill in zip((task.column(name).label for name in shown), ("black", "none"), strict=False):
        axes.plot([], [], "o", color="black", mfc=fill, label=f"{'filled' if fill == 'black' else 'open'}: {label}")
    axes.set(xscale="log", yscale="log", xlabel=task.column(task.symmetry).label, ylabel=task.error_label)
    plain_numbers(axes)
    _title(axes, found, "one point a seed")


def _learning(axes: Axes, found: Sequence[Group]) -> None:
    _against_step(axes, found, key="error", rows_of=itemgetter("learning"))
    axes.set_ylabel("validation error that chooses the weights")
    _title(axes, found, "averaged weights")


def _learning_by_time(axes: Axes, found: Sequence[Group]) -> None:
    """As `_learning`; where two curves cross, one network begins to pay."""
    seconds = attrgetter("seconds_a_step")
    _against_step(axes, found, key="error", rows_of=itemgetter("learning"), unit_of=seconds)
    axes.set_xlabel("computing time, s: steps times what one was measured to cost")
    axes.set_title("averaged weights", fontsize=8, loc="left")
