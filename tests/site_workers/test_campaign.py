"""What a site finds in the store when it serves a campaign and has not been told."""

from __future__ import annotations

from site_workers.campaign import Waiting, newest_plan
from site_workers.round import SiteRequest
from tasks.ask import plan_question
from tasks.plan import RoundRequest
from tests.small_federation import SmallFederation


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


def test_another_run_is_another_campaign(federation: SmallFederation):
    federation.plan("autumn")
    assert waiting(federation) is None
