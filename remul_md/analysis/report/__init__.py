"""Reports: `write_report` makes one self-contained HTML page, `write_summary_png` one picture."""

from __future__ import annotations

from remul_md.analysis.report.page import write_report
from remul_md.analysis.report.picture import write_summary_png

__all__ = ["write_report", "write_summary_png"]
