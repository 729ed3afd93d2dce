"""Sites at their own pace on real servers: rounds close without the slow, whose answers count later, whoever dies meanwhile.

Three sites that really sleep, 1 : 2 : 10 of a unit before each answer; a buffer of two. Where a
test needs an order of events, the slow one is held instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect.states import Cancelling, Paused

from fedround import layout
from fedround.records import Commit
from infra.history import last_round, read_commit
from infra.settings import load_federation
from tests.e2e.conftest import HOLDING, Federation, wait
from tests.e2e.founding import with_members
from tests.e2e.test_faults import is_running
from tests.small_federation import NAMES

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

FAST, MIDDLE, SLOW = NAMES
UNIT_S = 0.6
SPEEDS = {FAST: 1, MIDDLE: 2, SLOW: 10}
MAX_AGE = 3
DEADLINE_S = 5
"""Of semi-synchronous rounds: who misses it is late, whoever it is; every law holds all the same."""
SLEEPING = HOLDING.replace("    return nn.Sequential", """    pause = Path(__file__).parents[1] / "pause"
    if pause.exists() and not tried:
        time.sleep(float(pause.read_text()))
    return nn.Sequential""")


@pytest.fixture(scope="module")
def paced(short_folder: Path, rows_are_judged_here: None) -> Iterator[Federation]:
    """North, east and south; two answers close a round, and an answer counts up to three rounds later."""
    with with_members(short_folder / "paced", NAMES, recipe=SLEEPING, quorum=2, enough=2, deadline_s=600,
                      pace={"max_age": MAX_AGE}, privacy={
                          "unit": "record", "epsilon": 20.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 40}) as federation:
        federation.start_processes()
        yield federation


@pytest.fixture
def asleep(paced: Federation) -> Iterator[None]:
    """While this lasts, every site sleeps before it answers."""
    for site, speed in SPEEDS.items():
        (paced.machine.site(site) / "pause").write_text(str(speed * UNIT_S))
    yield
    for site in SPEEDS:
        (paced.machine.site(site) / "pause").unlink()


def key(paced: Federation) -> str:
    return load_federation(paced.machine.coordinator / "federation.toml").coordinator


def commits(paced: Federation, run: str) -> list[Commit]:
    """All of the run, without round 0."""
    last = last_round(paced.store, run, key(paced)) or 0
    return [read_commit(paced.store, run, number, key(paced)).commit for number in range(1, last + 1)]


def until(paced: Federation, run: str, rounds: int, **more: object) -> None:
    """Single rounds up to this one: a campaign's end asks all sites for an evaluation, and waits for the slowest."""
    while len(commits(paced, run)) < rounds:
        completed(paced, paced.start("federated-round", run=run, **more))


def completed(paced: Federation, started: UUID) -> None:
    done = paced.ended(started)
    assert done.state.is_completed(), done.state.message


def counted(paced: Federation, run: str, site: str) -> list[int | None]:
    """In which rounds an answer of the site counts: the rounds of the plans that it answers."""
    return [update.ticket or commit.round for commit in commits(paced, run) for update in commit.updates
            if update.site == site]


def answered(paced: Federation, run: str, site: str, number: int = 1) -> None:
    """Wait until the site's answer to this round's plan lies in the store."""
    wait(lambda: paced.store.head(layout.answer(site, run, number, 1, "train")), f"{site}'s answer of round {number}")


def stopped(paced: Federation, run: str, number: int) -> bool:
    """Whether the flow run of the slow site for this round was told to stop."""
    return paced.site_run(run, SLOW, number).state.type in ("CANCELLING", "CANCELLED")


def proven(paced: Federation, run: str) -> None:
    """Every round follows from the one before, and its model from the updates."""
    done = paced.works("verify", run, "--as", paced.machine.coordinator, "--recompute", "--json")
    assert all(one["recomputed"] for one in json.loads(done)["rounds"][1:])


def trained(paced: Federation, run: str, site: str) -> list[int]:
    """The rounds of the plans for whose updates the site was charged."""
    return [line["charge"]["round"] for line in paced.charges(site, run) if line["charge"]["purpose"] == "train"]


def paid_once(paced: Federation, run: str) -> None:
    """No plan is paid twice; and no answer counts twice."""
    for site in NAMES:
        plans = [line["charge"]["plan"] for line in paced.charges(site, run) if line["charge"]["purpose"] == "train"]
        assert len(plans) == len(set(plans))
        answered = counted(paced, run, site)
        assert len(answered) == len(set(answered)) <= len(plans)


def test_a_buffer_does_not_wait_for_the_slowest_and_each_answer_counts_once_by_its_age(paced: Federation, asleep: None,
                                                                                      run: str):
    completed(paced, paced.start("federated-training", run=run, rounds=8))
    assert any(SLOW in commit.missing for commit in commits(paced, run)), "no round closed before the slowest was ready"
    paid_once(paced, run)
    proven(paced, run)


def test_a_slow_site_is_killed_with_its_ticket_and_started_again_is_charged_once_and_counts(paced: Federation, run: str):
    with paced.held(paced.machine.site(SLOW)):
        until(paced, run, 1)
        wait(lambda: trained(paced, run, SLOW), "the charge, which comes before the work")
        wait(lambda: is_running(paced, run, SLOW), "the run of work that takes longer than a moment: it is taken over")
        paced.restart_site(SLOW)
        until(paced, run, 2)
    answered(paced, run, SLOW)
    until(paced, run, 3)
    assert 1 in counted(paced, run, SLOW)
    assert trained(paced, run, SLOW).count(1) == 1
    paid_once(paced, run)
    proven(paced, run)


def test_a_coordinator_that_is_killed_between_commits_goes_on_with_the_same_tickets(paced: Federation, run: str):
    with paced.held(paced.machine.site(SLOW)):
        started = paced.start("federated-training", run=run, rounds=MAX_AGE)
        wait(lambda: len(commits(paced, run)) >= 1 and trained(paced, run, SLOW), "a round, and the slow one at work")
        paced.restart_coordinator()
        wait(lambda: len(commits(paced, run)) >= MAX_AGE, "the other rounds")
        assert trained(paced, run, SLOW) == [1]
    completed(paced, started)
    until(paced, run, MAX_AGE + 1)
    assert 1 in counted(paced, run, SLOW)
    paid_once(paced, run)
    proven(paced, run)


def test_a_ticket_that_is_too_old_ends_in_words_and_its_site_is_asked_anew(paced: Federation, run: str):
    with paced.held(paced.machine.site(SLOW)):
        until(paced, run, MAX_AGE + 2)
        assert stopped(paced, run, 1), "it works for nothing"
    wait(lambda: paced.site_run(run, SLOW, 1).state.name == "Cancelled", "the end of what counts no more")
    answered(paced, run, SLOW, MAX_AGE + 2)
    until(paced, run, MAX_AGE + 3)
    assert counted(paced, run, SLOW)[0] == MAX_AGE + 2
    paid_once(paced, run)
    proven(paced, run)


def test_a_campaign_that_is_cancelled_with_open_tickets_asks_for_them_again(paced: Federation, run: str):
    """In the middle of a round, as Ctrl-C does it: who holds a ticket is told to stop."""
    with paced.held(paced.machine.site(SLOW)), paced.held(paced.machine.site(MIDDLE)):
        started = paced.start("federated-round", run=run)
        wait(lambda: all(trained(paced, run, site) for site in NAMES), "all to be at work")
        (paced.machine.site(MIDDLE) / "hold").unlink()
        completed(paced, started)
        with paced.held(paced.machine.site(MIDDLE)):
            started = paced.start("federated-training", run=run, rounds=40)
            wait(lambda: len(trained(paced, run, MIDDLE)) == 2, "the second round, which waits for one more")
            paced.ask(lambda client: client.set_flow_run_state(started, Cancelling()))
            wait(lambda: paced.flow_run(started).state.name == "Cancelled", "the campaign to be cancelled")
            assert len(commits(paced, run)) == 1
    until(paced, run, 3)
    assert trained(paced, run, SLOW)[0] == 1
    assert 1 in counted(paced, run, SLOW)
    paid_once(paced, run)
    proven(paced, run)


def test_a_campaign_that_is_paused_with_open_tickets_takes_their_answers_when_it_goes_on(paced: Federation, run: str):
    with paced.held(paced.machine.site(SLOW)):
        started = paced.start("federated-training", run=run, rounds=3)
        wait(lambda: trained(paced, run, SLOW), "the slow one at work")
        paced.ask(lambda client: client.set_flow_run_state(started, Paused(timeout_seconds=3600), force=True))
        wait(lambda: paced.flow_run(started).state.name == "Suspended", "the campaign to stop")
        assert 1 <= len(commits(paced, run)) < 3
    answered(paced, run, SLOW)
    paced.ask(lambda client: client.resume_flow_run(started))
    completed(paced, started)
    assert 1 in counted(paced, run, SLOW)
    paid_once(paced, run)
    proven(paced, run)


def test_another_agreement_ends_all_tickets_and_rounds_that_close_at_a_deadline_take_late_answers(
        paced: Federation, asleep: None, run: str):
    """Semi-synchronous: the deadline is short, one answer is a quorum, the rest counts later."""
    with paced.held(paced.machine.site(SLOW)):
        until(paced, run, 1)
        path = paced.machine.coordinator / "federation.toml"
        path.write_text(path.read_text().replace("enough = 2\n", "").replace("quorum = 2", "quorum = 1"))
        until(paced, run, 2, deadline_s=DEADLINE_S)
    until(paced, run, 5, deadline_s=DEADLINE_S)
    assert 1 not in counted(paced, run, SLOW), "its ticket had ended with the agreement"
    paid_once(paced, run)
    proven(paced, run)
