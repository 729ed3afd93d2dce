"""A federation of organisations: TLS with a private authority, a login and an S3 credential each, a proxy between."""

from __future__ import annotations

import json
import re
import ssl
import uuid
from collections.abc import Iterator

import httpx
import pytest

from fedround.errors import StoreDeniedError
from infra.doorkeeper.calls import CALLS, find
from infra.stack.seaweedfs import BUCKET
from infra.stores import S3Store
from tests.infra.federation_between import COORDINATOR, NAMES, Apart, federation_between
from tests.infra.organisations import needs_nginx, short_folder, wait_for

pytestmark = [needs_nginx, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    """Two rounds were trained: one with a flow run for each plan, one within flow runs for the whole campaign."""
    with short_folder() as root, federation_between(root) as made:
        made.type("north", "site", "check", made.folder("north"))
        hide_another(made)
        coordinator = made.folder(COORDINATOR)
        for run, how in (("spring", []), ("summer", ["--one-run-per-site"])):
            made.type(COORDINATOR, "train", "run", "--run", run, "--rounds", 2, *how, "-c", coordinator, "--json")
        yield made


def hide_another(apart: Apart) -> None:
    """A run in north's pool that the server cannot show: north's worker finds out which one it is, and fails it."""
    deep: dict = {}
    for _ in range(400):
        deep = {"a": deep}
    with as_member(apart, COORDINATOR) as client:
        client.post("/flow_runs/", json={
            "flow_id": client.post("/flows/", json={"name": "site-round"}).json()["id"], "work_pool_name": "north",
            "parameters": deep, "state": {"type": "SCHEDULED", "name": "Scheduled"}})
        failed = {"flow_runs": {"state": {"type": {"any_": ["FAILED"]}}}}
        wait_for(lambda: client.post("/flow_runs/count", json=failed).text == "1", apart.root)
        [one] = client.post("/ui/flow_runs/history", json=failed).json()
        assert client.delete(f"/flow_runs/{one['id']}").status_code == 204


def as_member(apart: Apart, name: str) -> httpx.Client:
    member, _, secret = apart.proxy.login(name).partition(":")
    tls = ssl.create_default_context(cafile=str(apart.proxy.authority.file))
    return httpx.Client(base_url=apart.proxy.api_url, verify=tls, auth=(member, secret), trust_env=False, timeout=60)


@pytest.fixture(scope="module")
def north(apart: Apart) -> Iterator[httpx.Client]:
    with as_member(apart, "north") as client:
        yield client


@pytest.fixture(scope="module")
def coordinator(apart: Apart) -> Iterator[httpx.Client]:
    with as_member(apart, COORDINATOR) as client:
        yield client


def test_two_rounds_of_each_campaign_are_committed_and_proven(apart: Apart):
    for run in ("spring", "summer"):
        told = json.loads(apart.type(COORDINATOR, "verify", run, "--as", apart.folder(COORDINATOR), "--json"))
        assert [set(one["updates"]) for one in told["rounds"][1:]] == [set(NAMES)] * 2


def test_the_list_is_what_a_site_calls_and_nothing_more(apart: Apart):
    """Every call of a site's in these rounds is on the list and was let through; every line of the list was needed."""
    calls = [(method, path, status) for who, status, method, path in apart.proxy.calls() if who in NAMES]
    needed = set()
    for method, path, status in calls:
        found = [call for name in NAMES if (call := find(name, method, path)) is not None]
        assert found, f"{method} {path} is not on the list"
        assert status < 400 or status in (500, 502), (method, path, status)       # of the run that the server cannot show
        needed.add((found[0][0].method, found[0][0].path))
    sign = ("PATCH", "/flow_runs/{id}")          # is for work that takes longer than here (`infra/test_doorkeeper.py`)
    assert needed | {sign} == {(call.method, call.path) for call in CALLS}


def test_the_processes_say_how_they_are(apart: Apart):
    for member, says in (("north", "fedround_epsilon_spent"), (COORDINATOR, 'fedround_last_round{run="summer"} 2.0')):
        assert httpx.get(f"http://{apart.health[member]}/healthz", trust_env=False).text == "ok\n"
        assert says in httpx.get(f"http://{apart.health[member]}/metrics", trust_env=False).text
    lines = [json.loads(line) for line in (apart.root / "north.log").read_text().splitlines()]
    assert any(line["message"].endswith("serves rounds of federation 'small'") for line in lines)


def test_nothing_that_an_api_holder_could_do_is_done_with_a_sites_login(apart: Apart, north: httpx.Client,
                                                                        coordinator: httpx.Client):
    pools = {pool["name"]: pool for pool in coordinator.post("/work_pools/filter", json={}).json()}
    runs = {run["name"]: run for run in coordinator.post("/flow_runs/filter", json={"limit": 100}).json()}
    theirs = next(run for run in runs.values() if run["work_pool_name"] == "south")
    rounds = next(run for run in runs.values() if run["work_pool_name"] == COORDINATOR)
    training = coordinator.get("/deployments/name/federated-training/1-train-small").json()["id"]
    stop = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": True}
    attacks = {
        "cancel a campaign": ("POST", f"/flow_runs/{rounds['id']}/set_state", stop),
        "cancel another site's run": ("POST", f"/flow_runs/{theirs['id']}/set_state", stop),
        "delete another site's run": ("DELETE", f"/flow_runs/{theirs['id']}", None),
        "rename a round": ("PATCH", f"/flow_runs/{rounds['id']}", {"name": "forged"}),
        "read another site's run": ("GET", f"/flow_runs/{theirs['id']}", None),
        "poll another site's pool": ("POST", "/work_pools/south/get_scheduled_flow_runs", {}),
        "poll the coordinator's pool": ("POST", f"/work_pools/{COORDINATOR}/get_scheduled_flow_runs", {}),
        "serve another site's pool": ("POST", "/work_pools/south/workers/heartbeat", {"name": "south"}),
        "delete another site's pool": ("DELETE", "/work_pools/south", None),
        "delete its own pool": ("DELETE", "/work_pools/north", None),
        "pause another site's pool": ("PATCH", "/work_pools/south", {"is_paused": True}),
        "start a campaign": ("POST", f"/deployments/{training}/create_flow_run",
                             {"parameters": {"request": {"run": "forged", "rounds": 9}}}),
        "start a campaign in the pool": ("POST", "/flow_runs/", {
            "flow_id": rounds["flow_id"], "work_pool_name": COORDINATOR, "state": {"type": "SCHEDULED"}}),
        "schedule campaigns": ("POST", f"/deployments/{training}/schedules", [{"schedule": {"cron": "* * * * *"}}]),
        "delete the deployment": ("DELETE", f"/deployments/{training}", None),
        "forge an artifact": ("POST", "/artifacts/", {"key": "round", "type": "markdown", "data": "# accuracy 1.0"}),
        "forge a log line": ("POST", "/logs/", [{"name": "x", "level": 40, "message": "forged", "flow_run_id": rounds["id"],
                                                 "timestamp": "2030-01-01T00:00:00Z"}]),
        "read logs": ("POST", "/logs/filter", {}), "read artifacts": ("POST", "/artifacts/filter", {}),
        "leave an automation": ("POST", "/automations/", {"name": "later"}),
        "raise a false alarm": ("POST", "/events", [{
            "id": str(uuid.uuid4()), "occurred": "2030-01-01T00:00:00Z", "event": "fedround.drift.alarm",
            "resource": {"prefect.resource.id": "fedround.federation.small"}, "related": []}]),
        "read settings": ("GET", "/admin/settings", None), "clear the database": ("POST", "/admin/database/clear", {
            "confirm": True}),
        "keep a variable": ("POST", "/variables/", {"name": "x", "value": "y"}),
    }
    for what, (method, path, body) in attacks.items():
        assert north.request(method, path, json=body).status_code == 403, what
    assert {pool["name"]: pool for pool in coordinator.post("/work_pools/filter", json={}).json()}.keys() == pools.keys()
    after = {run["name"]: run for run in coordinator.post("/flow_runs/filter", json={"limit": 100}).json()}
    assert {run["id"]: run["state"]["id"] for run in after.values()} == {
        run["id"]: run["state"]["id"] for run in runs.values()}


def test_one_members_credential_reads_and_writes_nothing_of_anothers(apart: Apart, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(apart.proxy.authority.file))

    def store(member: str) -> S3Store:
        mine = apart.credential(member)
        return S3Store(apart.proxy.s3_endpoint, BUCKET, mine.access_key, mine.secret_key)

    theirs = next(iter(store("south").list("sites/south/")))
    mine = store("north")
    assert next(iter(mine.list("sites/north/")))
    for key in (theirs, "memory/x"):
        with pytest.raises(StoreDeniedError):
            mine.get(key)
    for key in ("sites/south/forged", "runs/spring/rounds/00009/commit.json", "models/x", "log/00099.json"):
        with pytest.raises(StoreDeniedError):
            mine.put_once(key, b"forged")
    with pytest.raises(StoreDeniedError):
        list(mine.list("sites/south/"))


def test_the_server_behind_serves_nobody_without_the_proxys_own_login(apart: Apart):
    assert httpx.post(f"http://{apart.servers.api}/api/flow_runs/filter", json={}, trust_env=False).status_code == 401
    for file in (apart.folder("north") / "site.toml", apart.root / "north.log"):
        assert apart.servers.auth_string not in file.read_text()
    assert re.search(r"north:[A-Za-z0-9_-]{20}", (apart.proxy.folder / "run" / "access.log").read_text()) is None


def test_a_login_that_is_taken_back_ends_the_sites_process_and_nobody_elses(apart: Apart):
    from infra.nginx.configuration import take_login

    take_login(apart.proxy.folder, "south")
    wait_for(lambda: apart.processes["south"].poll() is not None, apart.root)
    assert apart.processes["north"].poll() is None
