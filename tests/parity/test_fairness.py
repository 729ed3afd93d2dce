"""Fair weights against loops: the q-th power, one site after the other; and a projection by sorting (Duchi et al. 2008)."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.aggregation.fairness import fair_weights, nearest_mixture
from fedround.aggregation.weighing import QFair

SITES = st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.01, 1)), min_size=1, max_size=6)


@given(SITES, st.floats(0.1, 5), st.floats(1.1, 9))
def test_q_ffl(sites, q, cap):
    median = statistics.median(loss for _, loss in sites)
    raw = []
    for weight, loss in sites:
        factor = (loss / median) ** q
        raw.append(weight * max(1 / cap, min(cap, factor)))
    agreed = {f"s{i}": weight for i, (weight, _) in enumerate(sites)}
    found = fair_weights(QFair(q=q, cap=cap), agreed, {f"s{i}": loss for i, (_, loss) in enumerate(sites)}, {})
    assert list(found.values()) == pytest.approx([part / sum(raw) for part in raw])


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=8))
def test_the_projection_onto_the_whole_simplex(point):
    ordered, level = sorted(point, reverse=True), 0.0
    for k in range(1, len(point) + 1):
        candidate = (sum(ordered[:k]) - 1) / k
        if ordered[k - 1] - candidate > 0:
            level = candidate
    n = len(point)
    assert nearest_mixture(np.array(point), np.zeros(n), np.ones(n)) == pytest.approx(
        [max(x - level, 0.0) for x in point], abs=1e-9)
