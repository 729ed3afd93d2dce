"""Laws of aggregation: order, budget, translation, honest range, memory."""

import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedround.aggregation.engine import CHUNK, Aggregate, Row, aggregate
from fedround.errors import ContractError, ToleranceError
from fedround.types import CoordinateMedian, TrimmedMean, WeightedMean

RULES = [WeightedMean(), CoordinateMedian(), TrimmedMean(f=1)]
OFFSET = 24
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)

# Finite float32, small enough that adding a shift of the same size loses nothing that matters.
NUMBERS = st.floats(-1e6, 1e6, width=32)
ANYTHING_FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
COHORTS = st.integers(3, 8).flatmap(lambda n: arrays(np.float32, st.tuples(st.just(n), st.integers(1, 6)),
                                                     elements=NUMBERS))


def write(folder: Path, x_ND: np.ndarray, weights=None) -> list[Row]:
    """Each row in its own file, behind a header of OFFSET bytes that would be NaN if it were read."""
    rows = []
    for i, x_D in enumerate(x_ND):
        path = folder / f"site-{i:02d}.bin"
        path.write_bytes(b"\xff" * OFFSET + x_D.astype("<f4").tobytes())
        rows.append(Row(path.stem, 1.0 if weights is None else weights[i], path, OFFSET))
    return rows


def of(x_ND: np.ndarray, rule, weights=None, **options) -> Aggregate:
    with TemporaryDirectory() as folder:
        return aggregate(write(Path(folder), x_ND, weights), rule, x_ND.shape[1], **options)


def same(one: Aggregate, other: Aggregate) -> bool:
    """Bit for bit."""
    return (one.delta_D.tobytes() == other.delta_D.tobytes() and one.norms == other.norms
            and one.distances == other.distances)


def test_three_rules_give_three_answers():
    column = np.array([[0], [1], [5], [6], [100]], dtype=np.float32)
    assert [float(of(column, rule).delta_D[0]) for rule in RULES] == [np.float32(22.4), 5.0, 4.0]


def test_the_median_of_an_even_cohort_is_between_the_two_middle_values():
    assert of(np.array([[1], [2], [10], [50]], dtype=np.float32), CoordinateMedian()).delta_D.tolist() == [6.0]


def test_only_the_weighted_mean_counts_weights():
    column = np.array([[0], [1], [5], [6], [100]], dtype=np.float32)
    weights = [1.0, 1.0, 1.0, 1.0, 6.0]
    assert [float(of(column, rule, weights).delta_D[0]) for rule in RULES] == [np.float32(61.2), 5.0, 4.0]


def test_norms_and_distances_are_euclidean_and_by_site():
    result = of(np.array([[3, 4], [0, 0], [3, 0]], dtype=np.float32), CoordinateMedian())
    assert result.delta_D.tolist() == [3.0, 0.0]
    assert result.norms == {"site-00": 5.0, "site-01": 0.0, "site-02": 3.0}
    assert result.distances == {"site-00": 4.0, "site-01": 3.0, "site-02": 0.0}


@every_rule
def test_arrival_order_and_memory_budget_are_irrelevant_to_the_last_bit(rule, tmp_path):
    generator = np.random.default_rng(7)
    size = 5 * CHUNK + 123
    x_ND = generator.standard_normal((7, size)) * 10.0 ** generator.integers(-6, 6, (7, 1))
    rows = write(tmp_path, x_ND.astype(np.float32), weights=list(generator.uniform(0.1, 9, 7)))
    reference = aggregate(rows, rule, size)
    for budget in (1, 7 * 4 * CHUNK, 7 * 4 * CHUNK * 2 + 1, 1 << 30):
        shuffled = [rows[i] for i in generator.permutation(7)]
        assert same(aggregate(shuffled, rule, size, memory_budget_bytes=budget), reference)


@every_rule
@settings(max_examples=30, deadline=None)
@given(x_ND=COHORTS, shift=NUMBERS)
def test_shifting_every_row_shifts_the_aggregate(rule, x_ND, shift):
    shifted = (x_ND + np.float32(shift)).astype(np.float32)
    tolerance = 4 * float(np.spacing(np.float32(max(np.abs(shifted).max(), np.abs(x_ND).max()) + abs(shift))))
    assert np.allclose(of(shifted, rule).delta_D, of(x_ND, rule).delta_D + shift, rtol=0, atol=tolerance)


@every_rule
@settings(max_examples=30, deadline=None)
@given(x_ND=COHORTS)
def test_the_aggregate_lies_between_the_rows(rule, x_ND):
    delta_D = of(x_ND, rule).delta_D
    assert (x_ND.min(axis=0) <= delta_D).all()
    assert (delta_D <= x_ND.max(axis=0)).all()


@settings(max_examples=50, deadline=None)
@given(data=st.data(), liars=st.integers(0, 3), rule_name=st.sampled_from(["median", "trimmed"]))
def test_f_liars_cannot_leave_the_honest_range(data, liars, rule_name):
    honest = data.draw(st.integers(liars + 1, liars + 5))
    honest_ND = data.draw(arrays(np.float32, (honest, 3), elements=NUMBERS))
    lies_ND = data.draw(arrays(np.float32, (liars, 3), elements=ANYTHING_FINITE))
    rule = CoordinateMedian() if rule_name == "median" else TrimmedMean(f=liars)
    delta_D = of(np.concatenate([lies_ND, honest_ND]), rule).delta_D
    assert (honest_ND.min(axis=0) <= delta_D).all()
    assert (delta_D <= honest_ND.max(axis=0)).all()


def test_one_liar_moves_the_mean_as_far_as_he_likes():
    """Why the other rules exist; and a wrong rule that is a mean in disguise fails the law above."""
    x_ND = np.array([[1e30], [0], [0], [0]], dtype=np.float32)
    assert of(x_ND, WeightedMean()).delta_D[0] == np.float32(2.5e29)


@pytest.mark.parametrize("f", [0, 1, 2])
def test_trimmed_mean_needs_2f_plus_1(f):
    with pytest.raises(ToleranceError, match=f"needs at least {2 * f + 3}"):
        of(np.zeros((2 * f + 2, 1), dtype=np.float32), TrimmedMean(f=f + 1))
    of(np.zeros((2 * f + 1, 1), dtype=np.float32), TrimmedMean(f=f))


@every_rule
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, CHUNK, 2 * CHUNK + 4])
def test_a_number_that_is_not_finite_names_its_site(rule, poison, where):
    x_ND = np.ones((4, 2 * CHUNK + 5), dtype=np.float32)
    x_ND[2, where] = poison
    with pytest.raises(ContractError, match="'site-02' sent numbers that are not finite"):
        of(x_ND, rule)


def test_an_empty_cohort_is_refused():
    with pytest.raises(ContractError, match="nothing to aggregate"):
        aggregate([], WeightedMean(), 3)


def test_a_site_has_one_vote(tmp_path):
    rows = write(tmp_path, np.zeros((3, 2), dtype=np.float32))
    with pytest.raises(ContractError, match="'site-01' has two updates"):
        aggregate([rows[1], *rows], CoordinateMedian(), 2)


def test_a_file_that_ends_early_names_its_site(tmp_path):
    rows = write(tmp_path, np.zeros((3, 5), dtype=np.float32))
    with pytest.raises(ContractError, match="'site-00': its file ends after 5"):
        aggregate(rows, WeightedMean(), 6)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_cannot_be_built(weight, tmp_path):
    with pytest.raises(ContractError, match="weight"):
        Row("site", weight, tmp_path, 0)


def test_very_large_weights_are_only_weights():
    x_ND = np.array([[0.0], [3.0]], dtype=np.float32)
    assert of(x_ND, WeightedMean(), [1e308, 1.7e308]).delta_D[0] == np.float32(1.7 / 2.7 * 3)


@every_rule
def test_memory_is_the_budget_and_not_the_cohort(rule, tmp_path):
    sites, size, budget = 12, 1_000_000, 8 << 20
    rows = write(tmp_path, np.ones((sites, size), dtype=np.float32))
    tracemalloc.start()
    try:
        aggregate(rows, rule, size, memory_budget_bytes=budget)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    chunks = 4 * sites * CHUNK * 8
    assert peak < budget + 4 * size + chunks + (1 << 20) < 4 * sites * size / 2
