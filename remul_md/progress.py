"""The one progress bar of everything that takes longer than a few seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def progress_bar(
    over: Iterable[Any] | None = None,
    *,
    shown: bool,
    unit: str,
    total: int | None = None,
    initial: int = 0,
    desc: str | None = None,
) -> tqdm[Any]:
    """A bar on stderr: every fifth of a second on a terminal, a line now and then in a log file.

    Args:
        over: what is gone through, an item a unit; without it the caller counts.
        shown: nothing is written otherwise.
        unit: what is counted.
        total: when it is full, in units; by default as many as `over` has.
        initial: what was done before.
        desc: in front of the bar.
    """
    from tqdm import tqdm

    return tqdm(
        over,
        total=total,
        initial=initial,
        unit=unit,
        desc=desc,
        disable=not shown,
        mininterval=0.2 if sys.stderr.isatty() else 10.0,
        dynamic_ncols=True,
    )


def update_untimed(bar: tqdm[Any]) -> None:
    """Count a unit that took much longer than the others will, such as a step that was compiled first.

    It is done, but the clock of the bar begins after it: else the first estimates would be hours too long.
    """
    if bar.disable:
        return
    bar.n += 1
    bar.initial += 1
    bar.last_print_n += 1
    bar.unpause()
