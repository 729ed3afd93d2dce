"""A round that fails says who gave nothing, why, and what helps against that."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import pytest

from fedround.errors import QuorumError
from fedround.records import CommittedRefusal, Reason, Refusal, Rejection
from fedround.spoken import one_line
from tasks.collected import Collected, Refused
from tasks.quorum import HELPS, check_quorum
from tests.tasks.conftest import Answered


def refused(answered: Answered, site: str, reason: Reason, detail: str = "") -> Refused:
    (south,) = answered.federation.collect(answered.planned, answered.coordinator(answered.store())).refused.values()
    said: Refusal = south.refusal.model_copy(update={"site": site, "reason": reason, "detail": detail})
    return Refused(said, CommittedRefusal(site=site, answer="0" * 64, reason=reason))


def failure(answered: Answered, collected: Collected) -> str:
    with pytest.raises(QuorumError) as caught:
        check_quorum(answered.planned, collected)
    return str(caught.value)


def test_as_many_as_the_quorum_are_enough_and_one_less_is_not(answered: Answered):
    collected = answered.federation.collect(answered.planned, answered.coordinator(answered.store()))
    assert len(collected.admitted) == 2
    for quorum in (1, 2, 3):
        planned = dataclasses.replace(answered.planned, plan=answered.planned.plan.model_copy(update={"quorum": quorum}))
        with nullcontext() if quorum <= 2 else pytest.raises(QuorumError, match="2 of 3 sites .* the quorum is 3"):
            check_quorum(planned, collected)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_own_advice(answered: Answered, reason: Reason):
    said = failure(answered, Collected(refused={"south": refused(answered, "south", reason, "because of that")}))
    assert f"refused 1: south ({reason}: because of that)" in said
    assert f"A site that refused for '{reason}' answers when {HELPS[reason]}." in said
    assert len(set(HELPS.values())) == len(Reason)


def test_a_spent_budget_is_not_helped_by_asking_again(answered: Answered):
    assert "asking again does not help" in failure(answered, Collected(
        refused={"south": refused(answered, "south", Reason.BUDGET)}))


def test_everybody_is_named_and_nobody_fills_the_page(answered: Answered):
    many = tuple(f"site-{number:02d}" for number in range(100))
    said = failure(answered, Collected(
        rejected={"east": Rejection(site="east", reason="two\nlines")}, missing=many,
        refused={"north": refused(answered, "north", Reason.HOURS, "x" * 300)}))
    assert "no answer 100: site-00, " in said
    assert "site-07, and 92 more" in said
    assert "not admitted 1: east (" in said
    assert one_line(said) == said
    assert len(said) < 1_200
