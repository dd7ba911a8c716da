"""The verdicts of an audit: what a check is, and how the one of its measures that is closest to its limit decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Check:
    """One verdict.

    Args:
        name: one of `NAMES`.
        passed: whether it keeps its limit; True for what does not apply to the structure.
        value: the number judged, in `unit`; None where there is none: not applicable, or the calculator failed.
        threshold: its limit, in `unit`.
        unit: of both.
        why: what the number means, other measures of the check, and where it was taken.
    """

    name: str
    passed: bool
    value: float | None
    threshold: float | None
    unit: str
    why: str

    @property
    def applicable(self) -> bool:
        """Whether the check could be made."""
        return self.value is not None or not self.passed

    def to_json(self) -> dict[str, Any]:
        """The six fields as they are."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number with its limit, both in `unit`."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def ratio(self) -> float:
        """Value over limit; a check passes up to 1."""
        return self.value / self.limit

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2g} {self.unit} (limit {self.limit:.2g})"


def judged(name: str, measures: Sequence[Measure], why: str) -> Check:
    """A check of one or more measures, shown by the worst of them; the others stand in `why`."""
    ordered = sorted(measures, key=lambda measure: measure.ratio, reverse=True)
    worst = ordered[0]
    rest = "".join(f" Also: {measure}." for measure in ordered[1:])
    return Check(
        name=name,
        passed=worst.ratio <= 1.0,
        value=worst.value,
        threshold=worst.limit,
        unit=worst.unit,
        why=f"{worst.name[:1].upper()}{worst.name[1:]}. {why}{rest}",
    )


def not_applicable(name: str, reason: str) -> Check:
    """A check that has no meaning for this structure."""
    return Check(name=name, passed=True, value=None, threshold=None, unit="", why=f"Not applicable: {reason}.")


def failed(name: str, reason: str) -> Check:
    """A check during which the calculator gave no numbers."""
    return Check(name=name, passed=False, value=None, threshold=None, unit="", why=f"Could not be measured: {reason}.")
