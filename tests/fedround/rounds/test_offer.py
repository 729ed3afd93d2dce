"""What a site offers a plan, and what it sets aside for the rest of the campaign."""

from __future__ import annotations

import pytest

from fedround.privacy.participation import times_left, times_paid
from fedround.privacy.spec import DpFtrl, DpSgd, GaussianCounts, GaussianUpdate, NoMechanism
from fedround.records import Evaluate, Measure, Train
from fedround.rounds.campaign import mechanism_for
from fedround.rounds.offer import offer
from tests.fedround.rounds.at_a_site import AGES, RECORD, SCORES, agreed

# -- what is offered ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("privacy", "kind"), [
    ({"unit": "none"}, NoMechanism), (RECORD, DpSgd), ({**RECORD, "mechanism": "dp_ftrl"}, DpFtrl),
    ({**RECORD, "unit": "site"}, GaussianUpdate)], ids=["none", "record", "ftrl", "site"])
def test_an_offer_to_train_is_the_mechanism_that_keeps_the_promise_and_the_statistics_that_may_leave(privacy, kind):
    terms = agreed(privacy=privacy).terms()
    offered, alone = (offer(Train(statistics=(SCORES,)), terms, 40, lambda _, may=may: may) for may in (True, False))
    assert isinstance(offered.training, kind)
    assert (offered.statistics, alone.statistics) == ((SCORES,), ())
    assert offered.mechanisms == (offered.training, GaussianCounts(noise_std=5.0))


@pytest.mark.parametrize("asks", [Evaluate(statistics=(SCORES,)), Measure(statistics=(SCORES, AGES))],
                         ids=lambda one: one.kind)
def test_a_question_that_asks_for_no_training_is_offered_none(asks):
    offered = offer(asks, agreed(privacy=RECORD).terms(), 40, lambda _: True)
    assert offered.training is None
    assert offered.mechanisms == tuple(one.mechanism for one in asks.statistics)


def test_a_louder_offer_has_more_noise_in_its_training_and_in_nothing_else():
    offered = offer(Train(statistics=(SCORES,)), agreed(privacy=RECORD).terms(), 40, lambda _: True)
    louder = offered.louder(1.25)
    assert 0 <= louder.training.noise_multiplier - 1.25 * offered.training.noise_multiplier < 0.001
    assert louder.training.noise_multiplier == round(louder.training.noise_multiplier, 3)
    assert louder.training.model_copy(update={"noise_multiplier": 1.0}) == offered.training.model_copy(
        update={"noise_multiplier": 1.0})
    assert louder.statistics == offered.statistics
    for asks, privacy in ((Evaluate(statistics=(SCORES,)), RECORD), (Train(statistics=(SCORES,)), {"unit": "none"})):
        quiet = offer(asks, agreed(privacy=privacy).terms(), 40, lambda _: True)
        assert quiet.louder(1.25) == quiet


@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
def test_what_is_offered_is_calibrated_for_rows_that_are_held_apart_or_not(apart):
    terms = agreed(privacy=RECORD).terms()
    offered = offer(Train(statistics=(SCORES,)), terms, 40, lambda _: True, apart=apart)
    assert offered.training == mechanism_for(terms.privacy, terms.training, terms.evaluation, 40, apart=apart)
    other = offer(Train(statistics=(SCORES,)), terms, 40, lambda _: True, apart=not apart)
    assert (offered.training.noise_multiplier < other.training.noise_multiplier) == apart, "or this law is about nothing"


# -- what is set aside -------------------------------------------------------------------------------------------------

DRIFT = {"columns": ({"column": "age", "edges": (40.0,)},), "noise_std": 7.0, "every": 2}
GROUPS = {"threshold": 0.5, "promotions": 3, "watched": ({"of": {"column": "sex", "values": (0, 1)}, "noise_std": 9.0},)}


def lots(offered, *, apart: bool, **more) -> dict:
    """How often what is set aside, by kind or noise, and by the rows it is of."""
    found = offered.campaign(offered.rows if apart else (), **more)
    assert len({lot.use for lot in found}) == len(found)
    return {(getattr(lot.mechanism, "noise_std", lot.mechanism.kind), lot.rows): lot.times for lot in found}


def test_what_trains_counts_and_measures_uses_rows_of_its_own_kind():
    terms = agreed(privacy=RECORD).terms()
    assert offer(Train(statistics=(SCORES,)), terms, 40, lambda _: True).rows == ("train", "validation")
    assert offer(Measure(statistics=(AGES,)), terms, 40, lambda _: True).rows == ("all",)
    assert offer(Evaluate(statistics=(SCORES,)), terms, 40, lambda _: True).rows == ("validation",)


@pytest.mark.parametrize("done", [0, 1, 2, 5, 9])
def test_a_campaign_sets_aside_the_rounds_that_are_left_the_last_scores_promotions_and_what_drift_still_counts(done):
    terms = agreed(privacy=RECORD, drift=DRIFT, groups=GROUPS).terms()
    offered, left = offer(Train(statistics=(SCORES,)), terms, 40, lambda _: True), max(1, 5 - done)
    measured = terms.drift.times(5) - terms.drift.times(min(done, 5))
    expected = {("dp_sgd", "train"): left, (5.0, "validation"): left + 1, (9.0, "validation"): 3, (7.0, "all"): measured}
    more = {"done": done, "groups": terms.groups, "drift": terms.drift}
    assert lots(offered, apart=True, **more) == {use: times for use, times in expected.items() if times}
    together = {("dp_sgd", "all"): left, (5.0, "all"): left + 1, (9.0, "all"): 3, (7.0, "all"): measured}
    assert lots(offered, apart=False, **more) == {use: times for use, times in together.items() if times}


def test_rows_in_their_order_pay_for_the_passes_that_are_left_wherever_the_next_one_begins():
    terms = agreed(privacy={**RECORD, "mechanism": "dp_ftrl", "rounds": 10}).terms()
    offered = offer(Train(), terms, 500, lambda _: True)
    assert times_paid(offered.training, 10) < times_left(offered.training, 10), "or this law is about nothing"
    assert lots(offered, apart=False) == {("dp_ftrl", "all"): times_paid(offered.training, 10)}
    assert lots(offered, apart=False, done=4) == {("dp_ftrl", "all"): times_left(offered.training, 6)}


def test_a_question_that_makes_no_model_sets_aside_itself_once_and_so_does_training_that_promises_nothing():
    terms = agreed(privacy=RECORD, drift=DRIFT, groups=GROUPS).terms()
    offered = offer(Measure(statistics=(AGES, SCORES)), terms, 40, lambda _: True)
    assert lots(offered, apart=True, groups=terms.groups, drift=terms.drift) == {(3.0, "all"): 1, (5.0, "validation"): 1}
    exact = offer(Train(statistics=(SCORES,)), agreed().terms(), 40, lambda _: True)
    assert lots(exact, apart=True, drift=terms.drift) == {("none", "train"): 1, (5.0, "validation"): 2}
