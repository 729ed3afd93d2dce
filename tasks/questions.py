"""An analyst's questions: who said what, what a question would cost, and what the run's promise has left for it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedround.analytics.estimates import Table
from fedround.analytics.meta import pooled_table
from fedround.privacy.accounting import Batch, epsilon_of_batches
from fedround.privacy.spec import NoPrivacy, Unit, of_persons
from fedround.records import Finding
from fedround.statistics import Release, Statistic
from infra.documents import read_federation
from infra.history import findings, read_finding, read_plan
from infra.stores import ObjectStore
from tasks import evidence
from tasks.choice import choice_of_run
from tasks.coordinator import Coordinator

EVERYBODY = "all sites"
AS_ONE = "sites' estimates, random effects"


def measured(store: ObjectStore, run: str, key: str) -> list[Finding]:
    """Everything that was measured in a run, in order. key: the coordinator's."""
    return [read_finding(store, run, number, attempt, "measure", key) for number, attempt in findings(store, run, "measure")]


def by_site(store: ObjectStore, finding: Finding, key: str) -> dict[str, tuple[Release, ...]]:
    """What each site released, proven by its signature; nothing where answers are added up and nobody knows one of them."""
    if finding.sum is not None:
        return {}
    plan = read_plan(store, finding, key, "measure")
    members = read_federation(store, plan.federation_digest, key, f"federation of run '{finding.run}'")
    return {told.site: evidence.answer(store, members, plan, finding.plan, told).releases for told in finding.answers}


def answers(read: Callable[[Sequence[Release]], list[Table]], finding: Finding,
            sites: Mapping[str, Sequence[Release]]) -> dict[str, list[Table]]:
    """The answers of all sites together, of each of `sites`, and, of regressions at two sites or more, what the sites' own
    estimates say as one. read: what is read in releases.
    """
    found = {site: read(told) for site, told in sites.items()}
    pooled = [pooled_table(tables) for tables in zip(*found.values(), strict=True)] if len(found) > 1 else []
    return {EVERYBODY: read(finding.totals), **found, **({AS_ONE: pooled} if any(one.estimates for one in pooled) else {})}


@dataclass(frozen=True)
class Preview:
    """What measurements would cost one record, or one person, at each site."""

    rounds: int
    """In which sites are still to be asked; 0: all of it was asked before, and costs nothing."""
    epsilon: float
    """Infinite without noise."""
    delta_dp: float | None
    """None: the federation promises nothing."""
    unit: Unit
    """Whom the federation's promise protects."""
    before: float
    """Spent in this run by its measurements so far."""
    after: float
    """With these, which are chosen after those: at least `before` and `epsilon`."""
    promised: float | None
    """The most that this run may spend."""

    @property
    def fits(self) -> bool:
        """Whether the run's promise has room for it."""
        return self.promised is None or self.after <= self.promised


def preview(coordinator: Coordinator, run: str, asked: Sequence[Sequence[Statistic]]) -> Preview:
    """What it would cost to ask these, measurement by measurement; nobody is asked. What a site's ledger has left, and its
    policy allows, only the site knows.
    """
    privacy = coordinator.federation.chosen(choice_of_run(coordinator, run)).privacy
    if isinstance(privacy, NoPrivacy):
        return Preview(len(asked), math.inf if asked else 0.0, None, "record", 0.0, 0.0, None)
    key = coordinator.key
    earlier = [read_plan(coordinator.store, one, key, "measure").asks.statistics
               for one in measured(coordinator.store, run, key)]
    batches = [Batch(tuple(Counter(of_persons((one.mechanism for one in statistics), privacy)).items()))
               for statistics in (*earlier, *asked)]
    alone, before, after = (epsilon_of_batches(some, privacy.delta_dp, privacy.unit) if some else 0.0
                            for some in (batches[len(earlier):], batches[:len(earlier)], batches))
    return Preview(len(asked), alone, privacy.delta_dp, privacy.unit, before, after, privacy.epsilon)
