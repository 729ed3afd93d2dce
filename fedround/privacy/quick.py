"""A quick upper bound on epsilon, for checks of what others declare. What a site spends is never judged by it.

It is Rényi differential privacy (Mironov 2017, arXiv:1702.07476; with Poisson sampling: Mironov, Talwar and Zhang 2019,
arXiv:1908.10530, equation 6) at whole orders, turned into epsilon by Canonne, Kamath and Steinke 2020 (arXiv:2004.00010,
proposition 12). It needs no PLDs, whose library takes seconds to import.

Legend: A orders, K terms of a binomial sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fedround.privacy.spec import Mechanism, Unit
from fedround.privacy.units import released

Floats = npt.NDArray[np.float64]
_ORDER_A = np.array([*range(2, 65), *range(68, 129, 4), *range(144, 513, 16)], dtype=np.float64)


def epsilon_at_most(mechanisms: Iterable[tuple[Mechanism, int]], delta_dp: float, unit: Unit) -> float:
    """What all of these together cost at most, each as often as its number says; infinite if nothing bounds it.

    Never below the true cost. At most a seventh above `accounting.epsilon` where rows are drawn with chance 0.07 or more and
    the noise is at least 1 (tested); far above it for little noise on rows that are rarely drawn.
    """
    spent_A = np.zeros(len(_ORDER_A))
    for mechanism, times in mechanisms:
        one = released(mechanism, unit)
        if one is None:
            return math.inf
        drawn = (one.noise_multiplier / 2, 1.0) if one.exchanged else (one.noise_multiplier, one.sampling_rate)
        spent_A = spent_A + times * one.steps * _one_step(*drawn)
    log_A = np.log1p(-1 / _ORDER_A) - (math.log(delta_dp) + np.log(_ORDER_A)) / (_ORDER_A - 1)
    return max(0.0, float((spent_A + log_A).min()))


@lru_cache(maxsize=256)
def _one_step(noise: float, rate: float) -> Floats:
    """The Rényi divergence of one Gaussian release of a Poisson sample, (A,)."""
    with np.errstate(over="ignore"):
        if rate == 1:
            return _ORDER_A / (2 * noise ** 2)
        log_factorial_K = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, _ORDER_A[-1] + 1)))])
        found_A = np.empty(len(_ORDER_A))
        for place, order in enumerate(_ORDER_A.astype(int).tolist()):
            k_K = np.arange(order + 1)
            term_K = (log_factorial_K[order] - log_factorial_K[k_K] - log_factorial_K[order - k_K]
                      + (order - k_K) * math.log1p(-rate) + k_K * math.log(rate) + k_K * (k_K - 1) / (2 * noise ** 2))
            most = float(term_K.max())
            found_A[place] = (most + math.log(float(np.exp(term_K - most).sum()))) / (order - 1)
        return np.maximum(found_A, 0)
