"""The report of a round, as one HTML file and as a Prefect markdown artifact; and of a finding. Pure rendering: no Prefect,
no clock.
"""

from tasks.reporting.finding import render_finding
from tasks.reporting.page import render_html
from tasks.reporting.record import RoundRecord, SiteRow
from tasks.reporting.summary import render_markdown

__all__ = ["RoundRecord", "SiteRow", "render_finding", "render_html", "render_markdown"]
