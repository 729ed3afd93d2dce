"""What each of the two learns at home: the one scores from its columns and the labels that it was told, the other puts its
own columns and these scores together.

A score is one of a few levels. Scores of rows whose label was told come from models that have not seen that label (folds), so
that whoever puts them together is not fooled by what a model knows by heart.

N rows, D columns.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError
from fedround.vertical.labels import UNTOLD, Int8
from fedround.vertical.spec import Learner

Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]
_FOLDS = 5
_EDGE = 1e-4


def scores(column_ND: Float64, told_N: Int8, learner: Learner, levels: int, seed: int,
           new_MD: Float64 | None = None) -> UInt8:
    """A score of each row, (N,), 0 to levels - 1; or of each of other rows, (M,), on the same scale.

    told_N: labels, -1 where none was told. Only numbers that are the site's own, and labels that were randomised, go in: what
    comes out costs no label anything more. Of the rows whose columns these are it tells what a score tells.
    """
    has_N = told_N != UNTOLD
    label_L, known_LD = told_N[has_N].astype(np.int64), column_ND[has_N]
    if min(np.bincount(label_L, minlength=2)) < _FOLDS:
        raise ContractError(f"fewer than {_FOLDS} rows of one label were told: too few to learn from")
    other_MD = column_ND[~has_N] if new_MD is None else new_MD
    fold_L = np.random.default_rng(seed).permutation(len(label_L)) % _FOLDS
    held_L, other_M = np.empty(len(label_L)), np.zeros(len(other_MD))
    for fold in range(_FOLDS):
        out_L = fold_L == fold
        model = _fit(known_LD[~out_L], label_L[~out_L], learner, seed)
        held_L[out_L] = _logit(model, known_LD[out_L])
        other_M += _logit(model, other_MD) / _FOLDS
    edges = np.quantile(held_L, np.arange(1, levels) / levels)
    if new_MD is not None:
        return np.searchsorted(edges, other_M, side="right").astype(np.uint8)
    score_N = np.empty(len(told_N))
    score_N[has_N], score_N[~has_N] = held_L, other_M
    return np.searchsorted(edges, score_N, side="right").astype(np.uint8)


def stacked(own_ND: Float64, score_N: UInt8, label_N: Int8, seed: int) -> Any:
    """What the site with the labels makes of its own columns, the peer's scores and its own labels, which stay there: a model
    for `chances`.
    """
    has_N = label_N != UNTOLD
    return _trees(np.column_stack([own_ND, score_N])[has_N], label_N[has_N].astype(np.int64), seed, leaves=8, fewest=100,
                  rounds=80)


def chances(model: Any, own_ND: Float64, score_N: UInt8) -> Float64:
    """The chance of the label 1 for each row, (N,)."""
    return np.asarray(model.predict_proba(np.column_stack([own_ND, score_N]))[:, 1], dtype=np.float64)


def _logit(model: Any, column_ND: Float64) -> Float64:
    if not len(column_ND):
        return np.zeros(0)
    chance_N = np.clip(model.predict_proba(column_ND)[:, 1], _EDGE, 1 - _EDGE)
    return np.asarray(np.log(chance_N / (1 - chance_N)), dtype=np.float64)


def _fit(column_ND: Float64, label_N: npt.NDArray[np.int64], learner: Learner, seed: int) -> Any:
    if learner == "trees":
        return _trees(column_ND, label_N, seed)
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer

    network = MLPClassifier((32, 16), alpha=1e-3, batch_size=256, max_iter=12, random_state=seed % 2 ** 32)
    scale = QuantileTransformer(output_distribution="normal", n_quantiles=min(200, len(label_N)), random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")         # so few passes do not converge, and noised labels want no more
        return make_pipeline(SimpleImputer(strategy="median"), scale, network).fit(column_ND, label_N)


def _trees(column_ND: Float64, label_N: npt.NDArray[np.int64], seed: int, *, leaves: int = 15, fewest: int = 40,
           rounds: int = 100) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=rounds, learning_rate=0.05, max_leaf_nodes=leaves, min_samples_leaf=fewest, early_stopping=False,
        random_state=seed % 2 ** 32).fit(column_ND, label_N)
