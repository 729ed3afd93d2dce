"""A round that asks only some members: only if all have agreed that sites may be chosen, and never fewer than the quorum."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedround.choices import Choices
from fedround.errors import ChainError, ContractError, TrustError
from fedround.federation import Federation
from fedround.signing import seal
from infra.history import read_commit
from site_workers.authorise import authorise
from tasks.agreed import check_cohort
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import SmallFederation

NO_PLAN = "runs/spring/rounds/00001/"


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """All agree that sites may be chosen. A round of all, one of two of them, and one of all. Averages are remembered."""
    federation = small_federation.make(tmp_path_factory.mktemp("chosen"), choices={"sites": True},
                                       aggregation={"rule": {"name": "weighted_mean"}, "history": 0.5})
    federation.round()
    planned = federation.plan(sites=("south", "north"))
    for name in planned.plan.cohort:
        federation.answer(name, planned)
    federation.commit(planned)
    federation.round()
    return federation


def test_only_the_chosen_are_asked_and_charged_and_the_next_round_asks_all(chosen: SmallFederation):
    proofs = list(verify_run(chosen.coordinator.store, "spring", chosen.coordinator.identity.key))[1:]
    assert [(sorted(proof.updates), proof.excluded) for proof in proofs] == [
        (["east", "north", "south"], ()), (["north", "south"], ("east",)), (["east", "north", "south"], ())]
    charged = {name: (chosen.root / name / "ledger.jsonl").read_text().count('"spring"') for name in chosen.names}
    assert charged["east"] < charged["north"] == charged["south"]


def test_who_was_not_chosen_is_remembered_as_it_was(chosen: SmallFederation):
    store, key = chosen.coordinator.store, chosen.coordinator.identity.key
    before, after = ({said.site: said.average for said in read_commit(store, "spring", number, key).commit.memory}
                     for number in (1, 2))
    assert after["east"] == before["east"]
    assert after["north"] != before["north"]


@pytest.mark.parametrize(("request_", "says"), [
    ({"sites": ("south",)}, "1 of the chosen sites can be asked, and the quorum is 2"),
    ({"sites": ("south", "north"), "quorum": 3}, "2 of the chosen sites can be asked, and the quorum is 3"),
    ({"sites": ("south", "nowhere")}, "has no site 'nowhere'; its members are: north, east, south"),
    ({"sites": ("south", "north")}, "a round asks every member; to choose some of them, agree on"),
], ids=["quorum of the file", "quorum of the request", "a stranger", "not agreed"])
def test_who_may_not_be_chosen_is_refused_before_any_site_is_asked(tmp_path: Path, request_: dict, says: str):
    agreed = None if "agree on" in says else {"sites": True}
    federation = small_federation.make(tmp_path, choices=agreed)
    with pytest.raises(ContractError, match=says):
        federation.plan(**request_)
    assert not list(federation.coordinator.store.list(NO_PLAN))


def test_to_choose_all_is_to_choose_nobody(federation: SmallFederation):
    assert federation.plan(sites=("south", "north", "east")).digest == federation.plan().digest


def test_attack_a_coordinator_that_leaves_out_whom_it_likes_gets_no_answer_and_no_proof(federation: SmallFederation):
    """Nobody has agreed that sites may be chosen. The plan is well signed, and says whom it does not ask."""
    planned = federation.plan()
    unfair = planned.plan.model_copy(update={"cohort": ("north", "south"), "unasked": ("east",), "attempt": 2})
    federation.coordinator.store.put_once("runs/spring/rounds/00001/plan-02.json",
                                          seal(unfair, federation.coordinator.identity))
    with pytest.raises(TrustError, match="does not ask east: .*a round asks every member"):
        authorise(federation.site("north"), "spring", 1, 2, "train")
    with pytest.raises(ChainError, match="does not ask east: .*a round asks every member"):
        check_cohort(unfair, federation.coordinator.federation, [], "round 1")


@pytest.mark.parametrize(("cohort", "unasked", "says"), [
    (("north", "south"), (), "does not ask every member"),
    (("north", "south"), ("south", "east"), "does not ask every member"),
    (("north",), ("south", "east"), "1 of the chosen sites can be asked, and the quorum is 2"),
], ids=["silently", "twice", "below the quorum"])
def test_even_where_sites_may_be_chosen_the_proof_wants_everybody_named(federation: SmallFederation, cohort: tuple[str, ...],
                                                                        unasked: tuple[str, ...], says: str):
    agreed: Federation = federation.coordinator.federation.model_copy(update={"choices": Choices(sites=True)})
    plan = federation.plan().plan.model_copy(update={"cohort": cohort, "unasked": unasked})
    with pytest.raises(ChainError, match=says):
        check_cohort(plan, agreed, [], "round 1")
