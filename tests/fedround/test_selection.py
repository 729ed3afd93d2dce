"""Whom a round asks: the same for everybody who computes it, as often as was agreed, and by what the history says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.selection import Chance, MemberRecord, PowerOfChoice, Random, Reliable, selected

NAMES = tuple(f"s{number:02d}" for number in range(12))
WEIGHTS = {name: 1.0 + number for number, name in enumerate(NAMES)}


def played(how: Random | Reliable | PowerOfChoice, names: tuple[str, ...], rounds: int, run: str = "spring",
           away: dict[int, set[str]] | None = None) -> list[tuple[str, ...]]:
    """Who is asked in each round, if everybody who is asked answers."""
    past, asked = dict.fromkeys(names, MemberRecord()), []
    for number in range(1, rounds + 1):
        there = tuple(name for name in names if name not in (away or {}).get(number, ()))
        found = selected(how, there, {name: WEIGHTS.get(name, 1.0) for name in names}, past, Chance(run, number))
        for name, one in past.items():
            past[name] = (MemberRecord(asked=one.asked + 1, used=one.used + 1, loss=0.3) if name in found
                          else replace(one, rested=one.rested + 1))
        asked.append(found)
    return asked


def test_the_draw_is_this_one_on_every_machine():
    """A proof recomputes it years later: these names must never change."""
    assert [selected(Random(sites=3), NAMES, WEIGHTS, {}, Chance("spring", number)) for number in (1, 2)] == [
        ("s01", "s02", "s03"), ("s00", "s01", "s03")]



def test_random_asks_all_equally_often_and_another_seed_asks_others():
    times = Counter(name for found in played(Random(sites=4), NAMES, 600) for name in found)
    assert set(times) == set(NAMES)
    assert max(abs(times[name] - 200) for name in NAMES) < 5 * (600 * (1 / 3) * (2 / 3)) ** 0.5      # five deviations
    assert played(Random(sites=4), NAMES, 5) != played(Random(sites=4), NAMES, 5, run="summer")


@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 5), st.data())
def test_nobody_waits_longer_than_was_agreed(members: int, within: int, more: int, data: st.DataObject):
    sites = min(members, -(-members // within) + more)
    how = data.draw(st.sampled_from([Random(sites=sites, within=within), Reliable(sites=sites, within=within, window=3),
                                     PowerOfChoice(sites=sites, within=within, candidates=sites)]))
    rounds = played(how, NAMES[:members], 3 * within, data.draw(st.text("abc", min_size=1, max_size=3)))
    assert {len(found) for found in rounds} == {sites}
    for first in range(2 * within + 1):
        assert {name for found in rounds[first:first + within] for name in found} == set(NAMES[:members])


@given(st.sets(st.sampled_from(NAMES), max_size=12))
def test_who_cannot_be_asked_is_not_and_all_others_are_if_they_are_few(away: set[str]):
    found = played(Random(sites=5, within=3), NAMES, 4, away={2: away})[1]
    assert not set(found) & away
    assert len(found) == min(5, len(NAMES) - len(away))


def test_reliable_asks_a_member_whose_answers_are_never_used_less_often_but_still():
    past = {name: MemberRecord(asked=20, used=0 if name == "s00" else 20) for name in NAMES}
    times = Counter(name for number in range(1500)
                    for name in selected(Reliable(sites=3), NAMES, WEIGHTS, past, Chance("spring", number)))
    others = [times[name] for name in NAMES[1:]]
    assert 0 < times["s00"] < min(others) / 5


def test_power_of_choice_asks_the_largest_losses_of_the_drawn_and_the_unknown_first():
    past = {name: MemberRecord(asked=1, used=1, loss=number / 20) for number, name in enumerate(NAMES)}
    past["s03"] = MemberRecord()
    all_drawn = PowerOfChoice(sites=3, candidates=12)
    assert set(selected(all_drawn, NAMES, WEIGHTS, past, Chance("spring", 1))) == {"s03", "s10", "s11"}
    drawn = Counter(name for number in range(400)
                    for name in selected(PowerOfChoice(sites=1, candidates=1), NAMES, WEIGHTS, past, Chance("x", number)))
    assert drawn["s11"] > drawn["s01"] * 3, "candidates are drawn by weight, 12 to 2"
    with pytest.raises(ValueError, match="draws 2 candidates and asks 3"):
        PowerOfChoice(sites=3, candidates=2)
