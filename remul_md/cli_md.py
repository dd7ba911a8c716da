"""What `remul-md md` prints of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remul_md.dynamics import MDResult, SimulationStopped


def run_rows(result: MDResult, *, potential: str) -> list[tuple[str, str]]:
    """Name and text of what there is to say of one run, and the command that judges it."""
    return [
        ("mean temperature", f"{result.mean_temperature_K:.0f} K ({result.n_degrees_of_freedom} degrees of freedom)"),
        ("speed", f"{result.steps_per_s:.0f} steps/s"),
        *([("H5MD", str(result.h5md))] if result.h5md else []),
        ("next", f"remul-md analyze {result.trajectory} --potential {potential} --report report.html"),
    ]


def replica_rows(outcomes: Sequence[MDResult | SimulationStopped]) -> list[tuple[str, str]]:
    """A line for each replica, and the speed of all of them together."""
    from remul_md.dynamics import MDResult

    rows, speed = [], 0.0
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, MDResult):
            rows.append((outcome.trajectory.name, f"{outcome.mean_temperature_K:.0f} K, {outcome.n_frames} frames"))
            speed += outcome.steps_per_s
        else:
            rows.append((f"replica {number}", str(outcome)))
    return [*rows, ("speed", f"{speed:.0f} steps/s, all replicas together")]
