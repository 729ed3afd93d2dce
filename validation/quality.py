"""How good rows are, for their owner: values that lie far out, and labels that the other rows contradict.

Exact, not noised, and so for the site's operator alone. Nothing that leaves depends on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

FOLDS, MOST_ROWS, MOST_NUMBERS = 5, 20_000, 5_000_000
_FAR = 3.0
"""Interquartile ranges beyond a quartile: Tukey's outer fence."""


@dataclass(frozen=True)
class Outliers:
    """The values of one column that lie far out."""

    column: str
    low: float
    high: float
    """Three interquartile ranges beyond the quartiles."""
    outside: int
    rows: int
    """That have a number in this column."""


@dataclass(frozen=True)
class Label:
    """The rows with one label."""

    label: int
    rows: int
    doubtful: int | None
    """How many of those that were looked at are contradicted by the others; None: it was not estimated."""


@dataclass(frozen=True)
class Labels:
    """All labels of the rows."""

    labels: tuple[Label, ...]
    looked_at: int
    """How many rows were asked for doubtful labels."""
    recognised: float | None
    """The share of labels that a linear model recognises in rows that it did not see, each label alike."""


def outliers(frames: Iterable[pd.DataFrame]) -> list[Outliers]:
    """Of each column of numbers, the worst first. A column most of whose values are the same has none."""
    import pandas as pd

    whole = pd.concat(list(frames), ignore_index=True)
    found = []
    for column in whole.columns:
        if pd.api.types.is_numeric_dtype(whole[column]) and not pd.api.types.is_bool_dtype(whole[column]):
            value_N = whole[column].dropna().to_numpy(np.float64)
            if len(value_N) and (spread := np.subtract(*(quartiles := np.percentile(value_N, (75, 25))))) > 0:
                low, high = quartiles[1] - _FAR * spread, quartiles[0] + _FAR * spread
                found.append(Outliers(str(column), float(low), float(high), int(((value_N < low) | (value_N > high)).sum()),
                                      len(value_N)))
    return sorted(found, key=lambda one: (-one.outside / one.rows, one.column))


def labels(features_NF: npt.NDArray[np.float32], label_N: npt.NDArray[np.int64], classes: int) -> Labels:
    """How many rows each label has, and how many of them the other rows contradict.

    By confident learning (Northcutt, Jiang, Chuang 2021, arXiv:1911.00068) as cleanlab does it, with what a linear model says
    of each row that it did not see (five folds). A label that nobody could foresee is contradicted, too, and is no error:
    `recognised` says how much a contradiction means.
    """
    counts, looked_at_M = np.bincount(label_N, minlength=classes), _some(len(label_N), looked_at(features_NF, classes))
    found = _judged(features_NF[looked_at_M], label_N[looked_at_M])
    doubtful = None if found is None else np.bincount(label_N[looked_at_M][found[0]], minlength=classes)
    return Labels(tuple(Label(label, int(count), None if doubtful is None else int(doubtful[label]))
                        for label, count in enumerate(counts)), len(looked_at_M), None if found is None else found[1])


def looked_at(features_NF: npt.NDArray[np.float32], classes: int) -> int:
    """How many of the rows are looked at, so that the time has a bound: some seconds."""
    weights = max(1, features_NF.shape[1]) * (1 if classes == 2 else classes)
    return int(min(len(features_NF), MOST_ROWS, max(1, MOST_NUMBERS // weights)))


def _some(rows: int, wanted: int) -> npt.NDArray[np.int64]:
    """So many rows by chance; always the same ones."""
    return np.sort(np.random.default_rng(0).permutation(rows)[:wanted])


def _judged(features_MF: npt.NDArray[np.float32],
            label_M: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.bool_], float] | None:
    """Which labels are contradicted, and the share of labels that are recognised, each label alike; None: too few rows."""
    known, dense_M, counts = np.unique(label_M, return_inverse=True, return_counts=True)
    if len(known) < 2 or counts.min() < FOLDS:
        return None
    from cleanlab.filter import find_label_issues
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=50, tol=0.01))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")        # that it did not converge: an estimate is enough
        chances_MC = cross_val_predict(model, features_MF, dense_M, cv=folds, method="predict_proba")
        doubtful_M: npt.NDArray[np.bool_] = find_label_issues(dense_M, chances_MC, n_jobs=1)
    return doubtful_M, float(balanced_accuracy_score(dense_M, (chances_MC / counts).argmax(axis=1)))
