"""A campaign that somebody pauses or suspends stops between two rounds, and goes on when it is resumed."""

from __future__ import annotations

from prefect import get_client, runtime
from prefect.client.schemas.objects import StateType
from prefect.exceptions import Pause
from prefect.states import Suspended

from infra.prefect_client import is_in, suspended


async def stop_here_if_paused() -> None:
    """Raises Pause, which ends this flow's work and not its flow run: resumed, it is scheduled and does what is left."""
    run = runtime.flow_run.id
    if run is None:
        return
    async with get_client() as client:
        if await is_in(client, run, StateType.PAUSED) and await suspended(client, run):
            raise Pause(state=Suspended())
