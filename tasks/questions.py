"""An analyst's questions: who said what, what a question would cost, and what the run's promise has left for it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedround.analytics.compiled import Compiled
from fedround.analytics.estimates import Table
from fedround.privacy.accounting import Batch, epsilon_of_batches
from fedround.privacy.spec import NoPrivacy, Unit, of_persons
from fedround.records import Finding
from fedround.statistics import Release
from infra.history import findings, read_federation, read_finding, read_plan
from infra.stores import ObjectStore
from tasks import evidence
from tasks.coordinator import Coordinator
from tasks.plan import RoundRequest

EVERYBODY = "all sites"


def measured(store: ObjectStore, run: str, key: str) -> list[Finding]:
    """Everything that was measured in a run, in order. key: the coordinator's."""
    return [read_finding(store, run, number, attempt, "measure", key) for number, attempt in findings(store, run, "measure")]


def by_site(store: ObjectStore, finding: Finding, key: str) -> dict[str, tuple[Release, ...]]:
    """What each site released, proven by its signature."""
    plan = read_plan(store, finding, key, "measure")
    members = read_federation(store, plan.federation_digest, key, f"federation of run '{finding.run}'")
    return {told.site: evidence.answer(store, members, plan, finding.plan, told).releases for told in finding.answers}


def answers(compiled: Compiled, finding: Finding, sites: Mapping[str, Sequence[Release]]) -> dict[str, list[Table]]:
    """The answers of all sites together, and of each of `sites`."""
    return {EVERYBODY: compiled.read(finding.totals), **{site: compiled.read(told) for site, told in sites.items()}}


@dataclass(frozen=True)
class Preview:
    """What a measurement would cost one record, or one person, at each site."""

    epsilon: float
    """Infinite without noise."""
    delta_dp: float | None
    """None: the federation promises nothing."""
    unit: Unit
    """Whom the federation's promise protects."""
    before: float
    """Spent in this run by its measurements so far."""
    after: float
    """With this one, which is chosen after those: at least `before` and `epsilon`."""
    promised: float | None
    """The most that this run may spend."""

    @property
    def fits(self) -> bool:
        """Whether the run's promise has room for it."""
        return self.promised is None or self.after <= self.promised


def preview(coordinator: Coordinator, request: RoundRequest, compiled: Compiled) -> Preview:
    """What it would cost; nothing is asked. What a site's ledger has left, and its policy allows, only the site knows."""
    privacy = coordinator.federation.privacy
    if isinstance(privacy, NoPrivacy):
        return Preview(math.inf, None, "record", 0.0, 0.0, None)
    key = coordinator.identity.key
    earlier = [read_plan(coordinator.store, one, key, "measure").asks.statistics
               for one in measured(coordinator.store, request.run, key)]
    batches = [Batch(tuple(Counter(of_persons((one.mechanism for one in statistics), privacy)).items()))
               for statistics in (*earlier, compiled.statistics)]
    alone, before, after = (epsilon_of_batches(asked, privacy.delta_dp, privacy.unit)
                            for asked in (batches[-1:], batches[:-1], batches))
    return Preview(alone, privacy.delta_dp, privacy.unit, before, after, privacy.epsilon)
