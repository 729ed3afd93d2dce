"""Drift with real servers and processes: measured, found, told, and acted on by an automation of Prefect."""

from __future__ import annotations

import json

import pytest
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun

from tests.e2e.conftest import Federation, wait
from tests.e2e.test_measurement import two_measure  # noqa: F401 - a fixture

pytestmark = pytest.mark.stack


def measured(real: Federation, run: str, partition: str) -> dict:
    done = real.here("drift", "run", "-c", real.machine.coordinator, "--run", run, "--partition", partition, "--json")
    assert done.exit_code == 0, done.stderr
    (found,) = json.loads(done.stdout)
    return found


def campaigns(real: Federation) -> list[FlowRun]:
    async def read(client):
        deployment = await client.read_deployment_by_name("federated-training/1-train-small")
        return await client.read_flow_runs(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])))

    return real.ask(read)


def retrained(real: Federation, run: str) -> list[FlowRun]:
    return [one for one in campaigns(real) if one.parameters.get("request", {}).get("run") == f"{run[:15]}-after-1"]


def test_an_alarm_starts_a_campaign_if_that_is_wanted(real: Federation, run: str, two_measure: None):  # noqa: F811
    done = real.here("drift", "act", "-c", real.machine.coordinator, "--retrain", "1")
    assert done.exit_code == 0, done.stderr
    try:
        calm = measured(real, run, "0")
        assert (calm["when"], calm["sites"]) == ("0", ["east", "north"])
        assert not any(shift["drifted"] for shift in calm["shifts"] if shift["beside"] == "before")
        assert not retrained(real, run)

        found = measured(real, run, "1")
        assert {shift["site"] for shift in found["shifts"] if shift["drifted"] and shift["beside"] == "before"} >= {None}
        (started,) = wait(lambda: retrained(real, run), "the campaign that the alarm calls for")
        assert real.ended(started.id).state.is_completed()
        assert real.record(f"{run[:15]}-after-1")["outcomes"] == dict.fromkeys(("east", "north", "south"), "updated")
    finally:
        assert real.here("drift", "act", "-c", real.machine.coordinator, "--warn").exit_code == 0
    for name in ("east", "north"):
        assert len(real.charges(name, run)) == 2

    async def artifacts(client):
        return await client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[f"drift-{run}"])))

    assert any("x1" in shown.data and "changed" in shown.data for shown in real.ask(artifacts))
    assert measured(real, run, "1") == found, "asked again: nobody is charged, and no alarm is told twice"
    assert len(retrained(real, run)) == 1


def test_an_alarm_that_only_warns_starts_nothing(real: Federation, run: str, two_measure: None):  # noqa: F811
    before = len(campaigns(real))
    measured(real, run, "0")
    assert any(shift["drifted"] for shift in measured(real, run, "1")["shifts"] if shift["beside"] == "before")
    assert real.ended(real.start("federated-round", run=f"{run[:20]}-next")).state.is_completed()      # events are in order
    assert len(campaigns(real)) == before
