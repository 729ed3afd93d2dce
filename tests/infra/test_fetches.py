"""Who fetches how many models: counted from nginx's own record, by the credential that the signature names."""

from __future__ import annotations

import ssl
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import httpx
import pytest

from infra.doorkeeper import app
from infra.doorkeeper.fetches import DAY_S, EVENT, LOG, Fetches, Tail, resource
from infra.nginx import Proxy, make_proxy
from infra.stack.ports import HOST, is_free
from tests.infra.organisations import NGINX, free_port, make_authority, needs_nginx, short_folder, started, user, wait_for

SIGNED = "AWS4-HMAC-SHA256 Credential={}/20260301/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


def line(model: int, at: float = 0.0, who: str = "AKIA1", status: int = 200, method: str = "GET",
         where: str = "models") -> str:
    return f'{1e9 + at:.3f} {who} {status} "{method} /fedround/{where}/{model:064x}.safetensors"'


def test_different_models_count_and_each_identity_is_told_once_a_day():
    fetches = Fetches(limit=2)
    assert [fetches.add(line(model)) for model in (1, 2, 1, 2)] == [None] * 4, "in parts, or again"
    assert fetches.add(line(3)) == ("AKIA1", 3)
    assert fetches.add(line(4, at=60)) is None, "told already"
    assert fetches.add(line(1, who="AKIA2")) is None, "of another credential"
    later = [fetches.add(line(model, at=DAY_S + 61)) for model in (7, 8, 9)]
    assert later == [None, None, ("AKIA1", 3)], "what is older than a day is forgotten"


@pytest.mark.parametrize("other", [
    line(9, status=403), line(9, status=404), line(9, method="HEAD"), line(9, method="PUT"), line(9, where="memory"),
    line(9, who="-"), line(9) + " ", "", "\x00", line(9).replace("GET", 'GET" "')])
def test_what_is_no_fetch_counts_for_nothing(other: str):
    assert Fetches(limit=0).add(other) is None
    assert Fetches(limit=0).add(line(9)) == ("AKIA1", 1)


def test_a_log_is_read_from_its_end_line_by_line_and_on_in_the_file_that_takes_its_place(tmp_path: Path):
    log = tmp_path / "s3.log"
    log.write_text("of yesterday\n")
    tail = Tail(log)
    assert list(tail.lines()) == []
    with log.open("a") as file:
        file.write("one\ntwo\nhal")
    assert list(tail.lines()) == ["one", "two"]
    log.rename(tmp_path / "s3.log.1")
    assert list(tail.lines()) == []
    log.write_text("new\n")
    assert list(tail.lines()) == ["new"]
    log.write_text("")
    assert list(tail.lines()) == []
    log.write_text("cut\n")
    assert list(tail.lines()) == ["cut"]


def test_a_hole_that_a_crash_left_is_passed(tmp_path: Path):
    log = tmp_path / "s3.log"
    log.write_text("")
    tail = Tail(log)
    list(tail.lines())
    log.write_bytes(bytes(3 << 20) + b"\nnext\n")
    assert "next" in [line for _ in range(5) for line in tail.lines()]


def test_attack_what_goes_wrong_ends_no_watch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog):
    """A log that may not be read for a while, an answer that is none: who fetches models is told afterwards, too."""
    monkeypatch.setattr(app, "WATCH_S", 0.0)
    told, log = [], tmp_path / "s3.log"

    class Behind:
        async def tell(self, *said) -> None:
            told.append(said)
            if len(told) == 1:
                raise ValueError("no JSON")

    async def watch() -> None:
        with anyio.fail_after(100):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(app._watch, Tail(log), Fetches(0), "banks-coordinator", Behind())
                log.mkdir()
                while "who fetches models cannot be seen now" not in caplog.text:
                    await anyio.sleep(0.001)
                log.rmdir()
                for number, who in enumerate(("AKIA1", "AKIA2"), 1):
                    await anyio.sleep(0.01)
                    with log.open("a") as file:
                        file.write(line(1, who=who) + "\n")
                    while len(told) < number:
                        await anyio.sleep(0.001)
                tasks.cancel_scope.cancel()

    anyio.run(watch)
    assert len(told) == 2


class AnyBucket(BaseHTTPRequestHandler):
    """Whatever is asked for is there."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@needs_nginx
def test_what_nginx_writes_is_counted_and_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(app, "WATCH_S", 0.02)
    told: list[tuple[str, dict[str, str], dict[str, int]]] = []

    class Told:
        async def tell(self, *said) -> None:
            told.append(said)

    async def watched(ask: object, log: Path) -> None:
        with anyio.fail_after(100):
            async with anyio.create_task_group() as tasks:
                tail = Tail(log)
                list(tail.lines())
                tasks.start_soon(app._watch, tail, Fetches(2), "banks-coordinator", Told())
                await anyio.to_thread.run_sync(ask)
                while not told:
                    await anyio.sleep(0.02)
                tasks.cancel_scope.cancel()

    bucket = ThreadingHTTPServer((HOST, 0), AnyBucket)
    threading.Thread(target=bucket.serve_forever, daemon=True).start()
    with short_folder() as root:
        (certificate, key), folder = make_authority(root).sign("proxy"), root / "proxy"
        port, s3_port = free_port(), free_port()
        make_proxy(folder, Proxy(coordinator="banks-coordinator", api_behind=f"{HOST}:1", api_name="localhost",
                                 api_listen=f"{HOST}:{port}", certificate=str(certificate), key=str(key),
                                 s3_behind=f"{HOST}:{bucket.server_port}", s3_listen=f"{HOST}:{s3_port}"))
        tls = ssl.create_default_context(cafile=str(root / "authority.pem"))

        def ask() -> None:
            with httpx.Client(verify=tls, trust_env=False, base_url=f"https://localhost:{s3_port}/fedround/models") as client:
                for who, model in (("AKIA7", 1), ('A"\\n', 2), ("AKIA7", 1), ("AKIA7", 2), ("AKIA7", 3)):
                    client.get(f"/{model:064x}.safetensors", headers={"authorization": SIGNED.format(who)}).raise_for_status()

        with started([str(NGINX), "-p", str(folder), "-c", "nginx.conf", "-g", f"daemon off;{user()}"], root / "nginx.log"):
            wait_for(lambda: not is_free(s3_port), root)
            anyio.run(partial(watched, ask, folder / LOG))
    bucket.shutdown()
    bucket.server_close()
    assert told == [(EVENT, resource("banks", "AKIA7"), {"models": 3, "limit": 2})]
