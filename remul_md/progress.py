"""The one progress bar of everything that takes longer than a few seconds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def progress_bar(*, shown: bool, total: int, unit: str, initial: int = 0, desc: str | None = None) -> tqdm[Any]:
    """A bar on stderr: every fifth of a second on a terminal, a line now and then in a log file.

    Args:
        shown: nothing is written otherwise.
        total: when it is full, in units.
        unit: what is counted.
        initial: what was done before.
        desc: in front of the bar.
    """
    from tqdm import tqdm

    return tqdm(
        total=total,
        initial=initial,
        unit=unit,
        desc=desc,
        disable=not shown,
        mininterval=0.2 if sys.stderr.isatty() else 10.0,
        dynamic_ncols=True,
    )
