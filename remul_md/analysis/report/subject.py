"""One run among several on a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from remul_md.analysis.report.record import PotentialRecord
from remul_md.analysis.spectrum import Spectrum
from remul_md.analysis.trajectory import TrajectoryAnalysis

MAX_RUNS = 6  # as many looks as `draw.js` has for them


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """One run of the page.

    Args:
        name: what the reader calls it, such as `ethanol@exact`.
        analysis: of the run.
        record: of its potential, where that is known.
        spectrum: density of states of the run.
        call_ms: CPU time of energy and forces of one geometry; None where no calculator is known.
        provenance: what made it, as it is.
    """

    name: str
    analysis: TrajectoryAnalysis
    record: PotentialRecord | None = None
    spectrum: Spectrum | None = None
    call_ms: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def force_error_meV_per_A(self) -> tuple[float, str] | None:
        """What is known of the accuracy, and on which frames; None where nothing is."""
        if self.record is None:
            return None
        figures = self.record.figures
        if figures is not None and figures.get("force_mae_rotated") is not None:
            return float(figures["force_mae_rotated"]), str(figures.get("data", "test frames"))
        known = self.record.validation_force_mae_meV_per_A
        return None if known is None else (known, "validation frames")
