"""How good predictions are of times that for some rows were only watched for a while.

N rows, K times.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def concordance(score_N: Float64, time_N: Float64, event_N: Int64, horizon: float = math.inf) -> float:
    """Of all pairs of which one had the event, before `horizon`, while the other was still waiting: how often the one's score
    is higher; ties count half. Raises ContractError if there is no such pair.
    """
    event_N = np.where(time_N < horizon, event_N, 0)
    waiting, pairs, concordant = list[float](), 0, 0.0
    for time in np.unique(time_N)[::-1]:
        now_N = time_N == time
        for score in score_N[now_N & (event_N == 0)].tolist():
            bisect.insort(waiting, score)
        died = score_N[now_N & (event_N == 1)].tolist()
        for score in died:
            concordant += (bisect.bisect_left(waiting, score) + bisect.bisect_right(waiting, score)) / 2
        pairs += len(died) * len(waiting)
        for score in died:
            bisect.insort(waiting, score)
    if pairs == 0:
        raise ContractError("metrics need a row with the event while another one was still waiting; hold out more rows")
    return concordant / pairs


def brier(survival_NK: Float64, time_N: Float64, event_N: Int64, edges: Sequence[float]) -> float | None:
    """The mean over edges of the mean squared error of being without the event by then; each row weighs as many as were
    censored like it (one over the Kaplan-Meier chance of not being censored). None if all were censored before an edge.
    """
    times = np.unique(time_N)
    at_risk = len(time_N) - np.searchsorted(np.sort(time_N), times, side="left")
    censored = np.array([((time_N == time) & (event_N == 0)).sum() for time in times])
    uncensored = np.cumprod(1 - censored / at_risk)

    def chance(at: npt.NDArray[np.floating[Any]], *, before: bool) -> Float64:
        place = np.searchsorted(times, at, side="left" if before else "right")
        return np.concatenate([[1.0], uncensored])[place]

    own_N, errors = chance(time_N, before=True), []
    for place, edge in enumerate(edges):
        died_N, waiting_N = (time_N < edge) & (event_N == 1), time_N >= edge
        there = float(chance(np.array([edge]), before=True)[0])
        if there <= 0 and waiting_N.any():
            return None
        weight_N = np.where(died_N, 1 / np.maximum(own_N, 1e-12), np.where(waiting_N, 1 / max(there, 1e-12), 0.0))
        errors.append(float((weight_N * (survival_NK[:, place] - waiting_N) ** 2).mean()))
    return min(float(np.mean(errors)), 1.0)
