"""Audit of any ASE calculator: is it fit for molecular dynamics?

`limits` says what is good enough and why; `probe` asks the calculator; `invariance`, `derivatives`, `smoothness` (on
the `paths` it scans) and `nve` measure; `judge` makes verdicts of it (`checks`); `run` does all of it;
`report` writes HTML.
"""

from __future__ import annotations

from remul_md.analysis.audit.limits import Limits
from remul_md.analysis.audit.run import AuditResult, run_audit

__all__ = ["AuditResult", "Limits", "run_audit"]
