"""Members that are given up after an idle time, on real servers: who moves is waited for, and who has stopped is not.

The deadline is an hour. So a round that waited for who has stopped would not end here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Federation
from tests.e2e.founding import with_members
from tests.e2e.test_faults import completed
from tests.faulty.proxy import UNDISTURBED, Disturbed, FaultyProxy, in_front_of
from tests.small_federation import NAMES, RECIPE

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

IDLE_S, PIECE_S, DEADLINE_S = 60, 0.7, 3600
NUMBERS = RECIPE.replace("2, 4", "2, 450_000").replace("4, 1", "450_000, 1")
"""A model of 7 MB: 110 pieces, each of which takes `PIECE_S` on the slow line."""


@pytest.fixture(scope="module")
def line() -> list[FaultyProxy]:
    """What lies between south and the store."""
    return []


@pytest.fixture(scope="module")
def waiting(short_folder: Path, line: list[FaultyProxy], rows_are_judged_here: None) -> Iterator[Federation]:
    """Three sites, of which south has a line of its own to the store."""
    with with_members(short_folder / "idle", NAMES, recipe=NUMBERS, quorum=2, deadline_s=DEADLINE_S,
                      idle_s=IDLE_S) as federation:
        path = federation.machine.site("south") / "site.toml"
        endpoint = next(part.split('"')[1] for part in path.read_text().splitlines() if part.startswith("endpoint"))
        with in_front_of(endpoint) as proxy:
            line.append(proxy)
            path.write_text(path.read_text().replace(endpoint, proxy.endpoint))
            federation.start_processes()
            yield federation


def test_a_site_that_sends_for_longer_than_the_idle_time_is_waited_for(waiting: Federation, line: list[FaultyProxy]):
    line[0].disturb = lambda method, path: Disturbed(slowly_s=PIECE_S) if method == "PUT" else UNDISTURBED
    try:
        completed(waiting, waiting.start("federated-round", run="slow"))
    finally:
        line[0].disturb = lambda method, path: UNDISTURBED
    assert line[0].taken / (64 << 10) * PIECE_S > IDLE_S, "it has sent for longer than that"
    assert waiting.record("slow")["outcomes"] == dict.fromkeys(NAMES, "updated")


def test_a_site_that_stands_still_is_given_up_and_answers_the_next_round(waiting: Federation):
    asleep = psutil.Process(waiting.pid("south"))
    asleep.suspend()
    try:
        completed(waiting, waiting.start("federated-round", run="still"))
    finally:
        asleep.resume()
    assert waiting.record("still")["outcomes"] == {"north": "updated", "east": "updated", "south": "missing"}
    completed(waiting, waiting.start("federated-round", run="still"))
    assert waiting.record("still", 2)["outcomes"] == dict.fromkeys(NAMES, "updated")
