"""Points: who gets how many of them, and that none is lost."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.contribution.payout import payout
from fedround.standing import Incentive

NAMES = ("east", "north", "south", "west")
POLICY = Incentive(points=1000.0, floor=0.05)


def told(*numbers: float) -> dict[str, float]:
    return dict(zip(NAMES, numbers, strict=True))


@given(st.tuples(*[st.floats(-1, 1)] * 4), st.tuples(*[st.floats(0, 1)] * 4), st.floats(0, 0.25))
def test_all_points_are_given_nobody_gets_less_than_the_floor_and_who_never_came_gets_nothing(
        value: tuple[float, ...], reliability: tuple[float, ...], floor: float):
    got = payout(Incentive(points=1000.0, floor=floor), told(*value), told(*reliability))
    came = [site for site, share in told(*reliability).items() if share > 0]
    assert math.fsum(got.values()) == pytest.approx(1000.0 if came else 0.0)
    assert all(got[site] >= 1000.0 * floor - 1e-9 for site in came)
    assert all(got[site] == 0 for site in NAMES if site not in came)


def test_more_is_given_for_more_and_for_coming_and_below_zero_is_zero():
    got = payout(POLICY, told(0.03, 0.01, 0.01, -0.5), told(1.0, 1.0, 0.5, 1.0))
    assert got == {"east": pytest.approx(50 + 800 * 6 / 9), "north": pytest.approx(50 + 800 * 2 / 9),
                   "south": pytest.approx(50 + 800 / 9), "west": pytest.approx(50)}


def test_if_nobody_added_anything_those_who_came_share_alike():
    assert payout(POLICY, told(-0.1, 0.0, -0.2, 0.0), told(1.0, 0.5, 0.0, 1.0)) == {
        "east": pytest.approx(1000 / 3), "north": pytest.approx(1000 / 3), "south": 0.0, "west": pytest.approx(1000 / 3)}
