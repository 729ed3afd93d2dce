"""The campaign so far as markdown for a Prefect artifact: the sites of the last round, all rounds, plots.

Both user interfaces of Prefect 3.9.1 draw GitHub's tables and images from ``data:`` addresses (seen in a browser; their
sanitisers allow it for images alone), so the plots travel inside. What a site worded is shown as code: there, no
markdown, link or HTML is read.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from fedround.rounds.participation import Participation
from fedround.spoken import visible
from tasks.reporting import charts
from tasks.reporting.drift import render_drift
from tasks.reporting.markdown import code, table
from tasks.reporting.page import LAW, OUTCOMES, template
from tasks.reporting.participation import participation
from tasks.reporting.record import Metric, RoundRecord, SiteRow, check_campaign, drawn, metrics_of
from tasks.reporting.words import SIGNS, amount, decimals, significant, spent


def render_markdown(records: Sequence[RoundRecord]) -> str:
    """The rounds of one run, in order. Same records, same bytes. Raises ContractError for anything else."""
    last = check_campaign(records)
    shown = drawn(records)
    metrics = metrics_of(shown)
    return visible("\n\n".join([
        f"## Run {last.run}, round {last.round}: {last.updates} of {len(last.sites)} sites",
        f"### Sites in round {last.round}", _sites(last),
        *([] if (found := participation(records)) is None else ["### Who took part so far", _took_part(found), str(found)]),
        "### Rounds" if len(shown) == len(records) else f"### Rounds: {len(shown)} of {len(records)}",
        _rounds(shown, metrics),
        *([] if metrics else ["No metric has been measured yet."]),
        *([LAW] if any(record.at_sites_margin is not None for record in shown) else []),
        *([" ".join(plots)] if (plots := [_plot(chart) for chart in charts.metric_charts(shown, metrics)]) else []),
        *([] if last.drift is None else [render_drift(last.drift)]),
        *([f"About the gate: {code(last.note)}"] if last.note else []),
        *([f"Data contract: {code(last.contract)}"] if last.contract else []),
        f"Privacy: {last.privacy}. Model `{last.model[:12]}…`, {last.aggregation}, {last.optimizer}.",
    ])) + "\n"


def _plot(chart: charts.Line) -> str:
    svg = template("plot.svg.j2").render(chart=chart)
    return f"![{chart.summary}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _rounds(records: Sequence[RoundRecord], metrics: Sequence[Metric]) -> str:
    rows = [
        [str(record.round), f"{record.updates} / {len(record.sites)}",
         *(metric.told(record) for metric in metrics), spent(record.largest_epsilon),
         decimals(record.seconds, 1)]
        for record in reversed(records)]
    return table(["Round", "Sites", *(metric.label for metric in metrics), "Largest epsilon", "Seconds"], rows)


def _sites(record: RoundRecord) -> str:
    rows = [
        [code(row.site), f"{SIGNS[row.outcome]} {OUTCOMES[row.outcome]}", amount(row.weight), significant(row.norm),
         significant(row.influence), spent(row.epsilon), _why(row)]
        for row in record.sites]
    return table(["Site", "Outcome", "Weight", "Norm", "Influence", "Epsilon", "Why"], rows)


def _took_part(found: Participation) -> str:
    rows = [[code(part.site), f"{part.agreed:.1%}", f"{part.weight:.1%}", f"{part.asked} / {part.rounds}", str(part.answered),
             str(part.used)] for part in found.parts]
    return table(["Site", "Agreed share", "Share in the models", "Asked", "Answered", "Used"], rows)


def _why(row: SiteRow) -> str:
    return ", ".join(code(word) for word in ([row.note] if row.note else []) + list(row.checks))
