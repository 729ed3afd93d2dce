"""What a site's login may call: one list. nginx's allow-list is written from it, and the doorkeeper finds a judge in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from infra.doorkeeper import judging
from infra.doorkeeper.judging import Judge

STREAM = "/events/out"
"""The stream of events: a WebSocket. It says who it is in its first message, and what it wants to hear in its second."""

_ID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_NAME = "[a-z0-9-]+"


@dataclass(frozen=True)
class Call:
    """One line of the list."""

    method: Literal["GET", "POST", "PATCH"]
    path: str
    """Below /api. `{site}` is the name of the login, and `{id}` any id."""
    judge: Judge
    """What makes of the call what is sent on, or raises ContractError."""

    @property
    def pattern(self) -> str:
        """A regular expression for `NAME METHOD /api/PATH`, as nginx and Python read it."""
        path = re.escape(self.path).replace(r"\{site\}", r"\1").replace(r"\{id\}", f"({_ID})")
        return rf"^({_NAME}) {self.method} /api{path}$".replace(r"\-", "-").replace(r"\_", "_")


CALLS = (
    Call("GET", "/health", judging.as_it_is),
    Call("POST", "/work_pools/filter", judging.own_pool_alone),                     # at its start: does the API answer?
    Call("GET", "/work_pools/{site}", judging.as_it_is),
    Call("PATCH", "/work_pools/{site}", judging.empty_template),                    # Prefect's worker does it at every start
    Call("POST", "/work_pools/{site}/get_scheduled_flow_runs", judging.poll),
    Call("POST", "/work_pools/{site}/workers/heartbeat", judging.heartbeat),
    Call("POST", "/work_pools/{site}/workers/filter", judging.what_is_in_it),
    Call("POST", "/work_pools/{site}/queues/filter", judging.what_is_in_it),           # whether somebody has paused its work
    Call("GET", "/deployments/name/site-round/{site}", judging.as_it_is),
    Call("GET", "/deployments/name/site-campaign/{site}-campaigns", judging.as_it_is),
    Call("POST", "/flow_runs/filter", judging.runs_of_own_pool),                    # at its start: what a dead process left
    Call("POST", "/ui/flow_runs/history", judging.runs_of_own_pool),                # which run the server cannot show
    Call("POST", "/flow_runs/count", judging.runs_of_own_pool),
    Call("POST", "/flow_runs/", judging.new_run),
    Call("GET", "/flow_runs/{id}", judging.own_run),
    Call("PATCH", "/flow_runs/{id}", judging.sign_of_own_run),                      # the work in it moves
    Call("POST", "/flow_runs/{id}/set_state", judging.state_of_own_run),
    Call("POST", "/flows/", judging.own_flow),
    Call("GET", "/flows/{id}", judging.as_it_is),                                   # a flow's name, and nothing of its runs
    Call("POST", "/events", judging.answered_event),                                # a plan answered within a campaign's run
)


def find(site: str, method: str, path: str) -> tuple[Call, str] | None:
    """The line that allows this, and the id in the path, if there is one. None: a site may not."""
    for call in CALLS:
        if (found := re.fullmatch(call.pattern[1:-1], f"{site} {method} {path}")) is not None:
            return call, found[2] if found.re.groups > 1 else ""
    return None
