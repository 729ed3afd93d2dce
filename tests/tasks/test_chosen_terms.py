"""A run's privacy target and rule: chosen when it begins, of what the federation file offers, and the same to its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fedround import layout
from fedround.aggregation.rules import CoordinateMedian, TrimmedMean, WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.agreement import Agreement
from fedround.choices import Choice
from fedround.errors import ChainError, ContractError, TrustError
from fedround.privacy import ledger
from fedround.records import Checkpoint, Plan
from fedround.signing import digest, envelope, seal, unseal
from fedround.values import parse
from infra.history import read_commit
from site_workers.authorise import authorise
from tasks.choice import choice_of_run
from tasks.questions import preview
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import SmallFederation, changed, settings

CHOICES = {"epsilon": [4.0, 6.0], "rule": [{"name": "coordinate_median"}]}
MADE = Choice(epsilon=4.0, rule=CoordinateMedian())


def agreement(**changes: object) -> Agreement:
    return parse(Agreement, settings(**{"choices": CHOICES, **changes}), "settings")


# -- what may be chosen ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epsilon", "rule", "made"), [
    (None, None, None), (8.0, None, None), (8.0, "weighted_mean", None), (4.0, None, Choice(epsilon=4.0)),
    (None, "coordinate_median", Choice(rule=CoordinateMedian())), (4.0, "coordinate_median", MADE)])
def test_a_choice_names_only_what_is_not_said_first(epsilon: float | None, rule: str | None, made: Choice | None):
    assert agreement().offer.choice(epsilon, rule) == made


@pytest.mark.parametrize(("epsilon", "rule", "says"), [
    (2.0, None, "a run may have epsilon 8 or 4 or 6, not 2"),
    (None, "krum", r"the rule weighted_mean or coordinate_median, and none of them is called so"),
    (None, "", "none of them is called so")])
def test_what_is_not_offered_is_refused_and_what_is_offered_is_said(epsilon: float | None, rule: str | None, says: str):
    with pytest.raises(ContractError, match=says):
        agreement().offer.choice(epsilon, rule)


def test_without_privacy_a_rule_can_be_chosen_and_no_target():
    offer = agreement(privacy={"unit": "none"}, choices={"rule": [{"name": "coordinate_median"}]}).offer
    assert offer.choice(None, None) is None
    assert offer.choice(None, "coordinate_median") == Choice(rule=CoordinateMedian())
    with pytest.raises(ContractError, match="a run may have no epsilon, not 1"):
        offer.choice(1.0, None)


def test_two_rules_of_a_name_are_told_apart_by_their_words():
    offer = agreement(quorum=5, choices={"rule": [{"name": "trimmed_mean", "f": f} for f in (1, 2)]}).offer
    assert offer.choice(None, "trimmed_mean(f=2)") == Choice(rule=TrimmedMean(f=2))
    with pytest.raises(ContractError, match="several of them are called so"):
        offer.choice(None, "trimmed_mean")


def test_a_chosen_rule_stands_behind_the_agreed_gate_and_the_rest_is_as_agreed():
    first = agreement(quorum=5, aggregation={"mixing": [{"name": "nearest_neighbour_mixing", "f": 1}], "rule": {
        "name": "trimmed_mean", "f": 1}, "history": 0.5})
    made = first.chosen(MADE)
    assert str(made.how_to_aggregate()) == (
        "nearest_neighbour_mixing(f=1, near=distance) >> coordinate_median, on a moving average with beta 0.5")
    assert made.privacy == first.privacy.model_copy(update={"epsilon": 4.0})
    assert made.model_copy(update={name: getattr(first, name) for name in ("privacy", "aggregation", "choices")}) == first


@pytest.mark.parametrize(("changes", "says"), [
    ({"choices": {"rule": [{"name": "krum", "f": 1}]}}, r"with krum\(f=1\): aggregation with quorum 2: krum with f=1"),
    ({"choices": {"epsilon": [0.0]}}, "'choices.epsilon.0'"),
    ({"choices": {"epsilon": [101.0]}}, "'choices.epsilon.0'"),
    ({"choices": {"rule": [{"name": "crumb"}]}}, "'choices.rule.0'"),
    ({"privacy": {"unit": "none"}, "choices": {"epsilon": [1.0]}}, "without privacy there is no epsilon to choose"),
    ({"aggregation": {"rule": {"name": "weighted_mean"}, "fairness": {"name": "q_ffl", "q": 1.0, "cap": 2.0}},
      "choices": {"rule": [{"name": "coordinate_median"}]}}, "coordinate_median.* counts every site the same"),
    ({"choices": {"epsilon": [1.0] * 9}}, "at most 8"),
], ids=["theorem", "zero", "huge", "unknown", "no privacy", "fairness", "too many"])
def test_the_conditions_of_all_that_can_be_chosen_are_checked_when_the_file_is_read(changes: dict, says: str):
    with pytest.raises(ContractError, match=says):
        agreement(**changes)


# -- a run -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    return small_federation.make(tmp_path_factory.mktemp("terms"), choices=CHOICES)


@pytest.fixture(scope="module")
def ran(made_: SmallFederation, tmp_path_factory: pytest.TempPathFactory) -> SmallFederation:
    """Two rounds at epsilon 4 with a median: the first was asked for so, the second takes it from the run."""
    federation = made_.copy(tmp_path_factory.mktemp("ran"))
    for asked in ({"epsilon": 4.0, "rule": "coordinate_median"}, {}):
        planned = federation.plan(**asked)
        for name in planned.plan.cohort:
            federation.answer(name, planned)
        federation.commit(planned)
    return federation


@pytest.fixture
def federation(made_: SmallFederation, tmp_path: Path) -> SmallFederation:
    return made_.copy(tmp_path)


def test_every_round_of_a_run_has_what_was_chosen_and_the_proof_says_so(ran: SmallFederation):
    proofs = list(verify_run(ran.coordinator.store, "spring", ran.coordinator.identity.key))
    assert [proof.chosen for proof in proofs] == ["epsilon 4, coordinate_median"] * 3
    assert [(proof.privacy.epsilon, proof.aggregation) for proof in proofs[1:]] == [(4.0, "coordinate_median")] * 2
    assert all(0 < spent <= 4 for proof in proofs[1:] for spent in proof.epsilons.values())
    assert choice_of_run(ran.coordinator, "spring") == MADE
    assert preview(ran.coordinator, "spring", []).promised == 4.0
    assert preview(ran.coordinator, "another", []).promised == 8.0


def test_the_ledger_and_the_policy_see_what_was_chosen(federation: SmallFederation):
    """North allows a run no more than epsilon 5: it refuses the first, and sets aside for the other what was chosen."""
    path = federation.root / "north" / "policy.toml"
    path.write_text("max_epsilon_per_run = 5.0\n" + path.read_text())
    first, quiet = federation.plan(run="first"), federation.plan(run="quiet", epsilon=4.0)
    assert [federation.answer("north", planned) for planned in (first, quiet)] == ["refusal", "update"]
    book = ledger.read(federation.site("north").ledger)
    assert 3 < ledger.held(book, 1e-5, unit="record") <= 4


def test_a_run_that_has_begun_keeps_what_it_has(ran: SmallFederation):
    for asked in ({"epsilon": 6.0}, {"rule": "weighted_mean"}, {"epsilon": 8.0}):
        with pytest.raises(ContractError, match="run 'spring' trains with epsilon 4, the rule coordinate_median, from its "
                                                "first round to its last"):
            ran.plan(**asked)
    assert ran.plan(epsilon=4.0).digest == ran.plan(rule="coordinate_median").digest == ran.plan().digest


def test_another_run_may_begin_with_its_model_and_choose_anew(ran: SmallFederation, tmp_path: Path):
    federation = ran.copy(tmp_path)
    plan = federation.plan(run="summer", after="spring", epsilon=6.0).plan
    assert (plan.agreed.choice, plan.agreed.privacy.epsilon) == (Choice(epsilon=6.0), 6.0)
    assert str(plan.agreed.aggregation) == "weighted_mean"


def test_what_is_no_longer_offered_ends_the_run_in_words(ran: SmallFederation, tmp_path: Path):
    federation = ran.copy(tmp_path)
    path = federation.root / "coordinator" / "federation.toml"
    path.write_text(path.read_text().replace("epsilon = [4.0, 6.0]", "epsilon = [6.0]"))
    with pytest.raises(ContractError, match="run 'spring' began with what the federation file does not offer any more: .*"
                                            "begin a new run"):
        federation.plan()


def test_a_smaller_quorum_is_held_against_the_chosen_rule_alone(tmp_path: Path):
    """The median holds with two; that another choice would need three is nobody's concern here."""
    federation = small_federation.make(tmp_path, quorum=3, choices={"rule": [{"name": "trimmed_mean", "f": 1},
                                                                           {"name": "coordinate_median"}]})
    assert federation.plan(rule="coordinate_median", quorum=2).plan.quorum == 2
    with pytest.raises(ContractError, match="trimmed_mean with f=1 needs at least 3"):
        federation.plan(run="summer", rule="trimmed_mean", quorum=2)


# -- attacks by the coordinator, whose signature is good ---------------------------------------------------------------


def published(federation: SmallFederation, plan: Plan) -> None:
    """As a second attempt."""
    plan = plan.model_copy(update={"attempt": 2})
    federation.coordinator.store.put_once(layout.plan(plan.run, plan.round, 2, "train"),
                                          seal(plan, federation.coordinator.identity))


@pytest.mark.parametrize(("begun", "lie", "says"), [
    ({}, lambda plan: changed(plan, choice=Choice(epsilon=6.0), privacy=epsilon(plan, 6.0)), "something else was chosen"),
    ({"epsilon": 4.0}, lambda plan: changed(plan, choice=Choice(epsilon=6.0), privacy=epsilon(plan, 6.0)),
     "something else was chosen"),
    ({"epsilon": 4.0}, lambda plan: changed(plan, choice=None, privacy=epsilon(plan, 8.0)), "something else was chosen"),
    ({"epsilon": 4.0}, lambda plan: changed(plan, privacy=epsilon(plan, 8.0)), "asks for other privacy or another rule"),
    ({"rule": "coordinate_median"}, lambda plan: changed(plan, aggregation=Aggregation(rule=WeightedMean())),
     "asks for other privacy or another rule"),
    ({}, lambda plan: changed(plan, privacy=epsilon(plan, 6.0)), "asks for other privacy or another rule"),
], ids=["none was made", "another", "taken back", "other epsilon", "other rule", "without saying so"])
def test_attack_a_first_round_that_asks_otherwise_than_the_run_began_gets_no_answer(
        federation: SmallFederation, begun: dict, lie: Callable[[Plan], Plan], says: str):
    published(federation, lie(federation.plan(**begun).plan))
    with pytest.raises((TrustError, ChainError), match=says):
        authorise(federation.site("north"), "spring", 1, 2, "train")


def epsilon(plan: Plan, value: float):
    return plan.agreed.privacy.model_copy(update={"epsilon": value})


@pytest.mark.parametrize("choice", [None, Choice(epsilon=6.0)])
def test_attack_a_choice_that_changes_within_a_run_gets_no_answer_and_no_proof(ran: SmallFederation, tmp_path: Path,
                                                                              choice: Choice | None):
    federation = ran.copy(tmp_path)
    plan = federation.plan().plan
    lie = changed(plan, choice=choice, privacy=epsilon(plan, 8.0 if choice is None else 6.0))
    published(federation, lie)
    with pytest.raises(ChainError, match="something else was chosen for the run than when it began"):
        authorise(federation.site("north"), "spring", 3, 2, "train")


def test_attack_a_choice_that_nobody_agreed_on_gets_no_answer(federation: SmallFederation):
    """From its first checkpoint on the run says epsilon 50, and every signature is good."""
    planned = federation.plan(epsilon=4.0)
    store, coordinator = federation.root / "store", federation.coordinator
    commit = read_commit(coordinator.store, "spring", 0, coordinator.identity.key).commit
    unfair = Choice(epsilon=50.0)
    checkpoint = rewritten(federation, layout.checkpoint("spring", 0, commit.checkpoint), choice=unfair)
    (store / layout.checkpoint("spring", 0, digest(checkpoint))).write_bytes(checkpoint)
    begun = seal(commit.model_copy(update={"checkpoint": digest(checkpoint)}), coordinator.identity)
    replaced(store / layout.commit("spring", 0), begun)
    published(federation, changed(planned.plan, parent=digest(begun), choice=unfair, privacy=epsilon(planned.plan, 50.0)))
    with pytest.raises(TrustError, match="epsilon 50 is not among what a run may have: epsilon 8 or 4 or 6"):
        authorise(federation.site("north"), "spring", 1, 2, "train")


def test_attack_the_proof_finds_a_checkpoint_that_says_otherwise(ran: SmallFederation, tmp_path: Path):
    federation = ran.copy(tmp_path)
    coordinator = federation.coordinator
    commit = read_commit(coordinator.store, "spring", 2, coordinator.identity.key).commit
    checkpoint = rewritten(federation, layout.checkpoint("spring", 2, commit.checkpoint), choice=None)
    store = federation.root / "store"
    (store / layout.checkpoint("spring", 2, digest(checkpoint))).write_bytes(checkpoint)
    replaced(store / layout.commit("spring", 2),
             seal(commit.model_copy(update={"checkpoint": digest(checkpoint)}), coordinator.identity))
    with pytest.raises(ChainError, match="something else was chosen for its run than the round before"):
        list(verify_run(coordinator.store, "spring", coordinator.identity.key))


def rewritten(federation: SmallFederation, key: str, **changes: object) -> bytes:
    coordinator = federation.coordinator
    body = (federation.root / "store" / key).read_bytes()
    assert envelope(body, key).kind == Checkpoint.kind
    said = unseal(body, Checkpoint, coordinator.identity.key, key)
    return seal(said.model_copy(update=changes), coordinator.identity)


def replaced(path: Path, body: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(body)
