"""A site's flow run that serves a whole campaign: which plan waits for an answer, as the store has it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from fedround import layout
from fedround.signing import MAX_DOCUMENT_BYTES, digest
from fedround.types import Purpose
from fedround.values import Name, Value
from site_workers.round import SiteRequest
from site_workers.site import Site

_PLAN = re.compile(r"/(rounds|evaluations)/(\d{5})/plan-(\d\d)\.json$")


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
    """What looks in the store for the newest plan of a run: None if there is none, or its round is committed already."""

    def look(run: str) -> Waiting | None:
        found = [(int(match[2]), match[1] == "evaluations", int(match[3]))
                 for key in site.store.list(layout.plans(run)) if (match := _PLAN.search(key)) is not None]
        if not found:
            return None
        number, evaluates, attempt = max(found)
        purpose = Purpose.EVALUATE if evaluates else Purpose.TRAIN
        if purpose is Purpose.TRAIN and site.store.head(layout.commit(run, number)) is not None:
            return None
        document = site.store.get(layout.plan(run, number, attempt, purpose), max_bytes=MAX_DOCUMENT_BYTES)
        return Waiting(digest(document), SiteRequest(run=run, round=number, attempt=attempt, purpose=purpose))

    return look
