"""What Prefect is told of the coordinator's steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State, TaskRun

from flows import steps

Told = list[tuple[UUID, str, str]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    found: Told = []

    def emit(run: TaskRun, initial: State[Any] | None, state: State[Any]) -> None:
        found.append((run.id, run.name, state.name))

    monkeypatch.setattr(steps, "emit_task_run_state_change_event", emit)
    monkeypatch.setattr(steps, "runtime", SimpleNamespace(flow_run=SimpleNamespace(id=str(uuid4()))))
    return found


def test_a_step_says_how_it_ended(told: Told):
    assert steps._step(lambda: 3, "plan")() == 3
    assert [(name, state) for _, name, state in told] == [("plan", "Completed")]


def test_the_steps_of_a_round_that_is_one_step_are_not_told_apart(told: Told):
    with steps.one_step("round 3"):
        assert steps.in_one()
        steps._step(lambda: None, "plan")()
    assert not steps.in_one()
    assert [(name, state) for _, name, state in told] == [("round 3", "Running"), ("round 3", "Completed")]


def test_a_round_that_is_done_again_is_the_same_task_run(told: Told):
    for _ in range(2):
        with pytest.raises(ValueError, match="too few"), steps.one_step("round 3"):
            raise ValueError("too few")
    assert [state for _, _, state in told] == ["Running", "Failed"] * 2
    assert len({run for run, _, _ in told}) == 1
    steps._step(lambda: None, "plan")()
    assert told[-1][1] == "plan", "after it, steps are told again"
