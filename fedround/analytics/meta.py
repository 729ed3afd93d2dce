"""What sites estimate by themselves, as one: meta-analysis.

N sites.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedround.analytics.estimates import TERM, WIDTH, Estimate, Table


def meta_analysis(estimates: dict[str, tuple[float, float]], *, random: bool = False) -> Estimate:
    """Sites' estimates of one number as one, weighted by precision: with fixed effects, or with random ones, whose variance
    between sites is DerSimonian and Laird's (1986, doi 10.1016/0197-2456(86)90046-2).

    estimates: each site's number and its standard error. The interval holds the number in 95 of 100 cases.
    """
    value_N, variance_N = (np.array(one) for one in zip(*((number, error ** 2) for number, error in estimates.values()),
                                                         strict=True))
    weight_N = 1 / variance_N
    if random and len(value_N) > 1:
        fixed = weight_N @ value_N / weight_N.sum()
        excess = weight_N @ (value_N - fixed) ** 2 - (len(value_N) - 1)
        between = max(0.0, excess / (weight_N.sum() - (weight_N ** 2).sum() / weight_N.sum()))
        weight_N = 1 / (variance_N + between)
    value, half = float(weight_N @ value_N / weight_N.sum()), WIDTH / float(np.sqrt(weight_N.sum()))
    return Estimate(("random effects" if random else "fixed effects",), value, value - half, value + half)


def pooled_table(tables: Sequence[Table]) -> Table:
    """Sites' tables of one regression as one, with random effects: how much sites differ is in the intervals. A site whose
    noise leaves nothing of a number is left out of it; any other table has no lines here.
    """
    estimates = []
    for same in zip(*(one.estimates for one in tables), strict=True):
        known = {str(place): (one.value, (one.high - one.low) / 2 / WIDTH) for place, one in enumerate(same)
                 if math.isfinite(one.value) and one.high > one.low}
        told = meta_analysis(known, random=True) if known else Estimate((), math.nan, math.nan, math.nan)
        estimates.append(replace(told, words=same[0].words))
    return replace(tables[0], estimates=tuple(estimates) if tables[0].head[0] == TERM else ())
