"""Two runs side by side: what each reached, what it cost, and what was done differently. From their records alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.reporting.charts import Line, line, points_of
from tasks.reporting.page import LAW, template
from tasks.reporting.record import Metric, RoundRecord, check_campaign, metrics_of
from tasks.reporting.words import amount, decimals, moment, spent

Campaign = Sequence[RoundRecord]
"""The rounds of one run, in order."""


@dataclass(frozen=True)
class Fact:
    """One thing of both runs, in words."""

    what: str
    one: str
    other: str
    apart: str = ""
    """How far the second is from the first, where that is a number."""


def results(one: Campaign, other: Campaign) -> list[Fact]:
    """What the last rounds reached and what the runs cost. Raises ContractError unless each is of one run, in order."""
    first, second = check_campaign(one), check_campaign(other)
    metrics = [Fact(metric.label, metric.told(first), metric.told(second), metric.moved(second, first))
               for metric in metrics_of((*one, *other))]
    costs: list[tuple[str, Callable[[Campaign], str]]] = [
        ("Last round", lambda run: str(run[-1].round)),
        ("Committed", lambda run: "–" if run[-1].ended is None else moment(run[-1].ended)),
        ("Sites in the last aggregate", lambda run: f"{run[-1].updates} of {len(run[-1].sites)}"),
        ("Largest epsilon", lambda run: _of_limit(run[-1])),
        ("Uploaded bytes", _uploaded),
        ("Seconds", lambda run: decimals(sum(record.seconds for record in run), 1)),
        ("Public rows", lambda run: "–" if run[-1].public is None else str(run[-1].public.rows))]
    return [*metrics, *(Fact(what, of(one), of(other)) for what, of in costs)]


def differences(one: RoundRecord, other: RoundRecord) -> list[Fact]:
    """What was done differently in these two rounds."""
    said: list[tuple[str, Callable[[RoundRecord], str]]] = [
        ("Federation", lambda record: record.federation), ("Aggregation", lambda record: record.aggregation),
        ("Local training", lambda record: record.training), ("Server optimizer", lambda record: record.optimizer),
        ("Compression", lambda record: record.compression), ("Quorum", lambda record: str(record.quorum)),
        ("Privacy", lambda record: record.privacy), ("Reputation", lambda record: record.reputation),
        ("Data contract", lambda record: record.contract),
        ("Contract's digest", lambda record: "" if record.lineage is None else record.lineage.contract_digest),
        ("Recipe's digest", lambda record: "" if record.lineage is None else record.lineage.recipe_digest),
        ("Sites", lambda record: ", ".join(sorted(row.site for row in record.sites)))]
    return [Fact(what, of(one) or "–", of(other) or "–") for what, of in said if of(one) != of(other)]


def render_comparison(one: Campaign, other: Campaign) -> str:
    """A page that lies beside the index. Same records, same bytes. Raises ContractError as `results` does."""
    found = results(one, other)
    return template("compare.html.j2").render(
        one=one[-1], other=other[-1], results=found, differences=differences(one[-1], other[-1]),
        pairs=[_pair(metric, one, other) for metric in metrics_of(one) if metric in metrics_of(other)],
        law=LAW if any(record.at_sites_margin is not None for record in (*one, *other)) else "")


def _pair(metric: Metric, one: Campaign, other: Campaign) -> tuple[Line, Line]:
    """Both runs' curves on the same axes."""
    both = [points_of(run, metric) for run in (one, other)]
    first, second = (line(f"{run[-1].run}: {metric.label}", points, [point for points in both for point in points])
                     for run, points in zip((one, other), both, strict=True))
    return first, second


def _uploaded(run: Campaign) -> str:
    """By all sites in all rounds; a round without a size is of a version that did not write it."""
    sizes = [record.uploaded_bytes for record in run]
    return amount(sum(sizes)) if all(sizes) else "–"


def _of_limit(record: RoundRecord) -> str:
    return spent(record.largest_epsilon) + ("" if record.epsilon_limit is None else f" of {amount(record.epsilon_limit)}")
