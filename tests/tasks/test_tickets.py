"""Rounds that close without the slow, whose answers count in a later round: tickets, weights, proofs, restarts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from fedround import codec, layout
from fedround.errors import ChainError, ContractError, QuorumError
from fedround.privacy import ledger
from fedround.records import Ticket
from infra.documents import read_tensors
from infra.history import read_commit
from tasks.catch_up import rebuild
from tasks.contribution import contributed
from tasks.plan import Planned
from tasks.report import records
from tests import small_federation
from tests.small_federation import SmallFederation

NAMES = ("ash", "birch", "cedar", "elm", "fir")
FAST, SLOW = NAMES[:3], NAMES[3:]
RUN = "spring"


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    return small_federation.make(tmp_path_factory.mktemp("paced"), names=NAMES, max_epsilon=80.0, quorum=2, enough=3,
                                 pace={"max_age": 2})


@pytest.fixture
def federation(founded: SmallFederation, tmp_path: Path) -> SmallFederation:
    return founded.copy(tmp_path / "federation")


def turn(federation: SmallFederation, *names: str, late: tuple[Planned, tuple[str, ...]] | None = None) -> Planned:
    """One round, in which these answer the new plan; late: who answers an earlier one meanwhile."""
    planned = federation.plan(RUN)
    for name in names:
        assert federation.answer(name, planned) == "update"
    if late is not None:
        for name in late[1]:
            assert federation.answer(name, late[0]) == "update"
    federation.commit(planned)
    return planned


def proven(federation: SmallFederation, bench: Path) -> list[str]:
    """What verify says of every round, each computed again."""
    return [proof.not_recomputed or str(proof.recomputed) for proof in federation.proofs(RUN, bench)]


def test_who_is_late_is_not_asked_again_and_counts_in_the_round_in_which_it_answers(federation: SmallFederation,
                                                                                  tmp_path: Path):
    first = turn(federation, *FAST)
    second = federation.plan(RUN)
    assert second.plan.cohort == FAST
    assert second.plan.tickets == tuple(Ticket(site=site, round=1, plan=first.digest) for site in SLOW)
    for name in ("ash", "birch"):
        federation.answer(name, second)
    federation.answer("elm", first)
    commit = federation.commit(second).commit
    assert [(update.site, update.ticket) for update in commit.updates] == [("ash", None), ("birch", None), ("elm", 1)]
    assert commit.missing == ("cedar", "fir")
    third = federation.plan(RUN).plan
    assert third.cohort == ("ash", "birch", "elm")
    assert [(ticket.site, ticket.round) for ticket in third.tickets] == [("cedar", 2), ("fir", 1)]
    turn(federation, "ash", "birch", "elm")
    assert proven(federation, tmp_path / "bench")[1:] == ["True"] * 3


def test_a_late_answer_counts_by_its_age(federation: SmallFederation):
    """The model that comes of it, computed here from what lies in the store."""
    first = turn(federation, *FAST)
    second = turn(federation, "ash", late=(first, ("elm",)))
    store, key = federation.coordinator.store, federation.coordinator.identity.key
    commit = read_commit(store, RUN, 2, key).commit
    weights = {"ash": 300.0, "elm": 300.0 / math.sqrt(2)}
    deltas = {site: np.frombuffer((federation.root / "store" / layout.delta(site, RUN, number, 1)).read_bytes(), "<f4",
                                  offset=len(codec.header(second.plan.sent)))
              for site, number in (("ash", 2), ("elm", 1))}
    share = weights["ash"] / sum(weights.values())
    assert [round(update.influence, 6) for update in commit.updates] == [round(share, 6), round(1 - share, 6)]
    mean_D = share * deltas["ash"] + (1 - share) * deltas["elm"]
    momentum = [codec.flatten(read_tensors(store, name, second.plan.tensors, "model")) for name in (
        second.plan.base_model, commit.model, first.plan.base_model)]
    expected_D = momentum[0] + 0.5 * (momentum[0] - momentum[2]) + mean_D
    np.testing.assert_allclose(momentum[1], expected_D, rtol=0, atol=1e-6)


def test_a_ticket_ends_with_its_age_and_its_member_is_asked_anew(federation: SmallFederation, tmp_path: Path):
    first = turn(federation, *FAST)
    for _ in range(2):
        turn(federation, *FAST)
    fourth = federation.plan(RUN)
    assert (fourth.plan.tickets, fourth.plan.cohort) == ((), NAMES)
    with pytest.raises(ChainError, match="have ended this site's ticket: an answer does not count any more"):
        federation.answer("fir", first)
    assert ledger.read(federation.root / "fir" / "ledger.jsonl").charges == ()
    turn(federation, *FAST, "fir")
    assert proven(federation, tmp_path / "bench")[1:] == ["True"] * 4


def test_a_new_entry_of_the_log_ends_all_tickets(federation: SmallFederation):
    first = turn(federation, *FAST)
    path = federation.root / "coordinator" / "federation.toml"
    path.write_text(path.read_text().replace("deadline_s = 60", "deadline_s = 61"))
    second = federation.plan(RUN)
    assert (second.plan.tickets, second.plan.cohort) == ((), NAMES)
    for name in FAST:
        federation.answer(name, second)
    federation.commit(second)
    with pytest.raises(ChainError, match="ended this site's ticket"):
        federation.answer("elm", first)


def test_an_attempt_that_was_never_committed_gives_no_ticket(federation: SmallFederation):
    """Who answers it has worked for nothing: what counts was made from a committed model by a committed plan."""
    first = federation.plan(RUN)
    other = federation.plan(RUN, deadline_s=61)
    assert (first.plan.attempt, other.plan.attempt) == (1, 2)
    for name in FAST:
        federation.answer(name, other)
    federation.commit(other)
    with pytest.raises(ChainError, match="round 1 was committed with another plan"):
        federation.answer("elm", first)
    federation.answer("elm", other)
    second = federation.plan(RUN)
    assert [ticket.plan for ticket in second.plan.tickets] == [other.digest, other.digest]


def test_a_round_waits_for_more_than_enough_while_too_few_have_seen_the_history(federation: SmallFederation):
    """Two of five answer again and again: with a window of five rounds that is no majority from the fifth round on."""
    for _ in range(4):
        turn(federation, "ash", "birch")
    fifth = federation.plan(RUN)
    federation.answer("ash", fifth)
    federation.answer("birch", fifth)
    with pytest.raises(QuorumError, match="2 of 5 members have answered, and sites go on only where 3 have"):
        federation.commit(fifth)
    federation.answer("cedar", fifth.of("cedar"))
    assert len(federation.commit(fifth).commit.updates) == 3
    turn(federation, "ash", "birch")


def test_a_coordinator_that_starts_again_in_the_middle_goes_on_with_the_same_plan(federation: SmallFederation):
    first = turn(federation, *FAST)
    once, again = federation.plan(RUN), federation.plan(RUN)
    assert (once.digest, once.earlier.keys()) == (again.digest, again.earlier.keys())
    federation.answer("elm", first)
    federation.answer("ash", again)
    committed = federation.commit(once)
    assert federation.commit(again) == committed


def test_reports_and_contributions_know_late_answers(federation: SmallFederation):
    """What a late answer says of a model, it says of an earlier one."""
    first = turn(federation, *FAST)
    turn(federation, "ash", "birch", late=(first, ("elm",)))
    mine = federation.coordinator
    assert list(rebuild(mine, RUN)) == [1, 2]
    rows = {row.site: row for row in records(mine, RUN)[1].sites}
    assert rows["elm"].note == "its answer to the plan of round 1, which counts 71% of its weight"
    assert rows["fir"].note == "still at work on the plan of round 1"
    assert "elm" not in [row.site for row in records(mine, RUN)[0].sites if row.local is not None]
    assert [one.site for one in contributed(mine, RUN, 2).sites] == ["ash", "birch", "elm"]


@pytest.mark.parametrize(("changes", "says"), [
    ({"training": {"local_steps": 3, "batch_size": 32, "learning_rate": 0.5, "algorithm": {"name": "scaffold"}}},
     "pace: what 'scaffold' keeps and serves is of one base model"),
    ({"aggregation": {"rule": {"name": "trimmed_mean", "f": 0}}}, "counts every site the same"),
    ({"aggregation": {"rule": {"name": "weighted_mean"}, "fairness": {"name": "q_ffl", "q": 1.0, "cap": 3.0}}},
     "pace: fairness compares losses of one base model"),
    ({"choices": {"sites": True}}, "pace: who is asked follows from who still works"),
    ({"privacy": {**small_federation.settings()["privacy"], "mechanism": "dp_ftrl"}}, "pace: dp_ftrl takes its rows"),
    ({"privacy": {**small_federation.settings()["privacy"], "adaptive": {"quantile": 0.5}}},
     "pace: the clip norm follows"),
    ({"pace": {"max_age": 0}}, "max_age")])
def test_what_does_not_go_with_a_pace_is_refused_in_words(tmp_path: Path, changes: dict, says: str):
    with pytest.raises(ContractError, match=says):
        small_federation.make(tmp_path / "federation", names=NAMES, **{"pace": {"max_age": 2}, **changes})


def test_weights_are_checked_for_old_honest_answers_and_fresh_lies(tmp_path: Path):
    """Three of 300, 200 and 150: the heaviest weighs less than half. Not if it is fresh and the others are old."""
    terms = {"aggregation": {"rule": {"name": "weighted_trimmed_mean", "f": 1}}, "quorum": 3}
    small_federation.make(tmp_path / "without", **terms)
    with pytest.raises(ContractError, match="less than half may lie"):
        small_federation.make(tmp_path / "with", pace={"max_age": 3}, **terms)
