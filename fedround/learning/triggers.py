"""The search for a trigger: a few features which, set to one value each, turn most rows to one label.

Legend: R rows, F features, K labels, C candidates that are tried together.

A backdoor answers to a mark that its maker puts into rows, and no accuracy shows it. Whoever has public rows can look for
such a mark: after Neural Cleanse (Wang et al. 2019), which looks for the smallest change that turns all rows. Here features
are taken one after the other, each with the smallest or the largest value that it has in these rows, or that any feature has;
the one that turns most is kept.

Found are marks of as few features as are tried. What is spread over more is not; and with more features every model can be
turned (`docs/robustness.md`). A model whose columns say much by themselves has triggers of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedround.errors import ContractError
from fedround.learning.examples import INPUT, Arrays, in_words, shapes
from fedround.learning.tasks import Task
from fedround.values import Value

Float32 = npt.NDArray[np.float32]
Chances = Callable[[Float32], npt.NDArray[np.floating]]
"""(R, F) to the chance of label 1 of two, (R,), or of every label, (R, K)."""

MOST_ROWS, FEWEST_ROWS = 100, 10
"""How many rows are looked at for each label, and of how many it is worth saying which share is turned."""
_AT_ONCE = 4096


class Trigger(Value):
    """The strongest mark that was found."""

    share: float = Field(ge=0, le=1)
    """Of the rows that the model had called something else, how many it calls `label` once they carry the mark."""
    label: int
    features: tuple[int, ...]
    values: tuple[float, ...]
    rows: int
    """Of which this is the share."""


def strongest(task: Task, answers: Callable[[Arrays], Float32], inputs: Arrays, *, most_features: int) -> Trigger | None:
    """As `strongest_mark`, of a task's model. Raises ContractError for a task without labels, where a mark turns nothing to a
    label, and for inputs that are not one array of numbers.
    """
    if task.labels is None or set(inputs) != {INPUT} or inputs[INPUT].dtype != np.float32:
        raise ContractError(f"a trigger is looked for in a model of {task.in_words} on {in_words(shapes(inputs))}: "
                            "expected a task Classify(…), and one array of numbers; leave the search out")
    shape = inputs[INPUT].shape[1:]
    return strongest_mark(lambda flat_RF: answers({INPUT: flat_RF.reshape(-1, *shape)}),
                          inputs[INPUT].reshape(len(inputs[INPUT]), -1), most_features=most_features)


def strongest_mark(chances: Chances, features_RF: Float32, *, most_features: int) -> Trigger | None:
    """The strongest mark of at most so many features. None: of no label are there enough rows that the model calls otherwise.

    For each label at most `MOST_ROWS` of the rows that have another one are looked at, evenly spaced: what a model calls
    fraud may be rare. A label is passed over if there are fewer than `FEWEST_ROWS`.
    Same rows and model, same mark: of equally strong ones the first label, and the first feature, is taken.
    """
    chances_RK = _of_labels(chances(features_RF))
    named_R = chances_RK.argmax(axis=1)
    others = [(label, features_RF[named_R != label]) for label in range(chances_RK.shape[1])]
    ends = [sorted({float(column_R.min()), float(column_R.max()), float(features_RF.min()), float(features_RF.max())})
            for column_R in features_RF.T]
    found = [_for_label(chances, others_RF[:: -(-len(others_RF) // MOST_ROWS)], ends, label, most_features)
             for label, others_RF in others if len(others_RF) >= FEWEST_ROWS]
    return max(found, key=lambda trigger: trigger.share, default=None)


def _for_label(chances: Chances, others_RF: Float32, ends: list[list[float]], label: int, most_features: int) -> Trigger:
    best = Trigger(share=0.0, label=label, features=(), values=(), rows=len(others_RF))
    marked_RF = others_RF.copy()
    for _ in range(min(most_features, len(ends))):
        tried = [(feature, end) for feature in range(len(ends)) if feature not in best.features for end in ends[feature]]
        turned = _turned(chances, marked_RF, tried, label)
        feature, value = tried[max(range(len(tried)), key=lambda place: turned[place])]
        marked_RF[:, feature] = value
        best = best.model_copy(update={"share": max(turned)[0], "features": (*best.features, feature),
                                       "values": (*best.values, value)})
    return best


def _turned(chances: Chances, rows_RF: Float32, tried: list[tuple[int, float]], label: int) -> list[tuple[float, float]]:
    """For each of them, the share of the rows that it turns; among equals, how sure the model is."""
    found, together = list[tuple[float, float]](), max(1, _AT_ONCE // len(rows_RF))
    for start in range(0, len(tried), together):
        some = tried[start:start + together]
        marked_CRF = np.repeat(rows_RF[None], len(some), axis=0)
        for place, (feature, value) in enumerate(some):
            marked_CRF[place, :, feature] = value
        of_labels = _of_labels(chances(marked_CRF.reshape(-1, rows_RF.shape[1]))).reshape(len(some), len(rows_RF), -1)
        found += zip((of_labels.argmax(axis=2) == label).mean(axis=1).tolist(),
                     of_labels[:, :, label].mean(axis=1).tolist(), strict=True)
    return found


def _of_labels(chances: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return chances if chances.ndim == 2 else np.stack([1 - chances, chances], axis=1)
