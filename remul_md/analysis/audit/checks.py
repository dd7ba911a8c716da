"""How an audit makes its verdicts: of the measures of a check, the one that is closest to its limit decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from remul_md.analysis.verdicts import Verdict


def measured(name: str, value: float, limit: float, unit: str) -> Verdict:
    """A measure of a check: at most `limit` is right, both in `unit`."""
    return Verdict(name=name, passed=value <= limit, value=value, threshold=limit, unit=unit, why="")


def worst_of(name: str, measures: Sequence[Verdict], why: str) -> Verdict:
    """A check of one or more measures, shown by the worst of them; the others stand in `why`."""
    ordered = sorted(measures, key=lambda measure: measure.ratio, reverse=True)
    worst = ordered[0]
    rest = "".join(f" Also: {measure.name} {measure.measured}." for measure in ordered[1:])
    return replace(worst, name=name, why=f"{worst.name[:1].upper()}{worst.name[1:]}. {why}{rest}")


def not_applicable(name: str, reason: str) -> Verdict:
    """A check that has no meaning for this structure."""
    why = f"Not applicable: {reason}."
    return Verdict(name=name, passed=None, value=None, threshold=None, unit="", why=why, applicable=False)


def not_measured(name: str, reason: str) -> Verdict:
    """A check during which the calculator gave no numbers."""
    why = f"Could not be measured: {reason}."
    return Verdict(name=name, passed=False, value=None, threshold=None, unit="", why=why)
