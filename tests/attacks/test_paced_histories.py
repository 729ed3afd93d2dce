"""Where answers to earlier plans count: a coordinator that shows two histories, hands out bases that nobody committed,
reorders, drops or doubles tickets; and members that answer twice, late, or for another base.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedround import layout
from fedround.errors import ChainError, SignatureError, TrustError
from fedround.records import Answer, Commit, Plan, Ticket
from fedround.rounds.tickets import tickets_after
from fedround.signing import digest, seal, unseal
from infra.history import read_commit, read_plan
from site_workers import seen
from tasks.ask import plan_question
from tasks.plan import Planned, planned_of
from tasks.requests import RoundRequest
from tests import paced, small_federation
from tests.attacks.test_two_histories import carry, resign
from tests.paced import NAMES, RUN, said, turn
from tests.small_federation import SmallFederation


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """Ages up to 1: a window of three rounds."""
    return paced.make(tmp_path_factory.mktemp("five"), max_age=1)


@pytest.fixture
def federation(begun: SmallFederation, tmp_path: Path) -> SmallFederation:
    return begun.copy(tmp_path / "one")


@pytest.fixture
def two(begun: SmallFederation, tmp_path: Path) -> tuple[SmallFederation, SmallFederation]:
    """Two worlds with one past."""
    return begun.copy(tmp_path / "one"), begun.copy(tmp_path / "other")


def forced(world: SmallFederation, *names: str) -> Planned:
    """The same by a coordinator with software of its own, which looks for no majority."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.aggregate.check_shown", lambda *_: None)
        return turn(world, *names)


def published(world: SmallFederation, planned: Planned, **changes: object) -> Planned:
    """The coordinator puts another plan in this one's place, and signs it."""
    plan = planned.plan.model_copy(update=changes)
    path = world.root / "store" / layout.plan(plan.run, plan.round, plan.attempt, plan.asks.kind)
    document = seal(plan, world.coordinator.identity)
    path.unlink(missing_ok=True)
    path.write_bytes(document)
    return planned_of(world.coordinator.store, world.coordinator.identity.key, plan, digest(document), planned.parent)


# -- two histories -----------------------------------------------------------------------------------------------------


def test_two_histories_of_two_groups_stop_a_window_after_the_fork(two: tuple[SmallFederation, SmallFederation]):
    """Both groups go on for three rounds with answers of their own; the plan after that, no member of either answers."""
    groups = ("ash", "birch"), ("cedar", "elm")
    for world, names in zip(two, groups, strict=True):
        for _ in range(3):
            forced(world, *names)
    tops = [read_commit(world.coordinator.store, RUN, 4, world.coordinator.identity.key) for world in two]
    assert tops[0].digest != tops[1].digest
    for world, names in zip(two, groups, strict=True):
        planned = world.plan(RUN)
        for name in names:
            if name in planned.plan.cohort:
                with pytest.raises(ChainError, match=r"2 of 5 members sighted plans of rounds 2 to 4, 3 must"):
                    world.answer(name, planned)


def test_a_member_that_is_moved_to_the_other_history_says_so(two: tuple[SmallFederation, SmallFederation]):
    """Also with a plan of an older round, which it would answer if it were of its own history."""
    one, other = two
    for world, names in ((one, ("ash", "birch")), (other, ("ash", "cedar"))):
        turn(world, *names)
        world.answer("ash", world.plan(RUN))
    third = other.plan(RUN)
    carry("cedar", other, one)
    assert one.plan(RUN).digest != third.digest
    turn(one, "ash", "elm", "fir")
    carry("ash", one, other)
    with pytest.raises(ChainError, match="this site has seen another commit of round 2: there are two histories"):
        other.answer("ash", third)


def test_a_plan_of_an_older_round_is_answered_only_on_the_chain_that_was_seen(two: tuple[SmallFederation, SmallFederation]):
    """'cedar' was asked about the model of round 2 before it took up that round's plan. It has seen one commit of it."""
    one, other = two
    second = one.plan(RUN)
    assert other.plan(RUN).digest == second.digest
    for world in two:
        forced(world, "ash", "birch")
    resign(other, 2, note="another round 2")
    one.answer("cedar", plan_question(one.coordinator, RoundRequest(run=RUN, quorum=2)))
    assert seen.read(one.root / "cedar").runs[RUN].round == 2
    carry("cedar", one, other)
    with pytest.raises(ChainError, match="this site has seen another commit of round 2: there are two histories"):
        other.answer("cedar", second)
    assert one.answer("cedar", second) == "update"
    assert seen.read(one.root / "cedar").runs[RUN].round == 2


def test_sightings_of_another_history_do_not_count_in_this_one(two: tuple[SmallFederation, SmallFederation]):
    """The other group's signatures, put into this history's commit as answers to its own plans."""
    one, other = two
    for world, names in ((one, ("ash", "birch")), (other, ("cedar", "elm"))):
        for _ in range(2):
            forced(world, *names)
    stolen = unseal((other.root / "store" / layout.commit(RUN, 3)).read_bytes(), Commit, other.coordinator.identity.key, "")
    mine = unseal((one.root / "store" / layout.commit(RUN, 3)).read_bytes(), Commit, one.coordinator.identity.key, "")
    resign(one, 3, updates=(*mine.updates, *stolen.updates),
           missing=tuple(site for site in mine.missing if site not in {update.site for update in stolen.updates}))
    planned = one.plan(RUN)
    for name in set(planned.plan.cohort) & {"ash", "birch"}:
        with pytest.raises(SignatureError, match="did not sign that it was shown the plan"):
            one.answer(name, planned)


@pytest.mark.parametrize("max_age", [2, 40])
def test_a_plan_under_another_pace_than_the_files_is_refused(federation: SmallFederation, max_age: int):
    """A longer age means a longer window, in which two histories could go on."""
    planned = federation.plan(RUN)
    pace = planned.plan.agreed.pace.model_copy(update={"max_age": max_age})
    lie = published(federation, planned, agreed=planned.plan.agreed.model_copy(update={"pace": pace}))
    with pytest.raises(TrustError, match="counts answers up to another age than the federation file says"):
        federation.answer("ash", lie)


# -- a base that nobody committed --------------------------------------------------------------------------------------


def test_no_member_works_on_a_base_that_is_not_committed(federation: SmallFederation):
    planned = federation.plan(RUN)
    lie = published(federation, planned, base_model="0" * 64)
    with pytest.raises(ChainError, match="starts from another model than the one that round 1 committed"):
        federation.answer("ash", lie)


def test_two_bases_for_two_members_and_only_the_committed_plan_gives_tickets(federation: SmallFederation):
    """'ash' answers one plan of round 2, 'birch' another one. One of them is committed; no answer to the other counts."""
    planned = federation.plan(RUN)
    federation.answer("ash", planned)
    other = published(federation, planned, deadline_s=59)
    federation.answer("birch", other)
    with pytest.raises(ChainError, match="has answered another plan for the same round; the coordinator has issued two"):
        federation.answer("ash", other)
    assert set(federation.collect(other).admitted) == {"birch"}
    assert "another plan than the one of this round" in federation.collect(other).rejected["ash"].reason


# -- tickets in plans and commits --------------------------------------------------------------------------------------


def lied_about(world: SmallFederation, change: Callable[[Plan], dict[str, object]]) -> None:
    """Round 2 by a coordinator that hands out other tickets than there are, and commits it."""
    planned = world.plan(RUN)
    lie = published(world, planned, **change(planned.plan))
    for name in ("ash", "birch"):
        if name in lie.plan.cohort:
            world.answer(name, lie)
    for name in {ticket.site for ticket in lie.plan.tickets} & {"elm"}:
        world.answer(name, lie.of(name))
    world.commit(lie)


TICKETS = "counts the answers of others, or to other plans, than those that the rounds before left at work"


@pytest.mark.parametrize("change", [
    lambda plan: {"tickets": plan.tickets[:1], "cohort": ("ash", "birch", "cedar", "fir")},
    lambda plan: {"tickets": plan.tickets[:1]},
    lambda plan: {"tickets": (*plan.tickets, Ticket(site="cedar", round=1, plan=plan.tickets[0].plan)),
                  "cohort": ("ash", "birch")},
    lambda plan: {"tickets": tuple(reversed(plan.tickets))}],
    ids=["asked anew although it works", "dropped", "a ticket that was used", "in another order"])
def test_attack_a_coordinator_that_gives_other_tickets_is_caught(federation: SmallFederation,
                                                                change: Callable[[Plan], dict[str, object]]):
    lied_about(federation, change)
    with pytest.raises(ChainError, match=TICKETS):
        federation.proofs()


OTHER_TICKET = "answered another round's plan than its ticket is of"


def honest(world: SmallFederation) -> Commit:
    """Round 2, in which 'elm' answers the first plan late."""
    turn(world, "ash", "birch", "elm")
    assert len(world.proofs()) == 3
    return read_commit(world.coordinator.store, RUN, 2, world.coordinator.identity.key).commit


@pytest.mark.parametrize(("change", "says"), [
    (lambda c: {"updates": (*c.updates, c.updates[-1])}, "was counted twice"),
    (lambda c: {"updates": c.updates[:-1]}, "does not name every site"),
    (lambda c: {"updates": c.updates[:-1], "missing": (*c.missing, "elm")}, "leaves out the ledger|changes the ledger"),
    (lambda c: {"updates": (*c.updates[:-1], c.updates[-1].model_copy(update={"ticket": None}))}, OTHER_TICKET),
    (lambda c: {"updates": (c.updates[0].model_copy(update={"ticket": 1}), *c.updates[1:])}, OTHER_TICKET),
    (lambda c: {"updates": (*c.updates[:-1], c.updates[-1].model_copy(update={"ticket": 0}))}, OTHER_TICKET),
    (lambda c: {"updates": (*c.updates[:-1], c.updates[-1].model_copy(update={"ticket": 5}))}, OTHER_TICKET)],
    ids=["doubled", "dropped", "called missing", "called fresh", "a fresh one called late", "too old", "of the future"])
def test_attack_a_commit_that_says_otherwise_of_a_ticket_is_caught(federation: SmallFederation,
                                                                  change: Callable[[Commit], dict[str, object]], says: str):
    resign(federation, 2, **change(honest(federation)))
    with pytest.raises((ChainError, SignatureError), match=says):
        federation.proofs()


def test_a_commit_that_counts_a_ticket_again_in_the_next_round_stops_the_members(federation: SmallFederation):
    """Also those who ask nobody for a proof: they see it in the window that they read anyway."""
    commit = honest(federation)
    turn(federation, "ash", "birch")
    late = commit.updates[-1]
    third = read_commit(federation.coordinator.store, RUN, 3, federation.coordinator.identity.key).commit
    resign(federation, 3, updates=(*third.updates, late.model_copy(update={"ticket": 1})),
           missing=tuple(site for site in third.missing if site != "elm"))
    planned = federation.plan(RUN)
    with pytest.raises(ChainError, match="older than all have agreed on"):
        federation.answer("ash", planned)


# -- members -----------------------------------------------------------------------------------------------------------


def test_an_answer_to_a_ticket_that_was_counted_is_looked_at_no_more(federation: SmallFederation):
    """The member puts another one into its place, under its good signature."""
    honest(federation)
    third = federation.plan(RUN)
    first = federation.coordinator
    assert "elm" in third.plan.cohort
    earlier = Planned(read_plan(first.store, read_commit(first.store, RUN, 1, first.identity.key).commit, first.identity.key),
                      read_commit(first.store, RUN, 1, first.identity.key).commit.plan, third.parent)
    federation.lie("elm", earlier, lambda delta_D: 50 * delta_D)
    federation.answer("ash", third)
    federation.answer("birch", third)
    committed = federation.commit(third).commit
    assert [update.site for update in committed.updates] == ["ash", "birch"]
    with pytest.raises(ChainError, match="ended this site's ticket"):
        federation.answer("elm", earlier)


def test_a_member_with_a_ticket_cannot_answer_the_new_plan_too(federation: SmallFederation):
    """Its answer to the new plan lies where nobody looks: it was not asked."""
    planned = federation.plan(RUN)
    federation.answer("elm", planned.of("elm"))
    with pytest.raises(TrustError, match="does not invite 'elm'"):
        federation.answer("elm", planned)
    ours = unseal(said(federation, "elm", planned.of("elm")).read_bytes(), Answer, federation.site("elm").identity.key, "")
    forged = seal(ours.model_copy(update={"round": planned.plan.round, "plan": planned.digest}),
                  federation.site("elm").identity)
    path = said(federation, "elm", planned)
    path.parent.mkdir(parents=True)
    path.write_bytes(forged)
    federation.answer("ash", planned)
    committed = federation.commit(planned).commit
    assert [(update.site, update.ticket) for update in committed.updates] == [("ash", None), ("elm", 1)]
    assert len(federation.proofs()) == 3


@pytest.mark.parametrize(("claims", "says"), [
    ({"base_model": "0" * 64}, "trained from another base model than the plan's"),
    ({"plan": "0" * 64}, "another plan than the one of this round"),
    ({"round": 2}, "its answer is for round '2', expected '1'")], ids=["base", "plan", "round"])
def test_a_late_answer_with_another_base_than_its_tickets_is_rejected(federation: SmallFederation, claims: dict, says: str):
    """Also one that claims to be fresh, so as to weigh more. Its ticket ends, as after any answer."""
    planned = federation.plan(RUN)
    for name in ("ash", "birch"):
        federation.answer(name, planned)
    federation.answer("elm", planned.of("elm"))
    federation.lie("elm", planned.of("elm"), lambda delta_D: delta_D, **claims)
    committed = federation.commit(planned).commit
    assert [rejection.site for rejection in committed.rejected] == ["elm"]
    assert says in committed.rejected[0].reason
    assert "elm" in federation.plan(RUN).plan.cohort
    assert len(federation.proofs()) == 3


def test_a_stale_answer_beyond_the_age_counts_for_nothing(federation: SmallFederation):
    """'fir' answers the first plan after the second round: too late by one."""
    planned = federation.plan(RUN)
    aside = federation.copy(federation.root.parent / "aside")
    turn(federation, "ash", "birch")
    late = planned.of("fir")
    with pytest.raises(ChainError, match="ended this site's ticket"):
        federation.answer("fir", late)
    third = federation.plan(RUN)
    source = aside.root / "store" / layout.answers("fir", RUN, 1, "train")
    aside.answer("fir", planned.of("fir"))
    shutil.copytree(source, federation.root / "store" / layout.answers("fir", RUN, 1, "train"))
    turn(federation, "ash", "birch")
    committed = read_commit(federation.coordinator.store, RUN, 3, federation.coordinator.identity.key).commit
    assert "fir" in third.plan.cohort
    assert "fir" not in {update.site for update in committed.updates}


# -- robust rules ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def robust(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    return small_federation.make(
        tmp_path_factory.mktemp("robust"), names=NAMES, quorum=3, enough=3, max_epsilon=80.0, recipe=small_federation.RECIPE,
        aggregation={"rule": {"name": "trimmed_mean", "f": 1}}, pace={"max_age": 2, "staleness": "constant"})


def test_a_liar_that_is_in_every_buffer_stays_within_what_the_rule_bears(robust: SmallFederation, tmp_path: Path):
    """The fast liar is in each buffer of three, honest ones take turns. The rule's f is of all members, so of each buffer."""
    world = robust.copy(tmp_path / "robust")
    for honest_ones in (("birch", "cedar"), ("elm", "fir"), ("birch", "cedar")):
        planned = world.plan(RUN)
        for name in ("ash", *honest_ones):
            world.answer(name, planned.of(name))
        world.lie("ash", planned.of("ash"), lambda delta_D: np.full_like(delta_D, 1e3))
        commit = world.commit(planned).commit
        assert {update.site for update in commit.updates} == {"ash", *honest_ones}
        largest = max(update.norm for update in commit.updates if update.site != "ash")
        near = [update.distance for update in commit.updates if update.site != "ash"]
        assert max(near) <= 2 * largest, "the aggregate lies among the honest updates"
    assert len(world.proofs()) == 4


# -- the rule of tickets -----------------------------------------------------------------------------------------------


def test_tickets_follow_from_two_documents_and_nothing_else(federation: SmallFederation):
    """Who is missing keeps its ticket while it is young, under the same log and not excluded."""
    store, key = federation.coordinator.store, federation.coordinator.identity.key
    commit = read_commit(store, RUN, 1, key).commit
    plan, pace = read_plan(store, commit, key), federation.coordinator.federation.pace
    now = tickets_after(pace, plan, commit.plan, commit, plan.log)
    assert [ticket.site for ticket in now] == ["elm", "fir"]
    assert tickets_after(None, plan, commit.plan, commit, plan.log) == ()
    assert [one.site for one in tickets_after(pace, plan, commit.plan, commit, plan.log, {"elm"})] == ["fir"]
    assert tickets_after(pace, plan, commit.plan, commit, plan.log.model_copy(update={"number": 2})) == ()
    old = commit.model_copy(update={"round": 2})
    assert tickets_after(pace, plan, commit.plan, old, plan.log) == ()
