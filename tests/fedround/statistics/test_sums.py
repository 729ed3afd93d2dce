"""The noised sum: one record moves it by at most the bound, in whole cells, whatever the records hold; and what it adds up.

The law is stated once for all statistics that are sums. A new one adds a line to `SUMS`.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.errors import ContractError
from fedround.privacy.noise import GRID, stream
from fedround.privacy.spec import GaussianCounts
from fedround.secure_sums.lattice import bits_for, whole_cells
from fedround.statistics import (
    ClassSums,
    DyadicCounts,
    GlmSums,
    GroupCounts,
    HazardSums,
    Moments,
    Prefixes,
    Present,
    Release,
    Sketch,
    release,
    total,
)
from fedround.statistics.sums import RowsPart, in_blocks, noised_sum
from fedround.values import parse

HOSTILE = [None, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 10 ** 400, "65", "", True, [1], b"x", 0, -0.0, 7, 100,
           0.1, 33.3, 1e-9, -5]
ROW = st.tuples(*[st.sampled_from(HOSTILE) | st.floats()] * 3, st.sampled_from(["f", "m", "x", 1, None, 2.5, ["f"]]))
ROWS = st.lists(ROW, min_size=1, max_size=6)
NOISES = st.sampled_from([0.01, 0.7, 1.0, 3.0, 1e4])
AGE, DOSE, RISK = ({"column": "age", "low": 0.0, "high": 100.0}, {"column": "dose", "low": -1.0, "high": 0.1},
                   {"column": "risk", "low": 0.3, "high": 1e15})
SEX = {"column": "sex", "values": ("f", "m", 1)}
BANDS = {"column": "dose", "edges": (-0.5, 0.0)}


GROUPS = st.sampled_from([(), (SEX,), (SEX, BANDS)])
CONDITIONS = st.sampled_from([(), ({"column": "age", "low": 1.0, "below": 50.0}, {"column": "sex", "values": ("f", 2.5)})])


class Rows:
    """A site's records."""

    def __init__(self, rows):
        self._rows = rows

    def column(self, name):
        values = np.empty(len(self._rows), dtype=object)
        values[:] = [row[("age", "dose", "risk", "sex").index(name)] for row in self._rows]
        return values

    held_out = column

    def encoded(self):
        numbers = [one if type(one) in (int, float) and abs(one) < 1e300 else math.nan
                   for row in self._rows for one in row[:3]]
        return np.array(numbers, float).reshape(-1, 3), np.array([row[3] == "f" for row in self._rows], np.int64)

    def scores(self):
        raise ContractError("no model")


class NoNoise:
    """For what the sum is before any noise."""

    def random(self, size):
        return np.zeros(size)

    def normal(self, scale, size):
        return np.zeros(size)


SUMS = {
    "moments": st.builds(
        lambda noise_std, degree, of, by, where: Moments(noise_std=noise_std, degree=degree, of=of, by=by, where=where),
        NOISES, st.sampled_from([1, 2, "products"]), st.sampled_from([(AGE,), (AGE, DOSE), (AGE, DOSE, RISK)]),
        GROUPS, CONDITIONS),
    "present": st.builds(lambda noise_std, of, by, where: Present(noise_std=noise_std, of=of, by=by, where=where),
                         NOISES, st.sampled_from([("age",), ("age", "sex", "dose")]), GROUPS, CONDITIONS),
    "dyadic_counts": st.builds(
        lambda noise_std, of, depth, by, where: DyadicCounts(noise_std=noise_std, of=of, depth=depth, by=by, where=where),
        NOISES, st.sampled_from([AGE, DOSE, RISK]), st.integers(1, 5), GROUPS, CONDITIONS),
    "sketch": st.builds(
        lambda noise_std, of, width, depth, by, where: Sketch(
            noise_std=noise_std, of=of, width=width, depth=depth, by=by, where=where),
        NOISES, st.sampled_from(["age", "sex"]), st.sampled_from([16, 64]), st.integers(1, 4), GROUPS, CONDITIONS),
    "prefixes": st.builds(
        lambda noise_std, of, length, depth, by, where: Prefixes(
            noise_std=noise_std, of=of, length=length, width=16, depth=depth, by=by, where=where),
        NOISES, st.sampled_from(["age", "sex"]), st.integers(1, 3), st.integers(1, 4), GROUPS, CONDITIONS),
    "glm_sums": st.builds(
        lambda noise_std, family, outcome, at, where: GlmSums(
            noise_std=noise_std, family=family, of=({"column": "risk", "low": 0.0, "high": 7.0}, {
                "column": "sex", "values": ("f",)}),
            outcome={"logistic": {"column": "dose", "values": ("65", 1)}}.get(family, outcome), at=at, where=where),
        NOISES, st.sampled_from(["logistic", "poisson"]), st.sampled_from([AGE, {"column": "dose", "low": 0.0, "high": 0.1}]),
        st.sampled_from([(0.0, 0.0, 0.0), (1.0, -2.0, 0.5), (100.0, -100.0, 100.0)]), CONDITIONS),
    "hazard_sums": st.builds(
        lambda noise_std, link, at, where: HazardSums(
            noise_std=noise_std, link=link, of=(DOSE, {"column": "sex", "values": ("f", 1)}),
            time={"column": "age", "edges": (0.0, 1.0, 7.0, 65.0)}, event={"column": "risk", "values": ("65", 1)}, at=at,
            where=where),
        NOISES, st.sampled_from(["cloglog", "logit"]),
        st.sampled_from([(-2.0, -2.0, -2.0, 0.0, 0.0), (-1.0, 0.5, -3.0, 2.0, -0.7), (100.0, -100.0, 0.0, 100.0, -100.0)]),
        CONDITIONS),
    "class_sums": st.builds(lambda noise_std, bounds: ClassSums(
        noise_std=noise_std, labels=2, features=3, low=bounds[0], high=bounds[1]),
        NOISES, st.sampled_from([(0.0, 1.0), (-1e6, 1e6), (0.1, 0.10001)])),
}
ANY = st.one_of(*SUMS.values())


def cells(statistic, rows) -> list[int]:
    """The sum in whole cells, exactly."""
    cells_of_scale = math.floor(GRID / statistic.noise_std * (1 - 2.0 ** -30))
    return [round(number * cells_of_scale) for number in statistic.noised(Rows(rows), NoNoise()).ravel().tolist()]


def length2(one: list[int], other: list[int]) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


@given(ANY, ROWS, st.data())
def test_one_record_moves_the_sum_by_no_more_than_the_bound_in_floating_point_too(statistic, rows, data):
    """What the ledger's price rests on. The noise has GRID cells, so GRID / noise_std may move: compared as integers."""
    gone = data.draw(st.integers(0, len(rows) - 1))
    moved = length2(cells(statistic, rows), cells(statistic, rows[:gone] + rows[gone + 1:]))
    assert moved <= (GRID / statistic.noise_std) ** 2


@given(ANY, ROWS, st.data(), st.sampled_from([4, 9]))
def test_as_a_part_of_a_secure_sum_the_bound_holds_for_a_members_share_and_all_lies_on_the_noises_cells(
        statistic, rows, data, members):
    """`in_cells`, with the cells that `rounds.summed` takes: so many are a unit, for all statistics alike."""
    share = statistic.noise_std / math.sqrt(members)
    many = whole_cells(share * (1 + 2.0 ** -29), bits_for(3e4, share, members))

    def summed(some) -> list[float]:
        return statistic.in_cells(many).noised(Rows(some), NoNoise()).ravel().tolist()

    gone = data.draw(st.integers(0, len(rows) - 1))
    whole = [[round(number * many) for number in summed(some)] for some in (rows, rows[:gone] + rows[gone + 1:])]
    assert [number * many for number in summed(rows)] == pytest.approx(whole[0], abs=1e-3)
    assert length2(*whole) <= (GRID / share) ** 2


@given(ANY, ROWS, ROW, st.data())
def test_a_record_that_changes_moves_the_sum_by_two_bounds_at_most(statistic, rows, other, data):
    at = data.draw(st.integers(0, len(rows) - 1))
    changed = [*rows[:at], other, *rows[at + 1:]]
    assert length2(cells(statistic, rows), cells(statistic, changed)) <= (2 * GRID / statistic.noise_std) ** 2


@given(ANY, ROWS, st.data())
def test_order_and_partition_of_records_change_no_bit_of_the_sum(statistic, rows, data):
    cut = data.draw(st.integers(0, len(rows)))
    both = [a + b for a, b in zip(cells(statistic, rows[:cut]), cells(statistic, rows[cut:]), strict=True)]
    assert cells(statistic, data.draw(st.permutations(rows))) == cells(statistic, rows) == both


@given(ANY, ROWS, st.integers(0, 3))
def test_a_retry_repeats_the_numbers_and_they_are_read_back_as_they_were(statistic, rows, number):
    told = release(statistic, Rows(rows), stream(bytes(32), b"sums", bytes([number])))
    assert told == release(statistic, Rows(rows), stream(bytes(32), b"sums", bytes([number])))
    assert parse(Release, told.model_dump_json(), "a release") == told
    assert told.mechanism == GaussianCounts(noise_std=statistic.noise_std)


HUGE = st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, 1.0, -1.0, 1 + 1e-12, 0.6, 0.8, 1e-300, 0.0])


@given(st.lists(st.tuples(*[HUGE] * 4), min_size=1, max_size=5), st.sampled_from([1e-300, 1.0, 1e300]), NOISES)
def test_contributions_that_break_their_promise_are_cut_to_the_bound(value_NK, scale, noise_std):
    with np.errstate(over="ignore"):
        value_NK = np.array(value_NK) * scale
    cells_of_scale = math.floor(GRID / noise_std * (1 - 2.0 ** -30))
    for one_K in value_NK:
        moved_D = noised_sum([RowsPart(one_K[None])], 4, scale, noise_std, NoNoise())
        assert length2([round(x * cells_of_scale) for x in moved_D.tolist()], [0] * 4) <= (GRID / noise_std) ** 2
        if not np.isfinite(one_K).all():
            assert not moved_D.any()


def test_a_contribution_at_the_bound_is_not_cut_and_without_noise_the_sum_is_that_of_the_numbers():
    generator = np.random.default_rng(1)
    value_NK = generator.uniform(-0.5, 0.5, (1000, 4))
    value_NK[0] = 0.5
    exact_D = noised_sum([RowsPart(value_NK)], 4, 1.0, 0.0, NoNoise())
    assert exact_D == pytest.approx([math.fsum(column) for column in value_NK.T], abs=1e-9)
    place_NK = np.tile([3, 1, 0, 2], (1000, 1))
    assert noised_sum([RowsPart(value_NK, place_NK)], 4, 1.0, 0.0, NoNoise())[place_NK[0]].tolist() == exact_D.tolist()
    one_D = noised_sum([RowsPart(value_NK[:1])], 4, 1.0, 1.0, NoNoise())
    assert one_D == pytest.approx([0.5] * 4, abs=2.0 ** -27)


def test_the_noise_is_what_is_charged_and_every_answer_is_half_a_cell_off():
    noise_std, size = 2.5, 4000
    told_D = noised_sum([RowsPart(np.full((3, size), 1 / math.sqrt(size)))], size, 1.0, noise_std, stream(bytes(32), b"law"))
    assert told_D.std() == pytest.approx(noise_std, rel=0.05)
    assert abs(told_D.mean() - 3 / math.sqrt(size)) < 5 * noise_std / math.sqrt(size)
    halves_D = told_D * 2 * math.floor(GRID / noise_std * (1 - 2.0 ** -30))
    assert np.abs(halves_D - np.rint(halves_D)).max() < 1e-3
    assert (np.rint(halves_D) % 2 == 1).all()


def test_a_sum_is_in_units_of_its_scale_on_the_way_and_in_records_own_in_the_table():
    statistic = Moments(noise_std=0.0, degree=2, of=(AGE,))
    rows = Rows([(75, 0, 0, "f"), (50, 0, 0, "f"), (-20, 0, 0, "m"), (None, 0, 0, "m")])
    told = release(statistic, rows, NoNoise())
    assert told.table == pytest.approx([3, 0.5 + 0 - 1, 0.25 + 0 + 1], abs=1e-9)
    assert np.array(told.numbers) == pytest.approx(told.table / math.sqrt(3))
    assert total([told, told]).table == pytest.approx(2 * told.table)
    assert statistic.axes[-1].labels == ("age is there", "age", "age²")


def test_the_block_of_rows_is_bounded_and_every_row_is_in_one():
    assert [one.stop - one.start for one in in_blocks(10, 1 << 19)] == [2] * 5
    assert [one.stop - one.start for one in in_blocks(3, 1 << 25)] == [1] * 3
    assert list(in_blocks(0, 4)) == []


@pytest.mark.parametrize(("scale", "noise_std"), [(0.0, 1.0), (math.nan, 1.0), (math.inf, 1.0), (1.0, -1.0), (1.0, GRID)])
def test_a_bound_that_bounds_nothing_is_refused(scale, noise_std):
    with pytest.raises(ContractError, match="must be"):
        noised_sum([], 1, scale, noise_std, NoNoise())


# -- what they add up --------------------------------------------------------------------------------------------------

PEOPLE = [(20, 0.0, 0, "f"), (80, -1.0, 0, "f"), (None, 0.0, 0, "m"), (50, -0.6, None, "m"), (50, -0.6, 1, None)]


def test_groups_and_conditions_are_those_of_a_loop_over_records():
    statistic = Moments(noise_std=0.0, degree=1, of=(AGE,), by=(SEX,), where=({"column": "age", "low": 30.0},))
    table = release(statistic, Rows(PEOPLE), NoNoise()).table
    assert table == pytest.approx(np.array([[1, 0.6], [1, 0.0], [0, 0], [1, 0.0]]), abs=1e-9)
    counted = GroupCounts(noise_std=0.0, by=(SEX, BANDS), where=({"column": "age", "low": 30.0, "below": 60.0},))
    assert release(counted, Rows(PEOPLE), NoNoise()).table.tolist() == [
        [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert release(GroupCounts(noise_std=0.0, by=(), where=({"column": "sex", "values": ("f", "m")},)), Rows(PEOPLE),
                   NoNoise()).table == 4


def test_products_are_of_records_with_a_number_in_every_column():
    statistic = Moments(noise_std=0.0, degree="products", of=(AGE, {"column": "dose", "low": -1.0, "high": 1.0}))
    table = release(statistic, Rows(PEOPLE), NoNoise()).table
    assert statistic.axes[-1].labels == ("1 · 1", "1 · age", "1 · dose", "age · age", "age · dose", "dose · dose")
    assert table == pytest.approx([4, 0.0, -2.2, 0.72, -0.6, 1.72], abs=1e-9)


def test_what_is_missing_is_none_and_nan_and_nothing_else():
    rows = Rows([(None, math.nan, 0, ""), (0, "", math.inf, None)])
    statistic = Present(noise_std=0.0, of=("age", "dose", "risk", "sex"))
    assert release(statistic, rows, NoNoise()).table == pytest.approx([2, 1, 1, 2, 1])


def test_a_record_is_in_one_node_of_each_level():
    statistic = DyadicCounts(noise_std=0.0, of=AGE, depth=2)
    rows = Rows([(x, 0, 0, "f") for x in (-5, 0, 24.9, 25, 50, 99, 100, 400, None)])
    assert release(statistic, rows, NoNoise()).table == pytest.approx([4, 4, 3, 1, 1, 3])
    assert statistic.labels[:3] == ("part 1 of 2", "part 2 of 2", "part 1 of 4")


@pytest.mark.parametrize(("wrong", "says"), [
    (lambda: GroupCounts(noise_std=1.0, by=()), "name columns"),
    (lambda: Moments(noise_std=1.0, degree=1, of=(AGE, AGE)), "named twice"),
    (lambda: Moments(noise_std=1.0, degree=1, of=(AGE,), by=(SEX, SEX)), "twice"),
    (lambda: Present(noise_std=1.0, of=("age", "age")), "named twice"),
    (lambda: DyadicCounts(noise_std=1.0, of=AGE, depth=12, by=(SEX,)), "numbers are more"),
    (lambda: Moments(noise_std=1.0, degree=1, of=({"column": "age", "low": 1.0, "high": 1.0},)), "must ascend"),
    (lambda: Moments(noise_std=1.0, degree=1, of=(AGE,), where=({"column": "age"},)), "without a bound")])
def test_a_sum_that_means_nothing_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong()


@given(ANY, ROWS, st.integers(0, 3))
def test_honest_numbers_are_possible_and_a_liars_are_not(statistic, rows, number):
    told = release(statistic, Rows(rows), stream(bytes(32), b"possible", bytes([number])))
    assert told.is_possible
    lie = np.array(told.numbers)
    if statistic.kind == "glm_sums":
        lie[len(statistic.of) + 1:] = -1e6 * max(statistic.noise_std, 1)
    elif statistic.kind == "moments":
        lie[-1] = 1e6 * max(statistic.noise_std, 1)
    else:
        lie[-1] = -1e6 * max(statistic.noise_std, 1)
    assert not Release(statistic=statistic, numbers=tuple(lie.tolist()), mechanism=told.mechanism).is_possible
