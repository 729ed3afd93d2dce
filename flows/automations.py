"""Automations in the Prefect server: what a person is told of. Made once; what people change of them stays."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from prefect import get_client
from prefect.events.actions import ActionTypes, DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from fedround.errors import SetupError
from fedround.federation import Federation
from flows.alarm_events import BUDGET, FAILED, FORGED, LABEL, LATE, REJECTED
from flows.drift import ALARM, resource_of
from infra.deploying import Change
from infra.doorkeeper.fetches import EVENT as FETCHED


@dataclass(frozen=True)
class Alarm:
    """An event that a person is told of."""

    name: str
    event: str
    times: int = 1
    """How often it must come, from the same site, within a week."""


ALARMS = (Alarm("a site is late", LATE), Alarm("a round failed", FAILED), Alarm("the budget is nearly spent", BUDGET),
          Alarm("drift", ALARM), Alarm("answers are rejected again and again", REJECTED, times=3),
          Alarm("a signature is forged", FORGED), Alarm("a credential fetches many models", FETCHED))


async def automate(federation: Federation, notify: str | None, *, dry: bool = False) -> list[Change]:
    """Make the automations that are not there. Each tells `notify` when it fires, and whoever reads the server's events.

    notify: a block of Prefect's notifications, as 'slack-webhook/ours'. Raises SetupError if there is no such block.
    """
    async with get_client() as client:
        actions: list[ActionTypes] = [DoNothing()]
        if notify is not None:
            kind, _, block = notify.partition("/")
            try:
                found = await client.read_block_document_by_name(block, kind)
            except ObjectNotFound:
                raise SetupError(f"the Prefect server has no block '{notify}': make one in its UI (Blocks), for example "
                                 "'slack-webhook/ours'") from None
            actions = [SendNotification(
                block_document_id=found.id, subject="fedround: {{ automation.name }}",
                body="{{ event.resource.name }}: {{ event.payload }}")]
        changes = []
        for alarm in ALARMS:
            name = f"fedround {federation.name}: {alarm.name}"
            is_new = not await client.read_automations_by_name(name)
            if is_new and not dry:
                await client.create_automation(AutomationCore(
                    name=name, description="Made by 'fedround deploy --automations'", actions=actions,
                    trigger=_trigger(federation, alarm)))
            changes.append(Change(f"automation '{name}'", "new" if is_new else ""))
        return changes


def _trigger(federation: Federation, alarm: Alarm) -> EventTrigger:
    match = {"prefect.resource.id": resource_of(federation.name)} if alarm.event == ALARM else {LABEL: federation.name}
    return EventTrigger(expect={alarm.event}, match=match, for_each={"prefect.resource.id"}, posture=Posture.Reactive,
                        threshold=alarm.times, within=timedelta(0) if alarm.times == 1 else timedelta(days=7))
