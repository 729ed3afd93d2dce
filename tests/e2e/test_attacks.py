"""Whoever holds the API key can write anything into the Prefect server. Nothing of it is ever executed (law 7).

Each attack is tried on a live site, which then still serves its next honest round.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import anyio.to_thread
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Scheduled
from prefect.workers.process import ProcessWorker

from site_workers import audit
from tests.e2e.conftest import Federation, own_settings, wait

pytestmark = pytest.mark.stack

HONEST_LOOKING = {"run": "attack", "round": 1, "attempt": 1, "purpose": "train"}


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    """A file that is there only if something of the attacker's was run."""
    return tmp_path / "it-ran"


def put_into_pool(real: Federation, pool: str, flow: str, parameters: dict, **more: object) -> UUID:
    """A flow run in a pool, without any deployment."""
    async def create(client: PrefectClient) -> UUID:
        answer = await client.request("POST", "/flow_runs/", json={
            "flow_id": str(await client.create_flow_from_name(flow)), "parameters": parameters, "work_pool_name": pool,
            "state": Scheduled().model_dump(mode="json", include={"type", "name", "state_details"})} | more)
        return UUID(answer.json()["id"])

    return real.ask(create)


def still_serves(real: Federation, run: str) -> None:
    """An honest round, with all three sites."""
    ended = real.ended(real.start("federated-round", run=run))
    assert ended.state.is_completed(), ended.state.message
    assert set(real.record(run)["outcomes"].values()) == {"updated"}


def refused(ended: FlowRun, says: str) -> None:
    assert ended.state.is_failed(), ended.state
    assert says in ended.state.message


def test_another_flow_in_a_sites_pool_is_not_run(real: Federation, run: str):
    for flow in ("site_round", "federated-round", "os.system", "site-round "):
        refused(real.ended(put_into_pool(real, "north", flow, {})), "has not registered that flow")
    still_serves(real, run)


def test_a_site_flow_in_the_coordinators_pool_is_not_run(real: Federation):
    refused(real.ended(put_into_pool(real, "small-coordinator", "site-round", HONEST_LOOKING)), "has not registered")


def test_job_variables_with_a_command_are_ignored(real: Federation, run: str, proof: Path):
    """A stock process worker would run the command. Ours fails the run for its plan, which does not exist."""
    ended = real.ended(put_into_pool(real, "north", "site-round", HONEST_LOOKING, job_variables={
        "command": f"touch {proof}", "env": {"PYTHONSTARTUP": str(proof)}, "entrypoint": f"touch {proof}"}))
    refused(ended, "the site could not answer (NotFoundError)")
    assert not proof.exists()
    still_serves(real, run)


@pytest.mark.parametrize("parameters", [
    {**HONEST_LOOKING, "command": "touch"}, {**HONEST_LOOKING, "purpose": "shell"}, {**HONEST_LOOKING, "run": "../../north"},
    {**HONEST_LOOKING, "round": "1; touch"}, {}, {"$ref": {"block_document_id": "0" * 32}},
    {**HONEST_LOOKING, "round": 10**30}, {**HONEST_LOOKING, "run": {"__prefect_kind": "jinja", "template": "{{ 1 }}"}},
    {**HONEST_LOOKING, "run": "a" * 400_000}, {**HONEST_LOOKING, "attempt": -1}, {**HONEST_LOOKING, "attempt": "../1"},
    {**HONEST_LOOKING, "run": "spring/../../sites/north"}, {**HONEST_LOOKING, "env": {"LD_PRELOAD": "evil.so"}}],
    ids=["unknown key", "bad purpose", "path", "text", "nothing", "block", "giant", "template", "long", "negative",
         "path as a number", "path within", "environment"])
def test_parameters_that_are_not_a_request_are_refused(real: Federation, parameters: dict):
    refused(real.ended(put_into_pool(real, "east", "site-round", parameters)), "the site could not answer")


def test_what_a_site_tells_the_server_holds_no_detail(real: Federation):
    """The sentence, with paths and names, stays in the site's log; that somebody tried is in its audit log."""
    ended = real.ended(put_into_pool(real, "east", "site-round", {**HONEST_LOOKING, "secret-key": 1}))
    assert ended.state.message == "the site could not answer (ContractError); its operator sees why"
    assert "secret-key" in (real.machine.site("east") / "site.log").read_text()
    last = audit.read(real.machine.site("east"))[-1]
    assert (last.what, getattr(last, "problem", None)) == ("turned away", "ContractError")


def test_unknown_keys_through_the_sites_deployment_are_refused(real: Federation):
    with pytest.raises(PrefectHTTPStatusError):
        real.start_raw("site-round/north", {**HONEST_LOOKING, "purpose": "shell"})
    try:
        started = real.start_raw("site-round/north", {**HONEST_LOOKING, "command": "touch"})
    except PrefectHTTPStatusError:
        return
    refused(real.ended(started), "the site could not answer")


def test_overrides_of_the_infrastructure_through_the_sites_deployment_are_ignored(real: Federation, run: str, proof: Path):
    """What a stock worker obeys: variables of the job, and an infrastructure of the attacker's."""
    async def create(client: PrefectClient) -> UUID:
        deployment = await client.read_deployment_by_name("site-round/north")
        answer = await client.request("POST", f"/deployments/{deployment.id}/create_flow_run", json={
            "parameters": HONEST_LOOKING, "infrastructure_document_id": None, "work_queue_name": "default",
            "job_variables": {"command": f"touch {proof}", "working_dir": str(proof.parent), "image": "evil",
                              "env": {"BASH_ENV": str(proof), "PREFECT_API_URL": "http://127.0.0.1:9/api"}},
            "state": Scheduled().model_dump(mode="json", include={"type", "name", "state_details"})})
        return UUID(answer.json()["id"])

    refused(real.ended(real.ask(create)), "the site could not answer (NotFoundError)")
    assert not proof.exists()
    still_serves(real, run)


@pytest.mark.parametrize("name", ["intruder", "north"])
def test_a_second_worker_of_type_process_runs_what_it_likes_as_whoever_started_it_and_gets_nothing_of_the_site(
        real: Federation, run: str, proof: Path, name: str):
    """It can take a run away from the site: that run ends without an answer. `site check` names it."""
    later = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(hours=1))      # the site leaves it for later
    taken = put_into_pool(real, "north", "site-round", HONEST_LOOKING, job_variables={"command": f"touch {proof}"},
                          state=later.model_dump(mode="json", include={"type", "name", "state_details"}))

    async def intrude() -> None:
        async with ProcessWorker("north", name=name, prefetch_seconds=7200) as intruder:
            await intruder.sync_with_backend()
            await intruder.get_and_submit_flow_runs()
            checked = await anyio.to_thread.run_sync(lambda: real.here("site", "check", real.machine.site("north"), "--json"))
            found.update({one["check"]: one for one in json.loads(checked.stdout)})

    found: dict[str, dict] = {}
    with own_settings(real.api_url):
        asyncio.run(intrude())
    real.ask(lambda client: client.request("DELETE", f"/work_pools/north/workers/{name}"))
    assert proof.exists(), "in the intruder's process, by the rights of whoever started it"
    assert not found["api"]["ok"]
    assert f"'{name}' serves this site's pool, too" in found["api"]["detail"]
    assert real.flow_run(taken).state.name != "Completed" or real.flow_run(taken).state.message is None
    assert not any("attack" in getattr(event, "key", "") for event in audit.read(real.machine.site("north")))
    real.ask(lambda client: client.delete_flow_run(taken))      # nobody will ever end it
    still_serves(real, run)


def test_a_run_that_the_server_cannot_show_is_named_and_hides_no_other(real: Federation, run: str):
    """The server takes parameters of 400 levels, and answers 500 to every list with such a run in it."""
    deep: dict = {}
    for _ in range(400):
        deep = {"a": deep}
    log = real.machine.site("south") / "site.log"
    before = len(log.read_text())
    for more in ({}, {"tags": [f"{run}/train-00001"], "name": f"{run}/train-00001/south"}):
        with pytest.raises(PrefectHTTPStatusError):
            put_into_pool(real, "south", "site-round", {"run": deep}, **more)
    names = [flow_run["id"] for flow_run in real.ask(lambda client: client.request("POST", "/ui/flow_runs/history", json={
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED", "FAILED"]}}},
        "work_pools": {"name": {"any_": ["south"]}}})).json()]
    still_serves(real, run)
    wait(lambda: real.ask(lambda client: client.request("POST", "/flow_runs/count", json={"flow_runs": {
        "id": {"any_": names}, "state": {"type": {"any_": ["SCHEDULED"]}}}})).json() == 0, "a pool without them")
    hidden = [name for name in names if f"flow run {name} cannot be shown" in log.read_text()[before:]]
    assert len(hidden) == 2
    for name in hidden:
        real.ask(lambda client, name=name: client.delete_flow_run(UUID(name)))      # the guide's cure


def test_an_entrypoint_on_a_deployment_is_ignored(real: Federation, run: str, proof: Path):
    """The attacker makes every deployment point to code of their own, in a place that they control."""
    evil = proof.with_name("evil.py")
    evil.write_text(f"open({str(proof)!r}, 'w')\nfrom prefect import flow\n@flow\ndef run(**_): open({str(proof)!r}, 'w')\n")

    async def poison(client: PrefectClient, name: str, entrypoint: str | None, path: str | None) -> None:
        deployment = await client.read_deployment_by_name(name)
        await client.update_deployment(deployment.id, DeploymentUpdate(
            entrypoint=entrypoint, path=path, job_variables={} if entrypoint is None else {"command": f"touch {proof}"},
            pull_steps=None if entrypoint is None else [{"prefect.deployments.steps.run_shell_script": {
                "script": f"touch {proof}"}}]))

    names = ("site-round/north", "federated-round/2-one-more-round-small")
    for name in names:
        real.ask(lambda client, name=name: poison(client, name, f"{evil}:run", str(evil.parent)))
    try:
        still_serves(real, run)
    finally:
        for name in names:
            real.ask(lambda client, name=name: poison(client, name, None, None))
    assert not proof.exists()


def test_a_pool_that_is_changed_to_run_commands_runs_none(real: Federation, run: str, proof: Path):
    """The base job template is the attacker's, too."""
    from prefect.client.schemas.actions import WorkPoolUpdate

    async def template(client: PrefectClient) -> dict:
        return (await client.read_work_pool("south")).base_job_template

    before = real.ask(template)
    evil = {"job_configuration": {"command": f"touch {proof}", "env": {"LD_PRELOAD": str(proof)}},
            "variables": {"type": "object", "properties": {}}}
    real.ask(lambda client: client.update_work_pool("south", WorkPoolUpdate(base_job_template=evil)))
    try:
        still_serves(real, run)
    finally:
        real.ask(lambda client: client.update_work_pool("south", WorkPoolUpdate(base_job_template=before)))
    assert not proof.exists()


def test_a_second_process_on_a_sites_folder_is_refused(real: Federation):
    done = real.command("site", "start", real.machine.site("north"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "another process serves" in done.stderr
    assert "stop that one first" in done.stderr


def test_a_second_coordinator_process_is_refused(real: Federation):
    done = real.command("coordinator", "start", "-c", real.machine.coordinator)
    assert done.returncode == 1
    assert "another process serves" in done.stderr
