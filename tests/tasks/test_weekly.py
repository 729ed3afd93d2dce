"""A federation that trains each week on the week before, for ever: real sites, ledgers, rounds and proofs; only the day is
simulated.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from fedround.privacy import ledger
from tasks.ask import conclude, plan_question
from tasks.partition import with_its_run
from tasks.plan import plan_round
from tasks.requests import NextRoundRequest, RoundRequest, TrainingRequest
from tasks.verify import verify_run
from tests import weekly
from tests.small_federation import SmallFederation

ASKED = TrainingRequest(run="weekly", rounds=2, one_run_per_partition=True)
"""What the schedule asks, every Monday."""


def campaign(federation: SmallFederation, today: datetime.date) -> str:
    """What the flow does: the run's rounds, and the scores of its last model. Returns the run."""
    coordinator = federation.coordinator
    asked = with_its_run(coordinator, ASKED, today)
    for _ in range(asked.rounds):
        planned = plan_round(coordinator, NextRoundRequest(
            run=asked.run, partition=asked.partition, after=asked.after))
        assert [federation.answer(site, planned) for site in federation.names] == ["update"] * 3
        federation.commit(planned)
    scored = plan_question(coordinator, RoundRequest(run=asked.run))
    assert [federation.answer(site, scored) for site in federation.names] == ["answer"] * 3
    conclude(coordinator, scored, federation.collect(scored))
    return asked.run


def weeks_of(federation: SmallFederation, weeks: int) -> list[float]:
    """Epsilon that the site that has spent most has spent after each week, with what is set aside."""
    found = []
    for week in range(1, weeks + 1):
        run = campaign(federation, weekly.MONDAY + datetime.timedelta(weeks=week))
        assert run == f"weekly-{weekly.name(week)}"
        books = [ledger.read(federation.site(site).ledger) for site in federation.names]
        found.append(max(ledger.held(book, 1e-5) for book in books))
        assert all(len(book.charges) == 3 * week for book in books)
    for week in (1, weeks):
        proofs = list(verify_run(federation.coordinator.store, f"weekly-{weekly.name(week)}",
                                 federation.coordinator.identity.key))
        assert [len(proof.updates) for proof in proofs] == [0, 3, 3]
        assert len(proofs[-1].findings) == 1
    return found


def test_each_week_costs_its_own_records_the_same_and_nobody_elses(tmp_path: Path, rows_are_judged_here: None):
    """The policy allows 8 in all, and each campaign promises 8."""
    spent = weeks_of(weekly.make(tmp_path, 3), 3)
    assert 7.9 < spent[0] <= 8.0
    assert len(set(spent)) == 1


def test_a_scheduled_week_begins_with_the_model_of_the_week_before_if_that_is_agreed(tmp_path: Path,
                                                                                     rows_are_judged_here: None):
    federation = weekly.make(tmp_path, 3, partitions={"column": "day", "by": "week", "continues": True})
    coordinator = federation.coordinator

    def models(run: str) -> list[str]:
        return [proof.model for proof in verify_run(coordinator.store, run, coordinator.identity.key)]

    first, third = (models(campaign(federation, weekly.MONDAY + datetime.timedelta(weeks=week))) for week in (1, 3))
    assert third[0] == first[-1], "no campaign was made on the second week"
    assert len({*first, *third[1:]}) == 5
    book = ledger.read(federation.site("north").ledger)
    assert 7.9 < ledger.held(book, 1e-5) <= 8.0


def test_a_year_of_weeks_at_constant_epsilon(tmp_path: Path, rows_are_judged_here: None):
    spent = weeks_of(weekly.make(tmp_path, 52), 52)
    assert 7.9 < spent[0] <= 8.0
    assert len(set(spent)) == 1
