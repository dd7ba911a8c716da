"""How the pictures of all studies look and are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remul_md.outputs import save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = (
    *("#23282d", "#b8431f", "#2f6f8f", "#7a8b2f", "#8a4f9e", "#c98a1b", "#4f7a6a", "#9a5a4a", "#5a6a9a"),
    *("#d6336c", "#0b9e8e", "#6b4e16", "#3b5bdb"),
)
MARKERS = "osD^vP<>X"
DPI = 160


def style(index: int) -> dict[str, Any]:
    """Colour and marker of the method with this number, unlike those of all others of a study."""
    return {"color": COLORS[index % len(COLORS)], "marker": MARKERS[(index + index // len(COLORS)) % len(MARKERS)]}


def plain_numbers(axes: Axes) -> None:
    """Label log axes with 30 instead of 3 x 10^1, also between the powers where few of them are seen."""
    from matplotlib.ticker import FuncFormatter

    def named(value: float, position: int | None = None) -> str:
        return f"{value:g}" if f"{value:e}"[0] in "1235" else ""  # all nine between two powers would touch

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(FuncFormatter(named))


Draw = Callable[["Axes"], None]


def write_panels(folder: str | Path, panels: Mapping[str, Draw | Sequence[Draw]]) -> list[Path]:
    """One PNG a panel, named as it; returns the files.

    Args:
        folder: made if it is not there.
        panels: name -> function that draws into the axes, or several, whose axes stand side by side.
    Raises:
        InputError: the folder cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    target, written = Path(folder), []
    for name, given in panels.items():
        draws = [given] if callable(given) else given
        figure = Figure(figsize=(6.4 * len(draws), 4.4), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        for place, draw in enumerate(draws):
            axes = figure.add_subplot(1, len(draws), place + 1)
            draw(axes)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=7.5)
        path = target / f"{name}.png"
        save_picture(figure, path, dpi=DPI)
        written.append(path)
    return written
