"""Cases of the engine; its laws, which every rule keeps, are in tests/conformance/test_aggregation_rules.py."""

import math
import pickle

import numpy as np
import pytest

from fedround.aggregation import sweep as sweeping
from fedround.aggregation.engine import ArrayNumbers, FileNumbers, Row, Verdict, aggregate
from fedround.aggregation.estimate import SAMPLE
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.rules import (
    CenteredClipping,
    CoordinateMedian,
    FLTrust,
    SpectralFilter,
    TrimmedMean,
    WeightedMean,
)
from fedround.aggregation.spec import Aggregation, Gate, NearestNeighbourMixing, default_aggregation
from fedround.aggregation.sweep import SLAB, joined, sweep
from fedround.errors import ContractError, ToleranceError
from tests.cohorts import cohort, result, rows_of

COLUMN = np.array([[0], [1], [5], [6], [100]], dtype=np.float32)
MEAN, MEDIAN = Aggregation(rule=WeightedMean()), Aggregation(rule=CoordinateMedian())
TRIMMED = Aggregation(rule=TrimmedMean(f=1))


def test_three_rules_give_three_answers():
    assert [float(result(how, COLUMN).delta_D[0]) for how in (MEAN, MEDIAN, TRIMMED)] == [np.float32(22.4), 5.0, 4.0]


def test_the_median_of_an_even_cohort_is_between_the_two_middle_values():
    assert result(MEDIAN, np.array([[1], [2], [10], [50]])).delta_D.tolist() == [6.0]


def test_a_rule_with_f_counts_every_site_the_same_and_the_mean_does_not():
    weights = [1.0, 1.0, 1.0, 1.0, 6.0]
    found = [float(result(how, COLUMN, weights).delta_D[0]) for how in (MEAN, MEDIAN, TRIMMED)]
    assert found == [np.float32(61.2), 5.0, 4.0]


def test_norms_and_distances_are_euclidean_and_by_site():
    found = result(MEDIAN, np.array([[3, 4], [0, 0], [3, 0]]))
    assert found.delta_D.tolist() == [3.0, 0.0]
    assert {site: (one.norm, one.distance) for site, one in found.standings.items()} == {
        "site-00": (5.0, 4.0), "site-01": (0.0, 3.0), "site-02": (3.0, 0.0)}
    assert np.allclose(found.distances_NN, [[0, 5, 4], [5, 0, 3], [4, 3, 0]])


def test_very_large_weights_are_only_weights():
    assert result(MEAN, np.array([[0.0], [3.0]]), [1e308, 1.7e308]).delta_D[0] == np.float32(1.7 / 2.7 * 3)


def test_zero_is_an_honest_answer():
    """A site that learned nothing is counted."""
    found = result(MEAN, np.array([[0, 0], [2, 2]]))
    assert found.delta_D.tolist() == [1.0, 1.0]
    assert all(one.verdict is Verdict.USED for one in found.standings.values())


def test_one_row_is_its_own_mean_and_two_of_unlike_length_cannot_judge_each_other():
    assert result(MEAN, np.array([[7.0, 1.0]])).delta_D.tolist() == [7.0, 1.0]
    found = result(MEAN, np.array([[1.0], [1e6]]))
    assert all(one.verdict is Verdict.USED for one in found.standings.values())


def test_when_all_rows_are_bad_the_round_is_refused_and_not_guessed():
    with pytest.raises(ToleranceError, match="5 of 5 updates are not finite"):
        result(TRIMMED, np.full((5, 3), np.nan))


def test_what_the_gate_left_out_counts_against_the_f_behind_it():
    """Two liars of eleven with a wrong norm: both are found, and the trimmed mean behind trims nobody more."""
    law = NoiseLaw(signal_bound=0.1, variance=1.0)
    generator = np.random.default_rng(0)
    x_ND = generator.normal(size=(11, 2000)).astype(np.float32)
    x_ND[3] *= 3
    x_ND[8] *= 0.01
    how = Gate(f=2) >> TrimmedMean(f=2)
    found = aggregate(rows_of(x_ND, law=law), how, 2000)
    left = {site for site, one in found.standings.items() if one.verdict is not Verdict.USED}
    assert left == {"site-03", "site-08"}
    assert {found.standings[site].influence for site in left} == {0.0}
    honest = aggregate([row for row in rows_of(x_ND, law=law) if row.site not in left], MEAN, 2000)
    assert np.allclose(found.delta_D, honest.delta_D, atol=1e-6)


def test_without_a_law_the_gate_says_that_it_judged_nobody_and_neighbours_are_by_distance():
    """One long row would otherwise be everybody's best neighbour by inner product."""
    x_ND = cohort(0, 9)
    x_ND[0] *= 100
    how = Gate(f=2) >> NearestNeighbourMixing(f=2, near="inner_product") >> TrimmedMean(f=2)
    found = result(how, x_ND)
    assert "nobody" in found.note
    assert "by distance" in found.note
    assert found.standings["site-00"].influence == 0


def test_centered_clipping_goes_on_from_its_centre():
    """From far away it takes small steps; from the last result it stays there."""
    x_ND = cohort(3)
    how = Aggregation(rule=CenteredClipping(radius=0.5))
    far = aggregate(rows_of(x_ND), how, 40)
    centre = ArrayNumbers(x_ND.mean(axis=0))
    near = aggregate(rows_of(x_ND), how, 40, centre=centre)
    mean_D = x_ND.mean(axis=0)
    assert np.linalg.norm(near.delta_D - mean_D) < np.linalg.norm(far.delta_D - mean_D)
    assert np.linalg.norm(far.delta_D) <= 3 * 0.5 + 1e-6


def test_fltrust_follows_the_root_and_ignores_who_points_away():
    x_ND = np.array([[2.0, 0.0], [0.0, 9.0], [-50.0, 0.0]], dtype=np.float32)
    found = aggregate(rows_of(x_ND), Aggregation(rule=FLTrust()), 2, root=ArrayNumbers(np.array([1, 0], np.float32)))
    assert np.allclose(found.delta_D, [1.0, 0.0], atol=1e-6)


def test_fltrust_without_a_root_is_refused():
    with pytest.raises(ContractError, match="root"):
        aggregate(rows_of(cohort(1)), Aggregation(rule=FLTrust()), 40)


def test_a_damaged_centre_is_refused_by_name():
    with pytest.raises(ContractError, match="centre is not finite"):
        aggregate(rows_of(cohort(1)), Aggregation(rule=CenteredClipping(radius=1.0)), 40,
                  centre=ArrayNumbers(np.full(40, np.nan, np.float32)))


def test_a_bad_guess_of_the_reference_costs_a_pass_and_no_accuracy():
    """A row that is of median norm where the reference is guessed, and enormous elsewhere."""
    size = SLAB // 4
    x_ND = cohort(2, 9, size) * np.float32(1e-3)
    x_ND[4, 3000:3100] = 30.0
    how = Aggregation(rule=SpectralFilter(f=2))
    with_liar, without = result(how, x_ND), result(how, np.delete(x_ND, 4, axis=0))
    assert with_liar.standings["site-04"].influence < 0.01
    assert np.linalg.norm(with_liar.delta_D - without.delta_D) < np.linalg.norm(without.delta_D)


@pytest.mark.parametrize("how", [MEAN, TRIMMED, Aggregation(rule=SpectralFilter(f=2)),
                                 NearestNeighbourMixing(f=2) >> TrimmedMean(f=2)], ids=str)
def test_slabs_that_were_swept_elsewhere_are_the_same_bytes(how, monkeypatch):
    """Points and work are sent to other processes and what they found is sent back, as Dask does it."""
    monkeypatch.setattr(sweeping, "SLAB", SAMPLE // 2)         # an eighth of the real one
    slab, size = SAMPLE // 2, SAMPLE + 99
    rows = rows_of(cohort(1, 7, size))

    def elsewhere(points, work, coordinates):
        sent = pickle.dumps((points, work))
        return joined([pickle.loads(pickle.dumps(
            sweep(*pickle.loads(sent), start, min(start + slab, coordinates), memory_budget_bytes=1)))
            for start in range(0, coordinates, slab)])

    here, there = aggregate(rows, how, size), aggregate(rows, how, size, sweeper=elsewhere)
    assert there.delta_D.tobytes() == here.delta_D.tobytes()
    assert there.standings == here.standings
    assert there.distances_NN.tobytes() == here.distances_NN.tobytes()


def test_an_empty_cohort_is_refused():
    with pytest.raises(ContractError, match="nothing to aggregate"):
        aggregate([], MEAN, 3)


def test_a_site_has_one_vote():
    rows = rows_of(np.zeros((3, 2)))
    with pytest.raises(ContractError, match="'site-01' has two updates"):
        aggregate([rows[1], *rows], MEDIAN, 2)


def test_a_file_that_ends_early_names_its_site(tmp_path):
    np.zeros(5, np.float32).tofile(tmp_path / "short")
    with pytest.raises(ContractError, match="'north': its update ends after 5 coordinates"):
        aggregate([Row("north", 1.0, FileNumbers(tmp_path / "short", 0))], MEAN, 6)


def test_a_file_is_read_behind_its_header(tmp_path):
    (tmp_path / "row").write_bytes(b"\xff" * 24 + np.array([1, 2, 3], "<f4").tobytes())
    assert aggregate([Row("north", 1.0, FileNumbers(tmp_path / "row", 24))], MEAN, 3).delta_D.tolist() == [1, 2, 3]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_cannot_be_built(weight):
    with pytest.raises(ContractError, match="weight"):
        Row("site", weight, ArrayNumbers(np.zeros(1, np.float32)))


def test_a_row_that_was_left_out_has_no_distance():
    x_ND = cohort(1, 5)
    x_ND[2] = np.nan
    standing = result(MEAN, x_ND).standings["site-02"]
    assert standing.verdict is Verdict.NOT_FINITE
    assert math.isnan(standing.distance)


# -- ties, names, liars that are gone ------------------------------------------------------------------------------------


def test_two_copies_take_two_honest_sites_with_them_and_the_round_goes_on():
    """Quorum 9 of 12: before, eight were left, and the round died."""
    how = default_aggregation(9, noise_is_declared=True, rounds=20)
    x_ND = np.random.default_rng(4).standard_normal((12, 2000)).astype(np.float32)
    x_ND[:2] = x_ND[2:4]
    found = aggregate(rows_of(x_ND, law=NoiseLaw(1.0, 1.0)), how, 2000)
    gone = [site for site, standing in found.standings.items() if standing.verdict is Verdict.GATE]
    assert gone == ["site-00", "site-01", "site-02", "site-03"]
    assert 12 - len(gone) >= how.fewest_used(9)


def test_more_bad_rows_than_may_lie_are_refused_in_words():
    x_ND = np.ones((7, 3), np.float32)
    x_ND[:3, 0] = np.inf
    with pytest.raises(ToleranceError, match="3 of 7 updates are not finite.*at most 2 may lie"):
        aggregate([Row(f"site-{n}", 1.0, ArrayNumbers(row_D)) for n, row_D in enumerate(x_ND)],
                  Aggregation(rule=TrimmedMean(f=2)), 3)
