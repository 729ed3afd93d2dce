"""How a committed model decides about the groups that the federation watches: the question, and what its finding says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedround.fairness_of_groups import GroupFairness, SiteFairness
from fedround.records import Commit, Finding, Plan
from fedround.statistics import Groups, Release
from infra.documents import NOT_OURS, read_federation
from infra.history import findings, read_commit, read_finding, read_plan
from tasks import evidence
from tasks.ask import MeasurementRequest
from tasks.coordinator import Coordinator
from tasks.partition import partition_of
from tasks.report import record_groups
from validation.group_cells import CountedGroup
from validation.group_gaps import CONFIDENCE, judged, shares, together

_DRAWS = 500
"""For each site."""


def question(coordinator: Coordinator, run: str, number: int) -> MeasurementRequest | None:
    """What to ask all sites before this round's model is promoted; None: nothing is watched, or it was asked already, or a
    later round is committed: sites answer only about the newest model that they have seen, so that one stays "not measured".
    """
    groups = coordinator.federation.groups
    if groups is None:
        return None
    commit = read_commit(coordinator.store, run, number, coordinator.key).commit
    if _finding(coordinator, groups, commit) is not None:
        return None
    if coordinator.last_round(run) != number:
        return None
    return MeasurementRequest(run=run, statistics=groups.about(commit.model), partition=partition_of(coordinator, commit))


def compared(coordinator: Coordinator, commit: Commit) -> GroupFairness | None:
    """What was counted about this round's model; None: nothing is watched, or nobody was asked."""
    groups = coordinator.federation.groups
    found = None if groups is None else _finding(coordinator, groups, commit)
    if groups is None or found is None:
        return None
    finding, plan = found
    members = read_federation(coordinator.store, plan.federation_digest, coordinator.key, "federation file")
    # The draws follow from what is signed: the same finding, the same intervals.
    seed = np.random.SeedSequence(int(finding.plan, 16))
    drawn, *of_sites = (np.random.default_rng(one) for one in seed.spawn(1 + len(finding.answers)))
    whole = judged(_counted(groups, finding.totals), groups.smallest, drawn)
    sites = tuple(
        _of_site(told.site, groups, evidence.answer(coordinator.store, members, plan, finding.plan, told).releases, generator)
        for told, generator in zip(finding.answers, of_sites, strict=True) if finding.sum is None)
    return GroupFairness(round=commit.round, threshold=groups.threshold, own=groups.own, confidence=CONFIDENCE,
                         smallest=groups.smallest, sites=sites, rates=whole.rates, gaps=whole.gaps)


def tell(coordinator: Coordinator, commit: Commit) -> None:
    """Put what is known of this round's model into the round's record and page. Nothing, if nothing is."""
    if (found := compared(coordinator, commit)) is not None:
        record_groups(coordinator, found, commit.run)


def _of_site(site: str, groups: Groups, releases: Sequence[Release], generator: np.random.Generator) -> SiteFairness:
    counted = _counted(groups, releases)
    everybody, = judged([together(counted)], groups.smallest, generator, _DRAWS, by=shares).rates
    return SiteFairness(site=site, recall=everybody.recall, precision=everybody.precision,
                        gaps=judged(counted, groups.smallest, generator, _DRAWS, by=shares).gaps)


def _counted(groups: Groups, releases: Sequence[Release]) -> list[CountedGroup]:
    return [CountedGroup(one.of.column, one.labels, release.table, release.noise_std)
            for one, release in zip(groups.watched, releases, strict=True)]


def _finding(coordinator: Coordinator, groups: Groups, commit: Commit) -> tuple[Finding, Plan] | None:
    """The newest finding about this model and these groups, and its plan."""
    asked, key = groups.about(commit.model), coordinator.key
    for number, attempt in reversed([*findings(coordinator.store, commit.run, "measure")]):
        if number != commit.round:
            continue
        try:
            finding = read_finding(coordinator.store, commit.run, number, attempt, "measure", key)
            plan = read_plan(coordinator.store, finding, key, "measure")
        except NOT_OURS:
            continue                    # somebody else's object
        if plan.asks.statistics == asked:
            return finding, plan
    return None
