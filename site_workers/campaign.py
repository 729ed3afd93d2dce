"""A site's flow run that serves a whole campaign: which plan waits for an answer, as the store has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedround import layout
from fedround.signing import MAX_DOCUMENT_BYTES, digest
from fedround.values import Name, Value
from site_workers.round import SiteRequest
from site_workers.site import Site


class CampaignRequest(Value):
    """All that the API can say to a site that shall serve a campaign: which run."""

    run: Name


@dataclass(frozen=True)
class Waiting:
    """A plan in the store, unverified: whoever answers it verifies it first."""

    plan: str
    """Its digest."""
    request: SiteRequest


def newest_plan(site: Site) -> Callable[[str], Waiting | None]:
    """What looks in the store for the newest plan of a run: None if there is none, or it has its commit or finding."""

    def look(run: str) -> Waiting | None:
        found = [plan for key in site.store.list(layout.plans(run)) if (plan := layout.parse_plan(key)) is not None]
        if not found:
            return None
        # What is asked about a round's model comes after the round, and before the next.
        _, number, attempt, purpose = max(found, key=lambda plan: (plan[1], plan[3] != "train", plan[2]))
        end = layout.commit(run, number) if purpose == "train" else layout.finding(run, number, attempt, purpose)
        if site.store.head(end) is not None:
            return None
        document = site.store.get(layout.plan(run, number, attempt, purpose), max_bytes=MAX_DOCUMENT_BYTES)
        return Waiting(digest(document), SiteRequest(run=run, round=number, attempt=attempt, purpose=purpose))

    return look
