"""Weights that follow the sites' losses: q-FFL and agnostic federated learning (values: `fedround.aggregation.spec`).

Legend: N members, B bins.

A loss is read in what a site's answer holds anyway, the noised counts of the base model's scores. It is bounded by 1, like
what a liar or the noise can make of it: one less the mean chance that the model gives to the true label; with more than two
labels, where only the chance of the predicted one is counted, the share of rows that are predicted wrongly. Its noise has a
standard deviation of at most noise_std · sqrt(2 B) / rows.

Nothing a site says about itself gives it weight, says the law of this package; fairness is the one exception, and a
federation agrees on how large it may be: `cap`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fedround.aggregation.spec import Agnostic, Fairness, QFair
from fedround.types import ScoreCounts

Float64 = npt.NDArray[np.float64]

SMALLEST_LOSS = 0.01
"""Losses below are noise: without it the ratio of two of them would be anything."""


def loss(counts: ScoreCounts, classes: int, edges: Sequence[float] = ()) -> float | None:
    """A site's loss, from `SMALLEST_LOSS` to 1; None where the noise leaves nothing to tell.

    edges: the inner edges of the bins, as in the plan; none: bins of equal width.
    """
    positives_B, negatives_B = np.array(counts.positives), np.array(counts.negatives)
    rows = float(positives_B.sum() + negatives_B.sum())
    if rows <= 3 * counts.noise_std * math.sqrt(2 * len(positives_B)):
        return None
    inner = np.asarray(edges if len(edges) > 0 else np.arange(1, len(positives_B)) / len(positives_B))
    middle_B = (np.append(inner, 1.0) + np.insert(inner, 0, 0.0)) / 2
    missed = negatives_B.sum() if classes > 2 else positives_B @ (1 - middle_B) + negatives_B @ middle_B
    return float(np.clip(missed / rows, SMALLEST_LOSS, 1.0))


def fair_weights(fairness: Fairness, agreed: Mapping[str, float], losses: Mapping[str, float | None],
                 past: Mapping[str, float]) -> dict[str, float]:
    """What every member counts in a round, by name; in shares of the whole, which the agreed weights are made first.

    losses: of the members that answered; who did not, or whose loss is None, counts as if its loss were the median of the
    others'. past: what the round before gave; empty, or without a member: as agreed.

    Promised: sum 1, and every weight within [1/cap, cap] of the agreed share, whatever the losses are (for q-FFL before they
    are made to sum to 1). Same numbers, same weights.
    """
    names = sorted(agreed)
    agreed_N = np.array([agreed[name] for name in names]) / math.fsum(agreed.values())
    known = [found for name in names if (found := losses.get(name)) is not None]
    if not known:
        begun_N = np.array([past.get(name, share) for name, share in zip(names, agreed_N, strict=True)])
        return dict(zip(names, (begun_N / begun_N.sum()).tolist(), strict=True))
    median = float(np.median(known))
    loss_N = np.array([median if (found := losses.get(name)) is None else found for name in names])
    match fairness:
        case QFair(q=q, cap=cap):
            raw_N = agreed_N * np.clip((loss_N / median) ** q, 1 / cap, cap)
            weight_N = raw_N / raw_N.sum()
        case Agnostic(rate=rate, cap=cap):
            begun_N = np.array([past.get(name, share) for name, share in zip(names, agreed_N, strict=True)])
            weight_N = nearest_mixture(begun_N + rate * loss_N, agreed_N / cap, np.minimum(agreed_N * cap, 1.0))
    return dict(zip(names, weight_N.tolist(), strict=True))


def nearest_mixture(point_N: Float64, low_N: Float64, high_N: Float64) -> Float64:
    """The nearest point to `point_N` whose coordinates lie within their bounds and sum to 1; bounds must allow one.

    It is clip(point - level): the sum falls with the level, so halving an interval finds it (Held et al. 1974).
    """
    lowest, highest = float((point_N - high_N).min()), float((point_N - low_N).max())
    for _ in range(100):
        level = (lowest + highest) / 2
        if np.clip(point_N - level, low_N, high_N).sum() > 1:
            lowest = level
        else:
            highest = level
    found_N: Float64 = np.clip(point_N - highest, low_N, high_N)
    return found_N
