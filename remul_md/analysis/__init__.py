"""Checks of a run: functions on arrays, classes over them for MDAnalysis, and a report.

`energy`, `rotation`, `momentum`, `structure` and `temperature` measure, some of it against `training_statistics`;
`verdicts` judges; `trajectory` does all of it for one file; `vibrations` and `timestep` ask a potential, `comparison`
(over `distributions`) and `spectrum` a run; `mdanalysis` (the only module that imports MDAnalysis) works on a Universe;
`report` writes HTML and PNG.
`audit` checks any ASE calculator; `run_audit` is resolved on first use, so that the other modules load without it.
"""

from __future__ import annotations

from typing import Any

__all__ = ["run_audit"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'remul_md.analysis' has no attribute {name!r}")
    from remul_md.analysis.audit import run_audit

    return run_audit
