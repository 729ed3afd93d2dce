"""A coordinator who shows two groups two histories, alone or together with whoever runs the store, and one who rolls back.

The store is copied: each group sees a world of its own, in which everything is signed as it should be.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from fedround import layout, sightings
from fedround.errors import ChainError, ContractError, QuorumError, SignatureError, TrustError
from fedround.records import Commit, LogHead
from fedround.signing import digest, seal, unseal
from site_workers import seen
from tests import small_federation
from tests.small_federation import SmallFederation

FOUR = ("north", "east", "south", "west")
EASTERN, WESTERN = ("north", "east"), ("south", "west")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """Four sites, a quorum of three, one honest round."""
    federation = small_federation.make(tmp_path_factory.mktemp("four"), names=FOUR, quorum=3, max_epsilon=80.0)
    federation.round()
    return federation


@pytest.fixture
def two(begun: SmallFederation, tmp_path: Path) -> tuple[SmallFederation, SmallFederation]:
    """Two worlds with one past."""
    return begun.copy(tmp_path / "one"), begun.copy(tmp_path / "other")


def resign(world: SmallFederation, number: int, **changes: object) -> None:
    """The coordinator signs the round's commit again, with changes."""
    identity = world.coordinator.identity
    path = world.root / "store" / layout.commit("spring", number)
    commit = unseal(path.read_bytes(), Commit, identity.key, "commit")
    path.unlink()
    path.write_bytes(seal(commit.model_copy(update=changes), identity))


def carry(site: str, origin: SmallFederation, target: SmallFederation) -> None:
    """The same site with all that it remembers is shown another world."""
    text = (target.root / site / "site.toml").read_text()
    shutil.rmtree(target.root / site)
    shutil.copytree(origin.root / site, target.root / site)
    (target.root / site / "site.toml").write_text(text)


def below_the_quorum(world: SmallFederation, names: tuple[str, ...]) -> None:
    """A round that the coordinator commits with two sites, although three were agreed: with other software it can."""
    planned = world.plan()
    for name in names:
        world.answer(name, planned)
    world.commit(dataclasses.replace(planned, plan=planned.plan.model_copy(update={"quorum": 2})))


def test_two_histories_of_two_halves_and_every_site_refuses_the_next_round(two: tuple[SmallFederation, SmallFederation]):
    """Round 2 is another one for either half. Neither half is a majority, and round 3 is refused by all four."""
    for world, names in zip(two, (EASTERN, WESTERN), strict=True):
        below_the_quorum(world, names)
    commits = [(world.root / "store" / layout.commit("spring", 2)).read_bytes() for world in two]
    assert commits[0] != commits[1]
    for world, names in zip(two, (EASTERN, WESTERN), strict=True):
        planned = world.plan()
        for name in names:
            with pytest.raises(ChainError, match="2 of 4 members sighted its plan, 3 must"):
                world.answer(name, planned)
            assert not (world.root / "store" / layout.answer(name, "spring", 3, 1, planned.plan.asks.kind)).exists()


def test_sightings_of_the_others_cannot_be_made_up(two: tuple[SmallFederation, SmallFederation]):
    """The coordinator adds the other half's sightings of their plan to this half's commit."""
    one, other = two
    edit = other.root / "coordinator" / "federation.toml"
    edit.write_text(edit.read_text().replace("deadline_s = 60", "deadline_s = 61"))
    below_the_quorum(one, EASTERN)
    below_the_quorum(other, WESTERN)
    stolen = unseal((other.root / "store" / layout.commit("spring", 2)).read_bytes(), Commit,
                    other.coordinator.identity.key, "commit")
    mine = unseal((one.root / "store" / layout.commit("spring", 2)).read_bytes(), Commit,
                  one.coordinator.identity.key, "commit")
    resign(one, 2, updates=(*mine.updates, *stolen.updates))
    planned = one.plan()
    for name in EASTERN:
        with pytest.raises(SignatureError, match="did not sign that it was shown the plan that the commit names"):
            one.answer(name, planned)


def test_a_majority_goes_on_and_only_who_was_shown_the_other_history_refuses(
        two: tuple[SmallFederation, SmallFederation]):
    one, other = two
    planned = other.plan()
    for name in ("north", "east", "south"):
        other.answer(name, planned)
    other.commit(planned)
    assert other.answer("north", other.plan()) == "update"
    planned = one.plan()
    one.answer("west", planned)
    with pytest.raises(QuorumError):
        one.commit(planned)


def test_a_site_that_is_moved_from_one_history_to_the_other_says_so(two: tuple[SmallFederation, SmallFederation]):
    """Both histories have their majority of round 2; only what a site remembers tells them apart."""
    one, other = two
    one.round(sites=FOUR)
    one.answer("north", one.plan())
    other.round(sites=("east", "south", "west"))
    planned = other.plan()
    carry("north", one, other)
    with pytest.raises(ChainError, match="this site has seen another commit of round 2: there are two histories"):
        other.answer("north", planned)


def test_a_site_that_was_away_notices_on_its_way_back(two: tuple[SmallFederation, SmallFederation]):
    """It saw round 2 in one world and is invited to round 4 in the other: the chain does not lead back to what it saw."""
    one, other = two
    one.round(sites=FOUR)
    one.answer("north", one.plan())
    for _ in range(2):
        other.round(sites=("east", "south", "west"))
    planned = other.plan()
    assert planned.plan.round == 4
    carry("north", one, other)
    with pytest.raises(ChainError, match="this site has seen another commit of round 2"):
        other.answer("north", planned)


def test_a_site_that_was_away_goes_on_where_the_history_is_one(two: tuple[SmallFederation, SmallFederation]):
    one, _ = two
    for _ in range(2):
        one.round(sites=("east", "south", "west"))
    assert one.answer("north", one.plan()) == "update"


def test_a_history_that_was_cut_short_is_not_continued(two: tuple[SmallFederation, SmallFederation]):
    """The last round is gone, and planned anew: for who has seen it, that is a rollback."""
    one, other = two
    for _ in range(2):
        one.round(sites=FOUR)
    one.answer("north", one.plan())
    carry("north", one, other)
    with pytest.raises(ChainError, match="continues round 1, and this site has seen round 3: the history was rolled back"):
        other.answer("north", other.plan())


def test_a_commit_that_says_something_else_of_us_than_we_said(two: tuple[SmallFederation, SmallFederation]):
    """Whoever has our key could sign a sighting; the outbox knows what we sent."""
    one, _ = two
    commit = one.round(sites=FOUR)
    resign(one, 2, updates=tuple(update.model_copy(update={"answer": "0" * 64}) if update.site == "north" else update
                                 for update in commit.updates))
    planned = one.plan()
    with pytest.raises(ChainError, match="holds another update of this site than the one it sent"):
        one.answer("north", planned)
    assert one.answer("east", planned) == "update"


def test_a_round_in_between_that_was_exchanged_is_noticed_on_the_way_back(two: tuple[SmallFederation, SmallFederation]):
    """The site saw round 1 and is asked for round 4: each commit in between must be the one that the next one names."""
    one, _ = two
    for _ in range(2):
        one.round(sites=("east", "south", "west"))
    planned = one.plan()
    resign(one, 2, note="another round 2, which round 3 does not name")
    with pytest.raises(ChainError, match="round 3 does not continue the committed round 2"):
        one.answer("north", planned)


@pytest.mark.parametrize(("changes", "says"), [
    ({"log": LogHead(number=1, digest="0" * 64)}, "another federation log than its successor's plan"),
    ({"log": LogHead(number=7, digest="0" * 64)}, "another federation log than its successor's plan"),
    ({"federation_digest": "0" * 64}, "another federation file than the log")],
    ids=["another entry", "an entry that is not there", "another file"])
def test_a_commit_under_another_agreement_than_the_log_has_is_not_continued(
        two: tuple[SmallFederation, SmallFederation], changes: dict, says: str):
    """Its sightings would be counted against members that nobody agreed on."""
    one, _ = two
    one.round(sites=FOUR)
    resign(one, 2, **changes)
    planned = one.plan()
    with pytest.raises(ChainError, match=says):
        one.answer("north", planned)


# -- the federation log ------------------------------------------------------------------------------------------------


def change(world: SmallFederation, deadline_s: int) -> None:
    path = world.root / "coordinator" / "federation.toml"
    path.write_text(path.read_text().replace("deadline_s = 60", f"deadline_s = {deadline_s}"))


def test_a_log_that_was_rolled_back_is_not_believed(two: tuple[SmallFederation, SmallFederation]):
    """For example to bring a revoked key back."""
    one, other = two
    change(one, 61)
    assert one.answer("north", one.plan()) == "update"
    assert seen.read(one.root / "north").log.number == 2
    planned = other.plan()
    carry("north", one, other)
    with pytest.raises(ChainError, match="names entry 1 .* this site has seen entry 2: the log was rolled back"):
        other.answer("north", planned)


def test_two_logs_are_not_one(two: tuple[SmallFederation, SmallFederation]):
    one, other = two
    change(one, 61)
    change(other, 62)
    one.answer("north", one.plan())
    planned = other.plan()
    carry("north", one, other)
    with pytest.raises(ChainError, match="another entry 2 than this site has seen: there are two logs"):
        other.answer("north", planned)


def test_a_plan_under_a_file_that_the_log_does_not_end_with(two: tuple[SmallFederation, SmallFederation]):
    """The file of before a revocation, named by a plan of after it."""
    one, _ = two
    before = one.plan().plan
    change(one, 61)
    after = one.plan()
    path = one.root / "store" / layout.plan("spring", 2, after.plan.attempt, after.plan.asks.kind)
    path.unlink()
    path.write_bytes(seal(after.plan.model_copy(update={"federation_digest": before.federation_digest}),
                          one.coordinator.identity))
    with pytest.raises(TrustError, match="names another federation file than the end of its federation log"):
        one.answer("north", after)


# -- the argument ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("members", "quorum", "needed", "liars"), [
    (4, 3, 3, 2), (4, 2, 1, 0), (3, 2, 2, 1), (3, 3, 2, 1), (12, 9, 7, 2), (12, 6, 1, 0), (2, 2, 2, 2), (1, 1, 1, 1)])
def test_how_many_must_lie_for_two_histories(begun: SmallFederation, members: int, quorum: int, needed: int, liars: int):
    """Two sets of `needed` members out of n overlap in at least 2 needed - n."""
    federation = begun.coordinator.federation.model_copy(update={
        "quorum": quorum, "sites": (begun.coordinator.federation.sites * 3)[:members]})
    assert (sightings.needed(federation), sightings.liars_needed(federation)) == (needed, liars)


def test_a_form_cannot_talk_a_round_out_of_its_majority(two: tuple[SmallFederation, SmallFederation]):
    with pytest.raises(ContractError, match=r"quorum 2 is no majority of its 4 members.*at least 3"):
        two[0].plan(quorum=2)


def test_digests_name_documents(begun: SmallFederation):
    """What the tests above rest on: the copied worlds have one past."""
    first = (begun.root / "store" / layout.commit("spring", 1)).read_bytes()
    assert begun.plan().plan.parent == digest(first)
