"""Sites of two kinds, whose labels mean the opposite: two models, the sites choose, and nobody has to believe anybody."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fedround import codec, layout
from fedround.errors import ChainError, ContractError, QuorumError
from fedround.learning.clusters import model_of
from fedround.privacy import ledger
from fedround.privacy.spec import GaussianCounts
from fedround.records import Checkpoint, Commit
from fedround.rounds.clusters import picked_in
from fedround.signing import digest, seal, unseal
from infra.documents import read_tensors
from infra.history import read_answer, read_checkpoint, read_plan
from infra.settings import load_toml, save_toml
from site_workers import round as site_round
from site_workers.export import own_model
from site_workers.policy import SitePolicy
from tasks import contribution
from tasks.ask import MeasurementRequest, conclude, plan_question
from tasks.bundle import build
from tasks.requests import RoundRequest
from tests import small_federation
from tests.small_federation import SmallFederation

NAMES = ("north", "east", "south", "west")
REVERSED = ("south", "west")
TERMS = {"quorum": 3, "evaluation": {"bins": 10, "noise_std": 1.0, "clusters": 2}, "optimizer": {"name": "fedavg"},
         "privacy": {"unit": "record", "epsilon": 60.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 4},
         "training": {"local_steps": 10, "batch_size": 100, "learning_rate": 0.5}}


def made(root, **changes) -> SmallFederation:
    federation = small_federation.make(root, names=NAMES, max_epsilon=100.0, **{**TERMS, **changes})
    for name in REVERSED:
        for path in (federation.root / "data" / name).glob("*.parquet"):
            frame = pd.read_parquet(path)
            frame.assign(y=1 - frame["y"]).to_parquet(path)
    return federation


@pytest.fixture(scope="module")
def begun(tmp_path_factory, rows_are_judged_here) -> SmallFederation:
    """Two rounds are committed."""
    federation = made(tmp_path_factory.mktemp("clusters"))
    federation.round()
    federation.round()
    return federation


@pytest.fixture
def federation(begun, tmp_path) -> SmallFederation:
    return begun.copy(tmp_path / "copy")


def committed(federation: SmallFederation, number: int) -> Commit:
    path = federation.root / "store" / layout.commit("spring", number)
    return unseal(path.read_bytes(), Commit, federation.coordinator.identity.key, "commit")


def models(federation: SmallFederation, commit: Commit) -> list[dict]:
    coordinator = federation.coordinator
    tensors = read_tensors(coordinator.store, commit.model,
                           read_checkpoint(coordinator.store, commit, coordinator.key).tensors, "model")
    return [model_of(tensors, cluster, 2) for cluster in range(2)]


def same(one: dict, other: dict) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


def test_each_kind_has_a_model_of_its_own_and_the_choice_is_found_again_in_the_answers(federation):
    commit = federation.round()
    picked = {update.site: update.cluster for update in commit.updates}
    assert picked["north"] == picked["east"] != picked["south"] == picked["west"]
    coordinator = federation.coordinator
    plan = read_plan(coordinator.store, commit, coordinator.key)
    for update in commit.updates:
        assert picked_in(plan, read_answer(coordinator.store, plan, update)) == update.cluster
    assert federation.recomputed() == 4
    for name in NAMES:                      # a site's operator gets the model of its kind, and one for all is a coin
        assert own_model(federation.site(name)).metrics.auc > 0.8


def test_scores_of_both_models_are_charged_for_every_round_and_the_last_model(federation):
    for name in NAMES:
        book = ledger.read(federation.site(name).ledger)
        charged = [entry for entry in book.entries if getattr(entry, "campaign", ())]
        counts = [lot.times for lot in charged[0].campaign if isinstance(lot.mechanism, GaussianCounts)]
        assert counts == [2 * (TERMS["privacy"]["rounds"] + 1)]
        assert [sum(isinstance(one, GaussianCounts) for one in entry.mechanisms) for entry in charged] == [2, 2]
        assert 0.9 * 60.0 < ledger.held(book, 1e-5) <= 60.0


def test_an_update_moves_the_model_that_its_site_chose_and_no_other(federation, tmp_path):
    """Whatever a site sends: the other model has the bytes that it has without the lie."""
    planned = federation.plan()
    for name in NAMES:
        federation.answer(name, planned)
    liar = federation.copy(tmp_path / "liar")
    liar.lie("south", planned, lambda delta_D: delta_D + 1000)
    honest, lied = federation.commit(planned).commit, liar.commit(planned).commit
    cluster = next(update.cluster for update in lied.updates if update.site == "south")
    assert not same(models(federation, honest)[cluster], models(liar, lied)[cluster])
    assert same(models(federation, honest)[1 - cluster], models(liar, lied)[1 - cluster])


def test_who_tells_other_scores_has_chosen_the_model_that_they_name(federation):
    """There is no word for a choice that could be forged: scores are signed, and the update counts where they say."""
    planned = federation.plan()
    for name in NAMES:
        federation.answer(name, planned)
    before = federation.collect(planned).admitted["south"].answer
    federation.lie("south", planned, lambda delta_D: delta_D, releases=before.releases[::-1])
    commit = federation.commit(planned).commit
    assert next(update.cluster for update in commit.updates if update.site == "south") == 1 - picked_in(planned.plan, before)


@pytest.mark.parametrize("told", [lambda both: both[:1], lambda both: (), lambda both: (*both, both[0])],
                         ids=["one", "none", "three"])
def test_an_answer_without_the_scores_of_every_model_is_not_admitted(federation, told):
    planned = federation.plan()
    for name in NAMES:
        federation.answer(name, planned)
    said = federation.collect(planned).admitted["south"].answer
    federation.lie("south", planned, lambda delta_D: delta_D, releases=told(said.releases))
    collected = federation.collect(planned)
    assert "statistic" in collected.rejected["south"].reason


def test_an_update_of_both_models_is_not_admitted(federation):
    planned = federation.plan()
    for name in NAMES:
        federation.answer(name, planned)
    federation.lie("south", planned, lambda delta_D: delta_D, schema_digest=codec.schema_digest(planned.plan.tensors))
    assert "its schema" in federation.collect(planned).rejected["south"].reason


@pytest.mark.parametrize("what", ["the word alone", "the model too"])
def test_a_coordinator_that_counts_an_update_for_another_model_is_found_out(federation, what):
    coordinator, path = federation.coordinator, federation.root / "store" / layout.commit("spring", 2)
    commit = committed(federation, 2)
    moved = tuple(update.model_copy(update={"cluster": 1 - update.cluster}) if update.site == "south" else update
                  for update in commit.updates)
    if what == "the model too":
        checkpoint = read_checkpoint(coordinator.store, commit, coordinator.key)
        tensors = read_tensors(coordinator.store, commit.model, checkpoint.tensors, "model")
        body = codec.encode({name: np.ascontiguousarray(array[::-1]) for name, array in tensors.items()})
        (federation.root / "store" / layout.model(digest(body))).write_bytes(body)
        sealed = seal(Checkpoint.model_validate({**dict(checkpoint), "model": codec.payload_of(body)}), coordinator.identity)
        (federation.root / "store" / layout.checkpoint("spring", 2, digest(sealed))).write_bytes(sealed)
        commit = commit.model_copy(update={"model": digest(body), "checkpoint": digest(sealed)})
    path.unlink()
    path.write_bytes(seal(commit.model_copy(update={"updates": moved}), coordinator.identity))
    with pytest.raises(ChainError, match="of 'south' cluster" if what == "the word alone" else "the model of round 2"):
        federation.recomputed()


def test_a_site_that_is_killed_chooses_the_same_again(federation, tmp_path):
    planned = federation.plan()
    undisturbed = federation.undisturbed("south", planned, tmp_path / "undisturbed")
    federation.killed("south", planned, site_round.release, "release")
    federation.answer("south", planned)
    delta = layout.delta("south", "spring", 3, 1)
    assert (federation.root / "store" / delta).read_bytes() == (undisturbed.root / "store" / delta).read_bytes()
    one, other = (everybody.collect(planned).admitted["south"].answer for everybody in (federation, undisturbed))
    assert [told.numbers for told in one.releases] == [told.numbers for told in other.releases]


def test_a_site_whose_scores_may_not_leave_refuses_and_is_charged_nothing(federation):
    path = federation.root / "south" / "policy.toml"
    save_toml(load_toml(SitePolicy, path).model_copy(update={"statistics": ()}), path, "lets no scores out")
    before = ledger.read(federation.site("south").ledger)
    assert federation.answer("south", federation.plan()) == "refusal"
    assert ledger.read(federation.site("south").ledger) == before


@pytest.mark.parametrize("alone", [1, 2])
def test_a_model_with_fewer_updates_than_its_rule_bears_stays_and_the_others_go_on(tmp_path, rows_are_judged_here, alone):
    """A trimmed mean of three: if two of four choose another model, no update is left, and nothing is committed."""
    federation = made(tmp_path, aggregation={"rule": {"name": "trimmed_mean", "f": 1}})
    planned = federation.plan()
    for name in NAMES:
        federation.answer(name, planned)
    for place, name in enumerate(NAMES):                # who says so has chosen so
        said = federation.collect(planned).admitted[name].answer
        if picked_in(planned.plan, said) != (place < alone):
            federation.lie(name, planned, lambda delta_D: delta_D, releases=said.releases[::-1])
    if alone == 2:
        with pytest.raises(QuorumError, match="0 updates remain of 4"):
            federation.commit(planned)
        return
    before = models(federation, committed(federation, 0))
    commit = federation.commit(planned).commit
    after = models(federation, commit)
    assert [same(before[cluster], after[cluster]) for cluster in range(2)] == [False, True]
    assert {update.site: update.verdict for update in commit.updates} == dict.fromkeys(NAMES, "used") | {"north": "few"}
    assert "model 1 stays as it is" in commit.note
    assert federation.recomputed() == 2


def test_what_is_about_one_model_is_refused_with_a_reason(federation):
    coordinator = federation.coordinator
    with pytest.raises(ContractError, match="2 models that sites choose among"):
        plan_question(coordinator, MeasurementRequest(run="spring", statistics=(
            coordinator.recipe.task.statistic(coordinator.federation.evaluation),)))
    with pytest.raises(ContractError, match="sites choose among 2"):
        contribution.contributed(coordinator, "spring", 2)
    with pytest.raises(ContractError, match="2 models"):
        build(coordinator, "spring", 2)
    federation.agree(evaluation={"bins": 10, "noise_std": 1.0, "clusters": 3})
    with pytest.raises(ContractError, match="began with other 'clusters'"):
        federation.plan()


def test_an_evaluation_scores_every_model_and_a_question_about_columns_is_asked_as_ever(federation):
    planned = plan_question(federation.coordinator, RoundRequest(run="spring"))
    assert len(planned.plan.asks.statistics) == 2
    for name in NAMES:
        federation.answer(name, planned)
    finding = conclude(federation.coordinator, planned, federation.collect(planned))
    assert [len(finding.totals), len(finding.answers)] == [2, 4]
    asked = plan_question(federation.coordinator, MeasurementRequest(run="spring", statistics=(small_federation.X1,)))
    assert asked.plan.asks.statistics == (small_federation.X1,)


def test_a_plan_that_asks_for_another_number_of_scores_is_none(federation):
    plan = federation.plan().plan
    with pytest.raises(ValueError, match="choose among 2 models, and 1 are scored"):
        replace_asks(plan, plan.asks.model_copy(update={"statistics": plan.asks.statistics[:1]}))


def replace_asks(plan, asks):
    return type(plan).model_validate({**dict(plan), "asks": asks})
