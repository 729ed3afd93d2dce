"""A federation on one machine is ready when all of its processes serve; an API in trouble is asked again meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import httpx
import prefect
import pytest
from prefect.client.schemas.objects import Worker
from prefect.exceptions import ObjectNotFound
from prefect.types._datetime import now

from fedround.errors import SetupError
from flows import one_machine
from flows.one_machine import OneMachine
from tests.prefect_answers import Open, answered
from tests.small_federation import SmallFederation


@pytest.fixture
def wait(federation: SmallFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Exception]], None]:
    """Wait for all processes of an API that says these errors first, one a question."""
    def waited(errors: list[Exception]) -> None:
        class Api(Open):
            async def read_workers_for_work_pool(self, pool: str) -> list[Worker]:
                if errors:
                    raise errors.pop(0)
                return [SimpleNamespace(status="ONLINE", last_heartbeat_time=now("UTC"))]

        monkeypatch.setattr(prefect, "get_client", Api)
        asyncio.run(one_machine._wait_until_serving(OneMachine(tmp_path / "machine"), federation.coordinator, ["north"],
                                                    lambda _: None))

    return waited


@pytest.mark.parametrize("error", [
    httpx.ConnectError("away"), answered(500), answered(503), answered(429), ObjectNotFound(RuntimeError("404"))], ids=str)
def test_an_api_in_trouble_is_asked_again(wait: Callable[[list[Exception]], None], error: Exception):
    errors = [error, error]
    wait(errors)
    assert errors == []


def test_one_that_stays_so_is_a_sentence_in_the_end(wait: Callable[[list[Exception]], None], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(one_machine, "READY_S", 0.0)
    with pytest.raises(SetupError, match=r"not ready after 0 s: .*north.*is in trouble \(500\)"):
        wait([answered(500)])


def test_a_login_that_is_refused_is_a_sentence_at_once(wait: Callable[[list[Exception]], None]):
    errors = [answered(401), answered(401)]
    with pytest.raises(SetupError, match="login"):
        wait(errors)
    assert len(errors) == 1
