"""Servers that are down and ports that are taken: one sentence that helps, exit code 1, nothing lost."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomlkit

from infra.stack.ports import is_free
from tests.cli.conftest import Fedround, one_sentence
from tests.small_federation import SmallFederation


@pytest.mark.parametrize("command", [("deploy",), ("train", "run"), ("round", "run")])
def test_an_api_that_is_down(fedround: Fedround, coordinator: Path, command: tuple[str, ...]):
    """Port 9 of this machine: nobody listens there."""
    one_sentence(fedround(*command, "-c", coordinator), "does not answer", "fedround up")


@pytest.mark.parametrize("member", ["coordinator", "north"])
def test_a_process_whose_api_is_down_does_not_start(federation: SmallFederation, member: str):
    """In a process of its own, as it would serve."""
    command = ("coordinator", "start", "-c") if member == "coordinator" else ("site", "start")
    done = subprocess.run([sys.executable, "-m", "fedround_cli.main", *command, str(federation.root / member)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "does not answer: check api_url" in done.stderr.splitlines()[-1]


@pytest.fixture
def without_store(federation: SmallFederation) -> SmallFederation:
    """Everybody's store is an S3 server that is down."""
    for name in ("coordinator", "north"):
        folder = federation.root / name
        file = folder / ("coordinator.toml" if name == "coordinator" else "site.toml")
        document = tomlkit.parse(file.read_text())
        document["store"] = {"kind": "s3", "endpoint": "http://127.0.0.1:9", "bucket": "fedround"}
        file.write_text(tomlkit.dumps(document))
        (folder / "keys" / "s3.toml").write_text('access_key = "a"\nsecret_key = "b"\n')
    return federation


@pytest.mark.parametrize("command", [
    ("federation", "check"), ("deploy",), ("coordinator", "start"), ("verify", "spring", "--as")])
def test_an_object_store_that_is_down(fedround: Fedround, without_store: SmallFederation, command: tuple[str, ...]):
    folder = without_store.root / "coordinator"
    where = (folder,) if command[-1] == "--as" else ("-c", folder)
    one_sentence(fedround(*command, *where), "the object store at http://127.0.0.1:9 does not answer", "check the address")


def test_an_object_store_that_is_down_is_one_line_of_the_preflight(fedround: Fedround, without_store: SmallFederation):
    result = fedround("site", "check", without_store.root / "north", "--json")
    findings = {finding["check"]: finding for finding in json.loads(result.stdout)}
    assert "does not answer" in findings["store"]["detail"]
    assert findings["contract"]["ok"]


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", next(filter(is_free, range(12_000, 20_000)))))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_in_use_is_named(fedround: Fedround, taken: int):
    one_sentence(fedround("up", "--home", "stack", "--api-port", taken), f"port {taken} for prefect is in use")
    one_sentence(fedround("up", "--home", "stack", "--s3-port", taken), f"port {taken} for s3 is in use")


def test_a_port_that_is_none(fedround: Fedround):
    one_sentence(fedround("up", "--home", "stack", "--api-port", 70_000), "choose one from 1 to")


def test_down_and_status_without_anything_running(fedround: Fedround):
    assert fedround("down", "--home", "stack").exit_code == 0
    assert json.loads(fedround("status", "--home", "stack", "--json").stdout) == {
        "stack": None, "processes": {}, "excluded": [], "members": [], "problem": None, "progress": None}
