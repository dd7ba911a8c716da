"""Reports: `write_report` makes one self-contained HTML page, `write_summary_png` one picture.

`collect_content` makes what the page shows besides the analysis; `report_data` is all of it as plain values.
`write_side_by_side` makes a page of several runs, `side_by_side_data` is what it shows.
"""

from __future__ import annotations

from remul_md.analysis.report.content import RunContent, collect_content
from remul_md.analysis.report.page import report_data, write_report
from remul_md.analysis.report.picture import write_summary_png
from remul_md.analysis.report.record import PotentialRecord
from remul_md.analysis.report.side_by_side import side_by_side_data, write_side_by_side
from remul_md.analysis.report.subject import Subject

__all__ = [
    "PotentialRecord",
    "RunContent",
    "Subject",
    "collect_content",
    "report_data",
    "side_by_side_data",
    "write_report",
    "write_side_by_side",
    "write_summary_png",
]
