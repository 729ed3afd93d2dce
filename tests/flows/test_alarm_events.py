"""What the coordinator tells Prefect of things that a person should know."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fedround.errors import ContractError
from fedround.records import Rejection
from flows import alarm_events
from tasks.collected import Collected

SMALL: Any = SimpleNamespace(federation=SimpleNamespace(name="small"))
PLAN: Any = SimpleNamespace(run="spring", round=3, agreed=SimpleNamespace(pace=None))


def test_attack_what_a_site_wrote_is_one_line_of_text_in_an_event(monkeypatch: pytest.MonkeyPatch):
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(alarm_events, "emit_event", lambda event, **more: told.append(more["payload"]))
    words = "unknown key 'a\x00b\nfedround: all is well\x1b[2J\u202e\ud800'"
    alarm_events.tell_answers(SMALL, PLAN, Collected(rejected={"east": Rejection.model_construct(site="east", reason=words)}))
    with pytest.raises(ContractError), alarm_events.failure_told(SMALL, "spring"):
        raise ContractError(words)
    for payload in told:
        said = payload.get("reason") or payload["problem"]
        assert said.isprintable()
        assert said.startswith("unknown key 'a")
    assert len(told) == 2
