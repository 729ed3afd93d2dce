"""Whatever the process of a recipe says of a model's scores, rows add no more than was charged, or nothing leaves."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from fedround.errors import ContractError
from fedround.learning.examples import Shape, shapes
from fedround.learning.tasks import Classify, Count, Kind, Maximise, NextToken, Regress, Scored, Several, Survive, Tag
from fedround.privacy.noise import stream
from fedround.statistics import Decisions, Importance, Levels, LocalEvaluation, MadeOf
from fedround.statistics.sums import RowsPart, noised_sum

N = 6
TASKS = [Classify(), Classify(classes=4), Regress(bounds=(0.0, 10.0)), Count(max=9), Maximise(bounds=(-1.0, 1.0)),
         Survive(edges=(1.0, 2.0)), Tag(tags=3), NextToken(vocabulary=5),
         Several(heads={"a": Classify(), "b": Regress(bounds=(0.0, 1.0))}, may_miss=("b",))]
NAMES = ("score", "truth", "label", "named", "chance", "loss", "hit", "held", "survival", "time", "event")
WIDE = ("hit", "held", "named")
VALUES = [0, 1, 2, -1, 5, 1e300, -1e300, 1e-300, math.nan, math.inf, -math.inf, 0.5, 255, 2 ** 40]
DTYPES = ("float64", "float32", "int64", "int64", "uint8", "bool")
SHAPES = [(N,)] * 12 + [(N, 1), (N, 0), (N, N), (N, 3), (N, 9)]


def lies(task: Kind, generator: np.random.Generator) -> Scored:
    """Numbers of as many rows as there are, which is all that was looked at before (`Host.scored`)."""
    def one(name: str) -> np.ndarray:
        shapes = [(N, 3)] * 60 + SHAPES if name in WIDE else SHAPES
        shape = shapes[generator.integers(len(shapes))]
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return generator.choice(VALUES[:generator.choice([2, 5, len(VALUES)])], shape).astype(generator.choice(DTYPES))

    heads = ("", "a.", "b.") if isinstance(task, Several) else ("",)
    return Scored({own + name: one(name) for own in heads for name in (*NAMES, "known")})


class Lying:
    """Evidence of a model whose process lies, also where columns are replaced."""

    def __init__(self, task, generator):
        self._task, self._generator = task, generator

    def scores(self):
        return lies(self._task, self._generator).numbers

    def summands(self):
        return self._task.summands(lies(self._task, self._generator))

    def held_out(self, name):
        return np.arange(N) % 2

    def replaced(self, public_KP, places, key):
        return self


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_a_task_says_which_numbers_it_has_of_a_row(task):
    """Where a recipe runs apart, no others are taken: of no other name, kind or length."""
    import torch

    targets = {name: torch.from_numpy(array) for name, array in task.made_up(N, [Shape("y", "int64", (2,))]).items()}
    raw = {"tag": (N, 2, 3), "next_token": (N, 2, 5), "survive": (N, 2)}.get(task.kind, (N,))
    raw = (N, task.classes) if isinstance(task, Classify) and task.classes > 2 else raw
    outputs = {"a": torch.zeros(N), "b": torch.zeros(N)} if isinstance(task, Several) else torch.zeros(raw)
    found = {name: part.numpy() for name, part in task.scored(outputs, targets).items()}
    assert set(shapes(found)) == set(task.scored_shapes)
    assert {len(part) for part in found.values()} == {N}


def asked_of(task):
    judged = task.statistic(LocalEvaluation(bins=4, noise_std=0.0))
    yield judged
    yield Importance(model="0" * 64, judged=judged, of=(MadeOf(column="x", places=(0,)),), public=((0.0,),), noise_std=0.0)
    if task.decides:
        yield Decisions(model="0" * 64, of=Levels(column="sex", values=(0, 1)), threshold=0.5, noise_std=0.0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_attack_lies_add_no_more_than_all_rows_may(task):
    generator, answered = np.random.default_rng(5), 0
    for statistic in asked_of(task):
        for _ in range(60):
            try:
                found = statistic.noised(Lying(task, generator), stream(bytes(32), b"x"))
            except Exception:       # the site refuses, and says nothing else
                continue
            answered += 1
            assert found.shape == statistic.shape
            assert np.isfinite(found).all()
            assert np.linalg.norm(found) <= N * (1 + 1e-9)
    assert answered > 0


def test_attack_one_number_is_not_added_to_all_of_a_sum():
    """It would count once for the length of a row, and many times in the sum."""
    with pytest.raises(ContractError, match="to a sum of 100"):
        noised_sum([RowsPart(np.ones((1, 1)))], 100, 1.0, 0.0, stream(bytes(32), b"x"))
    assert noised_sum([RowsPart(np.ones((1, 1)))], 1, 1.0, 0.0, stream(bytes(32), b"x")).tolist() == [1.0]
