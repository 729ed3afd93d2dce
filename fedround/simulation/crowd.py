"""The weighted mean of a crowd: what the aggregation's engine computes, for more sites than it was made for.

The engine looks at every pair of sites, and at a piece of every site at once: too much for ten thousand. The weighted mean
needs neither. Here updates are read in order, a few at a time, and summed as the engine sums them, so the bytes are the same.

Legend: N sites, D coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.aggregation.survey import screen
from fedround.aggregation.verdict import Verdict
from fedround.errors import ContractError
from fedround.simulation.spool import Updates

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

FEW = 64
"""Cohorts up to here go through the engine."""

_BLOCK = 1 << 16


@dataclass(frozen=True, eq=False)
class Mean:
    """Of a crowd's updates."""

    delta_D: Float32
    verdicts: Mapping[str, Verdict]


def is_crowd(how: Aggregation, sites: int) -> bool:
    """Whether the cohort is large, and its weighted mean all that is asked."""
    plain = isinstance(how.rule, WeightedMean) and how.gate is None and not how.mixing and how.history == 0
    return plain and sites > FEW


def mean_of_crowd(updates: Updates, weights: Mapping[str, float], coordinates: int) -> Mean:
    """The weighted mean of all updates that are left in (`survey.screen`): the same bytes as the engine's.

    weights: in the order of the updates, which is that of names. Memory: 16 D bytes, and a few rows. Raises ContractError if
    no update is left in.
    """
    norm_N = np.concatenate([np.sqrt(_squares(rows)) for _, rows in _blocks(updates, len(weights), coordinates)])
    verdicts = screen(norm_N)
    used_N = np.array([verdict is Verdict.USED for verdict in verdicts])
    if not used_N.any():
        raise ContractError(f"not one of {len(weights)} updates is finite: lower training.learning_rate")
    weight_N = np.array(list(weights.values()))
    weight_N /= weight_N[used_N].max()
    share_N1 = (weight_N / weight_N[used_N].sum())[:, None]
    terms_BD = np.empty((_rows_at_once(coordinates) + 1, coordinates))      # the sum so far, and what is added to it
    terms_BD[0] = -0.0                          # what is added to it stays what it is, minus zero, too
    for first, rows_ND in _blocks(updates, len(weights), coordinates):
        own = slice(first, first + len(rows_ND))
        used, share = used_N[own], share_N1[own]
        left, share = (rows_ND, share) if used.all() else (rows_ND[used], share[used])
        added_BD = terms_BD[1:len(left) + 1]
        added_BD[:] = left                      # first made float64, then multiplied: faster than both at once
        added_BD *= share
        terms_BD[0] = np.add.reduce(terms_BD[:len(left) + 1])       # row after row, in their order
    return Mean(terms_BD[0].astype(np.float32), dict(zip(weights, verdicts, strict=True)))


def _blocks(updates: Updates, sites: int, coordinates: int) -> Iterator[tuple[int, Float32]]:
    step = _rows_at_once(coordinates)
    for first in range(0, sites, step):
        yield first, updates.read(first, min(first + step, sites))


def _rows_at_once(coordinates: int) -> int:
    return max(1, _BLOCK // coordinates)


def _squares(rows_ND: Float32) -> Float64:
    wide_ND = rows_ND.astype(np.float64)
    square_N: Float64 = np.vecdot(wide_ND, wide_ND)
    return square_N
