"""Products of every two of F factors: a symmetric matrix travels as what lies on and above its diagonal, row by row.

N records, P pairs.
"""

from __future__ import annotations

import itertools

import numpy as np

from fedround.statistics.base import Float64


def pairs_of(factors: int) -> list[tuple[int, int]]:
    """Which places of the matrix travel, and in which order."""
    return list(itertools.combinations_with_replacement(range(factors), 2))


def products(factor_NF: Float64) -> Float64:
    """Of each record, (N, P)."""
    one_P, other_P = np.array(pairs_of(factor_NF.shape[1])).T
    product_NP: Float64 = factor_NF[:, one_P] * factor_NF[:, other_P]
    return product_NP


def symmetric(told: Float64, factors: int) -> Float64:
    """The whole matrix of what travelled, (…, P): (…, F, F)."""
    one_P, other_P = np.array(pairs_of(factors)).T
    found = np.empty((*told.shape[:-1], factors, factors))
    found[..., one_P, other_P] = found[..., other_P, one_P] = told
    return found
