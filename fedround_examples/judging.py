"""How good a model is on rows that everybody may see."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe
from fedround.learning.tasks import CLASSIFY, Metrics, Scored, Task

Float64 = npt.NDArray[np.float64]
Predict = Callable[[Examples], Float64]
"""The chance of label 1 for every row, or its number, (N,)."""


def judge(predict: Predict, rows: Examples, task: Task = CLASSIFY) -> Metrics:
    """All metrics of a model on these rows."""
    return task.metrics(Scored({"score": predict(rows), "truth": rows.targets["y"]}))


def worth(predict: Predict, rows: Examples, task: Task) -> float:
    """The first of the task's metrics."""
    return judge(predict, rows, task).known()[task.headline]


def auc(predict: Predict, rows: Examples) -> float:
    """The area under the ROC curve."""
    return judge(predict, rows).known()["auc"]


def predictor(recipe: Recipe, tensors: Tensors) -> Predict:
    """The recipe's model with these tensors, as a function of rows."""
    return lambda asked: scores(recipe, tensors, asked)["score"]
