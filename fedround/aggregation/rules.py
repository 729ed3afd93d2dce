"""The rules of aggregation on one block of coordinates.

Legend: N sites, C coordinates of a block. A kernel takes x_NC (float64, finite, rows in site order; it may be
overwritten) and returns C numbers. Every coordinate is computed by itself and in the same order of operations, so the
result does not depend on where a block begins or ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import assert_never

import numpy as np
import numpy.typing as npt

from fedround.errors import ToleranceError
from fedround.types import CoordinateMedian, Rule, TrimmedMean, WeightedMean

Floats = npt.NDArray[np.float64]
Kernel = Callable[[Floats], Floats]


def kernel(rule: Rule, weight_N: Floats) -> Kernel:
    """The kernel of `rule` for a cohort with these agreed weights; only the weighted mean uses them.

    Raises ToleranceError if the cohort is too small for the liars that the rule must bear.
    """
    sites = len(weight_N)
    match rule:
        case WeightedMean():
            relative_N = weight_N / weight_N.max()      # the sum of very large weights would be infinite
            return partial(weighted_mean, weight_N=relative_N / relative_N.sum())
        case CoordinateMedian():
            return coordinate_median
        case TrimmedMean(f=f):
            if sites < 2 * f + 1:
                raise ToleranceError(f"trimmed_mean with f={f} needs at least {2 * f + 1} updates, got {sites}: wait "
                                     "for more sites, or agree on a smaller f")
            return partial(trimmed_mean, f=f)
        case _:
            assert_never(rule)


def weighted_mean(x_NC: Floats, weight_N: Floats) -> Floats:
    """sum_i w_i x_i with weights that add up to one. One row moves it as far as it likes."""
    # Row by row instead of weight_N @ x_NC: BLAS may add up in another order for another block width.
    result_C = np.zeros(x_NC.shape[1])
    for weight, x_C in zip(weight_N, x_NC, strict=True):
        result_C += weight * x_C
    return result_C


def coordinate_median(x_NC: Floats) -> Floats:
    """The median of every coordinate (Yin et al. 2018, arXiv:1803.01498); between the two middle values if N is even.

    Inside the honest values when fewer than half of the rows are arbitrary. Overwrites x_NC.
    """
    x_NC.sort(axis=0)
    sites = len(x_NC)
    result_C: Floats = (x_NC[(sites - 1) // 2] + x_NC[sites // 2]) / 2
    return result_C


def trimmed_mean(x_NC: Floats, f: int) -> Floats:
    """The mean of every coordinate without its f smallest and f largest values (Yin et al. 2018, arXiv:1803.01498).

    Inside the honest values when at most f of the N >= 2f+1 rows are arbitrary. Gives no protection against a liar who
    stays inside the honest range. Overwrites x_NC.
    """
    x_NC.sort(axis=0)
    kept = x_NC[f:len(x_NC) - f]
    result_C: Floats = kept[0].copy()
    for x_C in kept[1:]:
        result_C += x_C
    result_C /= len(kept)
    return result_C
