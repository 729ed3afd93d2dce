"""What a site finds in the store when it serves a campaign and has not been told."""

from __future__ import annotations

import pytest

from fedround import layout
from fedround.errors import ChainError
from fedround.privacy import ledger
from fedround.signing import seal
from site_workers.campaign import Waiting, newest_plan
from site_workers.round import SiteRequest, job
from tasks.ask import conclude, plan_question
from tasks.requests import RoundRequest
from tasks.setting_up import next_question
from tasks.unmask import plan_reveal
from tests import summing
from tests.small_federation import SmallFederation, changed


def waiting(federation: SmallFederation) -> Waiting | None:
    return newest_plan(federation.site("north"))("spring")


def test_before_anything_is_asked_nothing_waits(federation: SmallFederation):
    assert waiting(federation) is None


def test_a_plan_waits_until_its_round_is_committed(federation: SmallFederation):
    first = federation.plan()
    assert waiting(federation) == Waiting(first.digest, SiteRequest(run="spring", round=1, attempt=1, purpose="train"))
    federation.round()
    assert waiting(federation) is None
    second = federation.plan()
    assert waiting(federation).plan == second.digest


def test_of_two_attempts_the_later_one_waits(federation: SmallFederation):
    federation.plan()
    again = federation.plan(deadline_s=77)
    assert again.plan.attempt == 2
    assert waiting(federation) == Waiting(again.digest, SiteRequest(run="spring", round=1, attempt=2, purpose="train"))


def test_an_evaluation_waits_after_its_round_and_not_once_the_next_round_is_asked(federation: SmallFederation):
    federation.round()
    planned = plan_question(federation.coordinator, RoundRequest(run="spring"))
    assert waiting(federation) == Waiting(
        planned.digest, SiteRequest(run="spring", round=1, attempt=1, purpose="evaluate"))
    following = federation.plan()
    assert waiting(federation).plan == following.digest


def test_a_plan_out_of_order_does_not_wait_and_is_not_answered(federation: SmallFederation):
    """A coordinator that asks for round 3 before round 1 is committed: neither the store nor an event gets it an answer."""
    first, coordinator = federation.plan(), federation.coordinator
    early = changed(first.plan, round=3)
    coordinator.store.put_once(layout.plan("spring", 3, 1, "train"), seal(early, coordinator.identity))
    assert waiting(federation).plan == first.digest
    site = federation.site("north")
    with pytest.raises(ChainError, match="round 2, which it continues, is not committed"):
        job(site)({"run": "spring", "round": 3, "attempt": 1, "purpose": "train"}, lambda: False)
    assert ledger.read(site.ledger).charges == ()


def test_another_run_is_another_campaign(federation: SmallFederation):
    federation.plan("autumn")
    assert waiting(federation) is None


def test_keys_wait_before_what_they_mask_and_a_reveal_waits_for_nobody(tmp_path_factory: pytest.TempPathFactory,
                                                                      rows_are_judged_here: None):
    federation, kinds = summing.make(tmp_path_factory.mktemp("sums")), []
    while (planned := next_question(federation.coordinator, RoundRequest(run="spring"))) is not None:
        assert waiting(federation).plan == planned.digest
        kinds.append(planned.plan.asks.kind)
        for name in federation.names:
            federation.answer(name, planned)
        conclude(federation.coordinator, planned, federation.collect(planned))
    assert (kinds, waiting(federation)) == (["keys", "shares"], None)
    planned = federation.plan()
    for name in federation.names:
        federation.answer(name, planned)
    plan_reveal(federation.coordinator, planned, federation.collect(planned))
    assert waiting(federation).plan == planned.digest
