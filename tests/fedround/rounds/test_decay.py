"""A rule moves the learning rate or the steps as all have agreed, and never beyond what was agreed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.errors import ContractError
from fedround.learning.decay import Decay, Plateau
from fedround.learning.law import law_of
from fedround.learning.spec import LocalTraining
from fedround.privacy.spec import DpSgd, RecordPrivacy
from fedround.rounds.campaign import mechanism_for
from fedround.rounds.decay import TrainedRound, decayed, level_of
from fedround.rounds.ending import ToldOfModel
from fedround.statistics import LocalEvaluation

PLATEAU = LocalTraining(learning_rate=0.8, rule=Plateau(patience=2, factor=0.5, least=0.2))
rules = st.one_of(
    st.builds(Decay, of=st.sampled_from(["learning_rate", "local_steps"]), factor=st.floats(0.1, 0.9),
              least=st.floats(0.01, 0.9), every=st.integers(1, 5)),
    st.builds(Plateau, of=st.sampled_from(["learning_rate", "local_steps"]), factor=st.floats(0.1, 0.9),
              least=st.floats(0.01, 0.9), patience=st.integers(1, 3)))


def lived(agreed: LocalTraining, values: list[float], margin: float = 0.0) -> list[LocalTraining]:
    """The training of each round, if round r tells values[r - 1] of the model before it."""
    past, found = [], []
    for number, value in enumerate(values, 1):
        training = decayed(agreed, number, past)
        past.append(TrainedRound(training, ToldOfModel(value, margin)))
        found.append(training)
    return found


def test_a_decay_halves_every_third_round_and_stops_at_its_floor():
    agreed = LocalTraining(learning_rate=0.8, rule=Decay(every=3, factor=0.5, least=0.2))
    assert [decayed(agreed, number, []).learning_rate for number in (1, 3, 4, 6, 7, 10, 1000)] == [
        0.8, 0.8, 0.4, 0.4, 0.2, 0.16, 0.16]


def test_a_plateau_waits_until_the_score_has_settled_and_counts_anew_after_each_step_down():
    grows = lived(PLATEAU, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert {training.learning_rate for training in grows} == {0.8}
    settled = [training.learning_rate for training in lived(PLATEAU, [0.7] * 14)]
    assert settled == [0.8] * 4 + [0.4] * 4 + [0.2] * 4 + [0.16] * 2


def test_what_noise_may_have_done_is_no_growth():
    """The values grow by 0.01 a round: with noise of 0.05 nobody can see it, without they do."""
    values = [0.70 + 0.01 * number for number in range(8)]
    assert lived(PLATEAU, values, margin=0.05)[4].learning_rate == 0.4
    assert lived(PLATEAU, values)[-1].learning_rate == 0.8


@given(rules, st.lists(st.floats(0, 1), min_size=1, max_size=25))
def test_no_rule_goes_beyond_what_was_agreed_and_each_level_is_found_again(rule: Decay | Plateau, values: list[float]):
    agreed = LocalTraining(learning_rate=0.5, local_steps=20, rule=rule)
    before = agreed
    for training in lived(agreed, values):
        assert rule.least * 0.5 * 0.999 <= training.learning_rate <= before.learning_rate
        assert max(1, int(20 * rule.least)) <= training.local_steps <= before.local_steps
        assert training.paid == 20
        assert level_of(agreed, training) is not None
        before = training


def test_a_file_that_agrees_on_another_rate_begins_anew():
    past = [TrainedRound(training, ToldOfModel(0.7, 0.0)) for training in lived(PLATEAU, [0.7] * 6)]
    assert past[-1].training.learning_rate == 0.4
    assert decayed(PLATEAU.model_copy(update={"learning_rate": 0.6}), 7, past).learning_rate == 0.6


def test_fewer_steps_by_a_rule_are_paid_as_all_of_them_and_their_noise_is_known():
    agreed = LocalTraining(local_steps=8, batch_size=32, rule=Decay(of="local_steps", every=1))
    privacy = RecordPrivacy(epsilon=4.0, delta_dp=1e-5, clip_norm=1.0, rounds=5)
    fewer = decayed(agreed, 3, [])
    assert (fewer.local_steps, fewer.covered) == (2, 8)
    one, other = (mechanism_for(privacy, training, LocalEvaluation(), 1000) for training in (agreed, fewer))
    assert one == other
    assert isinstance(one, DpSgd)
    assert one.steps == 8
    assert law_of(one, fewer).variance == pytest.approx(law_of(one, agreed).variance * 2 / 8)


@pytest.mark.parametrize(("said", "says"), [
    ({"fewest_steps": 11}, "above local_steps"), ({"fewest_steps": 2}, "lets nobody send fewer steps"),
    ({"covered": 2}, "is below local_steps")])
def test_what_cannot_be_is_refused(said: dict, says: str):
    with pytest.raises(ValueError, match=says):
        LocalTraining(local_steps=10, **said)


def test_a_rule_and_late_answers_do_not_go_together():
    """The noise in a late answer would be judged by the training of another round."""
    from fedround.agreement import Agreement
    from fedround.values import parse

    said = {"name": "x", "quorum": 1, "privacy": {"unit": "none"}, "pace": {"max_age": 2},
            "aggregation": {"rule": {"name": "weighted_mean"}}}
    parse(Agreement, said, "file")
    with pytest.raises(ContractError, match=r"trained at another level of training\.rule"):
        parse(Agreement, {**said, "training": {"rule": {"name": "decay", "every": 2}}}, "file")


def test_only_plans_say_what_is_covered():
    from fedround.agreement import Agreement
    from fedround.values import parse

    with pytest.raises(ContractError, match=r"training.covered is what plans say"):
        parse(Agreement, {"name": "x", "quorum": 1, "privacy": {"unit": "none"}, "training": {
            "local_steps": 2, "covered": 4}}, "file")
