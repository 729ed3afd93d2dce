"""The report of a round as one HTML file that opens offline: no script, no network, light and dark, printable."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.reporting import charts, words
from tasks.reporting.record import RoundRecord, check_campaign

if TYPE_CHECKING:
    from jinja2 import Environment, Template

OUTCOMES = {"updated": "in the aggregate", "refused": "refused", "rejected": "not admitted", "missing": "no answer"}


def render_html(records: Sequence[RoundRecord]) -> str:
    """The report of the last of `records`, with the campaign so far. Same records, same bytes.

    Everything that comes from a site is escaped; the page forbids scripts and network of any kind.
    Raises ContractError unless the records are rounds of one run, in order.
    """
    last = check_campaign(records)
    return template("report.html.j2").render(
        records=records, last=last, before=records[-2] if len(records) > 1 else None, names=metric_names(records),
        lines=[chart for name in metric_names(records) if (chart := charts.metric_chart(records, name)) is not None],
        bars=[chart for draw in (charts.epsilon_chart, charts.norm_chart, charts.distance_chart)
              if (chart := draw(last)) is not None])


def metric_names(records: Sequence[RoundRecord]) -> list[str]:
    """Every metric that any round has, in the order in which they first appear."""
    return list(dict.fromkeys(name for record in records for name in record.metrics))


def template(name: str) -> Template:
    """A template of this folder, compiled once."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(decimals=words.decimals, significant=words.significant, amount=words.amount, spent=words.spent,
                               label=words.label, plain=words.plain, change=words.change)
    environment.globals.update(OUTCOMES=OUTCOMES)
    return environment
