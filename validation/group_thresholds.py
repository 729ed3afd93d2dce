"""A mitigation: each group its own threshold, chosen on public rows so that groups have the same rate there.

N rows, G groups.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Equalised = Literal["demographic_parity", "equal_opportunity"]
_FEW = 30


def equalised(chance_N: Float64, truth_N: Int64, group_N: Int64, groups: int, threshold: float,
              measure: Equalised) -> tuple[float, ...]:
    """Each group's threshold, (G,), with which its rate is nearest to everybody's at `threshold`, rounded to four places.

    measure: the rate is the share that gets a yes, or that of those with label 1. Nothing is promised of other rates, and on
    other rows the rates differ as samples do. A group with fewer than 30 such rows keeps `threshold`.
    Raises ContractError for a threshold beyond which there is nobody: then there is no rate to reach.
    """
    asked_N = truth_N == 1 if measure == "equal_opportunity" else np.ones(len(chance_N), bool)
    rate = float((chance_N[asked_N] >= threshold).mean()) if asked_N.any() else 0.0
    if rate in (0.0, 1.0):
        raise ContractError(f"at threshold {threshold:g} everybody or nobody among {asked_N.sum()} public rows gets a yes: "
                            "choose another threshold")
    found = []
    for group in range(groups):
        mine_M = chance_N[asked_N & (group_N == group)]
        found.append(threshold if len(mine_M) < _FEW else round(float(np.quantile(mine_M, 1 - rate)), 4))
    return tuple(found)
