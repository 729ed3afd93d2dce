"""How the coordinator wakes its sites: one event for all of them, which names the plan to look up.

The event carries no authority and may be lost. The question stands in the signed plan. A site that has not taken it up after
a while finds a scheduled flow run in its pool. Both begin under the same idempotency key, so a site works on it once.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import AwareDatetime

from fedround.values import Value

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

ASKED, CLOSED = "fedround.asked", "fedround.closed"
ROUND_RUN = "fedround.round-run"
SITE_FLOW, CAMPAIGN_FLOW = "site-round", "site-campaign"
AT_WORK = {"infrastructure_pid": "at work"}
"""What a site writes into its flow run now and then, while the work in it moves. The time of it is what counts."""
DEPLOYMENTS = {SITE_FLOW: "{site}", CAMPAIGN_FLOW: "{site}-campaigns"}
"""What a site's deployments are called: the Prefect UI's page shows names, and so do messages."""


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


class Ended(Value):
    """How the work on a plan ended, within a campaign."""

    type: Literal["COMPLETED", "FAILED", "CANCELLED"]
    message: str
    began: AwareDatetime
    at: AwareDatetime


def answered(flow_run: uuid.UUID, plan: str, name: str, ended: Ended) -> dict[str, Any]:
    """What a site reports when it has answered a plan within a campaign: the event of a task run that has ended.

    Prefect's server writes such task runs many at a time, for a tenth of the price of a request to make one. The event's id
    is the state's id: sent again, it is written once.
    """
    run, state, began, at = task_run(flow_run, plan), ended.type.title(), ended.began.isoformat(), ended.at.isoformat()
    return {
        "id": str(uuid.uuid5(run, "ended")), "occurred": at, "event": f"prefect.task-run.{state}",
        "resource": {"prefect.resource.id": f"prefect.task-run.{run}", "prefect.resource.name": name,
                     "prefect.orchestration": "client", "prefect.state-type": ended.type, "prefect.state-name": state,
                     "prefect.state-message": ended.message},
        "related": [{"prefect.resource.id": f"prefect.flow-run.{flow_run}", "prefect.resource.role": "flow-run"}],
        "payload": {
            "intended": {"from": None, "to": ended.type}, "initial_state": None,
            "validated_state": {"type": ended.type, "name": state, "message": ended.message, "state_details": {},
                                "data": None},
            "task_run": {"name": name, "task_key": "answer", "dynamic_key": plan, "run_count": 1, "start_time": began,
                         "expected_start_time": began, "end_time": at,
                         "total_run_time": (ended.at - ended.began).total_seconds()}}}


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
