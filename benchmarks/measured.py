"""What the tables of README and docs are made from: files of results, and the potentials that ship."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from remul_md.potentials.zoo import ShippedPotential, describe_shipped

ROOT = Path(__file__).resolve().parent.parent


def measured(name: str) -> dict[str, Any]:
    """A file of results/, by its name."""
    return dict(json.loads((ROOT / "results" / f"{name}.json").read_text()))


@cache
def described() -> list[ShippedPotential]:
    """The potentials that ship."""
    return describe_shipped(measure_latency=False)


def figures_of(row: ShippedPotential, ending: str = ".json") -> dict[str, Any]:
    """The figures beside a potential."""
    return dict(json.loads((ROOT / "data" / "potentials" / f"{row.name}{ending}").read_text()))
