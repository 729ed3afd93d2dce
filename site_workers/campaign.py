"""A site's flow run that serves a whole campaign: it finds in the store which plan waits for an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from fedround import layout
from fedround.values import MAX_NUMBER, Name, Purpose, Value
from infra.documents import NOT_OURS
from infra.history import last_round_of, read_plan_at
from site_workers.round import SiteRequest
from site_workers.site import Site


class CampaignRequest(Value):
    """All that the API can say to a site that is to serve a campaign: which run, and up to which round."""

    run: Name
    rounds: Annotated[int, Field(ge=1, le=MAX_NUMBER)]
    """The last round that is answered within the flow run. It bounds what one flow run stands for, and gives no right."""

    def serves(self, parameters: Mapping[str, Any]) -> bool:
        """Whether a plan, named by the parameters of a flow run, is of this campaign."""
        return parameters.get("run") == self.run and 0 <= int(parameters.get("round", -1)) <= self.rounds


@dataclass(frozen=True)
class Waiting:
    """A plan in the store that the coordinator signed. Whether it may be carried out is decided where it is answered."""

    plan: str
    """Its digest."""
    request: SiteRequest


def newest_plan(site: Site) -> Callable[[str], Waiting | None]:
    """A function that looks in the store for a run's newest plan. It returns None if no plan waits for an answer."""

    def look(run: str) -> Waiting | None:
        keys = list(site.store.list(layout.plans(run)))
        last = last_round_of(keys, site.store, run, site.settings.coordinator)
        for number, attempt, purpose in _newest_first(keys, last):
            end = layout.commit(run, number) if purpose == "train" else layout.finding(run, number, attempt, purpose)
            if end in keys and purpose in ("keys", "shares"):
                continue                # what is asked of rows comes after them
            try:
                _, named = read_plan_at(site.store, run, number, attempt, purpose, site.settings.coordinator)
            except NOT_OURS:
                continue                # whoever may write to the bucket may put anything there
            request = SiteRequest(run=run, round=number, attempt=attempt, purpose=purpose)
            return None if end in keys else Waiting(named, request)
        return None

    return look


def _newest_first(keys: list[str], last: int | None) -> list[tuple[int, int, Purpose]]:
    """Round, attempt and purpose of the plans that can wait for an answer: those that continue the last committed round.

    A plan about a sum waits for nobody but the flow run that has answered what it is about.
    """
    found = [(number, attempt, purpose) for key in keys if (plan := layout.parse_plan(key)) is not None
             for _, number, attempt, purpose in [plan] if last is not None and number == last + (purpose == "train")
             and purpose not in ("countersign", "reveal")]
    # What is asked about a round's model comes after the round, and before the next; keys come before what they mask.
    return sorted(found, key=lambda plan: (plan[2] in ("keys", "shares"), plan[0], plan[2] != "train", plan[1]), reverse=True)
