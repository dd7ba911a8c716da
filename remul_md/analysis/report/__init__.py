"""Reports: `write_report` makes one self-contained HTML page, `write_summary_png` one picture.

`collect_content` makes what the page shows besides the analysis; `report_data` is all of it as plain values.
"""

from __future__ import annotations

from remul_md.analysis.report.content import RunContent, collect_content
from remul_md.analysis.report.page import report_data, write_report
from remul_md.analysis.report.picture import write_summary_png
from remul_md.analysis.report.record import PotentialRecord

__all__ = ["PotentialRecord", "RunContent", "collect_content", "report_data", "write_report", "write_summary_png"]
