"""What a process says of itself, to whoever may look, and its log lines."""

from __future__ import annotations

import json
import logging
import logging.handlers
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedround.errors import SetupError, StoreError
from flows.region_host import RegionNumbers
from infra import health, logs
from infra.health import Number
from infra.model_registry import ModelRegistry
from infra.settings import load_toml, save_toml
from infra.stores import Metered, Traffic
from site_workers.health import SiteNumbers
from site_workers.outcome import Ending, Outcome
from site_workers.policy import SitePolicy
from tasks.catch_up import catch_up
from tasks.health import coordinator_numbers
from tasks.progress import Progress, write_progress
from tests.infra.organisations import free_port
from tests.small_federation import SmallFederation


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> str:
    here = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv(health.VARIABLE, here)
    return here


def look(address: str, page: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{page}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def numbers_at(text: str) -> dict[tuple[str, ...], float]:
    return {(sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text) for sample in family.samples}


def closed(server: ThreadingHTTPServer) -> None:
    server.shutdown()
    server.server_close()


def test_a_process_in_trouble_says_so_and_numbers_are_prometheus(address: str):
    trouble: list[str | None] = [None]
    server = health.serve(lambda: trouble[0], lambda: [Number("fedround_x", "Says it.", 2, {"run": "a"}),
                                                      Number("fedround_x", "Says it.", 3, {"run": 'b"\n'})])
    try:
        assert look(address, "/healthz") == (200, "ok\n")
        assert numbers_at(look(address, "/metrics")[1]) == {("fedround_x", "a"): 2, ("fedround_x", 'b"\n'): 3}
        assert look(address, "/other")[0] == 404
        trouble[0] = "the Prefect API has not answered for 300 s"
        assert look(address, "/healthz") == (503, "the Prefect API has not answered for 300 s\n")
    finally:
        closed(server)


def test_whoever_asks_nothing_is_sent_away_and_no_version_is_told(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(health, "_PATIENCE_S", 0.05)
    server = health.serve(lambda: None, list)
    host, _, port = address.partition(":")
    try:
        for said in (b"", b"GET /healthz HT"):
            with socket.create_connection((host, int(port)), timeout=30) as slow:
                slow.sendall(said)
                assert slow.recv(100) == b""
        with socket.create_connection((host, int(port)), timeout=30) as asks:
            asks.sendall(b"HEAD /healthz HTTP/1.0\r\n\r\n")
            assert b"Python" not in asks.makefile("rb").read()
    finally:
        closed(server)


def test_no_port_is_opened_unless_asked_and_a_wrong_address_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(health.VARIABLE, raising=False)
    assert not health.is_wanted()
    for wrong in ("9464", "127.0.0.1:x", "127.0.0.1:99999", "no-such-host.invalid:1"):
        monkeypatch.setenv(health.VARIABLE, wrong)
        with pytest.raises(SetupError, match=f"cannot listen at {wrong}.*set FEDROUND_HEALTH"):
            health.serve(lambda: None, list)


def test_what_cannot_be_read_is_left_out():
    def numbers() -> Iterator[Number]:
        yield Number("fedround_first", "Says it.", 1)
        raise StoreError("gone")

    assert numbers_at(health.as_prometheus(numbers).decode()) == {("fedround_first",): 1}


def test_attack_what_goes_wrong_with_one_number_hides_no_other_and_ends_no_page(address: str):
    def trouble() -> str | None:
        raise KeyError("x")

    def numbers() -> Iterator[Number]:
        yield Number("fedround_first", "Says it.", 1)
        yield Number("fedround_first", "Says it.", 2, {"run": "other labels"})

    server = health.serve(trouble, numbers)
    try:
        for _ in range(2):
            assert look(address, "/healthz") == (503, "whether it is in trouble cannot be told; its log says why\n")
            assert numbers_at(look(address, "/metrics")[1]) == {("fedround_first",): 1}
    finally:
        closed(server)


def test_who_looks_at_the_budget_runs_no_recipe(federation: SmallFederation, monkeypatch: pytest.MonkeyPatch):
    """A policy that was changed would have it run in a second process, which nobody ends."""
    site = federation.site("north")
    numbers, path = SiteNumbers(site, Traffic()), site.folder / "policy.toml"
    save_toml(load_toml(SitePolicy, path).model_copy(update={"max_epsilon": 7.5}), path, "less")
    monkeypatch.setattr("site_workers.site.opened", None)
    numbers.price()
    assert numbers_at(health.as_prometheus(numbers).decode())["fedround_epsilon_limit", "record"] == 7.5


def test_a_sites_and_the_coordinators_numbers_follow_a_round(federation: SmallFederation):
    site = federation.site("north")
    site = replace(site, store=Metered(site.store, traffic := Traffic()))
    said = SiteNumbers(site, traffic)
    said.price()
    before = numbers_at(health.as_prometheus(said).decode())
    assert before == {("fedround_outbox_unsent",): 0, ("fedround_epsilon_spent", "record"): 0,
                      ("fedround_epsilon_limit", "record"): 8, **{
        (f"fedround_store_{what}",): 0 for what in ("calls", "seconds", "sent_bytes", "received_bytes")}}
    planned = federation.plan()
    work = said.counted(lambda parameters, cancelled: Outcome(Ending.ANSWERED, federation.answer("north", planned, site)))
    work({"run": "spring", "round": 1}, lambda: False)
    after = numbers_at(health.as_prometheus(said).decode())
    assert after["fedround_last_round", "spring"] == 1
    assert 0 < after["fedround_epsilon_spent", "record"] <= 8
    sent = [path.stat().st_size for path in (federation.root / "store" / "sites" / "north").rglob("*") if path.is_file()]
    assert after["fedround_store_sent_bytes",] == sum(sent) > 0
    assert min(after[f"fedround_store_{what}",] for what in ("calls", "seconds", "received_bytes")) > 0
    assert ("fedround_last_work_timestamp_seconds", "answered") in after
    policy = site.folder / "policy.toml"
    before_it_was_edited = policy.read_text()

    def edited(parameters: object, cancelled: object) -> Outcome:
        policy.write_text("max_epsilon = ")
        return Outcome(Ending.ANSWERED, "update")

    assert said.counted(edited)({"run": "spring", "round": 2}, lambda: False).ending == Ending.ANSWERED
    assert ("fedround_epsilon_spent", "record") not in numbers_at(health.as_prometheus(said).decode())
    policy.write_text(before_it_was_edited)

    coordinator = federation.coordinator
    assert health.as_prometheus(coordinator_numbers(coordinator)) == b""
    write_progress(coordinator.folder, Progress(run="spring", round=1, stage="collect", cohort=3, waiting=("east", "south")))
    told = numbers_at(health.as_prometheus(coordinator_numbers(coordinator)).decode())
    assert told == {("fedround_round_in_progress", "spring"): 1, ("fedround_sites_waiting", "spring"): 2,
                    ("fedround_round_failed", "spring"): 0}


def test_a_model_has_the_same_names_in_prometheus_text_as_in_the_model_store(federation: SmallFederation):
    federation.round()
    coordinator = federation.coordinator
    catch_up(coordinator, "spring")
    write_progress(coordinator.folder, Progress(run="spring", round=1, stage="done", cohort=3, waiting=()))
    told = numbers_at(health.as_prometheus(coordinator_numbers(coordinator)).decode())
    (version,) = ModelRegistry.open(coordinator.folder / "models").versions()
    assert "auc" in version.metrics
    assert {name: told[f"fedround_{name}", "spring"] for name in version.metrics} == version.metrics


def test_a_log_line_as_json_is_one_line_whatever_it_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(logs.LOG_FORM, "json")
    record = logging.LogRecord("fedround.site", logging.WARNING, "f", 1, "two\nlines %s", ("\x1b[31m",), None)
    line = logs.JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line)["level"] == "WARNING"
    assert json.loads(line)["message"].startswith("two lines")
    assert "\x1b" not in json.loads(line)["message"]
    try:
        raise ValueError("first\nsecond")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    assert "ValueError" in json.loads(logs.JsonLines().format(record))["traceback"]


def test_a_log_file_is_rotated_and_one_that_cannot_be_written_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain = logging.NullHandler()
    monkeypatch.delenv(logs.LOG_FILE, raising=False)
    assert logs.chosen_handler(plain) is plain
    monkeypatch.setenv(logs.LOG_FILE, str(tmp_path / "site.log"))
    monkeypatch.setattr(logs, "_ROTATE_BYTES", 200)
    handler = logs.chosen_handler(plain)
    for number in range(400):
        handler.emit(logging.LogRecord("fedround", logging.INFO, "f", 1, f"line {number}", (), None))
    handler.close()
    assert len(list(tmp_path.iterdir())) == 6
    monkeypatch.setenv(logs.LOG_FILE, str(tmp_path / "no" / "folder" / "site.log"))
    with pytest.raises(SetupError, match="mend FEDROUND_LOG_FILE"):
        logs.chosen_handler(plain)


def test_a_budget_of_labels_is_watched_too(federation: SmallFederation):
    """It was counted in the ledger, and seen by no monitor."""
    path = federation.root / "north" / "policy.toml"
    policy = load_toml(SitePolicy, path)
    save_toml(policy.model_copy(update={"max_epsilon_label": 4.0}), path, "labels")
    said = SiteNumbers(federation.site("north"), Traffic())
    said.price()
    numbers = numbers_at(health.as_prometheus(said).decode())
    assert numbers["fedround_epsilon_limit", "label"] == 4
    assert numbers["fedround_epsilon_spent", "label"] == 0


def test_a_regions_numbers_follow_its_sums():
    said = RegionNumbers()
    assert health.as_prometheus(said) == b""
    said.added_up("spring", 3, 7)
    numbers = numbers_at(health.as_prometheus(said).decode())
    assert (numbers["fedround_last_round", "spring"], numbers["fedround_members_added_up", "spring"]) == (3, 7)
