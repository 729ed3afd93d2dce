"""What a site's process does before it serves: it holds itself to the policy, looks at its books, and sends what waits."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

import infra.worker_process
from fedround.errors import AuditError, SetupError, StoreUnavailableError
from fedround.signing import digest
from site_workers import audit, service
from tests.small_federation import SmallFederation, store_is_down


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was done, in order; serving ends at once."""
    done: list[object] = []
    monkeypatch.setattr(service, "use_api", lambda url, folder: done.append(url))
    monkeypatch.setattr(service, "settle_in", lambda limits, trains: done.append(limits))
    monkeypatch.setattr(infra.worker_process, "serve", lambda worker: done.append(worker.type))
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        yield done


def test_it_settles_in_says_so_in_its_log_and_serves(federation: SmallFederation, served: list[object]):
    north = federation.root / "north"
    service.serve_site(north)
    assert served == ["http://127.0.0.1:9/api", federation.site("north").policy.limits, "fedround-site"]
    started = audit.read(north)[-1]
    assert isinstance(started, audit.Started)
    assert started.policy == digest((north / "policy.toml").read_bytes())


def test_what_an_earlier_process_could_not_send_is_sent(federation: SmallFederation, served: list[object]):
    planned = federation.plan()
    with store_is_down():
        with pytest.raises(StoreUnavailableError):
            federation.answer("north", planned)
        service.serve_site(federation.root / "north")
        assert served[-1] == "fedround-site", "a store that is down is no reason not to serve"
        assert federation.collect(planned).missing == ("east", "north", "south")
    service.serve_site(federation.root / "north")
    assert federation.collect(planned).admitted.keys() == {"north"}


@pytest.mark.parametrize("broken", ["log", "backup"])
def test_books_that_do_not_agree_and_a_folder_of_yesterday_are_not_served(
        federation: SmallFederation, served: list[object], tmp_path: Path, broken: str):
    north = federation.root / "north"
    backup = Path(shutil.copytree(north, tmp_path / "backup"))
    federation.round()
    if broken == "log":
        shutil.copyfile(backup / "audit.jsonl", north / "audit.jsonl")
    else:
        shutil.rmtree(north)
        shutil.copytree(backup, north)
    with pytest.raises(AuditError if broken == "log" else SetupError):
        service.serve_site(north)
    assert "fedround-site" not in served
