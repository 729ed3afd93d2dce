"""Flow runs that Prefect's server keeps and cannot show.

It takes parameters of any depth and answers 500 when it writes them out, for every list that holds such a run: of 400 levels,
say (Prefect 3.9.1). One such run would keep a worker from all others. Its id can be had from a list without parameters.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter, FlowRunFilterId, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

CURE = "delete it: prefect flow-run delete"

_PAGE = 200
"""What the server gives at once, and no more: whoever may make runs with a tag could hide other ones behind so many."""


@dataclass(frozen=True)
class Sifted:
    """What there is of the runs that were asked for."""

    runs: list[FlowRun]
    unreadable: list[uuid.UUID]


async def sifted(client: PrefectClient, wanted: FlowRunFilter, *, flows: FlowFilter | None = None,
                 pools: WorkPoolFilter | None = None) -> Sifted:
    """All of these flow runs, as `read_flow_runs` has them, and the ids of those that the server cannot show.

    Raises httpx errors if the API is away, or in a trouble that no single run makes.
    """
    found = Sifted([], [])
    while True:
        begin = len(found.runs) + len(found.unreadable)
        page = await _page(client, begin, wanted, flows, pools)
        found = Sifted(found.runs + page.runs, found.unreadable + page.unreadable)
        if len(page.runs) + len(page.unreadable) < _PAGE:
            return found


async def _page(client: PrefectClient, begin: int, wanted: FlowRunFilter, flows: FlowFilter | None,
                pools: WorkPoolFilter | None) -> Sifted:
    try:
        return Sifted(await client.read_flow_runs(
            flow_filter=flows, flow_run_filter=wanted, work_pool_filter=pools, sort=FlowRunSort.ID_DESC, limit=_PAGE,
            offset=begin), [])
    except httpx.HTTPStatusError as error:
        if error.response.status_code != 500:
            raise
    listed = await client.request("POST", "/ui/flow_runs/history", json={
        "sort": FlowRunSort.ID_DESC.value, "limit": _PAGE, "offset": begin} | {
        name: value.model_dump(mode="json", exclude_unset=True)
        for name, value in (("flow_runs", wanted), ("flows", flows), ("work_pools", pools)) if value is not None})
    return await _apart(client, [uuid.UUID(one["id"]) for one in listed.json()])


async def _apart(client: PrefectClient, ids: list[uuid.UUID]) -> Sifted:
    """Halve until what cannot be shown is alone."""
    if not ids:
        return Sifted([], [])
    try:
        return Sifted(await client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids))), [])
    except httpx.HTTPStatusError as error:
        if error.response.status_code != 500:
            raise
    if len(ids) == 1:
        return Sifted([], ids)
    first, second = [await _apart(client, half) for half in (ids[:len(ids) // 2], ids[len(ids) // 2:])]
    return Sifted(first.runs + second.runs, first.unreadable + second.unreadable)
