"""Who a selection asks in a whole federation: signed, drawn again by every proof, and nobody else pays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedround import layout
from fedround.aggregation.verdict import Verdict
from fedround.errors import ChainError, ContractError, TrustError
from fedround.federation import Federation, SiteEntry
from fedround.hours import Closed, Hours
from fedround.records import Commit, Plan
from fedround.rounds.asking import first_that_counts
from fedround.rounds.earlier import Earlier, standings
from fedround.signing import seal
from fedround.values import parse
from infra.history import read_commit
from site_workers.authorise import authorise
from tasks.agreed import check_cohort
from tasks.cohort import Place, cohort_of
from tasks.coordinator import Coordinator
from tasks.past import Past
from tasks.plan import Planned, plan_round
from tasks.requests import NextRoundRequest
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import SmallFederation

RUN = NextRoundRequest(run="spring")


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """Three rounds of two of three members; the last of them those with the largest loss of all."""
    federation = small_federation.make(
        tmp_path_factory.mktemp("selected"), selection={"name": "power_of_choice", "sites": 2, "candidates": 3, "within": 2},
        evaluation={"bins": 10, "noise_std": 3.0})
    for _ in range(3):
        federation.round()
    return federation


def commits(federation: SmallFederation) -> Iterator[Commit]:
    coordinator = federation.coordinator
    for number in range(1, 4):
        yield read_commit(coordinator.store, "spring", number, coordinator.identity.key).commit


def test_a_proof_draws_again_whom_each_round_asked_and_all_have_been_asked(chosen: SmallFederation):
    store, key = chosen.coordinator.store, chosen.coordinator.identity.key
    proofs = list(verify_run(store, "spring", key))[1:]
    assert [len(proof.updates) for proof in proofs] == [2, 2, 2]
    assert {site for proof in proofs[:2] for site in proof.updates} == set(chosen.names)
    charged = {name: (chosen.root / name / "ledger.jsonl").read_text().count('"spring"') for name in chosen.names}
    asked = {name: sum(name in proof.updates for proof in proofs) for name in chosen.names}
    assert charged == asked, "who is not asked pays nothing, and who is asked pays the whole price"


def test_a_commit_says_each_loss_and_the_next_draw_follows_it(chosen: SmallFederation):
    losses = [{update.site: update.loss for update in commit.updates} for commit in commits(chosen)]
    assert all(loss is not None and 0 < loss <= 1 for said in losses for loss in said.values())
    third = chosen.coordinator.federation
    seen = standings([Past(_plan_of(chosen, commit), commit).said for commit in commits(chosen)][:2], chosen.names)
    due = {name for name, one in seen.items() if one.rested >= 1}
    left = sorted(set(chosen.names) - due, key=lambda name: -seen[name].loss)
    assert {update.site for update in list(commits(chosen))[2].updates} == {*due, *left[:2 - len(due)]}
    assert third.selection is not None


def _plan_of(federation: SmallFederation, commit: Commit) -> Plan:
    from infra.history import read_plan

    return read_plan(federation.coordinator.store, commit, federation.coordinator.identity.key)


def test_attack_a_commit_that_says_another_loss_is_found(chosen: SmallFederation, tmp_path: Path):
    """A coordinator would have a member asked more often than its counts call for."""
    federation = chosen.copy(tmp_path)
    store, coordinator = federation.root / "store", federation.coordinator
    last = list(commits(federation))[-1]
    forged = last.model_copy(update={"updates": tuple(update.model_copy(update={"loss": 0.999}) for update in last.updates)})
    path = store / layout.commit("spring", 3)
    path.chmod(0o600)
    path.write_bytes(seal(forged, coordinator.identity))
    with pytest.raises(ChainError, match=r"says that the loss at '\w+' is 0\.999, and the site's counts say otherwise"):
        list(verify_run(coordinator.store, "spring", coordinator.identity.key))


def test_attack_a_coordinator_that_asks_others_than_were_drawn_has_no_proof(tmp_path: Path, rows_are_judged_here: None):
    federation = small_federation.make(tmp_path, selection={"name": "random", "sites": 2})
    planned = federation.plan()
    drawn, (left,) = planned.plan.cohort, planned.plan.unasked
    others = planned.plan.model_copy(update={"cohort": (drawn[0], left), "unasked": (drawn[1],)})
    with pytest.raises(ChainError, match=f"the agreed selection is of {drawn[0]}, {drawn[1]}"):
        check_cohort(others, federation.coordinator.federation, [], "round 1")
    everybody = planned.plan.model_copy(update={"cohort": (*drawn, left), "unasked": (), "attempt": 2})
    federation.coordinator.store.put_once("runs/spring/rounds/00001/plan-02.json",
                                          seal(everybody, federation.coordinator.identity))
    with pytest.raises(TrustError, match="3 sites are asked, and its selection is of 2"):
        authorise(federation.site(left), "spring", 1, 2, "train")


def test_the_same_question_is_the_same_draw_and_another_attempt_another(tmp_path: Path, rows_are_judged_here: None):
    federation = small_federation.make(tmp_path, names=tuple("abcdefgh"), selection={"name": "random", "sites": 4})
    first = federation.plan()
    assert federation.plan().digest == first.digest
    assert federation.plan(deadline_s=61).plan.cohort != first.plan.cohort, "members that do not answer stop nobody for ever"
    with pytest.raises(ContractError, match=r"its \[selection\] says who is asked; name no sites"):
        federation.plan(sites=("a", "b", "c", "d"))


@pytest.mark.parametrize(("settings", "says"), [
    ({"selection": {"name": "random", "sites": 1}}, "1 site is asked, and the quorum is 2"),
    ({"selection": {"name": "random", "sites": 2}, "choices": {"sites": True}}, "agree on one of them"),
    ({"selection": {"name": "random", "sites": 2}, "enough": 3}, "can never be reached by the 2 sites"),
    ({"selection": {"name": "power_of_choice", "sites": 2, "candidates": 3},
      "privacy": {"unit": "site", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3}},
     "no counts of scores leave"),
], ids=["below the quorum", "two who choose", "enough", "no losses"])
def test_a_selection_that_cannot_be_is_refused_before_anybody_agrees(tmp_path: Path, settings: dict, says: str):
    with pytest.raises(ContractError, match=says):
        small_federation.make(tmp_path, **settings)


# -- who is there ------------------------------------------------------------------------------------------------------

NIGHTS = Hours(time_zone="Europe/Berlin", start="20:00", end="06:00")
NOON, MIDNIGHT = datetime(2026, 3, 4, 11, 0, tzinfo=UTC), datetime(2026, 3, 4, 23, 0, tzinfo=UTC)


def with_hours(federation: Federation, **entries: dict) -> Federation:
    sites = tuple(SiteEntry(**{**dict(site), **entries.get(site.name, {})}) for site in federation.sites)
    return parse(Federation, {**federation.model_dump(mode="json"),
                              "sites": [site.model_dump(mode="json") for site in sites]}, "hours")


def at(coordinator: Coordinator, federation: Federation, now: datetime) -> Coordinator:
    return dataclasses.replace(coordinator, federation=federation, federation_document=seal(federation, coordinator.identity),
                               clock=lambda: now)


def test_who_is_not_there_is_not_asked_and_the_plan_says_when_it_was_made(federation: SmallFederation):
    hours = with_hours(federation.coordinator.federation, east={"hours": NIGHTS})
    planned = plan_round(at(federation.coordinator, hours, NOON), RUN)
    assert (planned.plan.cohort, planned.plan.unasked) == (("north", "south"), ("east",))
    assert planned.plan.planned_at == NOON
    assert check_cohort(planned.plan, hours, [], "round 1") == ("east",)
    authorise(federation.site("north"), "spring", 1, 1, "train")
    later = plan_round(at(federation.coordinator, hours, MIDNIGHT), RUN)
    assert later.digest == planned.digest, "those who were asked may have answered: nobody pays twice because another came"


def test_a_plan_whose_sites_have_gone_is_planned_anew(federation: SmallFederation):
    hours = with_hours(federation.coordinator.federation, east={"hours": NIGHTS})
    assert plan_round(at(federation.coordinator, hours, MIDNIGHT), RUN).plan.cohort == ("north", "east", "south")
    anew = plan_round(at(federation.coordinator, hours, NOON), RUN).plan
    assert (anew.attempt, anew.cohort, anew.unasked) == (2, ("north", "south"), ("east",))


def test_attack_a_member_is_left_out_as_if_it_were_away(federation: SmallFederation):
    hours = with_hours(federation.coordinator.federation, east={"hours": NIGHTS})
    planned: Planned = plan_round(at(federation.coordinator, hours, NOON), RUN)
    for changes, says in (({"at": int(MIDNIGHT.timestamp())}, "a round asks every member"),
                          ({"at": None}, "does not say when it was planned"),
                          ({"cohort": ("north", "east"), "unasked": ("south",)}, "'east' cannot be asked at that time")):
        with pytest.raises(ChainError, match=says):
            check_cohort(planned.plan.model_copy(update=changes), hours, [], "round 1")


def test_below_the_quorum_it_says_who_is_not_there(federation: SmallFederation):
    day = Closed(first="2026-03-04", last="2026-03-04", time_zone="Asia/Tokyo")
    hours = with_hours(federation.coordinator.federation, east={"hours": NIGHTS}, south={"closed": (day,)})
    with pytest.raises(ContractError, match=r"1 of the chosen sites.*the quorum is 2.*not there now: east, south"):
        plan_round(at(federation.coordinator, hours, NOON), RUN)


@pytest.mark.parametrize(("now", "open_"), [
    (datetime(2026, 3, 29, 0, 59, tzinfo=UTC), True), (datetime(2026, 3, 29, 1, 0, tzinfo=UTC), False),     # 02:00 -> 03:00
    (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), True), (datetime(2026, 10, 25, 1, 30, tzinfo=UTC), True)])   # 02:30, twice
def test_hours_go_by_the_clock_on_the_wall_when_summer_time_begins_and_ends(now: datetime, open_: bool):
    hours = Hours(time_zone="Europe/Berlin", start="01:00", end="03:00")
    assert SiteEntry(name="east", key=f"ed25519:{1:064x}", weight=1.0, hours=hours).is_there(now) is open_


def test_a_member_that_joins_late_or_was_away_is_due_first():
    """Nobody has to do anything for it: a site that was offline for three rounds is asked in the next."""
    federation = Federation.model_construct(
        name="small", coordinator="ed25519:" + "0" * 64, quorum=1, reputation=None,
        selection=parse_selection({"name": "random", "sites": 2, "within": 3}),
        sites=tuple(SiteEntry(name=name, key=f"ed25519:{n + 1:064x}", weight=1.0) for n, name in enumerate("abcde")))
    past = [Earlier(number, ("a", "b"), {"a": Verdict.USED}) for number in (1, 2, 3)]
    seen = past[first_that_counts(federation, 4) - 1:]
    assert len(seen) == 2
    assert not {"a", "b"} & set(cohort_of(federation, Place("spring", 4, 1, trains=True), seen, None).asked)


def parse_selection(said: dict) -> object:
    from pydantic import TypeAdapter

    from fedround.selection import Selection

    return TypeAdapter(Selection).validate_python(said)
