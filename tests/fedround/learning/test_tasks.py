"""Every kind of task: what it refuses, its loss, what leaves of it, and metrics that agree with a library or a naive twin."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import nn

from fedround.errors import ContractError
from fedround.learning.batch import batch_of
from fedround.learning.columns import Category
from fedround.learning.declared import Declared, Target, check_targets
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.tasks import Classify, Count, Metrics, NextToken, Regress, Scored, Several, Survive, Tag, Task
from fedround.learning.tasks.censored import brier, concordance
from fedround.learning.trial import try_out
from fedround.privacy.noise import stream
from fedround.statistics import LocalEvaluation, Release, release

LENGTH = 6


class Parts(nn.Module):
    """The outputs that a task asks for, from three numbers for each row."""

    def __init__(self, **widths: int):
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(3, width) for name, width in widths.items()})

    def forward(self, x):
        return {name: head(x) for name, head in self.heads.items()}


def places(labels: int) -> nn.Module:
    return nn.Sequential(nn.Linear(3, LENGTH * labels), nn.Unflatten(1, (LENGTH, labels)))


KINDS = {
    "two": (Classify(), lambda: nn.Linear(3, 1)),
    "four": (Classify(classes=4), lambda: nn.Linear(3, 4)),
    "squared": (Regress(bounds=(-10, 30)), lambda: nn.Linear(3, 1)),
    "huber": (Regress(bounds=(-10, 30), loss="huber"), lambda: nn.Linear(3, 1)),
    "quantile": (Regress(bounds=(-10, 30), loss="quantile", quantile=0.9), lambda: nn.Linear(3, 1)),
    "count": (Count(max=20), lambda: nn.Linear(3, 1)),
    "survive": (Survive(edges=(1, 2, 4)), lambda: nn.Linear(3, 3)),
    "tag": (Tag(tags=4), lambda: places(4)),
    "token": (NextToken(vocabulary=9), lambda: places(9)),
    "several": (Several(main="stay", heads={"ill": Classify(), "stay": Count(max=9), "kind": Classify(classes=3),
                                            "life": Survive(edges=(1, 2))}), lambda: Parts(ill=1, stay=1, kind=3, life=2)),
    "gaps": (Several(main="stay", may_miss=("ill", "life"), heads={"ill": Classify(), "stay": Count(max=9),
                                                                   "life": Survive(edges=(1, 2))}),
             lambda: Parts(ill=1, stay=1, life=2)),
}
every = pytest.mark.parametrize("kind", KINDS)


def recipe_of(kind: str) -> Recipe:
    task, model = KINDS[kind]
    return Recipe(kind, "0" * 64, model, lambda rows: rows, task)


def rows_of(kind: str, count: int = 40, seed: int = 0) -> Examples:
    task = KINDS[kind][0]
    x = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    like = Examples(x, np.zeros((count, LENGTH), np.int64)).form.targets
    return Examples(x, task.made_up(count, like))


class Told:
    def __init__(self, task, scored):
        self._task, self._scored = task, scored

    def scores(self):
        return self._scored.numbers

    def summands(self):
        return self._task.summands(self._scored)


@functools.cache
def judged(kind: str, count: int) -> Scored:
    recipe = recipe_of(kind)
    return scores(recipe, initial_tensors(recipe, 1), rows_of(kind, count))


def told_of(kind: str, noise_std: float = 0.0, count: int = 40, seed: int = 0) -> tuple[Release, Scored]:
    recipe, scored = recipe_of(kind), judged(kind, count)
    statistic, noise = recipe.task.statistic(LocalEvaluation(bins=20, noise_std=noise_std)), stream(bytes(32), b"%d" % seed)
    return release(statistic, Told(recipe.task, scored), noise), scored


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
    for seed in range(20):
        told = told_of(kind, 3.0, count=400, seed=seed)[0]
        found, margin = task.metrics_of([told]), task.margin_of([told])
        for name, value in found.known().items():
            inside[name].append(abs(value - exact[name]) <= margin.of(name))
    assert all(np.mean(hits) >= 0.8 for name, hits in inside.items() if len(hits) > 10), {
        name: np.mean(hits) for name, hits in inside.items() if hits}


@every
def test_where_trees_can_be_made_of_it_the_slopes_are_those_of_the_loss(kind):
    task = KINDS[kind][0]
    if kind not in ("two", "squared", "huber", "quantile", "count"):
        with pytest.raises(ContractError, match="no loss of one number"):
            task.slopes(np.zeros(3), {})
        return
    rows = rows_of(kind)
    raw = torch.linspace(-1.5, 1.5, 40, dtype=torch.float64).requires_grad_()
    task.losses(raw, batch_of(rows).targets).sum().backward()
    slope_N, curve_N = task.slopes(raw.detach().numpy(), rows.targets)
    assert slope_N == pytest.approx(raw.grad.numpy(), abs=1e-6)
    assert (curve_N > 0).all()


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


# -- numbers -----------------------------------------------------------------------------------------------------------


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


def test_of_several_heads_the_main_one_counts_and_a_rows_loss_is_their_mean():
    task = KINDS["several"][0]
    told = task.metrics(told_of("several")[1])
    assert {name.split(".")[0] for name in told.known()} == set(task.heads)
    assert task.headline == "stay.d2"
    assert str(Metrics(rows=3, heads={"stay": Metrics(d2=0.5, rows=3)})) == "stay: D² (explained deviance) 0.500"


# -- heads of which labels are missing, and what two classes tell among other heads -------------------------------------


GAPS, FULL = KINDS["gaps"][0], Several(main="stay", heads=KINDS["gaps"][0].heads)


def gradients(task: Several, targets: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Of each row's loss, by the model's parameters: (B, ...)."""
    x = np.random.default_rng(4).normal(size=(12, 3)).astype(np.float32)
    recipe = Recipe("gaps", "0" * 64, KINDS["gaps"][1], lambda rows: rows, task)
    objective = recipe.objective(recipe.build_model())
    weights = {name: torch.from_numpy(value).requires_grad_() for name, value in initial_tensors(recipe, 1).items()}
    losses_B = objective.losses(weights, batch_of(Examples(x, targets)))
    found = [torch.autograd.grad(one, list(weights.values()), retain_graph=True) for one in losses_B]
    return {name: torch.stack(parts) for name, parts in zip(weights, zip(*found, strict=True), strict=True)}


@pytest.mark.parametrize("junk", [0, 1, -7, 1_000_000])
def test_a_missing_label_changes_nothing_of_the_other_heads_gradients_whatever_stands_there(junk):
    full = FULL.made_up(12, ())
    known_B = np.arange(12) % 3 != 0
    gaps = {**full, "ill": np.where(known_B, full["ill"], junk), "ill.known": known_B.astype(np.int64),
            "life.known": np.ones(12, np.int64)}
    GAPS.check(dict(sorted(gaps.items())), "r")
    before, after = gradients(FULL, full), gradients(GAPS, gaps)
    for name, gradient in after.items():
        if name.startswith("heads.ill"):
            assert (gradient[~known_B] == 0).all()
            assert torch.equal(gradient[known_B], before[name][known_B])
            assert (before[name][~known_B] != 0).any(), "a label that is there does change it"
        else:
            assert torch.equal(gradient, before[name]), name


def test_a_missing_label_adds_nothing_to_its_heads_sums_and_others_are_judged_without_it():
    scored = judged("gaps", 40)
    summand_NC = GAPS.summands(scored)
    own = [place for place, name in enumerate(GAPS.summed) if name.startswith("ill.")]
    known_N = scored["ill.known"] == 1
    assert 0 < known_N.sum() < 40
    assert (summand_NC[~known_N][:, own] == 0).all()
    assert summand_NC[:, GAPS.summed.index("ill.rows")].tolist() == known_N.tolist()
    whole, of_ill = GAPS.metrics(scored), Scored({"score": scored["ill.score"], "truth": scored["ill.truth"]})
    assert whole.heads["ill"] == Classify().metrics(of_ill.at(known_N))
    assert whole.heads["stay"].rows == 40
    nobody = Scored({**scored.numbers, "ill.known": np.zeros(40, np.int64)})
    assert set(GAPS.metrics(nobody).heads) == {"stay", "life"}
    told = release(GAPS.statistic(LocalEvaluation(noise_std=1.0)), Told(GAPS, nobody), stream(bytes(32), b"none"))
    assert set(GAPS.metrics_of([told]).heads) == {"stay", "life"}, "noise alone tells nothing of a head"


def test_a_table_with_gaps_needs_no_column_that_says_so():
    """A value that is missing, or not on its list, is a label that is not known. A row without any does not count."""
    learnt = Several(heads={"ill": Classify(), "days": Regress(bounds=(0, 30))}, may_miss=("ill", "days"))
    said = Declared(None, {"ill": Target("ill", Category("ill", values=("no", "yes"))), "days": Target("days")})
    check_targets(said.targets, learnt, "r")
    rows = pd.DataFrame({"ill": ["yes", None, "no", "perhaps", None], "days": [3.0, 4.0, np.nan, 5.0, np.nan]})
    found, there_N = said.read_targets(rows, learnt)
    assert there_N.tolist() == [True, True, True, True, False]
    assert found["ill.known"].tolist() == [1, 0, 1, 0, 0]
    assert found["days.known"].tolist() == [1, 1, 0, 1, 0]
    assert (found["ill"].tolist(), found["days"].tolist()) == ([1, 0, 0, 0, 0], [3.0, 4.0, 0.0, 5.0, 0.0])


@pytest.mark.parametrize(("misses", "says"), [(("b",), "no head is called so"), (("a", "a"), "names each head once")])
def test_only_heads_may_miss(misses, says):
    with pytest.raises(ValueError, match=says):
        Several(heads={"a": Classify(), "c": Classify()}, may_miss=misses)
    with pytest.raises(ValueError, match="another head"):
        Several(heads={"a": Classify()}, may_miss=("a",))


def test_a_row_says_what_it_knows_and_knows_something():
    targets = {"ill": np.array([1]), "stay": np.array([1.0], np.float32), "ill.known": np.array([2])}
    two = Several(heads={"ill": Classify(), "stay": Count(max=9)}, may_miss=("ill", "stay"))
    for said, stays in ((2, 1), (0, 0)):
        with pytest.raises(ContractError, match="'ill.known': 0 or 1"):
            two.check(dict(sorted({**targets, "ill.known": np.array([said]), "stay.known": np.array([stays])}.items())), "r")


def test_among_other_heads_two_classes_tell_their_areas_from_one_release():
    """As exact as bins allow under noise whose size is stated, `longest` times `noise_std`. Precision is cut to 1, so that
    noise makes the PR-AUC a little lower."""
    generator, task = np.random.default_rng(6), Several(heads={"ill": Classify(), "days": Regress(bounds=(0, 1))})
    truth_N = generator.integers(0, 2, 4000)
    chance_N = 1 / (1 + np.exp(-generator.normal(3 * truth_N - 3, 1.5)))
    scored = Scored({"score": np.zeros(4000), "ill.score": chance_N, "ill.truth": truth_N,
                     "days.score": np.zeros(4000), "days.truth": np.zeros(4000)})
    exact = Classify().metrics(Scored({"score": chance_N, "truth": truth_N}))
    assert np.linalg.norm(task.heads["ill"].summands(Scored({"score": np.ones(1), "truth": np.zeros(1, np.int64)}))) == 2
    found = []
    for seed in range(40):
        told = release(task.statistic(LocalEvaluation(noise_std=4.0)), Told(task, scored), stream(bytes(32), b"%d" % seed))
        found.append([task.metrics_of([told]).heads["ill"].of(name) for name in ("auc", "pr_auc", "accuracy")])
    area, precision, accuracy = np.mean(found, axis=0)
    assert (area, accuracy) == pytest.approx((exact.auc, exact.accuracy), abs=0.01)
    assert exact.pr_auc - 0.02 < precision < exact.pr_auc + 0.005
    assert (np.std(found, axis=0) < 0.03).all()
    assert task.metrics_of([release(task.statistic(LocalEvaluation(noise_std=100.0)), Told(task, scored),
                                    stream(bytes(32), b"loud"))]).heads["ill"].auc is None


@every
def test_what_honest_sites_send_is_possible_and_more_than_rows_can_add_is_not(kind):
    told = told_of(kind, 1.0)[0]
    assert told.is_possible
    boast = Release(statistic=told.statistic, mechanism=told.mechanism,
                    numbers=(told.numbers[0], *(1e6 * one + 1e6 for one in told.numbers[1:])))
    assert not boast.is_possible or kind in ("two", "four", "survive"), "counts may be as large as a site likes to be"
