"""Metrics of every kind of task agree with a library, or with a naive twin."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.errors import ContractError
from fedround.learning.tasks import Count, NextToken, Regress, Scored, Survive, Tag
from fedround.learning.tasks.censored import brier, concordance
from tests.task_kinds import KINDS, LENGTH


def test_regression_is_judged_as_scikit_learn_judges_it():
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    generator = np.random.default_rng(3)
    truth, found = generator.uniform(-10, 30, 200), generator.uniform(-10, 30, 200)
    told = Regress(bounds=(-10, 30)).metrics(Scored({"score": found, "truth": truth}))
    assert (told.mae, told.rmse, told.r2) == pytest.approx((
        mean_absolute_error(truth, found), root_mean_squared_error(truth, found), r2_score(truth, found)))


def test_counts_are_judged_as_scikit_learn_judges_them():
    from sklearn.metrics import d2_tweedie_score

    generator = np.random.default_rng(4)
    mean = generator.uniform(0.5, 6, 300)
    truth = generator.poisson(mean).astype(float)
    told = Count(max=60).metrics(Scored({"score": mean, "truth": truth}))
    assert told.d2 == pytest.approx(d2_tweedie_score(truth, mean, power=1))
    constant = Scored({"score": np.full(300, truth.mean()), "truth": truth})
    assert Count(max=60).metrics(constant).d2 == pytest.approx(0, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.sampled_from([0.1, 0.2, 0.5, 0.9])), min_size=2, max_size=12))
@settings(max_examples=40)
def test_concordance_is_a_loop_over_pairs(rows):
    pairs = wins = 0.0
    for (early, died, score), (late, other_died, other) in itertools.permutations(rows, 2):
        if died and (late > early or (late == early and not other_died)):
            pairs += 1
            wins += 1.0 if score > other else 0.5 if score == other else 0.0
    time, event, score = (np.array(part, float) for part in zip(*rows, strict=True))
    if pairs == 0:
        with pytest.raises(ContractError, match="still waiting"):
            concordance(score, time, event.astype(int))
        return
    assert concordance(score, time, event.astype(int)) == pytest.approx(wins / pairs)


def test_the_brier_score_weighs_who_was_not_censored():
    """Four rows, one edge at 2: one died at 1, one was censored at 1, two are waiting. Who was there at the edge weighs
    1 / (1 - 1/4) ... of whom all four were at risk at time 1."""
    survival = np.array([[0.25], [0.5], [0.75], [0.5]])
    time, event = np.array([1.0, 1.0, 3.0, 4.0]), np.array([1, 0, 1, 0])
    weight = 1 / (1 - 1 / 4)
    assert brier(survival, time, event, (2.0,)) == pytest.approx((0.25 ** 2 + weight * (0.25 ** 2 + 0.5 ** 2)) / 4)
    assert brier(survival, time, np.ones(4, int), (2.0,)) == pytest.approx((0.25 ** 2 + 0.5 ** 2 + 0.25 ** 2 + 0.5 ** 2) / 4)


def test_the_hazards_loss_is_the_likelihood_of_what_was_seen():
    task = Survive(edges=(1, 2, 4))
    logits = torch.tensor([[0.3, -0.2, 0.5]]).double()
    hazard = torch.sigmoid(logits)[0]
    for time, event, likelihood in ((1.5, 1, (1 - hazard[0]) * hazard[1]), (1.5, 0, 1 - hazard[0]), (0.0, 1, hazard[0]),
                                    (9.0, 1, (1 - hazard).prod()), (4.0, 0, (1 - hazard).prod())):
        loss = task.losses(logits, {"time": torch.tensor([time]), "event": torch.tensor([event])})
        assert loss[0].item() == pytest.approx(-math.log(likelihood), abs=1e-6)
    assert task.answers(logits)[0].tolist() == pytest.approx((1 - hazard).cumprod(0).tolist())


def test_bounds_cut_what_is_learnt_and_what_is_measured():
    task = Regress(bounds=(0, 10))
    far, near = ({"y": torch.tensor([value])} for value in (1e6, 10.0))
    assert torch.equal(task.losses(torch.zeros(1), far), task.losses(torch.zeros(1), near))
    wild, tame = (task.summands(Scored({"score": np.array([score]), "truth": np.array([truth])}))
                  for score, truth in ((1e9, -1e9), (10.0, 0.0)))
    assert np.array_equal(wild, tame)


@pytest.mark.parametrize("kind", ["tag", "token"])
def test_padding_changes_nothing_and_no_row_learns_how_long_another_is(kind):
    task, labels = KINDS[kind][0], 4 if kind == "tag" else 9
    outputs = torch.randn(3, LENGTH, labels, generator=torch.Generator().manual_seed(1))
    label = torch.tensor([[0, 1, 2, -1, -1, -1], [3, 0, -1, -1, -1, -1], [1, 1, 1, 2, 2, 3]])
    whole = task.losses(outputs, {"y": label})
    for row, length in ((0, 3), (1, 2), (2, 6)):
        alone = task.losses(outputs[row:row + 1, :length], {"y": label[row:row + 1, :length]})
        assert alone[0] == pytest.approx(whole[row].item(), rel=1e-6)
    junk = torch.where((label < 0)[:, :, None], 1e3 * torch.randn(outputs.shape), outputs)
    assert torch.equal(task.losses(junk, {"y": label}), whole)
    other = label.clone()
    other[2] = torch.tensor([1, -1, -1, -1, -1, -1])
    assert torch.equal(task.losses(outputs, {"y": other})[:2], whole[:2])
    told = [task.scored(made, {"y": label}) for made in (outputs, junk)]
    assert all(torch.equal(told[0][name], told[1][name]) for name in told[0])


def test_macro_f1_is_scikit_learns_where_rows_are_of_one_length():
    from sklearn.metrics import f1_score

    generator = np.random.default_rng(5)
    label, named = generator.integers(0, 4, (2, 50, LENGTH))
    outputs = torch.nn.functional.one_hot(torch.from_numpy(named), 4).double()
    found = Tag(tags=4).scored(outputs, {"y": torch.from_numpy(label)})
    told = Tag(tags=4).metrics(Scored({name: part.numpy() for name, part in found.items()}))
    assert told.macro_f1 == pytest.approx(f1_score(label.ravel(), named.ravel(), average="macro"))
    assert told.accuracy == pytest.approx((label == named).mean())


def test_a_model_that_guesses_is_as_perplexed_as_there_are_tokens():
    task = NextToken(vocabulary=9)
    found = task.scored(torch.zeros(5, LENGTH, 9), {"y": torch.zeros(5, LENGTH, dtype=torch.int64)})
    assert task.metrics(Scored({name: part.numpy() for name, part in found.items()})).perplexity == pytest.approx(9)
