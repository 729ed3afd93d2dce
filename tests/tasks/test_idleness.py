"""Who has stopped moving is given up before the deadline; who moves is waited for up to it, and no longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.errors import ContractError
from infra.stores import Patience
from tasks.collect import collect
from tasks.collected import Collected
from tasks.idleness import Idleness
from tests import small_federation
from tests.faulty.proxy import Disturbed, in_front_of
from tests.small_federation import NAMES, SmallFederation


def test_a_site_is_still_once_its_sign_has_not_changed_for_too_long():
    now = 0.0
    idleness = Idleness(10.0, lambda: now)
    assert idleness.still({"ash", "birch"}, {}) == set()
    now = 9.0
    assert idleness.still({"ash", "birch"}, {"ash": "first"}) == set()
    now = 11.0
    assert idleness.still({"ash", "birch"}, {"ash": "first"}) == {"birch"}, "it has never said anything"
    now = 20.0
    assert idleness.still({"ash", "birch"}, {"ash": "first"}) == {"ash", "birch"}
    assert idleness.still({"ash", "birch"}, {"ash": "second"}) == {"birch"}, "it moves again"


@given(st.lists(st.tuples(st.floats(0.1, 30.0), st.booleans()), max_size=40))
def test_nobody_who_moves_in_time_is_still_and_who_is_not_is(steps: list[tuple[float, bool]]):
    now, moved_at, sign = 0.0, 0.0, 0
    idleness = Idleness(25.0, lambda: now)
    idleness.still({"ash"}, {"ash": sign})
    for waited, moves in steps:
        now, sign = now + waited, sign + moves
        moved_at = now if moves else moved_at
        assert (idleness.still({"ash"}, {"ash": sign}) == {"ash"}) == (now - moved_at > 25.0)


async def nobody(among: set[str]) -> set[str]:
    return set()


def collected(federation: SmallFederation, still: Callable[[int], set[str]], deadline_s: int) -> tuple[Collected, float]:
    """One round whose sites never say that they have ended. still: who does not move, at the look of this number."""
    looks = iter(range(10_000))

    async def look(among: set[str]) -> set[str]:
        return still(next(looks)) & among

    planned, began = federation.plan(deadline_s=deadline_s), time.monotonic()
    for name in ("north", "east"):
        federation.answer(name, planned)
    found = asyncio.run(collect(federation.coordinator, planned, nobody, lambda _: None, at_first_s=0.01, still=look))
    return found, time.monotonic() - began


def test_a_round_is_over_when_all_who_are_waited_for_have_stopped_and_what_they_had_sent_counts(federation: SmallFederation):
    found, took_s = collected(federation, lambda look: set(NAMES) if look >= 3 else {"south"}, deadline_s=3600)
    assert took_s < 1800, "not at the deadline"
    assert (sorted(found.admitted), found.missing, found.idle) == (["east", "north"], ("south",), {"south"})


def test_who_moves_holds_a_round_until_its_deadline_and_no_longer(federation: SmallFederation):
    found, took_s = collected(federation, lambda look: {"north", "east"}, deadline_s=2)
    assert took_s >= 2
    assert (found.missing, found.idle) == (("south",), frozenset())


def test_the_idle_time_is_agreed_and_at_least_a_minute(tmp_path: Path):
    assert small_federation.make(tmp_path / "one", idle_s=60).coordinator.federation.idle_s == 60
    with pytest.raises(ContractError, match="idle_s"):
        small_federation.make(tmp_path / "other", idle_s=59)


@pytest.mark.stack
def test_a_site_that_sends_slowly_moves_all_the_time_and_one_whose_bytes_stand_still_does_not(s3_server):
    """A real upload through a proxy that takes 64 KiB at a time: a piece that leaves is a sign."""
    size, moved = 24 << 20, list[int]()
    with in_front_of(s3_server.endpoint) as proxy:
        store = type(s3_server)(proxy.endpoint, s3_server.credential).store(f"slow-{uuid4().hex}/")
        proxy.disturb = lambda method, path: Disturbed(slowly_s=0.005 if method == "PUT" else 0.0)
        store.within(Patience(120.0, moved=lambda: moved.append(proxy.taken))).put_once("delta.bin", bytes(size))
        assert len(moved) > 20
        assert proxy.taken >= size
        longest = max(later - earlier for earlier, later in pairwise([0, *moved, proxy.taken]))
        assert longest < size / 2, "signs all along, not at the beginning alone"
        moved.clear()
        proxy.disturb = lambda method, path: Disturbed(delay_s=3.0)
        store.within(Patience(60.0, moved=lambda: moved.append(proxy.taken))).head("delta.bin")
        assert moved == [], "waiting is no sign"
