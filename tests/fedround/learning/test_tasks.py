"""Every kind of task: the laws of its loss and of what leaves of it, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from fedround.errors import ContractError
from fedround.learning.batch import batch_of
from fedround.learning.tasks import Classify, Regress, Scored, Several, Survive, Task
from fedround.learning.trial import try_out
from fedround.statistics import LocalEvaluation, Release
from tests.task_kinds import KINDS, every, recipe_of, rows_of, told_of


@every
def test_a_task_is_written_and_read_back_as_it_was(kind):
    task = KINDS[kind][0]
    assert TypeAdapter(Task).validate_json(task.model_dump_json()) == task
    assert hash(task) == hash(TypeAdapter(Task).validate_json(task.model_dump_json()))


@every
def test_a_model_can_be_tried_on_made_up_rows_of_all_kinds(kind):
    recipe, rows = recipe_of(kind), rows_of(kind)
    recipe.check(rows)
    try_out(recipe, rows.form)
    names, place_N = recipe.task.groups(rows.targets)
    assert len(place_N) == len(recipe.task.strata(rows.targets)) == len(rows)
    assert place_N.max() < len(names)


@every
def test_each_rows_loss_is_its_own_and_finite(kind):
    recipe, rows = recipe_of(kind), rows_of(kind)
    objective = recipe.objective(recipe.build_model())
    weights, batch = dict(objective.model.named_parameters()), batch_of(rows)
    whole = objective.losses(weights, batch)
    alone = [objective.losses(weights, batch.at(slice(row, row + 1)))[0] for row in range(len(rows))]
    assert whole.shape == (len(rows),)
    assert whole.isfinite().all()
    assert torch.allclose(whole, torch.stack(alone), atol=1e-6)


@every
def test_what_a_model_answers_is_what_it_was_judged_by(kind):
    """A bundle's model gives answers; judged from them it is as good as judged by its outputs."""
    recipe, rows = recipe_of(kind), rows_of(kind)
    objective = recipe.objective(recipe.build_model())
    batch = batch_of(rows)
    outputs = objective.outputs(dict(objective.model.named_parameters()), batch.inputs)
    answers = recipe.task.answers(outputs).detach().numpy()
    width = answers.reshape(len(rows), -1).shape[1]
    assert len(set(recipe.task.columns(width))) == width
    told = {name: part.detach().numpy() for name, part in recipe.task.scored(outputs, batch.targets).items()}
    if kind != "token":         # which answers for the last place alone
        again = recipe.task.scored_answers(answers, rows.targets)
        assert all(np.allclose(again[name], told[name], atol=1e-5) for name in told)


@every
def test_a_row_of_summands_is_no_longer_than_was_promised_whatever_the_model_says(kind):
    recipe, rows = recipe_of(kind), rows_of(kind)
    objective = recipe.objective(recipe.build_model())
    for size in (0.0, 1.0, 1e4):
        weights = {name: size * torch.randn(value.shape, generator=torch.Generator().manual_seed(2))
                   for name, value in objective.model.named_parameters()}
        found = recipe.task.scored(objective.outputs(weights, batch_of(rows).inputs), batch_of(rows).targets)
        summand_NC = recipe.task.summands(Scored({name: part.numpy() for name, part in found.items()}))
        assert summand_NC.shape == (len(rows), len(recipe.task.summed))
        assert (summand_NC[:, 0] == 1).all()
        assert np.linalg.norm(summand_NC, axis=1).max() <= recipe.task.longest + 1e-9


@every
def test_without_noise_the_numbers_of_sites_give_the_metrics_of_their_rows(kind):
    told, scored = told_of(kind)
    task, exact, found = KINDS[kind][0], KINDS[kind][0].metrics(scored), KINDS[kind][0].metrics_of([told])
    assert task.headline in exact.known()
    assert found is not None
    assert found.rows == exact.rows == 40
    assert task.margin_of([told]) is None
    assert task.worth(scored) == pytest.approx(exact.known()[task.headline])
    for name, value in found.known().items():
        loose = {"auc": 0.08, "recall_at_20_fpr": 0.08, "pr_auc": 0.15, "concordance": 0.08}.get(name.rpartition(".")[2], 0)
        loose = 1 if name.startswith("life") else loose
        assert value == pytest.approx(exact.known()[name], abs=loose + 1e-6, rel=1e-6), name


@every
def test_the_order_of_sites_does_not_matter_and_noise_that_drowns_the_rows_tells_nothing(kind):
    task = KINDS[kind][0]
    told = [told_of(kind, 0.5, seed=seed)[0] for seed in range(4)]
    assert task.metrics_of(told) == task.metrics_of(told[::-1])
    loud = told_of(kind, 500.0)[0]
    assert task.metrics_of([loud]) is None
    assert task.margin_of([loud]) is None
    assert task.mean_loss(loud) is None
    assert task.metrics_of([]) is None


@every
def test_a_mean_loss_is_between_the_smallest_and_one(kind):
    assert 0.01 <= KINDS[kind][0].mean_loss(told_of(kind)[0]) <= 1


@pytest.mark.parametrize("kind", ["squared", "count", "tag", "several"])
def test_the_margin_holds_the_metric_without_noise_in_about_95_of_100_draws(kind):
    task = KINDS[kind][0]
    exact = task.metrics_of([told_of(kind, count=400)[0]]).known()
    inside = {name: [] for name in exact}
    for seed in range(40):
        told = told_of(kind, 3.0, count=400, seed=seed)[0]
        found, margin = task.metrics_of([told]), task.margin_of([told])
        for name, value in found.known().items():
            inside[name].append(abs(value - exact[name]) <= margin.of(name))
    assert all(np.mean(hits) >= 0.8 for name, hits in inside.items() if len(hits) > 20), {
        name: np.mean(hits) for name, hits in inside.items() if hits}


@every
def test_where_trees_can_be_made_of_it_the_slopes_are_those_of_the_loss(kind):
    task = KINDS[kind][0]
    assert (task.outputs_each is None) == (kind in {"tag", "token", "several", "gaps", "most"})
    if task.outputs_each is None:
        return
    rows, width = rows_of(kind), task.outputs_each
    raw = torch.linspace(-1.5, 1.5, 40 * width, dtype=torch.float64).reshape(width, 40).T.contiguous().requires_grad_()
    task.losses(task.outputs(raw, 40), batch_of(rows).targets).sum().backward()
    slope_NK, curve_NK = task.slopes(raw.detach().numpy(), rows.targets)
    assert slope_NK == pytest.approx(raw.grad.numpy(), abs=1e-6)
    assert (curve_NK >= 0).all()
    assert (curve_NK > 0).any(axis=0).all()


@every
def test_what_honest_sites_send_is_possible_and_more_than_rows_can_add_is_not(kind):
    told = told_of(kind, 1.0)[0]
    assert told.is_possible
    boast = Release(statistic=told.statistic, mechanism=told.mechanism,
                    numbers=(told.numbers[0], *(1e6 * one + 1e6 for one in told.numbers[1:])))
    assert not boast.is_possible or kind in ("two", "four", "survive"), "counts may be as large as a site likes to be"


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "targets", "says"), [
    ("four", {"y": np.array([4])}, "whole numbers from 0 to 3"),
    ("squared", {"y": np.array([[1.0]], np.float32)}, r"of shape \(1, 1\), and Regress\(.* expects one for each"),
    ("squared", {"z": np.array([1.0], np.float32)}, r"labels are 'z' \(float32\), and Regress.* expects 'y' \(float32\)"),
    ("count", {"y": np.array([-1.0], np.float32)}, "labels must be numbers from 0 up, as Count"),
    ("survive", {"y": np.array([1.0], np.float32)}, r"expects 'event' \(int64\) and 'time' \(float32\)"),
    ("survive", {"event": np.array([2]), "time": np.array([1.0], np.float32)}, "events 0 or 1"),
    ("tag", {"y": np.array([1])}, "a label for every place"),
    ("tag", {"y": np.array([[-1, -1]])}, "one place at least in each row"),
    ("several", {"ill": np.array([1])}, r"expects .*'life.event' \(int64\)"),
])
def test_targets_of_another_kind_are_refused_in_words(kind, targets, says):
    with pytest.raises(ContractError, match=says):
        KINDS[kind][0].check(targets, "r")


@every
def test_a_model_of_another_shape_is_refused_in_words(kind):
    with pytest.raises(ContractError, match="model must give"):
        KINDS[kind][0].outputs(torch.zeros(5, 7), 5)


@pytest.mark.parametrize(("build", "says"), [
    (lambda: Regress(bounds=(3, 3)), "the lower bound comes first"), (lambda: Survive(edges=(2, 1)), "edges must ascend"),
    (lambda: Several(heads={"a": Classify()}, main="b"), "no head is called so")])
def test_a_task_that_cannot_be_is_refused(build, says):
    with pytest.raises(ValueError, match=says):
        build()


@every
@pytest.mark.parametrize("size", [float("nan"), 3e38], ids=["no number", "overflow"])
def test_a_model_that_has_diverged_is_refused_in_words_or_judged_and_the_next_is_asked_about(kind, size):
    """A rate that is too high is the commonest mistake there is. It is not judged by the rows that are left: they are the
    easy ones.
    """
    recipe, rows = recipe_of(kind), rows_of(kind)
    objective = recipe.objective(recipe.build_model())
    weights = {name: size * torch.randn(value.shape, generator=torch.Generator().manual_seed(2))
               for name, value in objective.model.named_parameters()}
    found = recipe.task.scored(objective.outputs(weights, batch_of(rows).inputs), batch_of(rows).targets)
    told = Scored({name: part.numpy() for name, part in found.items()})
    if told.has_numbers.all():
        recipe.task.metrics(told)
    else:
        for judge in (recipe.task.metrics, *([] if isinstance(recipe.task, Several) else [recipe.task.worth])):
            with pytest.raises(ContractError, match=f"no finite number for .* of {len(rows)} rows: it has diverged"):
                judge(told)
    recipe.task.statistic(LocalEvaluation(), told)
