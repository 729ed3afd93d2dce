"""Several things are learnt at once, of some rows without all labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from fedround.errors import ContractError
from fedround.learning.batch import batch_of
from fedround.learning.columns import Category
from fedround.learning.declared import InFile, Target, check_targets
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.tasks import Classify, Count, Metrics, Regress, Scored, Several
from fedround.privacy.noise import stream
from fedround.statistics import LocalEvaluation, release
from tests.task_kinds import KINDS, Told, judged, told_of

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
    said = InFile(None, {"ill": Target("ill", Category("ill", values=("no", "yes"))), "days": Target("days")})
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
    noise makes the PR-AUC a little lower: means of 40 draws by 0.013 to 0.025, in twelve times 40."""
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
    assert exact.pr_auc - 0.03 < precision < exact.pr_auc + 0.005
    assert (np.std(found, axis=0) < 0.05).all()
    assert task.metrics_of([release(task.statistic(LocalEvaluation(noise_std=100.0)), Told(task, scored),
                                    stream(bytes(32), b"loud"))]).heads["ill"].auc is None


def test_of_several_heads_the_main_one_counts_and_a_rows_loss_is_their_mean():
    task = KINDS["several"][0]
    told = task.metrics(told_of("several")[1])
    assert {name.split(".")[0] for name in told.known()} == set(task.heads)
    assert task.headline == "stay.d2"
    assert str(Metrics(rows=3, heads={"stay": Metrics(d2=0.5, rows=3)})) == "stay: D² (explained deviance) 0.500"
