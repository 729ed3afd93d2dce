"""`fedround deploy --automations`: made once on the real server, and each of them fires."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from anyio.from_thread import start_blocking_portal
from prefect.events import Event
from prefect.events.clients import PrefectEventSubscriber
from prefect.events.filters import EventFilter, EventNameFilter

from fedround.records import Rejection
from flows import alarm_events
from flows.automations import ALARMS
from flows.drift import ALARM, resource_of
from infra.doorkeeper import fetches
from tasks.collected import Collected
from tests.e2e.conftest import Federation, wait

pytestmark = pytest.mark.stack

SMALL = SimpleNamespace(federation=SimpleNamespace(name="small"))
PLAN = SimpleNamespace(run="spring", round=3, agreed=SimpleNamespace(pace=None))


@contextmanager
def triggered(real: Federation) -> Iterator[set[str]]:
    """While this lasts: the names of the automations that the server triggers. It keeps no events, so they are heard live."""
    heard, listens = set[str](), threading.Event()

    async def listen() -> None:
        wanted = EventFilter(event=EventNameFilter(name=["prefect.automation.triggered"]))
        async with PrefectEventSubscriber(real.api_url, filter=wanted) as events:
            listens.set()
            async for event in events:
                heard.add(event.resource["prefect.resource.name"])

    with start_blocking_portal() as portal:
        listening = portal.start_task_soon(listen)
        try:
            wait(lambda: listens.is_set() or listening.done(), "the stream of events")
            yield heard
        finally:
            listening.cancel()


def test_every_automation_fires_and_is_made_once(real: Federation, run: str, monkeypatch: pytest.MonkeyPatch):
    def deploy() -> str:
        done = real.here("deploy", "-c", real.machine.coordinator, "--automations")
        assert done.exit_code == 0, done.stderr
        return done.stdout

    wanted = {f"fedround small: {alarm.name}" for alarm in ALARMS}
    said = deploy()
    assert all(f"automation '{name}': new" in said for name in wanted)
    assert "automation" not in deploy(), "what is there is left as people have set it"

    with triggered(real) as heard:
        with real.held(real.machine.site("east")):      # late, and below the quorum: of a real round
            assert real.ended(real.start("federated-round", run=run, quorum=3, deadline_s=10)).state.is_failed()
        told = events_of_the_others(monkeypatch)
        real.ask(lambda client: client.request("POST", "/events", json=[event.model_dump(mode="json") for event in told]))
        wait(lambda: heard >= wanted, "all automations to fire")
def events_of_the_others(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """What the coordinator, or the proxy, tells of all but late sites and failed rounds."""
    told: list[Event] = []
    monkeypatch.setattr(alarm_events, "emit_event", lambda event, **more: told.append(Event(event=event, **more)))
    forged = Collected(rejected={"east": Rejection(site="east", reason="site 'east': signed by another key than the agreed")},
                       forged=frozenset({"east"}))
    for _ in range(3):
        alarm_events.tell_answers(SMALL, PLAN, forged)          # type: ignore[arg-type]
    rows = (SimpleNamespace(site="east", epsilon=0.89), SimpleNamespace(site="north", epsilon=0.91))
    alarm_events.tell_budgets(SMALL, SimpleNamespace(run="spring", round=3, epsilon_limit=1.0, sites=rows))  # type: ignore[arg-type]
    assert [event.event for event in told].count(alarm_events.BUDGET) == 1
    return [*told, Event(event=ALARM, resource={"prefect.resource.id": resource_of("small")}, payload={}),
            Event(event=fetches.EVENT, resource=fetches.resource("small", "AKIA1"), payload={"models": 201})]
