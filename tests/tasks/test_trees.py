"""Boosted trees through the whole house: plan, ledger, noised sums, admission, aggregation, commit, proof."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedround import codec
from fedround.aggregation.verdict import Verdict
from fedround.errors import ContractError
from fedround.learning.evaluate import scores
from fedround.learning.trees.outputs import grown
from fedround.learning.trees.spec import LEAVES
from fedround.privacy import ledger
from fedround.privacy.accounting import epsilon
from fedround.privacy.spec import RowSum
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.sites import Site
from infra.history import read_commit
from tasks.plan import plan_round
from tasks.recompute import Bench
from tasks.requests import NextRoundRequest
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import SmallFederation
from tests.small_trees import made


@pytest.fixture(scope="module")
def grown_up(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """Three rounds: all trees."""
    federation = made(tmp_path_factory.mktemp("grown"))
    for _ in range(3):
        federation.round()
    return federation


def test_a_campaign_of_trees_learns_is_charged_what_was_promised_and_is_proven(grown_up: SmallFederation):
    coordinator = grown_up.coordinator
    head = read_commit(coordinator.store, "spring", 3, coordinator.identity.key)
    model = _model(grown_up, head.commit.model)
    assert grown(model) == 12
    told = scores(coordinator.recipe, model, coordinator.recipe.encode(small_federation.rows(400, 99)))
    assert coordinator.recipe.task.metrics(told).auc > 0.8
    for name in grown_up.names:
        book = ledger.read(grown_up.site(name).ledger)
        mechanisms = [mechanism for charge in book.charges for mechanism in charge.mechanisms]
        assert sum(isinstance(mechanism, RowSum) for mechanism in mechanisms) == 3
        assert 7 < epsilon(mechanisms, 1e-5) <= ledger.spent(book, 1e-5) <= 8
    proofs = list(verify_run(coordinator.store, "spring", coordinator.identity.key, None,
                             Bench(grown_up.root / "bench", coordinator.store)))
    assert [proof.recomputed for proof in proofs[1:]] == [True, True, True]


def _model(federation: SmallFederation, sha256: str):
    coordinator = federation.coordinator
    trees = coordinator.recipe.trees
    return codec.decode(coordinator.store.get(f"models/{sha256}.safetensors"), trees.model(1), "the model")


def test_what_a_site_sends_is_a_few_sums_and_not_the_model(grown_up: SmallFederation):
    """The update has the leaves of a round's trees; its noise is known, and so are the rows that it is a mean of."""
    coordinator = grown_up.coordinator
    plan = plan_round(coordinator, NextRoundRequest(run="summer")).plan
    assert {spec.name: spec.shape for spec in plan.sent} == {"g": (1, 4, 8, 1), "h": (1, 4, 8, 1)}
    assert plan.agreed.aggregation.history == 0
    assert [axis.low for axis in plan.agreed.training.axes] == [0.0] * 4      # each column, and whether it is missing


def test_where_all_trees_have_grown_no_site_is_asked_again(grown_up: SmallFederation, tmp_path: Path, monkeypatch):
    federation = grown_up.copy(tmp_path)
    with pytest.raises(ContractError, match="all 12 trees of run 'spring' have grown"):
        federation.plan()
    with pytest.raises(ContractError, match="all 12 trees of run 'more' have grown"):
        federation.plan("more", after="spring")
    monkeypatch.setattr("tasks.plan.require_trees_left", lambda *_: None)       # a site does not rely on it
    planned = federation.plan()
    assert all("refus" in federation.answer(name, planned) for name in federation.names)


def test_a_run_goes_on_where_another_stopped_and_not_with_the_leaves_of_other_trees(tmp_path: Path, rows_are_judged_here):
    federation = made(tmp_path, max_epsilon=16.0, privacy={**small_federation.settings()["privacy"], "epsilon": 4.0})
    federation.round("first")
    begun = federation.plan("second", after="first")
    for name in federation.names:
        federation.answer(name, begun)
    assert grown(_model(federation, federation.commit(begun).commit.model)) == 8
    coordinator = federation.coordinator
    object.__setattr__(coordinator, "recipe", replace(coordinator.recipe, digest="0" * 64))
    with pytest.raises(ContractError, match="may split elsewhere"):
        plan_round(coordinator, NextRoundRequest(run="third", after="first"))
    with pytest.raises(ContractError, match="may split elsewhere"):
        plan_round(coordinator, NextRoundRequest(run="second"))


def test_attack_a_site_that_hides_how_many_rows_it_is_a_mean_of_is_not_admitted(tmp_path, rows_are_judged_here):
    """Nobody would know how loud its noise is."""
    federation = made(tmp_path)
    planned = federation.plan()
    for name in federation.names:
        federation.answer(name, planned)
    federation.lie("north", planned, lambda delta_D: delta_D, rows=None)
    collected = federation.collect(planned)
    assert set(collected.rejected) == {"north"}
    assert "does not say how many they are" in str(collected.rejected["north"])


NINE = tuple(f"s{place}" for place in range(9))


def test_attack_two_liars_of_nine_do_not_move_the_trees_under_the_default_aggregation(tmp_path, rows_are_judged_here):
    federation = made(tmp_path, names=NINE, quorum=9)
    honest = federation.copy(tmp_path / "honest")
    lied = federation.round(lies=dict.fromkeys(NINE[:2], lambda delta_D: -20 * delta_D))
    assert {update.site for update in lied.updates if update.verdict != Verdict.USED} >= set(NINE[:2])
    truth = honest.round()
    moved = _model(federation, lied.model)[LEAVES] - _model(honest, truth.model)[LEAVES]
    assert np.abs(moved[:4]).mean() < 0.5 * np.abs(_model(honest, truth.model)[LEAVES][:4]).mean()


def test_a_federation_file_with_another_learner_than_the_recipe_is_refused_in_words(tmp_path, rows_are_judged_here):
    with pytest.raises(ContractError, match=r"section \[training\] that says otherwise"):
        made(tmp_path / "steps", training={"local_steps": 3})
    with pytest.raises(ContractError, match="agree on history = 0"):
        made(tmp_path / "history", aggregation={"rule": {"name": "weighted_mean"}, "history": 0.5})
    with pytest.raises(ContractError, match="leave \\[optimizer\\] out"):
        made(tmp_path / "momentum", optimizer={"name": "fedavg", "momentum": 0.5})
    with pytest.raises(ContractError, match="what this compression leaves out"):
        made(tmp_path / "compressed", compression={"name": "top_k", "share": 0.1})
    with pytest.raises(ContractError, match="the recipe's TREES: every site has all of the model, and nothing of its own"):
        made(tmp_path / "personal", personal={"pull": 0.1})


def test_trees_grow_from_persons_where_persons_are_promised_something(tmp_path, rows_are_judged_here):
    """The column of persons comes from the small federation's rows; the ledger says how many rows of one were used."""
    promise = {"unit": "person", "epsilon": 5.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3, "person": "customer",
               "rows_per_person": 2}
    federation = made(tmp_path, max_epsilon=13.0, units=("person",), max_epsilon_person=5.0, privacy=promise,
                      evaluation={"bins": 10, "noise_std": 40.0})
    assert len(federation.round().updates) == 3
    (charge,) = ledger.read(federation.site("north").ledger).charges
    assert charge.mechanisms[0].rows_per_person == 2
    assert epsilon(charge.mechanisms, 1e-5, "person") < 5.0
    coordinator = federation.coordinator
    proofs = verify_run(coordinator.store, "spring", coordinator.identity.key, None,
                        Bench(federation.root / "bench", coordinator.store))
    assert [proof.recomputed for proof in proofs][1:] == [True]


def test_without_noise_the_sites_together_are_one_site_with_all_rows(tmp_path, rows_are_judged_here):
    """What travels is float32, and a mean; the model is that of the pooled rows, to the last bit."""
    federation = made(tmp_path, units=("record", "none"), privacy={"unit": "none"},
                      aggregation={"rule": {"name": "weighted_mean"}})
    recipe = federation.coordinator.recipe
    rows = pd.concat([small_federation.rows(*one) for one in ((300, 0), (200, 1), (150, 2))])
    pooled = {"pooled": Site(recipe.encode(rows))}
    agreement = federation.coordinator.federation.model_copy(update={"quorum": 1})
    expected = simulate(agreement, recipe, pooled, rounds=1, chance=Seeded(0)).model
    assert codec.encode(_model(federation, federation.round().model)) == codec.encode(expected)
