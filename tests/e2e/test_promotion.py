"""A promotion waits for a person as a suspended run, survives restarts, and a suspended campaign goes on."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from prefect.client.schemas.objects import StateType
from prefect.states import Suspended

from infra.stack.processes import recorded
from tests.e2e.conftest import Federation, wait

pytestmark = pytest.mark.stack


def is_paused(real: Federation, started: UUID) -> bool:
    return real.flow_run(started).state.type is StateType.PAUSED


def stages(real: Federation) -> dict[str, str]:
    shown = real.works("models", "stages", "--json", "-c", real.machine.coordinator)
    return json.loads(shown)["stages"]


def test_a_person_says_yes_in_the_ui_after_everything_was_restarted(real: Federation, run: str):
    """What the UI's form sends is what is sent here."""
    assert real.ended(real.start("federated-round", run=run)).state.is_completed()
    started = real.start("federated-promotion", run=run, round=1)
    wait(lambda: is_paused(real, started), "the question")
    assert "production" not in stages(real)
    serving = recorded(real.machine.home)["coordinator"]
    assert real.ended(real.start("federated-round", run=f"{run}-2")).state.is_completed(), "rounds go on meanwhile"
    assert recorded(real.machine.home)["coordinator"] == serving, "waiting ends no process"
    real.restart_coordinator()
    assert is_paused(real, started)
    real.ask(lambda client: client.resume_flow_run(started, run_input={"approve": True, "name": "Ada", "note": "good"}))
    ended = real.ended(started)
    assert ended.state.is_completed(), ended.state.message
    assert stages(real) == {"candidate": "v1.0.0", "production": "v1.1.0"}


def test_a_campaign_that_is_suspended_goes_on_when_it_is_resumed_and_the_process_lives(real: Federation, run: str):
    with real.held(real.machine.site("north")):
        started = real.start("federated-training", run=run, rounds=2)
        wait(lambda: real.charges("east", run), "the first round")
        serving = recorded(real.machine.home)["coordinator"]
        real.ask(lambda client: client.set_flow_run_state(started, Suspended(timeout_seconds=None)))
        wait(lambda: is_paused(real, started), "the pause")
    other = real.ended(real.start("federated-round", run=f"{run}-2"))
    assert other.state.is_completed(), other.state.message
    assert recorded(real.machine.home)["coordinator"] == serving
    if is_paused(real, started):            # Prefect asks every ten seconds: it may have been done by then
        real.ask(lambda client: client.resume_flow_run(started))
    ended = real.ended(started)
    assert ended.state.is_completed(), ended.state.message
    assert [len(real.charges("north", run))] == [3], "no round was done twice"
