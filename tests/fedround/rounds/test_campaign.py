"""What a campaign spends in all, and which noise its sites may declare."""

from __future__ import annotations

import pytest

from fedround.agreement import Agreement
from fedround.errors import ContractError
from fedround.privacy.accounting import epsilon
from fedround.privacy.spec import DpSgd, GaussianCounts, NoMechanism
from fedround.rounds import campaign
from fedround.rounds.campaign import (
    LOUDER,
    across_units,
    counts_of,
    course,
    groups_of,
    mechanism_for,
    mechanism_kind,
    misfit,
    watched,
    whole,
)
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


def test_attack_noise_that_is_far_too_little_or_far_too_much_is_said_to_be_so():
    agreed = terms({"unit": "record", "epsilon": 5.0, "delta_dp": 1e-5, "rounds": 10}, NOTHING)
    honest = mechanism_for(agreed.privacy, agreed.training, agreed.evaluation, 1000)
    declared = [honest.model_copy(update={"noise_multiplier": honest.noise_multiplier * times}) for times in (0.1, 5)]
    assert ["too little" in str(misfit(agreed, one)) for one in declared] == [True, False]
    assert ["too much" in str(misfit(agreed, one)) for one in declared] == [False, True]
    assert [misfit(terms({"unit": "none"}, NOTHING), one) for one in declared] == [None, None], "nothing was promised"
    assert [misfit(agreed, one) for one in (NoMechanism(), GaussianCounts(noise_std=1.0))] == [None, None]


@pytest.mark.parametrize(("epsilon", "rate", "noise", "judged"), [
    (5.0, 2e-3, 0.05, True), (5.0, 5e-4, 0.05, False), (0.1, 0.01, 0.2, True), (0.05, 0.01, 0.2, False)])
def test_what_the_quick_bound_knows_too_loosely_is_not_called_too_little(epsilon, rate, noise, judged):
    privacy = {"unit": "record", "epsilon": epsilon, "delta_dp": 1e-5, "rounds": 2}
    agreed = terms(privacy, {"evaluation": {"noise_std": 900.0}})
    found = misfit(agreed, DpSgd(noise_multiplier=noise, clip_norm=1.0, sampling_rate=rate, steps=3))
    assert ("too little" in str(found)) == judged


def test_more_and_more_noise_is_tried_and_first_no_more_than_is_asked_for():
    assert LOUDER[0] == 1.0
    assert list(LOUDER) == sorted(set(LOUDER))
    assert LOUDER[-1] < campaign.MUCH


QUIET = {"groups": {"threshold": 0.5, "watched": [{"of": {"column": "sex", "values": [0, 1]}, "noise_std": 8.0}]}}
TREES = {"training": {"name": "trees", "rounds": 4, "depth": 2, "axes": [{"low": 0, "high": 1}]}}


@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize(("privacy", "also", "kind"), [
    ({"unit": "record", "clip_norm": 0.7}, NOTHING, "dp_sgd"),
    ({"unit": "record", "clip_norm": 0.7, "mechanism": "dp_ftrl"}, NOTHING, "dp_ftrl"),
    ({"unit": "site", "clip_norm": 0.7}, NOTHING, "gaussian_update"), ({"unit": "record"}, TREES, "row_sum"),
    ({"unit": "person", "person": "id", "rows_per_person": 2}, TREES, "row_sum"),
    ({"unit": "site", "clip_norm": 0.7}, TREES, "gaussian_update")],
    ids=["sgd", "ftrl", "site", "trees", "trees of persons", "trees of sites"])
def test_a_whole_campaign_spends_what_is_promised_and_leaves_nearly_nothing(privacy, also, kind, apart):
    agreed = terms({"epsilon": 4.0, "delta_dp": 1e-5, "rounds": 4, **privacy}, also)
    found = mechanism_for(agreed.privacy, agreed.training, agreed.evaluation, 1000, apart=apart)
    assert found.kind == mechanism_kind(agreed) == kind
    assert getattr(found, "clip_norm", 0.7) == 0.7
    assert getattr(found, "rows_per_person", None) == privacy.get("rows_per_person")
    assert getattr(found, "rows", 1000) == 1000
    assert 3.9 < across_units(agreed.privacy, found, agreed.evaluation, apart=apart)[privacy["unit"]] <= 4.0


def test_what_an_evaluation_releases_is_noised_counts_or_exact_ones_or_nothing_where_whole_sites_are_protected():
    loud, exact = (terms({"unit": "none"}, {"evaluation": {"noise_std": std}}) for std in (1.0, 0.0))
    of_sites = terms({"unit": "site", "epsilon": 5.0, "delta_dp": 1e-5, "rounds": 2}, NOTHING)
    assert counts_of(loud.privacy, loud.evaluation) == (GaussianCounts(noise_std=1.0),)
    assert counts_of(exact.privacy, exact.evaluation) == (NoMechanism(),)
    assert counts_of(of_sites.privacy, of_sites.evaluation) == ()


def test_a_rounds_price_is_that_of_all_that_was_used_by_then():
    agreed = terms({"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "rounds": 3}, {**DRIFT, **QUIET})
    how = agreed.privacy, mechanism_for(agreed.privacy, agreed.training, agreed.evaluation, 1000, agreed.groups,
                                        agreed.drift), agreed.evaluation
    counts, by_group = GaussianCounts(noise_std=agreed.evaluation.noise_std), groups_of(agreed.privacy, agreed.groups)
    for one in course(*how, groups=agreed.groups, drift=agreed.drift):
        last, counted = one.round == 3, list(agreed.drift.releases(one.round))
        scores = [counts] * (one.round + last)
        assert one.total == epsilon([how[1]] * one.round + scores + counted + list(by_group) * last, 1e-5)
        assert one.evaluation == epsilon(scores, 1e-5)
        assert one.drift == epsilon(counted, 1e-5) > 0
    assert counted == list(watched(agreed.privacy, agreed.drift))


def test_another_clip_norm_takes_the_same_noise_and_is_not_calibrated_again():
    """Adaptive clipping changes it every round."""
    privacy = {"unit": "record", "epsilon": 3.21, "delta_dp": 1e-5, "rounds": 2}
    found = []
    for clip_norm in (1.0, 3.5, 0.2):
        agreed = terms({**privacy, "clip_norm": clip_norm}, NOTHING)
        noised = mechanism_for(agreed.privacy, agreed.training, agreed.evaluation, 500)
        found.append((noised, campaign._noise.cache_info().misses))
        assert found[-1][0].clip_norm == clip_norm
    assert len({(one.noise_multiplier, misses) for one, misses in found}) == 1


def test_counts_that_alone_spend_more_than_is_promised_are_refused_also_where_rows_are_held_apart():
    agreed = terms({"unit": "record", "epsilon": 1.0, "delta_dp": 1e-5, "rounds": 10}, {"evaluation": {"noise_std": 1.0}})
    for apart in (False, True):
        with pytest.raises(ContractError, match="noise_std"):
            mechanism_for(agreed.privacy, agreed.training, agreed.evaluation, 1000, apart=apart)


def test_counts_of_groups_without_noise_go_with_no_promise():
    loud = terms({"unit": "record", "epsilon": 5.0, "delta_dp": 1e-5, "rounds": 2}, QUIET)
    (one,) = loud.groups.watched
    exact = loud.groups.model_copy(update={"watched": (one.model_copy(update={"noise_std": 0.0}),)})
    with pytest.raises(ContractError, match="groups.watched"):
        mechanism_for(loud.privacy, loud.training, loud.evaluation, 1000, exact)


def test_batches_of_rows_in_their_order_have_one_row_each_at_least():
    agreed = terms({"unit": "record", "epsilon": 5.0, "delta_dp": 1e-5, "rounds": 2, "mechanism": "dp_ftrl"}, NOTHING)
    assert mechanism_for(agreed.privacy, agreed.training, agreed.evaluation, 3).batch_size == 1
    with pytest.raises(ContractError, match="2 rows cannot fill 3 batches"):
        mechanism_for(agreed.privacy, agreed.training, agreed.evaluation, 2)


def test_what_adaptive_clipping_counts_is_charged_with_the_noise_that_was_agreed():
    privacy = {"unit": "record", "epsilon": 5.0, "delta_dp": 1e-5, "rounds": 2}
    for also in ({}, {"adaptive": {}}):
        agreed = terms({**privacy, **also}, NOTHING)
        found = mechanism_for(agreed.privacy, agreed.training, agreed.evaluation, 1000)
        assert (found.count_noise_std is None) == (not also)
        assert found.count_noise_std == agreed.privacy.count_noise_std


def test_where_whole_sites_are_protected_promotions_count_no_groups():
    agreed = terms({"unit": "record", "epsilon": 5.0, "delta_dp": 1e-5, "rounds": 2}, GROUPS)
    of_sites = terms({"unit": "site", "epsilon": 5.0, "delta_dp": 1e-5, "rounds": 2}, NOTHING)
    assert groups_of(agreed.privacy, agreed.groups) == (GaussianCounts(noise_std=1.0),) * agreed.groups.promotions
    assert groups_of(of_sites.privacy, agreed.groups) == ()


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
