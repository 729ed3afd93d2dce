"""What a campaign spends in all, and which noise its sites may declare."""

from __future__ import annotations

import pytest

from fedround.agreement import Agreement
from fedround.privacy.spec import GaussianCounts
from fedround.rounds.campaign import LOUDER, across_units, course, mechanism_for, misfit, whole
from fedround.values import parse

NOTHING: dict = {}
DRIFT = {"drift": {"columns": [{"column": f"x{n}", "edges": [0.0]} for n in range(4)], "noise_std": 6.0}}
GROUPS = {"groups": {"threshold": 0.5, "watched": [{"of": {"column": "sex", "values": [0, 1]}, "noise_std": 1.0}]}}


def terms(privacy: dict, also: dict):
    agreement = parse(Agreement, {
        "name": "it", "quorum": 2, "training": {"local_steps": 3, "batch_size": 64, "learning_rate": 0.5},
        "privacy": privacy, "aggregation": {"rule": {"name": "weighted_mean"}}, **also}, "it")
    return agreement.terms()


@pytest.mark.parametrize("also", [NOTHING, DRIFT, GROUPS], ids=["nothing else", "drift", "groups"])
@pytest.mark.parametrize("mechanism", ["dp_sgd", "dp_ftrl"])
def test_no_honest_site_declares_noise_that_is_refused(mechanism: str, also: dict):
    """Neither where counts take most of what is promised, nor where rows have changed and more noise is taken."""
    agreed = terms({"unit": "record", "epsilon": 5.0, "delta_dp": 1e-5, "rounds": 10, "mechanism": mechanism}, also)
    for rows in (300, 3000):
        honest = mechanism_for(agreed.privacy, agreed.training, agreed.evaluation, rows, agreed.groups, agreed.drift)
        for times in LOUDER:
            louder = honest.model_copy(update={"noise_multiplier": honest.noise_multiplier * times})
            assert misfit(agreed, louder) is None, f"{rows} rows, {times} times the noise"


def test_counts_that_cost_nearly_everything_call_for_more_noise():
    """Or the law above would be about nothing."""
    privacy = {"unit": "record", "epsilon": 5.0, "delta_dp": 1e-5, "rounds": 10}
    noises = [mechanism_for(agreed.privacy, agreed.training, agreed.evaluation, 1000, agreed.groups, agreed.drift)
              .noise_multiplier for agreed in (terms(privacy, also) for also in (NOTHING, DRIFT, GROUPS))]
    assert min(noises[1:]) > 1.5 * noises[0]


@pytest.mark.parametrize("rounds", [1, 4, 5])
@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
def test_the_course_of_a_campaign_grows_round_by_round_to_all_that_it_uses(rounds: int, apart: bool):
    """With an odd number of rounds and with an even one; the last evaluation is in the last round's price."""
    agreed = terms({"unit": "record", "epsilon": 5.0, "delta_dp": 1e-5, "rounds": rounds}, {**GROUPS})
    how = agreed.privacy, mechanism_for(agreed.privacy, agreed.training, agreed.evaluation, 1000, agreed.groups,
                                        apart=apart), agreed.evaluation
    told = list(course(*how, groups=agreed.groups, apart=apart))
    assert [one.round for one in told] == list(range(1, rounds + 1))
    spent = [one.total for one in told]
    assert spent == sorted(set(spent))
    assert 4.9 < spent[-1] <= 5.0
    assert across_units(*how, groups=agreed.groups, apart=apart)["record"] == spent[-1]
    assert next(iter(course(*how, [rounds], groups=agreed.groups, apart=apart))) == told[-1]
    trained, held_out, of_all = whole(*how, groups=agreed.groups)
    assert trained == [how[1]] * rounds
    assert sum(one == GaussianCounts(noise_std=agreed.evaluation.noise_std) for one in held_out) == rounds + 1
    assert list(of_all) == []
