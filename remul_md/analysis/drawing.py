"""The one look of all pictures: paper, ink and one accent as in the reports, fonts that matplotlib brings along."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER, INK, SOFT, LINE, ACCENT = "#fbfaf7", "#23282d", "#66707a", "#e4e2dc", "#b8431f"  # as in report/style.css
# Of curves that stand side by side; each is told from its neighbours by its lightness, too.
SERIES = (
    *(INK, ACCENT, "#2f6f8f", "#7a8b2f", "#8a4f9e", "#c98a1b", "#4f7a6a", "#9a5a4a", "#5a6a9a"),
    *("#d6336c", "#0b9e8e", "#6b4e16", "#3b5bdb"),
)
STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so a picture is the same everywhere
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@contextmanager
def drawn_panels(n_panels: int, *, n_columns: int, inches: tuple[float, float]) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure in this look and its panels, row by row; to be drawn and saved inside the `with`.

    Args:
        n_panels: places of the last row that are not needed stay empty.
        n_columns: of panels.
        inches: width and height of the whole.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with mpl.rc_context(STYLE):
        # A canvas of its own: pyplot would keep global state and choose a display.
        figure = Figure(figsize=inches, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.05))
        FigureCanvasAgg(figure)
        n_rows = -(-n_panels // n_columns)
        yield figure, [figure.add_subplot(n_rows, n_columns, place + 1) for place in range(n_panels)]
