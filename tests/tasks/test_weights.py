"""Weights that follow the sites' losses, through the whole of it; and what a liar gets out of them."""

from __future__ import annotations

import pandas as pd
import pytest

from fedround.aggregation import fairness
from fedround.errors import ContractError
from fedround.statistics import Release
from tasks.plan import Planned
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import NAMES, SmallFederation

MEAN = {"name": "weighted_mean"}
Q_FFL = {"rule": MEAN, "fairness": {"name": "q_ffl", "q": 2.0, "cap": 3.0}}
AFL = {"rule": MEAN, "fairness": {"name": "afl", "rate": 0.3, "cap": 3.0}}
QUALITY = {"rule": MEAN, "fairness": {"name": "quality", "q": 2.0, "cap": 3.0}}
AGREED = {"north": 300 / 650, "east": 200 / 650, "south": 150 / 650}


def make(root, how, **changes) -> SmallFederation:
    """Three sites; in the south everything is the other way round."""
    federation = small_federation.make(
        root, aggregation=how, training={"local_steps": 10, "batch_size": 32, "learning_rate": 0.5},
        **{"privacy": {"unit": "none"}, "units": ("none",), "evaluation": {"bins": 20, "noise_std": 0.0}, **changes})
    for name in ("train", "validation"):
        path = root / "data" / "south" / f"{name}.parquet"
        frame = pd.read_parquet(path)
        frame.assign(y=1 - frame["y"]).to_parquet(path)
    return federation


def answered(federation: SmallFederation):
    planned = federation.plan()
    for name in NAMES:
        federation.answer(name, planned)
    return planned


def worst(planned: Planned) -> Release:
    """A billion rows that are true, and the model thinks of none of them so."""
    (scores,) = planned.plan.asks.statistics
    return Release(statistic=scores, numbers=(*[0.0] * 20, 1e9, *[0.0] * 19), mechanism=scores.mechanism)


@pytest.mark.parametrize("how", [Q_FFL, AFL], ids=lambda how: how["fairness"]["name"])
def test_whom_the_model_fits_badly_counts_more_and_the_commit_says_how_much(tmp_path, rows_are_judged_here, how):
    federation = make(tmp_path, how)
    rounds = [federation.round() for _ in range(4)]
    weights = [{known.site: known.weight for known in commit.weights} for commit in rounds]
    assert sum(weights[-1].values()) == pytest.approx(1)
    assert weights[-1]["south"] > 1.5 * AGREED["south"]
    assert weights[-1]["north"] < AGREED["north"]
    assert {update.site: update.influence for update in rounds[-1].updates} == pytest.approx(weights[-1])
    assert {update.weight for update in rounds[-1].updates} == {300.0, 200.0, 150.0}      # what was agreed stays what it was
    coordinator = federation.coordinator
    assert len(list(verify_run(coordinator.store, "spring", coordinator.identity.key))) == 5


def test_by_quality_whom_the_model_fits_badly_counts_less_and_the_commit_holds_both_weights(tmp_path, rows_are_judged_here):
    federation = make(tmp_path, QUALITY)
    commit = [federation.round() for _ in range(3)][-1]
    weights = {known.site: known.weight for known in commit.weights}
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["south"] < AGREED["south"] / 1.5
    assert {update.site: update.influence for update in commit.updates} == pytest.approx(weights)
    assert {update.weight for update in commit.updates} == {300.0, 200.0, 150.0}
    coordinator = federation.coordinator
    assert len(list(verify_run(coordinator.store, "spring", coordinator.identity.key))) == 4


def test_agnostic_weights_go_on_from_the_parent_round(tmp_path, rows_are_judged_here):
    federation = make(tmp_path, AFL)
    first = federation.round()
    planned = answered(federation)
    answers, task = federation.collect(planned).answers, planned.plan.task
    losses = {site: task.mean_loss(answer.scores) for site, answer in answers.items()}
    second = federation.commit(planned).commit
    expected = fairness.fair_weights(planned.plan.agreed.aggregation.fairness, AGREED, losses,
                                     {known.site: known.weight for known in first.weights})
    assert {known.site: known.weight for known in second.weights} == expected
    assert expected != fairness.fair_weights(planned.plan.agreed.aggregation.fairness, AGREED, losses, {})


def test_a_site_that_is_missing_keeps_a_weight(tmp_path, rows_are_judged_here):
    federation = make(tmp_path, AFL)
    federation.round()
    commit = federation.round(sites=("north", "south"))
    assert commit.missing == ("east",)
    assert {known.site for known in commit.weights} == set(NAMES)


@pytest.mark.parametrize("how", [Q_FFL, AFL], ids=lambda how: how["fairness"]["name"])
def test_a_site_that_lies_about_its_loss_gains_no_more_than_the_cap(tmp_path, rows_are_judged_here, how):
    federation = make(tmp_path, how)
    planned = answered(federation)
    federation.lie("east", planned, lambda honest_D: honest_D, releases=(worst(planned),))
    weights = {known.site: known.weight for known in federation.commit(planned).commit.weights}
    assert AGREED["east"] < weights["east"] <= 3 * AGREED["east"] * 1.000001
    assert weights["east"] / weights["north"] <= 9 * AGREED["east"] / AGREED["north"]


def test_without_fairness_nothing_a_site_says_gives_it_weight(tmp_path, rows_are_judged_here):
    federation = make(tmp_path, {"rule": MEAN})
    planned = answered(federation)
    federation.lie("east", planned, lambda honest_D: honest_D, releases=(worst(planned),))
    commit = federation.commit(planned).commit
    assert commit.weights == ()
    assert {update.site: update.influence for update in commit.updates} == pytest.approx(AGREED)


def test_where_no_counts_leave_there_is_no_fairness(tmp_path, rows_are_judged_here):
    privacy = {"unit": "site", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3}
    with pytest.raises(ContractError, match="no counts of scores leave"):
        make(tmp_path, Q_FFL, privacy=privacy, units=("site",), max_epsilon_site=8.0)
