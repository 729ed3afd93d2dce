"""A site's flow runs as the Prefect API keeps them: who has one, how one begins, and how one ends.

The flow engine makes about 18 calls for a run; these are the few that a site's work needs.
"""

from __future__ import annotations

import uuid
from typing import Any

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Cancelled, Running, Scheduled, to_state_create

from infra.asking import AT_WORK, ROUND_RUN, SITE_FLOW, Asked
from infra.prefect_client import is_in, set_state, suspended
from site_workers.outcome import STOPPED


class FlowRuns:
    """The flow runs of one site, as one process asks for them.

    claimant: names the process. A flow run says in its state which process has it.
    """

    def __init__(self, client: PrefectClient, site: str, claimant: str):
        self._client, self._site = client, site
        self._claim = f"claimed by {claimant}"
        self._flow: uuid.UUID | None = None

    async def claim(self, flow_run: FlowRun) -> bool:
        """Take the run, or learn that somebody else has it.

        The server refuses a transition whose id equals the current state's. An id derived from the run makes one call
        both the lease and the start: of two claimants, one is rejected. (Random ids would let both into Running.)
        """
        state = to_state_create(Running(message=self._claim))
        state.state_details.flow_run_id = flow_run.id
        state.state_details.transition_id = uuid.uuid5(flow_run.id, f"claim after {flow_run.run_count} attempts")
        answer = (await self._client.request(
            "POST", "/flow_runs/{id}/set_state", path_params={"id": flow_run.id},
            json={"state": state.model_dump(mode="json"), "force": False},
        )).json()
        if answer["status"] == "ACCEPT":
            return True
        # A rejected claim in our own name is our own first request, whose answer was lost.
        current = answer.get("state") or {}
        return bool(current.get("type") == "RUNNING" and current.get("message") == self._claim)

    async def is_known(self, asked: Asked) -> bool:
        """Whether there is a flow run for this request already: the coordinator has scheduled or closed it, or it is done."""
        counted = await self._client.request("POST", "/flow_runs/count", json={"flow_runs": {
            "idempotency_key": {"any_": [asked.key(self._site)]}}})
        return bool(counted.json())

    async def begin(self, asked: Asked) -> FlowRun | None:
        """A flow run in the site's pool that is Running from the start; None if somebody else began it, or ended it."""
        flow_run = await self._make(asked, {"type": "RUNNING", "name": "Running", "message": self._claim})
        if flow_run.state is not None and flow_run.state.is_scheduled():               # the coordinator was quicker
            return flow_run if await self.claim(flow_run) else None
        return flow_run if self._is_mine(flow_run) else None

    async def make_ended(self, asked: Asked, state: State[Any]) -> None:
        """A flow run that is in this final state from the start. If there is one that is ours to end, it gets this state."""
        there = await self._make(asked, {"type": state.type.value, "name": state.name, "message": state.message})
        if self._is_mine(there) or (there.state is not None and there.state.is_scheduled()):
            await self.end(there.id, state)

    async def end(self, flow_run: uuid.UUID, state: State[Any], *, is_stopped: bool = False) -> bool:
        """Set the run to this state, if nobody has deleted it. False: it was stopped by a pause, and stays as it is until
        somebody resumes it.
        """
        if is_stopped and await suspended(self._client, flow_run):
            return False
        await set_state(self._client, flow_run, state)
        return True

    async def touch(self, flow_run: uuid.UUID) -> None:
        """Write that somebody works in the run: the server notes when a run was written last. Its state stays as it is."""
        await self._client.request("PATCH", "/flow_runs/{id}", path_params={"id": flow_run}, json=AT_WORK)

    async def is_running(self, flow_run: uuid.UUID) -> bool:
        """Whether it is Running now."""
        return await is_in(self._client, flow_run, StateType.RUNNING)

    async def is_there(self, flow_run: uuid.UUID) -> bool:
        """Whether nobody has deleted it."""
        return await is_in(self._client, flow_run, *StateType)

    async def confirm_stopped(self, flow_run: uuid.UUID) -> None:
        """If somebody cancelled the run and waits for it to end, make it Cancelled."""
        if await is_in(self._client, flow_run, StateType.CANCELLING):
            await self.end(flow_run, Cancelled(message=STOPPED.message))

    async def take_over(self) -> None:
        """What a dead process of this site left: Running for ever. Such a run is scheduled again, and this process claims it.

        What was charged is not charged twice, and the same noise is drawn again. Work that never ends is ended by the
        coordinator's deadline.
        """
        left = await self._client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(
                type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.CANCELLING]))),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self._site])))
        for run in left:
            goes_on = run.state is not None and run.state.is_running()
            state: State[Any] = (Scheduled(message="the site's process ended; a new one goes on") if goes_on else
                                 Cancelled(message="the site's process ended"))
            await set_state(self._client, run.id, state, force=True)

    async def _make(self, asked: Asked, state: dict[str, str | None]) -> FlowRun:
        """The flow run for this request: it is made in this state, or returned as it is."""
        known, self._flow = self._flow, self._flow or await self._client.create_flow_from_name(SITE_FLOW)
        try:
            made = await self._client.request("POST", "/flow_runs/", json={
                "flow_id": str(self._flow), "work_pool_name": self._site, "name": asked.name(self._site), "tags": [asked.tag],
                "labels": {ROUND_RUN: asked.by}, "idempotency_key": asked.key(self._site), "parameters": asked.parameters,
                "state": state})
        except httpx.HTTPStatusError:
            self._flow = None           # somebody may have deleted the flow; made again, it has another id
            if known is None:
                raise
            return await self._make(asked, state)
        return FlowRun.model_validate(made.json())

    def _is_mine(self, flow_run: FlowRun) -> bool:
        state = flow_run.state
        return state is not None and state.is_running() and state.message == self._claim
