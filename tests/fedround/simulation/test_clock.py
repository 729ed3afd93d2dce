"""When simulated sites answer: by hand, and as laws of every clock."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.agreement import Agreement
from fedround.errors import ContractError, QuorumError
from fedround.hours import Hours
from fedround.learning.examples import Examples
from fedround.simulation.asking import Asking, Calendar
from fedround.simulation.chance import Seeded
from fedround.simulation.clock import Turn, turns
from fedround.simulation.sites import Site
from tests.small_federation import settings as agreed_settings


def agreed(**changes: object) -> Agreement:
    return Agreement.model_validate(agreed_settings(privacy={"unit": "none"}, **changes))


SECONDS = {"ash": 1.0, "birch": 2.0, "cedar": 10.0}


def told(found: list[Turn]) -> list[tuple[float, dict[str, int], tuple[str, ...]]]:
    return [(turn.ended_s, dict(turn.counted), turn.lost) for turn in found]


def test_a_synchronous_round_takes_as_long_as_the_slowest():
    assert told([*turns(agreed(quorum=3), SECONDS, 2)]) == [
        (10.0, dict.fromkeys(SECONDS, 1), ()), (20.0, dict.fromkeys(SECONDS, 2), ())]


def test_at_the_deadline_who_is_late_is_stopped_and_has_paid():
    assert told([*turns(agreed(quorum=2, deadline_s=3), SECONDS, 2)]) == [
        (3.0, {"ash": 1, "birch": 1}, ("cedar",)), (6.0, {"ash": 2, "birch": 2}, ("cedar",))]


def test_with_enough_nobody_else_is_waited_for():
    assert told([*turns(agreed(quorum=2, enough=2), SECONDS, 2)]) == [
        (2.0, {"ash": 1, "birch": 1}, ("cedar",)), (4.0, {"ash": 2, "birch": 2}, ("cedar",))]


def test_with_a_pace_who_is_late_works_on_and_counts_later():
    """A buffer of one: ash every second, birch with it every other second, cedar with the tenth."""
    found = [*turns(agreed(quorum=1, enough=1, pace={"max_age": 12}), SECONDS, 10)]
    assert [turn.ended_s for turn in found] == [float(second) for second in range(1, 11)]
    assert [dict(turn.counted) for turn in found[:4]] == [
        {"ash": 1}, {"ash": 2, "birch": 1}, {"ash": 3}, {"ash": 4, "birch": 3}]
    assert dict(found[9].counted) == {"ash": 10, "birch": 9, "cedar": 1}
    assert [turn.asked for turn in found[:3]] == [("ash", "birch", "cedar"), ("ash",), ("ash", "birch")]
    assert all(turn.lost == () for turn in found)


def test_who_is_too_old_is_lost_and_asked_anew():
    found = [*turns(agreed(quorum=1, enough=1, pace={"max_age": 2}), SECONDS, 4)]
    assert [turn.lost for turn in found] == [(), (), ("cedar",), ()]
    assert found[3].asked == ("ash", "cedar")


def test_a_round_waits_for_a_majority_of_the_window():
    """Ages up to 1, a window of 3: the third round closes only when a second member has answered in it."""
    slow = {"ash": 1.0, "birch": 7.0, "cedar": 9.0}
    found = [*turns(agreed(quorum=1, enough=1, pace={"max_age": 1}), slow, 3)]
    assert [turn.ended_s for turn in found][:2] == [1.0, 2.0]
    assert len(found[2].counted) == 2


def test_a_site_gives_no_more_updates_than_its_promise_pays_for():
    promise = {"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3}
    found = [*turns(Agreement.model_validate(agreed_settings(
        privacy=promise, quorum=1, enough=1, pace={"max_age": 50})), SECONDS, 5)]
    assert max(Counter(site for turn in found for site in turn.asked).values()) == 3


def test_a_deadline_that_nobody_meets_is_a_sentence():
    with pytest.raises(QuorumError, match="0 of 3 sites answer within 1 s, the quorum is 2"):
        list(turns(agreed(quorum=2, deadline_s=1), {"ash": 2.0, "birch": 2.0, "cedar": 2.0}, 1))
    with pytest.raises(ContractError, match="say how many seconds, more than 0"):
        list(turns(agreed(), {"ash": 0.0}, 1))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.5, 40), min_size=3, max_size=7), st.integers(1, 3), st.integers(1, 6))
def test_laws_of_every_clock(seconds: list[float], enough: int, max_age: int):
    """No answer counts twice, none is older than agreed, none before its work is done; time does not go back."""
    sites = {f"site-{place}": one for place, one in enumerate(seconds)}
    found = [*turns(agreed(quorum=1, enough=enough, deadline_s=1000, pace={"max_age": max_age}), sites, 12)]
    began, counted, ended_s = {}, set(), 0.0
    for turn in found:
        began |= {(site, turn.number): ended_s for site in turn.asked}
        for site, number in turn.counted.items():
            assert (site, number) not in counted
            assert 0 <= turn.number - number <= max_age
            assert began[site, number] + sites[site] <= turn.ended_s
            counted.add((site, number))
        assert turn.ended_s > ended_s
        ended_s = turn.ended_s


# -- dates ----------------------------------------------------------------------------------------------------

NIGHT = Hours(time_zone="Europe/Berlin", start="20:00", end="06:00")


def asking(agreement: Agreement, begins: str, every_s: float = 0.0, **hours: Hours) -> tuple[Asking, float]:
    rows = Examples(np.zeros((1, 2), np.float32), np.zeros(1, np.int64))
    sites = {name: Site(rows, hours=hours.get(name)) for name in SECONDS}
    calendar = Calendar(datetime.fromisoformat(begins), every_s)
    return Asking(agreement, sites, dict.fromkeys(SECONDS, 1.0), Seeded(0), 1.0, calendar), every_s


def test_who_is_away_is_not_asked_and_a_round_waits_until_a_quorum_is_there():
    """Cedar works at night, 20:00 to 06:00 in Berlin. It is 15:00 there when the campaign begins."""
    patient = agreed(quorum=2, deadline_s=6 * 3600)
    by_day, _ = asking(patient, "2026-11-30T14:00+00:00", cedar=NIGHT)
    first, second = turns(patient, {**SECONDS, "birch": 5 * 3600.0}, 2, by_day)
    assert (first.asked, first.unasked) == (("ash", "birch"), ("cedar",))
    assert second.asked == ("ash", "birch", "cedar"), "it is 20:00"
    all_wait, _ = asking(agreed(quorum=3), "2026-11-30T14:00+00:00", cedar=NIGHT)
    (only,) = turns(agreed(quorum=3), SECONDS, 1, all_wait)
    assert only.ended_s == 5 * 3600 + 10.0


def test_rounds_begin_as_often_as_the_calendar_says_or_when_the_one_before_is_closed():
    asks, every_s = asking(agreed(quorum=3), "2026-11-30T14:00+00:00", every_s=60.0)
    assert [turn.ended_s for turn in turns(agreed(quorum=3), SECONDS, 3, asks, every_s=every_s)] == [10.0, 70.0, 130.0]
    assert [turn.ended_s for turn in turns(agreed(quorum=3), SECONDS, 2, asks, every_s=4.0)] == [10.0, 20.0]


def test_attack_sites_that_are_never_there_together_do_not_wait_for_ever():
    morning = Hours(time_zone="Europe/Berlin", start="08:00", end="09:00")
    never, _ = asking(agreed(quorum=3), "2026-11-30T14:00+00:00", cedar=NIGHT, birch=morning)
    with pytest.raises(QuorumError, match="in 30 days there are never 3 sites at once, by their hours and closed days"):
        list(turns(agreed(quorum=3), SECONDS, 1, never))
