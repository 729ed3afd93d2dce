"""Weights that follow the sites' losses: q-FFL, agnostic federated learning, quality (values: `weighing`).

Legend: N members.

A loss is computed from the noised counts of the base model's scores, which a site's answer holds anyway (`Task.mean_loss`).
It is at most 1, whatever a liar or the noise does.

In this package, nothing that a site says about itself gives it weight. Fairness is the only exception, and the federation
limits it by `cap`. Quality is none: there, what a site says can only lower its weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedround.aggregation.weighing import Agnostic, Fairness, QFair, Quality

Float64 = npt.NDArray[np.float64]

def fair_weights(fairness: Fairness, agreed: Mapping[str, float], losses: Mapping[str, float | None],
                 past: Mapping[str, float]) -> dict[str, float]:
    """The weight of every member in a round, by name, as a share of the whole.

    losses: of the members that answered. A member that did not answer, or whose loss is None, is treated as if its loss were
    the median of the others. past: the weights of the round before. If a member is not in it, its agreed weight is used.

    Promised: sum 1, also when members join or leave, and every weight within [1/cap, cap] of the agreed share, whatever the
    losses are (for q-FFL: before normalisation to sum 1; for quality, too, and within [1/cap, 1]). Same numbers, same
    weights.
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
        case Quality(q=q, cap=cap):
            raw_N = agreed_N * np.clip((median / loss_N) ** q, 1 / cap, 1.0)
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
