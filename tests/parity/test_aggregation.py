"""Rules of coordinates and the weighted mean against two loops in exact arithmetic."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from fedround.aggregation.engine import aggregate
from fedround.aggregation.rules import (
    Bulyan,
    CoordinateMedian,
    Meamed,
    TrimmedMean,
    WeightedMean,
    WeightedMedian,
    WeightedTrimmedMean,
)
from fedround.aggregation.spec import Aggregation
from tests.cohorts import rows_of


def naive(x_ND, weights, rule) -> list[float]:
    """One coordinate at a time."""
    result = []
    for d in range(len(x_ND[0])):
        column = [Fraction(float(row[d])) for row in x_ND]
        if isinstance(rule, WeightedMean):
            shares = [Fraction(weight) for weight in weights]
            result.append(sum(w * x for w, x in zip(shares, column, strict=True)) / sum(shares))
            continue
        if isinstance(rule, WeightedMedian | WeightedTrimmedMean):
            result.append(of_weights(column, [Fraction(weight) for weight in weights], rule))
            continue
        column.sort()
        n = len(column)
        middle = (column[(n - 1) // 2] + column[n // 2]) / 2
        if isinstance(rule, TrimmedMean):
            kept = column[rule.f:n - rule.f]
        elif isinstance(rule, Meamed):
            kept = sorted(column, key=lambda x: (abs(x - middle), x))[:n - rule.f]
        else:
            kept = [middle]
        result.append(sum(kept) / len(kept))
    return [float(x) for x in result]


def of_weights(column, weights, rule) -> Fraction:
    """Weight after weight along the sorted values, as the words of the rules say."""
    total, ordered = sum(weights), sorted(zip(column, weights, strict=True))
    if isinstance(rule, WeightedMedian):
        upto = itertools.accumulate(weight for _, weight in ordered)
        middle = [value for (value, weight), end in zip(ordered, upto, strict=True)
                  if 2 * (end - weight) <= total <= 2 * end]
        return Fraction(sum(middle), len(middle))
    cut = sum(sorted(weights)[len(weights) - rule.f:])
    left = kept = Fraction(0)
    start = Fraction(0)
    for value, weight in ordered:
        inside = max(Fraction(0), min(start + weight, total - cut) - max(start, cut))
        left, kept, start = left + inside * value, kept + inside, start + weight
    return left / kept


RULES = [WeightedMean(), WeightedMedian(), WeightedTrimmedMean(f=0), WeightedTrimmedMean(f=1), CoordinateMedian(),
         TrimmedMean(f=0), TrimmedMean(f=2), Meamed(f=0), Meamed(f=2)]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("sites", [5, 12, 33, 70])
def test_the_engine_is_the_two_loops(rule, sites):
    """70 rows are sorted, fewer go through a network. Each coordinate is a column of its own."""
    generator, size = np.random.default_rng(sites), 4200 // sites
    x_ND = generator.standard_normal((sites, size)).astype(np.float32)
    x_ND[:, ::7] = np.round(x_ND[:, ::7])       # ties
    weights = [float(w) for w in generator.uniform(0.5, 5000, sites)]
    result = aggregate(rows_of(x_ND, weights), Aggregation(rule=rule), size)
    expected_D = np.array(naive(x_ND, weights, rule))
    assert np.allclose(result.delta_D, expected_D.astype(np.float32), rtol=1.2e-7, atol=1e-12)
    for row_D, standing in zip(x_ND, result.standings.values(), strict=True):
        assert standing.norm == pytest.approx(sum(float(x) ** 2 for x in row_D) ** 0.5, rel=1e-12)
        gap = sum((float(x) - float(y)) ** 2 for x, y in zip(row_D, result.delta_D, strict=True))
        assert standing.distance == pytest.approx(gap ** 0.5, rel=1e-6)


@pytest.mark.parametrize("f", [0, 1, 2])
def test_bulyan_is_krum_after_krum_and_then_the_values_nearest_to_the_median(f):
    generator = np.random.default_rng(f)
    x_ND = generator.standard_normal((4 * f + 5, 50)).astype(np.float32)
    alive, chosen = list(range(len(x_ND))), []
    for _ in range(len(x_ND) - 2 * f):
        scores = []
        for i in alive:
            squares = sorted(float(((x_ND[i].astype(float) - x_ND[j]) ** 2).sum()) for j in alive if j != i)
            scores.append(sum(squares[:max(1, len(alive) - f - 2)]))
        far = [float(((x_ND[i].astype(float) - x_ND) ** 2).sum()) for i in alive]
        chosen.append(alive.pop(min(range(len(alive)), key=lambda place: (scores[place], far[place]))))
    expected = []
    for column in x_ND[sorted(chosen)].T.astype(float):
        kept = sorted(column, key=lambda x: (abs(x - np.median(column)), x))[:len(chosen) - 2 * f]
        expected.append(np.mean(kept))
    found = aggregate(rows_of(x_ND), Aggregation(rule=Bulyan(f=f)), 50)
    assert np.allclose(found.delta_D, expected, rtol=1e-6, atol=1e-7)
