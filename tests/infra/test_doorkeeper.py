"""A site's login reaches what a site needs, and nothing of anybody else's: through nginx, on the real Prefect server."""

from __future__ import annotations

import asyncio
import json
import ssl
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from infra.asking import ASKED, AT_WORK, ROUND_RUN, Ended, answered, resource, task_run
from infra.doorkeeper.calls import CALLS
from infra.stack import LocalStack
from tests.infra.organisations import PATIENCE_S, Between, between, needs_nginx, short_folder

pytestmark = [pytest.mark.stack, needs_nginx]

NORTH, SOUTH, COORDINATOR = "door-north", "door-south", "door-coordinator"
PLAN = "ab" * 32


@dataclass
class Members:
    """Who calls through the proxy, and a run of each of two sites."""

    between: Between
    tls: ssl.SSLContext
    runs: dict[str, str]

    def as_member(self, name: str) -> httpx.Client:
        member, _, secret = self.between.login(name).partition(":")
        return httpx.Client(base_url=self.between.api_url, verify=self.tls, auth=(member, secret), trust_env=False,
                            timeout=60)

    def new_run(self, site: str, **more: object) -> dict:
        """What a site's worker says when it has answered a plan."""
        return {"flow_id": str(uuid.UUID(int=7)), "work_pool_name": site, "name": f"r/train-00001/{site}",
                "tags": ["r/train-00001"], "labels": {}, "idempotency_key": f"{PLAN}/{site}/0",
                "parameters": {"run": "r", "round": 1, "attempt": 1, "purpose": "train"},
                "state": {"type": "COMPLETED", "name": "Completed", "message": "update"}, **more}

    async def hear(self, auth_string: str, path: str, asked: dict) -> list[dict]:
        """What a stream brings before the event named 'last' of the coordinator's comes."""
        async with connect(f"{self.between.api_url.replace('http', 'ws')}{path}", ssl=self.tls, subprotocols=["prefect"],
                           proxy=None) as stream:
            await stream.send(json.dumps({"type": "auth", "token": auth_string}))
            assert json.loads(await stream.recv())["type"] == "auth_success"
            now = datetime.now(UTC)
            occurred = {"since": now.isoformat(), "until": (now + timedelta(days=1)).isoformat()}
            await stream.send(json.dumps({"type": "filter", "filter": {"occurred": occurred, **asked}}))
            heard: list[dict] = []
            end = asyncio.get_running_loop().time() + PATIENCE_S
            while not heard or heard[-1]["event"] != ASKED:
                assert asyncio.get_running_loop().time() < end, heard
                for site in (SOUTH, NORTH):      # the stream may not have begun yet: again and again
                    await self.tell(site)
                try:
                    heard.append(json.loads(await asyncio.wait_for(stream.recv(), 1))["event"])
                except TimeoutError:
                    continue
            return heard

    async def tell(self, site: str) -> None:
        def send() -> None:
            with self.as_member(COORDINATOR) as client:
                client.post("/events", json=[{
                    "id": str(uuid.uuid4()), "occurred": datetime.now(UTC).isoformat(), "event": ASKED, "payload": {},
                    "resource": {"prefect.resource.id": f"fedround.plan.{site}"},
                    "related": [{"prefect.resource.id": resource(site), "prefect.resource.role": "site"}]}])
        await asyncio.to_thread(send)


@pytest.fixture(scope="module")
def members(stack: LocalStack) -> Iterator[Members]:
    info = stack.start(lambda _: None)
    behind, s3 = (url.split("/")[2] for url in (info.api_url, info.s3_endpoint))
    with short_folder() as root, between(root, behind, s3, COORDINATOR) as proxy:
        made = Members(proxy, ssl.create_default_context(cafile=str(proxy.authority.file)), {})
        with made.as_member(COORDINATOR) as client:
            flow = client.post("/flows/", json={"name": "site-round"}).json()["id"]
            for site in (NORTH, SOUTH):
                client.post("/work_pools/", json={"name": site, "type": "fedround-site", "base_job_template": {}})
                made.runs[site] = client.post("/flow_runs/", json={
                    "flow_id": flow, "work_pool_name": site, "name": f"waits/{site}",
                    "state": {"type": "SCHEDULED", "name": "Scheduled"}}).json()["id"]
        yield made


@pytest.fixture(scope="module")
def north(members: Members) -> Iterator[httpx.Client]:
    with members.as_member(NORTH) as client:
        yield client


def test_every_call_of_prefects_that_is_not_on_the_list_is_refused(members: Members, north: httpx.Client):
    """Whatever the server offers, about the other site's objects: the list is what is allowed, not what is forbidden."""
    with members.as_member(COORDINATOR) as coordinator:
        offered = coordinator.get("/openapi.json").json()["paths"]
    tried = 0
    for path, methods in offered.items():
        real = path.removeprefix("/api")
        for name in (part[1:-1].split(":")[0] for part in path.split("/") if part.startswith("{")):
            real = real.replace(f"{{{name}}}", SOUTH if "name" in name else members.runs[SOUTH])
        for method in methods:
            listed = any(call.method == method.upper() and "{site}" not in call.path
                         and call.path.replace("{id}", members.runs[SOUTH]) == real for call in CALLS)
            if not listed:
                tried += 1
                assert north.request(method.upper(), real, json={}).status_code == 403, (method, path)
    assert tried > 150
    assert members.runs[SOUTH]


def test_nobody_gets_in_without_a_login_or_with_another_ones_secret(members: Members):
    secret = members.between.login(NORTH).partition(":")[2]
    for auth in (None, (NORTH, "wrong"), (NORTH, ""), (SOUTH, secret), (COORDINATOR, secret), ("", secret)):
        with httpx.Client(base_url=members.between.api_url, verify=members.tls, auth=auth, trust_env=False) as client:
            members.between.login(SOUTH)
            assert client.get("/health").status_code == 401, auth
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        httpx.get(f"{members.between.api_url}/health", trust_env=False)


def test_another_sites_runs_cannot_be_read_found_or_changed(members: Members, north: httpx.Client):
    theirs, mine = members.runs[SOUTH], members.runs[NORTH]
    assert north.get(f"/flow_runs/{theirs}").status_code == 403
    assert north.get(f"/flow_runs/{mine}").json()["name"] == f"waits/{NORTH}"
    everything = [{}, {"flow_runs": {"id": {"any_": [theirs, mine]}}},
                  {"work_pools": {"name": {"any_": [SOUTH]}}}, {"flow_runs": {"operator": "or_", "id": {"any_": [theirs]}}}]
    for asked in everything:
        assert {run["work_pool_name"] for run in north.post("/flow_runs/filter", json=asked).json()} <= {NORTH}
        assert theirs not in [run["id"] for run in north.post("/ui/flow_runs/history", json=asked).json()]
    assert north.post("/flow_runs/count", json={"flow_runs": {"id": {"any_": [theirs]}}}).json() == 0
    assert [pool["name"] for pool in north.post("/work_pools/filter", json={}).json()] == [NORTH]
    for state in ("CANCELLED", "COMPLETED", "RUNNING"):
        done = north.post(f"/flow_runs/{theirs}/set_state", json={"state": {"type": state}, "force": True})
        assert done.status_code == 403
    with members.as_member(COORDINATOR) as coordinator:
        assert coordinator.get(f"/flow_runs/{theirs}").json()["state"]["type"] == "SCHEDULED"


def test_a_site_says_that_its_own_run_moves_and_changes_nothing_else(members: Members, north: httpx.Client):
    mine = f"/flow_runs/{members.runs[NORTH]}"
    before = north.get(mine).json()
    assert north.patch(mine, json=AT_WORK).status_code == 204
    after = north.get(mine).json()
    assert after["updated"] > before["updated"], "the server notes when a run was written last"
    assert {key for key in before if before[key] != after[key]} <= {
        "updated", "infrastructure_pid", "estimated_start_time_delta"}
    for said in ({}, {"name": "other"}, {**AT_WORK, "tags": ["x"]}, {"infrastructure_pid": "7"}, {"parameters": {}}, None):
        assert north.patch(mine, json=said).status_code == 403, said
    assert north.patch(f"/flow_runs/{members.runs[SOUTH]}", json=AT_WORK).status_code == 403


@pytest.mark.parametrize("header", [
    {"content-type": "text/plain"}, {"content-type": ""}, {"content-type": "multipart/form-data; boundary=x"},
    {"content-type": b"\xe9"}, {"content-encoding": "gzip"}, {"x-prefect-api-version": b"\xe9"}, {"accept": b"\xe9"}])
def test_no_header_keeps_the_server_from_reading_what_the_doorkeeper_wrote(
        members: Members, north: httpx.Client, header: dict):
    """A server that takes the body for no JSON sees no filter, and would answer with everybody's runs."""
    for path in ("/flow_runs/filter", "/ui/flow_runs/history", "/work_pools/filter"):
        answer = north.post(path, content=b"{}", headers=header)
        assert answer.status_code == 200, answer.text
        assert answer.json()
        assert SOUTH not in answer.text
        assert members.runs[SOUTH] not in answer.text


@pytest.mark.parametrize("path", [
    f"/work_pools/{NORTH}/../{SOUTH}", f"/work_pools/{NORTH}%2f..%2f{SOUTH}", f"/work_pools//{NORTH}",
    f"/work_pools/{NORTH}/", f"/work_pools/{NORTH}?x=1", f"/work_pools/{NORTH.upper()}", "/work_pools/%64oor-north",
    f"/../api/work_pools/{SOUTH}",
    f"/work_pools/{NORTH}#", f"/work_pools/{NORTH};x"])
def test_no_other_spelling_of_a_path_is_a_way_around(members: Members, path: str):
    """As bytes: a client would tidy the path up."""
    status = asyncio.run(raw_status(members, path))
    assert status in (400, 403), status


async def raw_status(members: Members, path: str) -> int:
    host, port = members.between.api_url.removeprefix("https://").removesuffix("/api").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=members.tls)
    login = httpx.BasicAuth(*members.between.login(NORTH).split(":", 1))._auth_header
    writer.write(f"GET /api{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {login}\r\nConnection: close\r\n\r\n".encode())
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


BAD_RUNS = {
    "in the coordinator's pool": {"work_pool_name": COORDINATOR},
    "in another site's pool": {"work_pool_name": SOUTH},
    "with another site's key": {"idempotency_key": f"{PLAN}/{SOUTH}/0"},
    "with a key of another form": {"idempotency_key": f"{PLAN}/{NORTH}/0/x"},
    "with another site's name": {"name": f"r/train-00001/{SOUTH}"},
    "with another round's tag": {"tags": ["r/train-00002"]},
    "with a campaign's tag": {"tags": ["r/campaign"], "name": f"r/campaign/{NORTH}"},
    "of a deployment": {"deployment_id": str(uuid.UUID(int=1))},
    "with a command": {"job_variables": {"command": "touch"}},
    "with other parameters": {"parameters": {"request": {"run": "r", "rounds": 99}}},
    "that waits": {"state": {"type": "SCHEDULED", "name": "Scheduled", "message": None}},
    "with labels": {"labels": {"x": "y"}},
    "of a round that is no run": {"labels": {ROUND_RUN: "x"}},
    "with a count that is none": {"idempotency_key": f"{PLAN}/{NORTH}/\u0663"},
    "with an endless count": {"idempotency_key": f"{PLAN}/{NORTH}/{'9' * 5000}"},
}


@pytest.mark.parametrize("change", BAD_RUNS.values(), ids=BAD_RUNS.keys())
def test_a_run_that_is_not_the_sites_own_for_a_plan_is_not_made(members: Members, north: httpx.Client, change: dict):
    assert north.post("/flow_runs/", json=members.new_run(NORTH, **change)).status_code == 403


def test_what_a_worker_says_of_its_own_is_carried_out(members: Members, north: httpx.Client):
    made = north.post("/flow_runs/", json=members.new_run(NORTH))
    assert made.status_code == 201, made.text
    run = made.json()
    assert (run["work_pool_name"], run["state"]["type"]) == (NORTH, "COMPLETED")
    assert north.get(f"/flows/{run['flow_id']}").json()["name"] == "site-round", "whatever flow was named"
    claim = {"state": {"type": "RUNNING", "name": "Running", "message": "claimed"}, "force": False}
    assert north.post(f"/flow_runs/{members.runs[NORTH]}/set_state", json=claim).json()["status"] == "ACCEPT"
    names = {NORTH: 204, f"{NORTH}-0123abcd": 204, "intruder": 403, f"{NORTH}-intruder": 403, SOUTH: 403}
    for name, status in names.items():
        assert north.post(f"/work_pools/{NORTH}/workers/heartbeat", json={"name": name}).status_code == status, name
    for seconds, status in ((30, 204), (0, 403), (2**31 - 1, 403)):
        sign = {"name": NORTH, "heartbeat_interval_seconds": seconds}
        assert north.post(f"/work_pools/{NORTH}/workers/heartbeat", json=sign).status_code == status, seconds
    assert north.patch(f"/work_pools/{NORTH}", json={"base_job_template": {}}).status_code == 204
    for change in ({"is_paused": True}, {"base_job_template": {"job_configuration": {"command": "touch"}}}):
        assert north.patch(f"/work_pools/{NORTH}", json={"base_job_template": {}, **change}).status_code == 403
    assert north.post("/flows/", json={"name": "federated-training"}).status_code == 403


def test_no_event_of_another_kind_or_about_another_sites_run_is_published(members: Members, north: httpx.Client):
    from prefect.types._datetime import now

    def words(site: str) -> dict:
        return answered(uuid.UUID(members.runs[site]), PLAN, "r/train-00001", Ended(
            type="COMPLETED", message="update", began=now("UTC"), at=now("UTC")))

    mine, theirs = words(NORTH), words(SOUTH)
    assert north.post("/events", json=[mine]).status_code == 204
    forged = {**mine, "resource": theirs["resource"]}
    alarm = {**mine, "event": "fedround.drift.alarm"}
    also = {**mine, "related": [*mine["related"], *theirs["related"]]}
    labelled = {**mine, "resource": {**mine["resource"], "fedround.federation": "any"}}
    for events in ([theirs], [forged], [alarm], [also], [labelled], [mine, theirs], [], {}, "x", [1]):
        assert north.post("/events", json=events).status_code == 403, events


@pytest.mark.parametrize("where", ["task_run", "validated_state"])
def test_attack_a_payload_that_names_another_sites_task_run_is_not_published(
        members: Members, north: httpx.Client, where: str):
    """The server takes ids of the payload for true: the round would not wait for that site any more."""
    from prefect.types._datetime import now

    event = answered(uuid.UUID(members.runs[NORTH]), PLAN, "r/train-00002", Ended(
        type="COMPLETED", message="update", began=now("UTC"), at=now("UTC")))
    theirs = uuid.UUID(members.runs[SOUTH])
    for more in ({"id": str(task_run(theirs, PLAN)), "flow_run_id": str(theirs)}, {"state_id": str(theirs)},
                 {"state_details": {"flow_run_id": str(theirs)}}, {"x": [[[]]]}):
        changed = {**event, "payload": {**event["payload"], where: {**event["payload"][where], **more}}}
        assert north.post("/events", json=[changed]).status_code == 403, more
    for occurred in ("9999-12-31T23:59:59-23:59", "x", 0, True):
        assert north.post("/events", json=[{**event, "occurred": occurred}]).status_code == 403, occurred


async def test_a_stream_brings_what_wakes_the_own_worker_whatever_was_asked_for(members: Members):
    heard = await members.hear(members.between.login(NORTH), "/events/out", {"event": {"prefix": ["fedround", "prefect"]}})
    assert {one["related"][0]["prefect.resource.id"] for one in heard if one["event"] == ASKED} == {resource(NORTH)}


async def test_no_other_stream_is_opened(members: Members):
    login = members.between.login(NORTH)
    for auth, path in ((login, "/events/in"), (login, "/logs/out"), (f"{NORTH}:wrong", "/events/out"), ("", "/events/out")):
        with pytest.raises(ConnectionClosed):
            await members.hear(auth, path, {})
    for path in (f"/work_pools/{NORTH}/workers/connect", "/task_runs/subscriptions/scheduled"):
        with pytest.raises(InvalidStatus):
            await members.hear(login, path, {})


def test_who_reaches_the_port_writes_no_traceback_into_the_log(members: Members):
    async def say(token: object) -> None:
        async with connect(f"{members.between.api_url.replace('http', 'ws')}/events/out", ssl=members.tls, proxy=None,
                           subprotocols=["prefect"]) as stream:
            await stream.send(json.dumps({"type": "auth", "token": token}))
            with pytest.raises(ConnectionClosed, match="1008"):
                await stream.recv()

    for token in ("x:\ud800", f"{NORTH}:\ud800", "\ud800", [":"], {"a": 1}, 7, None, True):
        asyncio.run(say(token))
    assert "Traceback" not in (members.between.folder.parent / "doorkeeper.log").read_text()


def test_a_flow_that_was_deleted_is_found_again(members: Members, north: httpx.Client):
    assert north.post("/flow_runs/", json=members.new_run(NORTH)).status_code in (200, 201)
    with members.as_member(COORDINATOR) as coordinator:
        flow = coordinator.post("/flows/", json={"name": "site-round"}).json()["id"]
        assert coordinator.delete(f"/flows/{flow}").status_code == 204
    assert north.post("/flow_runs/", json=members.new_run(NORTH)).status_code == 201


def test_a_login_that_was_taken_back_is_refused_at_once(members: Members):
    from infra.nginx import give_login
    from infra.nginx.configuration import take_login

    with members.as_member("door-west") as west:
        assert west.get("/health").status_code == 200
        take_login(members.between.folder, "door-west")
        assert west.get("/health").status_code == 401
    give_login(members.between.folder, "door-west")
    with members.as_member("door-west") as west:
        assert west.get("/health").status_code == 200
