"""Drift over the federation: when its columns are counted, and what the counts say.

A measurement is a question like any other (`tasks.ask`). What is judged are the sites' signed answers to it, so the judgement
can be made again from the store at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from fedround.drift.judge import Drift, DriftAsked, Told, judge
from fedround.drift.spec import DriftWatch
from fedround.errors import ContractError
from fedround.files import make_folders, write_whole
from fedround.privacy.spec import NoPrivacy
from fedround.promotion import Measured
from fedround.statistics import Release
from fedround.statistics.base import Float64
from fedround.statistics.partitions import Partition, PartitionName
from fedround.values import Name, parse
from infra.history import findings, read_commit, read_finding, read_plan_at
from tasks.ask import MeasurementRequest, totals_of
from tasks.collect import read_again
from tasks.coordinator import Coordinator
from tasks.partition import partition_of
from tasks.plan import Planned
from tasks.requests import RoundRequest
from validation.drift import check_same, distances

_ALL = "all-together"


class DriftRequest(RoundRequest):
    """Count what the federation watches, once more, in a run of its own."""

    run: Annotated[Name, Field(
        default="watch", title="Run",
        description="In which the measurements are kept, and compared with its first.")] = "watch"
    partition: Annotated[PartitionName | None, Field(
        default=None, title="Partition", examples=["2026-w48"],
        description="Whose rows are counted, if the federation file tells rows apart. Empty: the last that is over.")] = None


def due(coordinator: Coordinator, request: RoundRequest, number: int) -> MeasurementRequest | None:
    """What to ask after this round of a campaign; None: nothing."""
    watch = coordinator.federation.drift
    if watch is None or not watch.is_due(number):
        return None
    commit = read_commit(coordinator.store, request.run, number, coordinator.key).commit
    return _question(request, watch, partition_of(coordinator, commit))


def question(coordinator: Coordinator, request: DriftRequest, today: date) -> MeasurementRequest:
    """What to ask now. Raises ContractError if the federation watches nothing, or the partition is not to be had."""
    watch = coordinator.federation.drift
    if watch is None:
        raise ContractError("this federation watches nothing: agree on [drift] in its settings (docs/drift.md)")
    if watch.calibration and not coordinator.last_round(request.run):
        raise ContractError(f"run '{request.run}' has no model whose calibration could be watched: name the run of the model "
                            "that is in use (--run)")
    told_apart = watch.partitions
    if told_apart is None:
        if request.partition is not None:
            raise ContractError("this federation does not tell rows apart: agree on 'partitions' in [drift], or name none")
        return _question(request, watch, None)
    if request.partition is None and told_apart.by == "value":
        raise ContractError("partitions by value have no order: say which with --partition")
    name = request.partition or told_apart.before(today)
    return _question(request, watch, Partition(column=told_apart.column, by=told_apart.by, name=name))


def _question(request: RoundRequest, watch: DriftWatch, part: Partition | None) -> MeasurementRequest:
    return MeasurementRequest(run=request.run, quorum=request.quorum, deadline_s=request.deadline_s,
                              statistics=watch.statistics, partition=part)


def drift_after(coordinator: Coordinator, run: str, number: int) -> Drift | None:
    """What the run's newest measurement up to this round says; None: there is none. Raises as `judgements`."""
    return next((one for one in reversed(judgements(coordinator, run)) if one.round <= number), None)


def judgements(coordinator: Coordinator, run: str) -> list[Drift]:
    """What each measurement of the run says, in order. Those that were not judged yet are, and are written down.

    They follow from the store alone. Sites that are members no longer are left out of new ones. Raises ContractError if
    Evidently measures another distance than we do.
    """
    watch, found = coordinator.federation.drift, list[Drift]()
    if watch is None:
        return found
    asked = _asked(coordinator, run, watch)
    for place, one in enumerate(asked):
        path = coordinator.reports / run / "drift" / f"{one.plan.round:05d}-{one.plan.attempt:02d}.json"
        if (known := _known(path)) is None:
            known = _judged(coordinator, watch, asked[:place + 1], found[-1] if found else None)
            make_folders(path.parent, mode=0o700)
            write_whole(path, known.model_dump_json(indent=1).encode(), durable=True)
        found.append(known)
    return found


def _known(path: Path) -> Drift | None:
    try:
        return parse(Drift, path.read_bytes(), str(path))
    except (OSError, ContractError):
        return None


def _asked(coordinator: Coordinator, run: str, watch: DriftWatch) -> list[Planned]:
    """The run's measurements of what is watched now, in order."""
    store, key, found = coordinator.store, coordinator.key, []
    for number, attempt in sorted(findings(store, run, "measure")):
        plan, named = read_plan_at(store, run, number, attempt, "measure", key)
        if plan.asks.statistics == watch.statistics:
            found.append(Planned(plan, named, read_commit(store, run, number, key)))
    return found


def _told(coordinator: Coordinator, asked: Planned) -> Told:
    """What the sites answered, of those that are members still. Each answer is proven by the site's key. What only all say
    together stands as of one site.
    """
    plan, members = asked.plan, {site.name for site in coordinator.federation.sites}
    finding = read_finding(coordinator.store, plan.run, plan.round, plan.attempt, "measure", coordinator.key)
    if finding.sum is not None:
        return {_ALL: finding.totals}
    gone = tuple(set(plan.cohort) - {told.site for told in finding.answers} & members)
    answers = read_again(coordinator, asked, gone).answers
    return {site: answer.releases for site, answer in sorted(answers.items())}


def _together(told: Sequence[Told]) -> Told:
    """Several measurements as one: each site's counts added up, and their noise."""
    sites = sorted({site for one in told for site in one})
    return {site: totals_of([tuple(one[site]) for one in told if site in one]) for site in sites}


def evidence(drift: Drift | None) -> Measured | None:
    """The largest change over all sites, for the decision about a model."""
    if drift is None or (largest := drift.largest) is None or largest.low is None or largest.high is None:
        return None
    return Measured(
        value=largest.estimate, low=max(shift.low or 0.0 for shift in drift.whole),
        high=max(shift.high or 0.0 for shift in drift.whole), round=drift.round,
        words=f"Jensen-Shannon distance of '{largest.column}' over {len(drift.sites)} sites between {drift.first} and "
              f"{drift.when}, without what noise and chance add; the interval holds for all {len(drift.whole)} columns "
              "together in 95 of 100 cases")


def _judged(coordinator: Coordinator, watch: DriftWatch, asked: Sequence[Planned], before: Drift | None) -> Drift:
    privacy, here, reference = asked[-1].plan.agreed.privacy, asked[-1], asked[:watch.reference]
    now = _told(coordinator, here)
    first = None if len(asked) <= watch.reference else _together([_told(coordinator, one) for one in reference])
    found = judge(DriftAsked(
        watch=watch, round=here.plan.round, when=_when(here), seed=int(here.digest[:15], 16),
        first=_when(reference[0]) if len(reference) == 1 else f"{_when(reference[0])} to {_when(reference[-1])}",
        same_model=all(one.plan.base_model == here.plan.base_model for one in reference),
        level=watch.level(0 if isinstance(privacy, NoPrivacy) else privacy.rounds)), first, now, before)
    if first is not None:
        _hold_against_evidently(watch, first, now, found)
    return found


def _when(asked: Planned) -> str:
    part = asked.plan.asks.partition
    return f"round {asked.plan.round}" if part is None else part.name


def _hold_against_evidently(watch: DriftWatch, first: Told, now: Told, found: Drift) -> None:
    both = sorted(first.keys() & now.keys())
    if not both:
        return
    tables = {watched.column: (_sum(first[site][place] for site in both), _sum(now[site][place] for site in both))
              for place, watched in enumerate(watch.columns)}
    check_same({shift.column: shift.distance for shift in found.whole}, distances(tables, watch.method))


def _sum(releases: Iterable[Release]) -> Float64:
    return np.asarray(np.sum([one.table for one in releases], axis=0))
