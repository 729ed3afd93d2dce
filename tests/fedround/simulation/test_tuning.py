"""Successive halving: the best settings are found in fewer rounds than all of them take, and what live trials would cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedround.agreement import Agreement
from fedround.errors import ContractError
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe
from fedround.simulation.sites import Site
from fedround.simulation.tuning import halving

RECIPE = Recipe("two", "0" * 64, lambda: nn.Sequential(nn.Linear(4, 1)), lambda _: None)
RECORD = {"unit": "record", "epsilon": 2.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 9}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def rows(seed: int, count: int = 120) -> Examples:
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((count, 4)).astype(np.float32)
    chance = 1 / (1 + np.exp(-features @ np.array([3.0, -2.0, 1.0, 0.0])))
    return Examples(features, (generator.random(count) < chance).astype(np.int64))


SITES = {name: Site(rows(seed), rows(seed + 100)) for seed, name in enumerate(("north", "east", "south"))}


def agreement(rate: float, **changes: object) -> Agreement:
    return Agreement.model_validate({
        "name": "tuned", "quorum": 3, "privacy": {"unit": "none"}, "aggregation": {"rule": {"name": "weighted_mean"}},
        "training": {"local_steps": 2, "batch_size": 60, "learning_rate": rate}} | changes)


RATES = {f"rate {rate:g}": agreement(rate) for rate in (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.5)}


def test_rungs_grow_as_candidates_drop_out_and_the_best_of_each_go_on():
    heard = []
    found = halving(RATES, RECIPE, SITES, rounds=9, seed=0, told=heard.append)
    assert tuple(heard) == found.trials
    assert found.best == "rate 0.5"                     # no other learns anything in nine rounds
    rungs = {length: [trial for trial in found.trials if trial.rounds == length] for length in (1, 3, 9)}
    assert [len(rung) for rung in rungs.values()] == [9, 3, 2]
    assert found.rounds == 36 < 9 * 9
    for shorter, longer in ((1, 3), (3, 9)):
        stayed = {trial.name for trial in rungs[longer]}
        assert min(trial.score for trial in rungs[shorter] if trial.name in stayed) >= max(
            trial.score for trial in rungs[shorter] if trial.name not in stayed)


def test_what_wins_a_short_campaign_and_loses_a_long_one_is_not_chosen():
    """So much momentum is ahead at first, and overshoots."""
    hasty = agreement(3.0, optimizer={"name": "fedavg", "momentum": 0.99})
    found = halving({"hasty": hasty, "sound": agreement(0.3), "asleep": agreement(1e-6)}, RECIPE, SITES, rounds=30, seed=0)
    score = {(trial.name, trial.rounds): trial.score for trial in found.trials}
    assert score["hasty", 10] > score["sound", 10]
    assert found.best == "sound"


def test_one_candidate_runs_once_for_all_rounds_and_the_same_seed_finds_the_same():
    alone = halving({"only": agreement(0.5)}, RECIPE, SITES, rounds=4, seed=0)
    assert [(trial.name, trial.rounds) for trial in alone.trials] == [("only", 4)]
    again = halving({"only": agreement(0.5)}, RECIPE, SITES, rounds=4, seed=0)
    assert again.trials[0].score == alone.trials[0].score


def test_trials_on_live_records_would_cost_more_than_the_campaign_that_is_chosen():
    """All trials are charged, those that were dropped too; in simulation on public rows nothing is."""
    assert halving({"free": agreement(0.5)}, RECIPE, SITES, rounds=1, seed=0).epsilon_if_live is None
    private = {f"rate {rate:g}": agreement(rate, privacy=RECORD) for rate in (0.1, 0.3, 1.0)}
    found = halving(private, RECIPE, SITES, rounds=9, seed=0)
    last = found.trials[-1].result.epsilon
    assert last == pytest.approx(2.0, abs=0.01)
    assert last < found.epsilon_if_live < 3 * last      # 27 rounds instead of 9
    single = halving({"only": agreement(0.3, privacy=RECORD)}, RECIPE, SITES, rounds=9, seed=0)
    assert single.epsilon_if_live == pytest.approx(last, abs=1e-6)


def test_candidates_that_cannot_be_compared_are_refused():
    open_, private, other = (agreement(0.1, privacy=privacy) for privacy in (
        {"unit": "none"}, RECORD, RECORD | {"delta_dp": 1e-6}))
    for candidates, message in (({}, "0 candidates"), ({"a": open_, "b": private}, "different units"),
                                ({"a": private, "b": other}, "units of privacy or delta_dp")):
        with pytest.raises(ContractError, match=message):
            halving(candidates, RECIPE, SITES, rounds=3, seed=0)
    with pytest.raises(ContractError, match="'west' holds out no rows"):
        halving(RATES, RECIPE, {**SITES, "west": Site(rows(9))}, rounds=3, seed=0)
    one_label = Site(rows(1), Examples(rows(2).inputs["x"][:5], np.zeros(5, np.int64)))
    with pytest.raises(ContractError, match="one label only"):
        halving({"a": agreement(0.5, quorum=1)}, RECIPE, {"north": one_label}, rounds=1, seed=0)
