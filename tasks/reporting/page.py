"""The report of a round as one HTML file that opens offline: no script, no network, light and dark, printable."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fedround.privacy.profile import upward
from fedround.spoken import one_line
from tasks.reporting import charts, contribution, explained, groups, heatmap, so_far, whisker_plot, words
from tasks.reporting.gap_plot import gap_plots
from tasks.reporting.participation import participation
from tasks.reporting.record import Links, RoundRecord, check_campaign, drawn, foremost, local, metrics_of
from tasks.reporting.verified import Verified, is_doubtful, said_of

if TYPE_CHECKING:
    from jinja2 import Environment, Template

OUTCOMES = {"updated": "in the aggregate", "left_out": "left out", "refused": "refused", "rejected": "not admitted",
            "missing": "no answer", "excluded": "not asked"}

LAW = ("Bars and ± are the noise alone: 95 of 100 repeats of the noise that each site added, Gaussian on every count, lie "
       "within. A change that is smaller says nothing of the model. Which rows happen to be held out is not in them.")
"""From which law the margins of what is noised come (`fedround.learning.tasks.Margin`)."""


def render_html(records: Sequence[RoundRecord], links: Links | None = None,
                verified: Verified | None = None) -> str:
    """The report of the last of `records`, with the campaign so far. Same records, same bytes.

    links: None for a page that stands alone; otherwise it lies beside the pages of the other rounds, below the index.
    verified: what the last `fedround verify` of the run found; None: nobody proved it here.
    Everything that comes from a site is escaped; the page forbids scripts and network of any kind.
    Raises ContractError unless the records are rounds of one run, in order.
    """
    last = check_campaign(records)
    shown = drawn(records)
    metrics = metrics_of(shown)
    bars = [chart(last) for chart in (charts.norm_chart, charts.distance_chart, charts.influence_chart, charts.epsilon_chart)]
    maps = [heatmap.distance_map(last), heatmap.history_map(records)]
    spending = charts.spending_chart(shown)
    target, milestones = so_far.milestones(records)
    return template("report.html.j2").render(
        forecast=so_far.forecast(last), spending=spending, target=target, milestones=milestones,
        downloads=so_far.downloads(records),
        took_part=participation(records), **_groups(records), **_contribution(last), **_explained(last), shown=shown,
        rounds=len(records), last=last, links=links,
        doubtful=is_doubtful(verified, last), proof=said_of(verified, last),
        before=records[-2] if len(records) > 1 else None, metrics=metrics,
        reached=foremost(last.public), locally=_locally(last), lines=charts.metric_charts(shown, metrics),
        noised=any(record.at_sites_margin is not None for record in shown), curves=charts.site_charts(shown),
        bars=[chart for chart in bars if chart is not None], maps=[chart for chart in maps if chart is not None])


def _groups(records: Sequence[RoundRecord]) -> dict[str, object]:
    """The newest comparison of groups so far, of whichever round."""
    found = next((record.fairness for record in reversed(records) if record.fairness is not None), None)
    if found is None:
        return {"groups": None}
    return {"groups": found, "gap_plots": gap_plots(found, groups.TITLES), "said_of_groups": groups.said_of(found),
            "RATES": groups.RATES, "rate_in_words": groups.rate_in_words, "records_in_words": groups.records_in_words}


def _contribution(record: RoundRecord) -> dict[str, object]:
    if record.contribution is None:
        return {}
    said = record.contribution.said
    return {"contributions": whisker_plot.of_contribution(said), "said_of_contribution": contribution.said_of(said),
            "added": contribution.added, "points": contribution.points}


def _explained(record: RoundRecord) -> dict[str, object]:
    if record.explained is None:
        return {}
    found = record.explained
    return {"calibration": None if found.reliability is None else whisker_plot.of_reliability(found.reliability),
             "importances": whisker_plot.of_importance(found), "drops": whisker_plot.of_drops(found),
            "pulls": whisker_plot.of_pulls(found),
            "said_of_model": explained.said_of(found), "chosen": explained.chosen(found),
            "of_costs": explained.of_costs(found), "costs_head": explained.HEAD}


def _locally(record: RoundRecord) -> str:
    """The word for what the column of the sites' own evaluation tells."""
    known = (foremost(found) for found in (*(row.local for row in record.sites), record.public))
    return next((told[0] for told in known if told is not None), "metric")


def template(name: str) -> Template:
    """A template of this folder, compiled once."""
    return _environment().get_template(name)


def _foreign(value: object) -> object:
    """What a template fills in, on one line and without characters that change the direction of writing.

    The template then escapes it. No space stays at either end, and a template's own words between braces are no exception.
    This is not for what a template has drawn itself.
    """
    return one_line(value) if type(value) is str else value


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_foreign)
    for word in (words.decimals, words.significant, words.amount, words.spent, words.fault, words.moment,
                 words.with_margin, upward):
        environment.filters[word.__name__] = word
    environment.filters.update(foremost=foremost, local=local)
    environment.globals.update(OUTCOMES=OUTCOMES, LAW=LAW)
    return environment
