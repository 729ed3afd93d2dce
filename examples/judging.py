"""How good a model is on rows that everybody may see."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors
from fedround.learning.evaluate import Metrics, Share, metrics, scores
from fedround.learning.recipe import Examples, Recipe

Predict = Callable[[Examples], npt.NDArray[np.float64]]
"""The chance of label 1 for every row, (N,)."""


class Reached(Metrics):
    """What a model reached."""

    accuracy: Share
    """At a score of one half."""

    def __str__(self) -> str:
        return (f"AUC {self.auc:.4f}   recall at 20 % false positives {self.recall_at_20_fpr:.3f}   "
                f"accuracy {self.accuracy:.3f}")


def judge(predict: Predict, rows: Examples) -> Reached:
    """Everything about a model on these rows."""
    predicted = predict(rows)
    return Reached(accuracy=float(((predicted > 0.5) == rows.labels_N).mean()), **dict(metrics(predicted, rows.labels_N)))


def auc(predict: Predict, rows: Examples) -> float:
    """The area under the ROC curve."""
    return metrics(predict(rows), rows.labels_N).auc


def predictor(recipe: Recipe, tensors: Tensors) -> Predict:
    """The recipe's model with these tensors, as a function of rows."""
    return lambda asked: scores(recipe, tensors, asked)
