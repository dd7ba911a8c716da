"""What docs/audit.md says an audit finds, and how seldom it is wrong, from the figures that its tables are made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from remul_md.analysis import run_audit

ROOT = Path(__file__).parents[1]


def measured(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8")))


def test_honest_calculators_are_seldom_accused() -> None:
    rows = measured("audit_honest")["rows"]
    assert sum(row["runs"] for row in rows) >= 200
    assert sum(len(row["false_alarms"]) for row in rows) <= 3
    for row in rows:
        accused = set(row["failed"]) - set(row["rightly"])
        assert bool(accused) == bool(row["false_alarms"]), row["kind"]


def test_every_kind_of_planted_fault_is_found_in_its_largest_size() -> None:
    rows = measured("audit_faults")["rows"]
    found = {(row["fault"], row["where"]): row["found_by"] for row in rows}
    for (fault, where), by_size in found.items():
        assert by_size[list(by_size)[-1]], (fault, where)
    # Steps of 10 meV, wherever they are; the torsion among them was never looked at.
    steps = {where: by_size["10"] for (fault, where), by_size in found.items() if fault == "step"}
    assert steps.keys() == {"bond", "angle", "torsion", "pair", "lab frame"}
    assert all(steps.values())
    assert "smoothness" in steps["torsion"]
    assert found["scale", "forces of H"]["0.3"]
    assert {"rotation"} <= set(found["anisotropy", "bond, lab frame"]["20"])


def test_the_molecule_that_faults_are_planted_into_is_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from audit_molecule import Fault, springs

    atoms = springs("CH3OH", rattle_A=0.02)
    result = run_audit(atoms)
    assert result.passed
    assert {check.outcome for check in result.checks} == {"passed"}
    noisy = Fault(name="noise", where="everywhere", unit="eV", sizes=(1e-3,), noise=1.0)
    atoms = springs("CH3OH", fault=noisy, size=1e-3, rattle_A=0.02)
    assert {c.name for c in run_audit(atoms, only=["repeatability"]).checks if not c.passed} == {"repeatability"}
