"""The real servers: they start, keep what they were given, keep sites apart, and leave nothing running."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from fedround.errors import ContractError, SetupError, StoreDeniedError
from infra.settings import S3Credential
from infra.stack import LocalStack, StackInfo
from infra.stack.ports import GRPC_OFFSET, choose
from infra.stores import S3Store, require_conditional_writes, s3

pytestmark = pytest.mark.stack

STOP_FROM_OUTSIDE = """
import sys
from pathlib import Path
from infra.stack import LocalStack
LocalStack(Path(sys.argv[1])).stop()
"""


def quiet(_: str) -> None:
    """Nobody watches."""


def info_of(stack: LocalStack) -> StackInfo:
    return stack.start(quiet)


def open_as(stack: LocalStack, credential: S3Credential) -> S3Store:
    info = info_of(stack)
    return S3Store(info.s3_endpoint, info.bucket, credential.access_key, credential.secret_key)


def post(url: str, body: dict[str, object]) -> object:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def get(url: str) -> str:
    with urllib.request.urlopen(url) as answer:
        return answer.read().decode()


def test_a_running_stack_is_found_and_used_again(stack: LocalStack) -> None:
    info = info_of(stack)
    assert info_of(LocalStack(stack.home)) == info
    assert LocalStack.find(stack.home) == info
    assert set(info.pids) == {"postgres", "prefect", "s3"}


def test_the_record_is_private_and_holds_no_secret(stack: LocalStack) -> None:
    path = stack.home / "stack.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for credential in (stack.coordinator_credential(), stack.grant_site("record")):
        assert credential.secret_key not in path.read_text()
    assert stat.S_IMODE((stack.home / "s3" / "identities.json").stat().st_mode) == 0o600


def test_everything_listens_on_the_loopback_interface_only(stack: LocalStack) -> None:
    for pid in info_of(stack).pids.values():
        for connection in psutil.Process(pid).net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip == "127.0.0.1"


def test_the_ui_is_served_and_knows_its_api(stack: LocalStack) -> None:
    info = info_of(stack)
    assert "<html" in get(info.ui_url).lower()
    settings = json.loads(get(f"{info.ui_url}/ui-settings"))
    assert settings["api_url"] == info.api_url
    server = json.loads(get(f"{info.api_url}/admin/settings"))["server"]
    assert server["ui"]["show_promotional_content"] is False
    assert server["analytics_enabled"] is False
    assert server["services"]["scheduler"]["enabled"] is True


def test_another_web_page_may_not_steer_the_api(stack: LocalStack) -> None:
    request = urllib.request.Request(f"{info_of(stack).api_url}/flows/", method="OPTIONS", headers={
        "Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"})
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request)
    assert refusal.value.headers["Access-Control-Allow-Origin"] is None


def test_the_users_own_prefect_is_not_touched(stack: LocalStack) -> None:
    environment = psutil.Process(info_of(stack).pids["prefect"]).environ()
    assert Path(environment["PREFECT_HOME"]).is_relative_to(stack.home)
    assert Path(environment["PREFECT_PROFILES_PATH"]).is_relative_to(stack.home)
    assert Path(environment["HOME"]).is_relative_to(stack.home)


def test_the_database_asks_nobody_but_its_owner(stack: LocalStack) -> None:
    command = psutil.Process(info_of(stack).pids["postgres"]).cmdline()
    folder = Path(next(part for part in command if part.startswith("--unix_socket_directories=")).partition("=")[2])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(str(folder)) < 100


def test_the_store_writes_once(stack: LocalStack) -> None:
    require_conditional_writes(open_as(stack, stack.coordinator_credential()), "probes")
    require_conditional_writes(open_as(stack, stack.grant_site("a")), "sites/a/probes")


def test_a_site_has_one_credential_and_it_is_its_own(stack: LocalStack) -> None:
    assert stack.grant_site("a") == LocalStack(stack.home).grant_site("a")
    all_keys = [stack.grant_site("a"), stack.grant_site("ab"), stack.coordinator_credential(),
                stack.grant_site("coordinator")]
    assert len({credential.access_key for credential in all_keys}) == 4
    assert len({credential.secret_key for credential in all_keys}) == 4


def test_a_site_reads_what_all_may_read_and_writes_below_its_prefix(stack: LocalStack) -> None:
    coordinator, site = (open_as(stack, credential) for credential in (stack.coordinator_credential(),
                                                                       stack.grant_site("own")))
    for key in ("federations/own", "models/own", "runs/own/plan"):
        coordinator.put_once(key, b"public")
        assert site.get(key) == b"public"
        assert key in list(site.list(key.partition("/")[0] + "/"))
    assert site.put_once("sites/own/answer", b"mine") is True
    assert site.put_once("sites/own/answer", b"again") is False
    assert site.get("sites/own/answer") == b"mine"
    assert list(site.list("sites/own/")) == ["sites/own/answer"]
    assert coordinator.get("sites/own/answer") == b"mine"


OUT_OF_REACH = ["sites/b/answer", "sites/ab/answer", "sites/a-b/answer", "sites/answer", "answer", "models/evil",
                "federations/evil", "runs/r/rounds/00001/commit.json"]


@pytest.mark.parametrize("key", OUT_OF_REACH)
def test_a_site_cannot_write_anywhere_else(stack: LocalStack, key: str) -> None:
    coordinator, site = open_as(stack, stack.coordinator_credential()), open_as(stack, stack.grant_site("a"))
    with pytest.raises(StoreDeniedError, match=key):
        site.put_once(key, b"evil")
    assert coordinator.head(key) is None


@pytest.mark.parametrize("key", ["sites/b/secret", "sites/ab/secret", "runs/r/secret"])
def test_a_site_cannot_replace_or_delete_what_others_wrote(stack: LocalStack, key: str) -> None:
    coordinator, site = open_as(stack, stack.coordinator_credential()), open_as(stack, stack.grant_site("a"))
    coordinator.put_once(key, b"kept")
    raw = site._client()
    for attempt in (lambda: raw.put_object(Bucket="fedround", Key=key, Body=b"evil"),
                    lambda: raw.delete_object(Bucket="fedround", Key=key),
                    lambda: raw.copy_object(Bucket="fedround", Key=key, CopySource="fedround/sites/a/x")):
        with pytest.raises(raw.exceptions.ClientError, match="AccessDenied"):
            attempt()
    raw.delete_objects(Bucket="fedround", Delete={"Objects": [{"Key": key}]})     # answers 200, with an error per key
    assert coordinator.get(key) == b"kept"


def test_a_site_cannot_read_or_list_others(stack: LocalStack) -> None:
    coordinator, site = open_as(stack, stack.coordinator_credential()), open_as(stack, stack.grant_site("a"))
    for other in ("b", "ab"):
        coordinator.put_once(f"sites/{other}/private", b"1")
        with pytest.raises(StoreDeniedError):
            site.get(f"sites/{other}/private")
        with pytest.raises(StoreDeniedError):
            list(site.list(f"sites/{other}/"))
    for prefix in ("sites/", "", "sites/a"):
        with pytest.raises(StoreDeniedError):
            list(site.list(prefix))


def test_a_site_sends_in_parts_below_its_own_prefix_only(stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "LARGE_BYTES", 17 << 20)
    coordinator, site = open_as(stack, stack.coordinator_credential()), open_as(stack, stack.grant_site("a"))
    body = bytes(range(256)) * (70 << 10)                                # two parts
    assert site.put_once("sites/a/large", body)
    assert not site.put_once("sites/a/large", b"other" + body)
    info = coordinator.head("sites/a/large")
    assert info is not None
    assert info.of_parts is not None
    assert coordinator.get("sites/a/large") == body
    for key in ("sites/b/large", "sites/ab/large", "models/large"):
        with pytest.raises(StoreDeniedError, match=key):
            site.put_once(key, body)
        assert coordinator.head(key) is None


def test_the_ports_behind_s3_serve_nobody_without_a_token(stack: LocalStack) -> None:
    """The filer's own HTTP port would otherwise hand out, and delete, every object without a signature."""
    info = info_of(stack)
    open_as(stack, stack.coordinator_credential()).put_once("models/behind", b"1")
    address = f"http://127.0.0.1:{info.ports['s3-filer']}/buckets/{info.bucket}/models/behind"
    for method, body in (("GET", None), ("PUT", b"evil"), ("DELETE", None)):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(urllib.request.Request(address, body, method=method))
        assert refusal.value.code == 401
    assert open_as(stack, stack.coordinator_credential()).get("models/behind") == b"1"


@pytest.mark.parametrize("name", ["prefect", "s3"])
def test_a_port_in_use_gets_one_clear_sentence_and_leaves_nothing(short_folder: Path, name: str) -> None:
    [port] = choose(("somebody",), {}, {}).values()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        local = LocalStack(short_folder / "port", **{"api_port" if name == "prefect" else "s3_port": port})
        with pytest.raises(SetupError, match=f"port {port} for {name} is in use on this machine"):
            local.start(quiet)
    assert LocalStack.find(short_folder / "port") is None
    assert not processes_of(short_folder / "port")


def processes_of(home: Path) -> list[str]:
    """Living processes that have `home` on their command line or as their working folder."""
    found = []
    for process in psutil.process_iter(["name", "cmdline", "status"]):
        try:
            mentions = str(home) in " ".join(process.info["cmdline"] or []) or Path(process.cwd()).is_relative_to(home)
        except psutil.Error:
            continue
        if mentions and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.info["name"])
    return found


@pytest.mark.parametrize("name", ["*", "a/*", "", "A", "../b", "a*", "a\n", "x" * 41])
def test_what_is_no_site_gets_no_credential(short_folder: Path, name: str) -> None:
    local = LocalStack(short_folder / "names")
    with pytest.raises(ContractError, match="no site's name"):
        local.grant_site(name)
    assert not (local.home / "s3" / "identities.json").exists()


def test_an_interrupted_start_leaves_nothing_running(short_folder: Path) -> None:
    local, told = LocalStack(short_folder / "interrupted"), []

    def interrupt(line: str) -> None:
        told.append(line)
        if len(told) == 2:
            assert len(processes_of(local.home)) >= 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.start(interrupt)
    assert LocalStack.find(local.home) is None
    assert not processes_of(local.home)


def left_sockets(info: StackInfo) -> list[str]:
    return [path.name for port in info.ports.values() for number in (port, port + GRPC_OFFSET)
            for path in Path("/tmp").glob(f"seaweedfs-*-{number}.sock")]


def test_killed_or_stopped_it_starts_again_with_all_it_had(short_folder: Path) -> None:
    """One long story, because every start takes ten seconds; in a deep folder with an odd name."""
    local = LocalStack(short_folder / "with a space" / "é" / ("x" * 90) / "stack")
    try:
        tell_the_story(local)
    finally:
        local.stop()


def kill(*pids: int) -> None:
    """SIGKILL to all at once, and the moment that it takes."""
    processes = [psutil.Process(pid) for pid in pids]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes)


def tell_the_story(local: LocalStack) -> None:
    first = local.start(quiet)
    assert processes_of(local.home)
    store, site = open_as(local, local.coordinator_credential()), local.grant_site("a")
    store.put_once("models/kept", b"model" * 100_000)
    post(f"{first.api_url}/flows/", {"name": "kept"})

    kill(first.pids["s3"])
    assert LocalStack.find(local.home) is None, "two of three servers are no stack"
    kill(first.pids["postgres"], first.pids["prefect"])      # a power cut, as far as processes can feel one
    second = LocalStack(local.home).start(quiet)
    assert second.ports == first.ports, "addresses that others wrote down must stay right"
    assert set(second.pids.values()).isdisjoint(first.pids.values())
    assert store.get("models/kept") == b"model" * 100_000
    assert post(f"{second.api_url}/flows/filter", {})[0]["name"] == "kept"

    # Stopped by another process, which knows no more than the folder; the second time nothing happens.
    subprocess.run([sys.executable, "-c", STOP_FROM_OUTSIDE, str(local.home)], check=True)
    assert LocalStack.find(local.home) is None
    assert not processes_of(local.home)
    local.stop()
    assert not left_sockets(second)

    with socket.socket() as thief:                   # another program has a port of ours by now
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", second.ports["s3-master"]))
        thief.listen()
        third = local.start(quiet)
    assert third.ports["s3-master"] != second.ports["s3-master"]
    assert local.grant_site("a") == site
    assert open_as(local, site).get("models/kept") == b"model" * 100_000
    assert open_as(local, site).put_once("sites/a/new", b"1") is True
    local.stop()
    assert not processes_of(local.home)
