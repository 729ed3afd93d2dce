"""The campaign so far as markdown for a Prefect artifact: plots, the sites of the last round, all rounds.

Both user interfaces of Prefect 3.9.1 draw GitHub's tables and images from ``data:`` addresses (seen in a browser; their
sanitisers allow it for images alone), so the plots travel inside. What a site worded is shown as code: there, no
markdown, link or HTML is read.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from tasks.reporting import charts
from tasks.reporting.page import OUTCOMES, template
from tasks.reporting.record import Metric, RoundRecord, SiteRow, check_campaign, metrics_of
from tasks.reporting.words import amount, decimals, plain, significant, spent

_SIGNS = {"updated": "✓", "left_out": "✕", "refused": "–", "rejected": "!", "missing": "…", "excluded": "○"}


def render_markdown(records: Sequence[RoundRecord]) -> str:
    """The rounds of one run, in order. Same records, same bytes. Raises ContractError for anything else."""
    last = check_campaign(records)
    metrics = metrics_of(records)
    return "\n\n".join([
        f"## Run {last.run}, round {last.round}: {last.updates} of {len(last.sites)} sites",
        " ".join(_plot(records, metric) for metric in metrics) or "No metric has been measured yet.",
        f"### Sites in round {last.round}", _sites(last),
        "### Rounds", _rounds(records, metrics),
        *([f"About the gate: {_code(last.note)}"] if last.note else []),
        f"Privacy: {last.privacy}. Model `{last.model[:12]}…`, {last.aggregation}, {last.optimizer}.",
    ]) + "\n"


def _plot(records: Sequence[RoundRecord], metric: Metric) -> str:
    chart = charts.metric_chart(records, metric)
    svg = template("plot.svg.j2").render(chart=chart)
    return f"![{chart.summary}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _rounds(records: Sequence[RoundRecord], metrics: Sequence[Metric]) -> str:
    rows = [
        [str(record.round), f"{record.updates} / {len(record.sites)}",
         *(decimals(metric.of(record)) for metric in metrics), spent(record.largest_epsilon),
         decimals(record.seconds, 1)]
        for record in reversed(records)]
    return _table(["Round", "Sites", *(metric.label for metric in metrics), "Largest epsilon", "Seconds"], rows)


def _sites(record: RoundRecord) -> str:
    rows = [
        [_code(row.site), f"{_SIGNS[row.outcome]} {OUTCOMES[row.outcome]}", amount(row.weight), significant(row.norm),
         significant(row.influence), spent(row.epsilon), _why(row)]
        for row in record.sites]
    return _table(["Site", "Outcome", "Weight", "Norm", "Influence", "Epsilon", "Why"], rows)


def _why(row: SiteRow) -> str:
    return ", ".join(_code(word) for word in ([row.note] if row.note else []) + list(row.checks))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    """Foreign words as a span of code. A backquote would end the span, a bar the cell: they become look-alikes."""
    return f"`{plain(text).replace('`', 'ˋ').replace('|', '¦') or ' '}`"
