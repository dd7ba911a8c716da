"""The table of the N-body study beside the published figures, from a file of results alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remul_md.errors import InputError
from remul_md.studies.jobs import read_json
from remul_md.studies.nbody.methods import METHODS
from remul_md.studies.summary import lowest, mean_and_scatter, step_of_percent

# Mean squared error x 1e-3, 100 training systems: (in distribution, outside). Elhag et al., arXiv:2410.17878, table 1.
PUBLISHED = {"plain": (8.99, 27.06), "augmentation": (4.20, 4.21), "remul": (1.94, 1.83)}
PUBLISHED_OTHERS = {"GATr": (1.49, 1.41), "SE(3)-Transformer": (5.16, 4.85)}
CLOSE_RATIO = 1.5


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """What a method reached: one value a seed in each array."""

    name: str
    label: str
    train_mse: NDArray[np.float64]
    id_mse: NDArray[np.float64]
    ood_mse: NDArray[np.float64]
    equivariance_norm: NDArray[np.float64]
    percent: NDArray[np.float64]
    twirled_mse: NDArray[np.float64]
    train_seconds: NDArray[np.float64]
    runs: list[dict[str, Any]]

    @property
    def ratio(self) -> float:
        """Error outside the distribution over that inside; of the means over seeds."""
        return float(self.ood_mse.mean() / self.id_mse.mean())

    @property
    def beta(self) -> float | None:
        """Weight of the equivariance loss of the methods whose only difference it is; None for all others."""
        options = METHODS[self.name].train
        swept = set(options) == {"alpha", "beta"} and options["alpha"] > 0 and options["beta"] > 0
        return float(options["beta"]) if swept else None


def summaries(results: str | Path) -> list[MethodSummary]:
    """The methods of a file of results, in its order.

    Raises:
        InputError: no file of results of this study, or a method in it that this version does not know.
    """
    path = Path(results)
    content = read_json(path)
    if content.get("study") != "nbody" or not content.get("runs"):
        raise InputError(f"{path}: holds no results of the N-body study; make them with `remul-md study nbody`")
    methods: dict[str, list[dict[str, Any]]] = {}
    for run in content["runs"]:
        methods.setdefault(run["method"], []).append(run)
    unknown = sorted(methods.keys() - METHODS.keys())
    if unknown:
        raise InputError(
            f"{path}: methods {', '.join(unknown)} are unknown to this version; known: {', '.join(METHODS)}"
        )
    names = ("train_mse", "id_mse", "ood_mse", "equivariance_norm", "percent", "twirled_mse", "train_seconds")
    return [
        MethodSummary(
            name=method,
            label=METHODS[method].label,
            runs=runs,
            **{name: np.array([run[name] for run in runs], dtype=np.float64) for name in names},
        )
        for method, runs in methods.items()
    ]


def markdown_table(results: str | Path) -> str:
    """Errors and symmetry of every method beside the published ones: mean and standard deviation over seeds."""
    methods = summaries(results)
    lines = [
        "| method | seeds | train | in distribution | outside | outside / in | published in / outside | E' x 1e-3 "
        "| percent | steps to 2 % | lowest percent (step) | best step | training, s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method in methods:
        published = PUBLISHED.get("remul" if method.beta is not None else method.name)
        steps = [step_of_percent(run["history"], key="percent") for run in method.runs]
        cells = [
            method.label,
            str(len(method.runs)),
            mean_and_scatter(1e3 * method.train_mse),
            mean_and_scatter(1e3 * method.id_mse),
            mean_and_scatter(1e3 * method.ood_mse),
            f"{method.ratio:.2f}",
            f"{published[0]:.2f} / {published[1]:.2f}" if published else "",
            mean_and_scatter(1e3 * method.equivariance_norm),
            mean_and_scatter(method.percent),
            ", ".join("never" if step is None else str(step) for step in steps),
            ", ".join("{:.2g} ({})".format(*lowest(run["history"], key="percent")) for run in method.runs),
            ", ".join(str(run["best_step"]) for run in method.runs),
            f"{method.train_seconds.mean():.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    baselines = {
        name: np.mean([run["baselines"][name] for method in methods for run in method.runs]) for name in _BASELINES
    }
    for name, label in _BASELINES.items():
        lines.append(
            f"| {label} | | | {1e3 * baselines[name]:.2f} | {1e3 * baselines[name]:.2f} | 1.00 | | | | | | | |"
        )
    for label, (inside, outside) in PUBLISHED_OTHERS.items():
        lines.append(f"| {label} (not run) | | | | | | {inside:.2f} / {outside:.2f} | | | | | | |")
    return "\n".join([*lines, "", *verdicts(methods)])


_BASELINES = {"straight_line": "straight line x + 0.1 v", "copy": "no motion"}


def verdicts(methods: list[MethodSummary]) -> list[str]:
    """One sentence a method: does the error outside stay within 1.5 times that inside?"""
    return [
        f"- {method.label}: outside is {method.ratio:.2f} x in distribution, "
        f"{'within' if method.ratio <= CLOSE_RATIO else 'NOT within'} {CLOSE_RATIO:g} x."
        for method in methods
    ]
