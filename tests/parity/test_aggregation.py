"""The streaming engine against two loops over Python floats."""

from fractions import Fraction

import numpy as np
import pytest

from fedround.aggregation.engine import CHUNK, Row, aggregate
from fedround.types import CoordinateMedian, TrimmedMean, WeightedMean


def naive(x_ND, weights, rule) -> list[float]:
    """Exact arithmetic, one coordinate at a time."""
    result = []
    for d in range(len(x_ND[0])):
        column = [Fraction(float(row[d])) for row in x_ND]
        if isinstance(rule, WeightedMean):
            shares = [Fraction(weight) for weight in weights]
            result.append(sum(w * x for w, x in zip(shares, column, strict=True)) / sum(shares))
        else:
            column.sort()
            n = len(column)
            kept = column[rule.f:n - rule.f] if isinstance(rule, TrimmedMean) else column[(n - 1) // 2:n // 2 + 1]
            result.append(sum(kept) / len(kept))
    return [float(x) for x in result]


@pytest.mark.parametrize("rule", [WeightedMean(), CoordinateMedian(), TrimmedMean(f=0), TrimmedMean(f=2)], ids=str)
@pytest.mark.parametrize("sites", [5, 12])
def test_the_engine_is_the_two_loops(rule, sites, tmp_path):
    generator = np.random.default_rng(sites)
    size = CHUNK + 700
    x_ND = generator.standard_normal((sites, size)).astype(np.float32)
    x_ND[:, ::7] = np.round(x_ND[:, ::7])       # ties
    weights = [float(w) for w in generator.uniform(0.5, 5000, sites)]
    rows = []
    for i in range(sites):
        path = tmp_path / str(i)
        path.write_bytes(x_ND[i].astype("<f4").tobytes())
        rows.append(Row(f"site-{i:02d}", weights[i], path, 0))
    result = aggregate(rows, rule, size, memory_budget_bytes=1)
    expected_D = np.array(naive(x_ND, weights, rule))
    assert np.array_equal(result.delta_D, expected_D.astype(np.float32))
    for i, row in enumerate(rows):
        assert result.norms[row.site] == pytest.approx(sum(float(x) ** 2 for x in x_ND[i]) ** 0.5, rel=1e-12)
        gap = sum((float(x) - float(y)) ** 2 for x, y in zip(x_ND[i], result.delta_D, strict=True))
        assert result.distances[row.site] == pytest.approx(gap ** 0.5, rel=1e-12)
