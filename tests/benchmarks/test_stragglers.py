"""Sites at their own pace: when a target holds, and what is reported."""

from __future__ import annotations

from benchmarks.stragglers import WAYS, Reached, lasting, report


def test_a_target_holds_from_when_it_is_not_lost_again():
    curve = [(1.0, 0.7), (2.0, 0.8), (5.0, 0.7), (6.0, 0.8), (12.0, 0.8), (16.0, 0.8)]
    assert lasting(curve, 0.75) == 6.0
    assert lasting(curve[:-1], 0.75) is None


def test_who_does_not_reach_it_in_every_run_has_not_reached_it():
    runs = {"one": [Reached(40.0, 0.8, 9, 9, 0, ())] * 2, "other": [Reached(10.0, 0.8, 9, 9, 0, ())] * 2,
            "third": [Reached(10.0, 0.8, 9, 9, 0, ()), Reached(None, 0.7, 9, 9, 0, ())]}
    lines = report(runs, 0.78).splitlines()
    assert "4.0 ×" in lines[3]
    assert "not reached" in lines[4]


def test_every_way_can_be_agreed_on():
    assert all(way.agreement(40).privacy.rounds == 40 for way in WAYS)
