"""A campaign whose round ends by what becomes of its flow run says so in a sentence, and what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from prefect.exceptions import ObjectNotFound

from fedround.errors import SetupError
from flows import federated_training as flow
from tasks.requests import NextRoundRequest
from tests.prefect_answers import answered
from tests.small_federation import SmallFederation


@pytest.mark.parametrize(("error", "says"), [
    (ObjectNotFound(RuntimeError("404")), "somebody has deleted the flow run of round 3"),
    (answered(500), r"is in trouble \(500\).* ends in round 3"),
    (httpx.ReadTimeout("late"), "does not answer.* ends in round 3")])
def test_it_is_a_sentence(federation: SmallFederation, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str):
    async def fails(request: NextRoundRequest) -> int:
        raise error

    @contextmanager
    def step(name: str) -> Iterator[None]:
        yield

    fails.fn = fails
    monkeypatch.setattr(flow, "federated_round", fails)
    monkeypatch.setattr(flow, "one_step", step)
    monkeypatch.setattr(flow, "current_coordinator", lambda: federation.coordinator)
    for inside in (False, True):
        with pytest.raises(SetupError, match=f"{says}.* it does what is left"):
            asyncio.run(flow._round(NextRoundRequest(run="spring"), 3, inside=inside))
