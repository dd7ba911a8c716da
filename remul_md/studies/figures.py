"""How the pictures of all studies look and are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remul_md.analysis.drawing import SERIES, drawn_panels
from remul_md.outputs import save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

MARKERS = "osD^vP<>X"
DPI = 160
MOST_INSIDE, HEIGHT_OF_NAME = 8, 0.17  # names in a picture beyond which they stand below it; inches
MANY_POWERS = 1e3  # from the lowest to the highest of an axis


def style(index: int) -> dict[str, Any]:
    """Colour and marker of the method with this number, unlike those of all others of a study."""
    return {"color": SERIES[index % len(SERIES)], "marker": MARKERS[(index + index // len(SERIES)) % len(MARKERS)]}


def plain_numbers(axes: Axes) -> None:
    """Label log axes with 30 instead of 3 x 10^1, also between the powers where few of them are seen."""
    from matplotlib.ticker import FuncFormatter

    def named(value: float, position: int | None, *, axis: Axis) -> str:
        low, high = axis.get_view_interval()
        # All nine between two powers would touch, and any of them where there are many powers.
        return f"{value:g}" if f"{value:e}"[0] in "1235" and high < MANY_POWERS * low else ""

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(FuncFormatter(partial(named, axis=axis)))


Draw = Callable[["Axes"], None]


def write_panels(folder: str | Path, panels: Mapping[str, Draw | Sequence[Draw]]) -> list[Path]:
    """One PNG a panel, named as it; returns the files.

    Args:
        folder: made if it is not there.
        panels: name -> function that draws into the axes, or several, whose axes stand side by side.
    Raises:
        InputError: the folder cannot be written.
    """
    target, written = Path(folder), []
    for name, given in panels.items():
        draws = [given] if callable(given) else given
        path = target / f"{name}.png"
        size = (6.4 * len(draws), 4.4)
        with drawn_panels(len(draws), n_columns=len(draws), inches=size) as (figure, places):
            below: dict[str, Any] = {}  # once, where several panels have the same names
            for axes, draw in zip(places, draws, strict=True):
                draw(axes)
                handles, names = axes.get_legend_handles_labels()
                if len(names) <= MOST_INSIDE:
                    axes.legend(fontsize=7.5)
                else:  # nowhere would they leave the curves free
                    below |= dict(zip(names, handles, strict=True))
            if below:
                columns = 2 * len(draws)
                figure.legend(below.values(), below.keys(), fontsize=7.5, ncols=columns, loc="outside lower center")
                figure.set_figheight(size[1] + HEIGHT_OF_NAME * len(below) / columns)
            save_picture(figure, path, dpi=DPI)
        written.append(path)
    return written
