"""Every linear rule and every mixing on inner products against its definition on vectors, written with loops."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest

from fedround.aggregation import rules, spec
from fedround.aggregation.linear import bulyan_selection
from fedround.aggregation.mixing import mix, shuffled
from tests.geometries import geometry_of, points_of, result_of

# -- vectors, as lists of numbers --------------------------------------------------------------------------------------


def plus(x, y, factor=1.0):
    return [a + factor * b for a, b in zip(x, y, strict=True)]


def times(factor, x):
    return [factor * a for a in x]


def inner(x, y):
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def norm(x):
    return math.sqrt(inner(x, x))


def distance(x, y):
    return norm(plus(x, y, -1.0))


def mean(rows, weights=None):
    weights = weights or [1.0] * len(rows)
    total = [0.0] * len(rows[0])
    for row, weight in zip(rows, weights, strict=True):
        total = plus(total, row, weight / math.fsum(weights))
    return total


def nearest(rows, point, count):
    """The `count` rows nearest to a point; of rows equally near the first."""
    return sorted(range(len(rows)), key=lambda i: distance(rows[i], point))[:count]


def clip(x, most):
    return times(min(1.0, most / norm(x)), x) if norm(x) > 0 else x


# -- the twins ---------------------------------------------------------------------------------------------------------


def krum_score(rows, i, f):
    return sum(sorted(distance(rows[i], rows[j]) ** 2 for j in range(len(rows)) if j != i)[:max(1, len(rows) - f - 2)])


def multi_krum(rows, f, count):
    best = sorted(range(len(rows)), key=lambda i: krum_score(rows, i, f))[:count]
    return mean([rows[i] for i in best])


def bulyan_rows(rows, f):
    left, chosen = list(range(len(rows))), []
    while len(chosen) < len(rows) - 2 * f:
        scores = [krum_score([rows[i] for i in left], place, f) for place in range(len(left))]
        far = [math.fsum(distance(rows[i], row) ** 2 for row in rows) for i in left]
        chosen.append(left.pop(min(range(len(left)), key=lambda place: (scores[place], far[place]))))
    return sorted(chosen)


def median_distance(rows, i):
    return statistics.median(distance(rows[i], rows[j]) for j in range(len(rows)) if j != i)


def nearest_to_pivot(rows, f):
    pivot = min(range(len(rows)), key=lambda i: median_distance(rows, i))
    return mean([rows[i] for i in nearest(rows, rows[pivot], len(rows) - f)])


def minimum_diameter(rows, f):
    def diameter(kept):
        return max((distance(rows[i], rows[j]) for i, j in itertools.combinations(kept, 2)), default=0.0)

    remote_first = sorted(range(len(rows)), key=lambda i: -median_distance(rows, i))
    sets = list(itertools.combinations(range(len(rows)), len(rows) - f))
    smallest = min(map(diameter, sets))
    kept = min((kept for kept in sets if diameter(kept) == smallest), key=lambda kept: [i in kept for i in remote_first])
    return mean([rows[i] for i in kept])


def covariance(rows, weights):
    middle = mean(rows, weights)
    size, total = len(middle), math.fsum(weights)
    matrix = np.zeros((size, size))
    for row, weight in zip(rows, weights, strict=True):
        arm = plus(row, middle, -1.0)
        for a in range(size):
            for b in range(size):
                matrix[a, b] += weight / total * arm[a] * arm[b]
    return matrix, middle


def minimum_spectrum(rows, f):
    sets = itertools.combinations(range(len(rows)), len(rows) - f)
    best = min(sets, key=lambda kept: np.linalg.eigvalsh(covariance([rows[i] for i in kept], [1.0] * len(kept))[0])[-1])
    return mean([rows[i] for i in best])


def spectral_filter(rows, f):
    weights, best, lowest = [1.0] * len(rows), mean(rows), math.inf
    while math.fsum(weights) > len(rows) - 2 * f:
        matrix, middle = covariance(rows, weights)
        values, vectors = np.linalg.eigh(matrix)
        if values[-1] < lowest:
            best, lowest = middle, values[-1]
        along = [inner(plus(row, middle, -1.0), vectors[:, -1]) ** 2 for row in rows]
        farthest = max(a for a, weight in zip(along, weights, strict=True) if weight > 0)
        weights = [weight * max(0.0, 1 - a / farthest) for weight, a in zip(weights, along, strict=True)]
    return best


def divide_and_conquer(rows, f):
    matrix, middle = covariance(rows, [1.0] * len(rows))
    first = np.linalg.eigh(matrix)[1][:, -1]
    order = sorted(range(len(rows)), key=lambda i: inner(plus(rows[i], middle, -1.0), first) ** 2)
    return mean([rows[i] for i in order[:len(rows) - f]])


def geometric_median(rows, weights):
    point = mean(rows, weights)
    for _ in range(3000):
        pulls = [weight / max(distance(row, point), 1e-15) for row, weight in zip(rows, weights, strict=True)]
        point = mean(rows, pulls)
    return point


def norm_clipping(rows, weights):
    most = statistics.median(map(norm, rows))
    return mean([clip(row, most) for row in rows], weights)


def centered_clipping(rows, weights, radius, steps, centre):
    for _ in range(steps):
        centre = plus(centre, mean([clip(plus(row, centre, -1.0), radius) for row in rows], weights))
    return centre


def fltrust(rows, root):
    total, trust = [0.0] * len(root), 0.0
    for row in rows:
        cosine = max(0.0, inner(row, root) / norm(row) / norm(root))
        total, trust = plus(total, row, cosine * norm(root) / norm(row)), trust + cosine
    return times(1 / trust, total)


F = 2
TWINS = {
    rules.WeightedMean(): mean,
    rules.Krum(f=F): lambda rows, weights: multi_krum(rows, F, 1),
    rules.MultiKrum(f=F): lambda rows, weights: multi_krum(rows, F, len(rows) - F),
    rules.GeometricMedian(): geometric_median,
    rules.NormClipping(): norm_clipping,
    rules.MinimumDiameter(f=F): lambda rows, weights: minimum_diameter(rows, F),
    rules.MinimumSpectrum(f=F): lambda rows, weights: minimum_spectrum(rows, F),
    rules.NearestToPivot(f=F): lambda rows, weights: nearest_to_pivot(rows, F),
    rules.SpectralFilter(f=F): lambda rows, weights: spectral_filter(rows, F),
    rules.DivideAndConquer(f=F): lambda rows, weights: divide_and_conquer(rows, F),
    rules.CenteredClipping(radius=1.5): lambda rows, weights: centered_clipping(rows, weights, 1.5, 3, [0.0] * len(rows[0])),
}


def cohort(seed, rows, coordinates=4, outliers=2):
    generator = np.random.default_rng(seed)
    x_ND = generator.standard_normal((rows, coordinates)) + 0.5
    x_ND[:outliers] *= 8
    return generator.permutation(x_ND), generator.uniform(0.5, 4.0, rows)


@pytest.mark.parametrize("rule", TWINS, ids=lambda rule: rule.name)
@pytest.mark.parametrize(("seed", "rows"), [(0, 7), (1, 9), (2, 12), (3, 9), (4, 8)])
def test_a_rule_is_its_loops(rule, seed, rows):
    x_ND, weight_N = cohort(seed, rows)
    expected_D = TWINS[rule](x_ND.tolist(), weight_N.tolist())
    assert result_of(rule, x_ND, weight_N, reference=seed) == pytest.approx(np.array(expected_D), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_centered_clipping_starts_at_its_centre(seed):
    x_ND, weight_N = cohort(seed, 6)
    centre_D = np.array([0.3, -2.0, 0.1, 5.0])
    expected_D = centered_clipping(x_ND.tolist(), weight_N.tolist(), 0.7, 2, centre_D.tolist())
    rule = rules.CenteredClipping(radius=0.7, steps=2)
    assert result_of(rule, x_ND, weight_N, centre=centre_D) == pytest.approx(np.array(expected_D), rel=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_fltrust_is_its_loops(seed):
    x_ND, _ = cohort(seed, 9)
    root_D = np.array([1.0, 0.5, -0.2, 0.7])
    expected_D = np.array(fltrust(x_ND.tolist(), root_D.tolist()))
    assert result_of(rules.FLTrust(), x_ND, root=root_D) == pytest.approx(expected_D, rel=1e-10)


@pytest.mark.parametrize(("seed", "rows", "f"), [(0, 7, 1), (1, 11, 2), (2, 12, 2), (3, 3, 0), (4, 15, 3)])
def test_bulyan_selects_as_its_loops(seed, rows, f):
    x_ND, _ = cohort(seed, rows)
    assert bulyan_selection(geometry_of(x_ND), f) == bulyan_rows(x_ND.tolist(), f)


# -- mixing ------------------------------------------------------------------------------------------------------------


def nearest_neighbour_mixing(rows, weights):
    chosen = [nearest(rows, row, len(rows) - F) for row in rows]
    return [mean([rows[i] for i in some], [weights[i] for i in some]) for some in chosen]


def bucketing(rows, weights):
    order = shuffled(len(rows), b"plan")
    return [mean([rows[i] for i in order[start:start + 3]]) for start in range(0, len(rows), 3)]


def adaptive_clipping(rows, weights):
    longest_first = sorted(map(norm, rows), reverse=True)
    return [clip(row, longest_first[math.floor(2 * F * (len(rows) - F) / len(rows))]) for row in rows]


MIXINGS = {
    spec.NearestNeighbourMixing(f=F): nearest_neighbour_mixing,
    spec.Bucketing(size=3): bucketing,
    spec.StaticClipping(norm=1.2): lambda rows, weights: [clip(row, 1.2) for row in rows],
    spec.ArcClipping(f=F): adaptive_clipping,
}


@pytest.mark.parametrize("mixing", MIXINGS, ids=lambda mixing: mixing.name)
@pytest.mark.parametrize(("seed", "rows"), [(0, 7), (1, 9), (2, 12), (3, 5)])
def test_a_mixing_is_its_loops(mixing, seed, rows):
    x_ND, weight_N = cohort(seed, rows)
    mixed = mix(mixing, geometry_of(x_ND, weight_N, reference=1), b"plan")
    points_PD, _ = points_of(x_ND)
    expected = np.array(MIXINGS[mixing](x_ND.tolist(), list(weight_N)))
    assert mixed.combos_KP @ points_PD == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("first", MIXINGS, ids=lambda mixing: mixing.name)
@pytest.mark.parametrize("second", MIXINGS, ids=lambda mixing: mixing.name)
def test_mixings_follow_one_another(first, second):
    x_ND, weight_N = cohort(5, 15)[0], [1.0] * 15        # what is mixed alike is a tie, and twins must not weigh differently
    between = mix(first, geometry_of(x_ND, weight_N), b"plan")
    geometry = mix(second, between, b"plan")
    expected = MIXINGS[second](MIXINGS[first](x_ND.tolist(), list(weight_N)), between.weight_K.tolist())
    assert geometry.combos_KP @ points_of(x_ND)[0] == pytest.approx(np.array(expected), rel=1e-9, abs=1e-12)


def test_neighbours_by_inner_product_are_in_units_of_the_others_noise():
    x_ND, weight_N = cohort(4, 9)
    std_N = np.random.default_rng(4).uniform(0.5, 3.0, 9)
    mixed = mix(spec.NearestNeighbourMixing(f=F, near="inner_product"), geometry_of(x_ND, weight_N, reference=1), b"", std_N)
    rows, weights, expected = x_ND.tolist(), list(weight_N), []
    for i, row in enumerate(rows):
        others = sorted((j for j in range(9) if j != i), key=lambda j: -inner(row, rows[j]) / std_N[j])
        chosen = [i, *others[:9 - F - 1]]
        expected.append(mean([rows[j] for j in chosen], [weights[j] for j in chosen]))
    assert mixed.combos_KP @ points_of(x_ND)[0] == pytest.approx(np.array(expected), rel=1e-10, abs=1e-12)
