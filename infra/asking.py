"""How the coordinator wakes its sites: one event for all of them, which names the plan to look up.

The event carries no authority and may be lost. The question stands in the signed plan. A site that has not taken it up after
a while finds a scheduled flow run in its pool. Both begin under the same idempotency key, so a site works on it once.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fedround.values import Value

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.states import State

ASKED, CLOSED = "fedround.asked", "fedround.closed"
ROUND_RUN = "fedround.round-run"
SITE_FLOW, CAMPAIGN_FLOW = "site-round", "site-campaign"


class Asked(Value):
    """A plan that waits for answers."""

    tag: str
    """Ties the flow runs of one round together."""
    by: str
    """The flow run of the round."""
    plan: str
    """The plan's digest."""
    parameters: dict[str, str | int]
    """What a site's flow run gets: which plan to look up."""
    tries: dict[str, int]
    """How many flow runs a site has had for this plan already; 0 for those that are not named."""
    standing: dict[str, str]
    """The flow runs of sites that have one for the whole campaign: they answer within it."""

    def key(self, site: str) -> str:
        """The idempotency key of the site's flow run."""
        return f"{self.plan}/{site}/{self.tries.get(site, 0)}"

    def name(self, site: str) -> str:
        """The name of the site's flow run."""
        return f"{self.tag}/{site}"


def task_run(flow_run: uuid.UUID, plan: str) -> uuid.UUID:
    """The task run in which a site answers a plan, within the flow run that it has for the whole campaign."""
    return uuid.uuid5(flow_run, plan)


def answered(flow_run: uuid.UUID, plan: str, name: str, began: datetime, state: State[Any]) -> dict[str, Any]:
    """What a site reports when it has answered a plan within a campaign: the event of a task run that has ended.

    Prefect's server writes such task runs many at a time, for a tenth of the price of a request to make one. The event's id
    is the state's id: sent again, it is written once.
    """
    run = task_run(flow_run, plan)
    return {
        "id": str(uuid.uuid5(run, "ended")), "occurred": state.timestamp.isoformat(),
        "event": f"prefect.task-run.{state.name}",
        "resource": {"prefect.resource.id": f"prefect.task-run.{run}", "prefect.resource.name": name,
                     "prefect.orchestration": "client", "prefect.state-type": state.type.value,
                     "prefect.state-name": state.name, "prefect.state-message": state.message},
        "related": [{"prefect.resource.id": f"prefect.flow-run.{flow_run}", "prefect.resource.role": "flow-run"}],
        "payload": {
            "intended": {"from": None, "to": state.type.value}, "initial_state": None,
            "validated_state": {"type": state.type.value, "name": state.name, "message": state.message, "state_details": {},
                                "data": None},
            "task_run": {"name": name, "task_key": "answer", "dynamic_key": plan, "run_count": 1,
                         "start_time": began.isoformat(), "expected_start_time": began.isoformat(),
                         "end_time": state.timestamp.isoformat(),
                         "total_run_time": (state.timestamp - began).total_seconds()}}}


def resource(site: str) -> str:
    """What a site listens for."""
    return f"fedround.site.{site}"


async def tell(client: PrefectClient, event: str, asked: Asked, sites: Iterable[str]) -> None:
    """Tell the sites in one request that the plan waits for answers, or that it no longer does (CLOSED)."""
    from prefect.types._datetime import now

    await client.request("POST", "/events", json=[{
        "id": str(uuid.uuid4()), "occurred": now("UTC").isoformat(), "event": event,
        "resource": {"prefect.resource.id": f"fedround.plan.{asked.plan}", "prefect.resource.name": asked.tag},
        "related": [{"prefect.resource.id": resource(site), "prefect.resource.role": "site"} for site in sites],
        "payload": asked.model_dump()}])
