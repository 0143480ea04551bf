"""Pictures and pages of a workspace: charts, the report as one HTML file, and what notebooks show.

`figures` asks the store for what a chart shows, bounded however many predictions there are; `charts` draws it; `page`
puts everything into one file; `cells` shows objects in notebooks.
"""

from n4a_fast.report.charts import Chart
from n4a_fast.report.page import ReportFile, write_report

__all__ = ["Chart", "ReportFile", "write_report"]
