"""Synthetic rows: their law is that of the projected tables, noise moves it as it must, and no row is anybody's."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.errors import ContractError
from fedround.learning.columns import Category, Date, Numeric, Truth
from fedround.privacy.noise import stream
from fedround.statistics import Release, release, total
from fedround.synthetic.blueprint import Blueprint
from fedround.synthetic.model import consistent, fitted
from fedround.values import parse

COLUMNS = (Numeric("age", low=18, high=90), Numeric("income", low=0, high=1e6, scale="log"),
           Category("ward", values=("a", "b", "c")), Truth("ill", missing=False))
PLAN = Blueprint(columns=COLUMNS, cells=5, whole=("age",), pairs="all")
NO_GAP = [False, False, False, True]


class Table:
    """A site's records."""

    def __init__(self, rows: pd.DataFrame):
        self.rows = rows

    def column(self, name: str):
        return self.rows[name].to_numpy()


def site(seed: int, count: int = 3000) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    ward = draw.choice(np.array(["a", "b", "c", "unheard of", None], dtype=object), count, p=[0.4, 0.3, 0.1, 0.1, 0.1])
    age = np.clip(draw.normal(np.where(ward == "a", 40, 60), 12), 18, 90).round()
    income = np.exp(draw.normal(8 + age / 30, 1))
    return pd.DataFrame({"age": np.where(draw.random(count) < 0.1, np.nan, age), "income": income, "ward": ward,
                         "ill": draw.random(count) < age / 120})


SITES = [site(seed) for seed in range(2)]
ALL = pd.concat(SITES, ignore_index=True)


def totals(blueprint: Blueprint, noise_std: float, number: int = 0) -> list[Release]:
    told = [[release(one, Table(rows), stream(bytes(32), b"synthetic", f"{number} {place} {at}".encode()))
             for at, one in enumerate(blueprint.statistics(noise_std))] for place, rows in enumerate(SITES)]
    return [total(of_one) for of_one in zip(*told, strict=True)]


EXACT = totals(PLAN, 0.0)


def drawn(blueprint: Blueprint, of: list[Release], count: int, seed: int = 0, no_gap: list[bool] = NO_GAP):
    draw = np.random.default_rng(seed)
    cells = fitted(blueprint, of).sample(count, no_gap, draw)
    return cells, blueprint.rows(cells, draw)


def shares(cell_NC, pair, shape):
    return np.histogramdd(cell_NC[:, list(pair)], bins=[np.arange(size + 1) for size in shape])[0] / len(cell_NC)


# -- laws --------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10 ** 6), st.integers(2, 9), st.integers(2, 9), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_projected_table_has_its_columns_sums_and_nothing_below_zero(seed: int, rows: int, columns: int, holes: bool):
    draw = np.random.default_rng(seed)
    row_A, column_B = draw.dirichlet(np.ones(rows) / 2), draw.dirichlet(np.ones(columns) / 2)
    if holes:
        row_A = np.append(row_A[:-2], [row_A[-2:].sum(), 0.0])
    table = consistent(draw.normal(0.05, 0.3, (rows, columns)), row_A, column_B)
    assert table.min() >= 0
    np.testing.assert_allclose(table.sum(axis=1), row_A, atol=1e-9)
    np.testing.assert_allclose(table.sum(axis=0), column_B, atol=1e-9)


def test_a_table_that_is_possible_stays_as_it_is():
    table = np.random.default_rng(0).dirichlet(np.ones(20)).reshape(4, 5)
    np.testing.assert_allclose(consistent(table, table.sum(axis=1), table.sum(axis=0)), table, atol=1e-8)


@pytest.mark.parametrize("noise_std", [0.0, 20.0])
def test_what_is_drawn_has_the_shares_of_the_tree(noise_std: float):
    tree = fitted(PLAN, totals(PLAN, noise_std))
    assert len(tree.pairs) == 3
    cell_NC = tree.sample(200_000, [False] * 4, np.random.default_rng(1))
    for pair, table in tree.pairs.items():
        np.testing.assert_allclose(shares(cell_NC, pair, table.shape), table, atol=5 * 0.5 / math.sqrt(200_000))


def test_without_a_gap_the_law_is_the_trees_given_that():
    """Beside drawing all and throwing away; the column has a gap in a third of all rows, and its neighbour knows of it."""
    tree = fitted(PLAN, EXACT)
    everything = tree.sample(400_000, [False] * 4, np.random.default_rng(1))
    kept = everything[(everything[:, 2] != 3) & (everything[:, 0] != 5)]
    told = tree.sample(len(kept), [True, False, True, False], np.random.default_rng(2))
    assert not (told[:, 2] == 3).any()
    for pair in itertools.combinations(range(4), 2):
        shape = tuple(len(tree.columns[place]) for place in pair)
        np.testing.assert_allclose(shares(told, pair, shape), shares(kept, pair, shape), atol=0.006)


def test_without_noise_pairs_of_the_tree_are_the_rows_own():
    tree = fitted(PLAN, EXACT)
    for pair, share in tree.pairs.items():
        exact = EXACT[4 + PLAN.edges.index(pair)].table
        np.testing.assert_allclose(share, exact / len(ALL), atol=1e-6)


@pytest.mark.parametrize("noise_std", [5.0, 20.0, 60.0])
def test_noise_moves_pairs_by_no_more_than_it_must(noise_std: float):
    """The total variation of a table with such noise in each cell is, in the mean, half of cells times its mean size."""
    off, predicted = [], []
    for number in range(4):
        released = totals(PLAN, noise_std, number)
        for pair, share in fitted(PLAN, released).pairs.items():
            place = 4 + PLAN.edges.index(pair)
            off.append(np.abs(share - EXACT[place].table / len(ALL)).sum() / 2)
            predicted.append(share.size * released[place].noise_std * math.sqrt(2 / math.pi) / len(ALL) / 2)
    assert all(one <= 1.5 * law for one, law in zip(off, predicted, strict=True))
    assert sum(off) < sum(predicted)


def test_the_tree_joins_what_belongs_together():
    tree = fitted(PLAN, EXACT)
    assert set(tree.pairs) >= {(0, 1), (0, 2)}              # income and ward know of age, and so of each other
    loud = fitted(PLAN, totals(PLAN, 3000.0))
    assert len(loud.pairs) < 6
    alone = Blueprint(columns=COLUMNS, cells=5, pairs=(("age", "ill"),))
    assert set(fitted(alone, totals(alone, 1.0)).pairs) == {(0, 3)}


def test_the_same_seed_draws_the_same_rows():
    released = totals(PLAN, 20.0)
    _, one = drawn(PLAN, released, 500)
    pd.testing.assert_frame_equal(one, drawn(PLAN, released, 500)[1])
    assert not one.equals(drawn(PLAN, released, 500, seed=1)[1])


# -- rows --------------------------------------------------------------------------------------------------------------


def test_values_are_of_their_kinds_between_their_bounds_and_in_their_cells():
    cells, rows = drawn(PLAN, totals(PLAN, 20.0), 3000)
    assert list(rows.columns) == ["age", "income", "ward", "ill"]
    assert (str(rows["age"].dtype), str(rows["income"].dtype), str(rows["ill"].dtype)) == ("Int64", "float64", "boolean")
    assert rows["age"].dropna().between(18, 90).all()
    assert rows["income"].dropna().between(0, 1e6).all()
    assert set(rows["ward"].dropna()) == {"a", "b", "c"}
    assert rows["ill"].notna().all()
    assert rows["ward"].isna().mean() == pytest.approx(0.2, abs=0.03)
    for place, one in enumerate(PLAN.statistics(0.0)[:4]):          # a site would count each row in the cell it was drawn for
        (group,) = one.by
        np.testing.assert_array_equal(group.group(rows[group.column].astype(object).where(rows[group.column].notna(), None)
                                                  .to_numpy()), cells[:, place])


def test_days_are_drawn_within_their_cells_and_a_gap_is_none():
    seen = Date("seen", first="2020-01-01", last="2020-12-31")
    plan = Blueprint(columns=(seen, Truth("ill", missing=False)), cells=4)
    day = np.datetime64("2020-01-01") + np.random.default_rng(3).integers(0, 100, 500).astype("timedelta64[D]")
    rows = pd.DataFrame({"seen": [None, "long ago", "2019-07-01", *map(str, day)], "ill": [True] * 503})
    told = [release(one, Table(rows), stream(bytes(32), b"days")) for one in plan.statistics(0.0)]
    assert told[0].table[-1] == 2
    assert plan.statistics(0.0)[0].by[0].labels[:2] == ("before 2020-04-02", "2020-04-02 to 2020-07-02")
    made = plan.rows(fitted(plan, told).sample(4000, [False, True], np.random.default_rng(0)), np.random.default_rng(0))
    assert made["seen"].dtype.kind == "M"
    assert made["seen"].isna().mean() == pytest.approx(2 / 503, abs=0.004)
    assert (made["seen"].dropna().dt.normalize() == made["seen"].dropna()).all()
    assert made["seen"].min() >= pd.Timestamp("2020-01-01")
    assert made["seen"].max() < pd.Timestamp("2020-07-02"), "no day of a cell that nobody is in"
    assert "2020-0" in made.to_csv(index=False)


def test_whole_numbers_are_even_within_a_cell():
    plan = Blueprint(columns=(Numeric("month", low=1, high=12), Truth("x")), cells=2, whole=("month",))
    assert plan.bounds(plan.columns[0]).tolist() == [1, 7, 13]
    months = plan.rows(np.array([[0, 0], [1, 0]] * 12_000), np.random.default_rng(0))["month"].value_counts()
    assert sorted(months.index) == list(range(1, 13))
    assert months.between(1800, 2200).all()


def test_attack_no_row_is_copied():
    """Every real row has a number of its own, to nine digits; none of them comes again, without noise even."""
    _, rows = drawn(PLAN, EXACT, 6000)
    assert not set(rows["income"].dropna()) & set(ALL["income"])


def test_attack_a_member_is_not_nearer_than_a_stranger():
    """Who guesses by the nearest synthetic row whether a record was there does as well as a coin."""
    _, rows = drawn(PLAN, totals(PLAN, 20.0), 4000)
    known = rows.dropna(subset=["age", "income"])
    made = np.column_stack([known["age"].astype(float) / 72, np.log1p(known["income"]) / 13])

    def nearest(real: pd.DataFrame) -> np.ndarray:
        real = real.dropna(subset=["age", "income"])[:1000]
        point = np.column_stack([real["age"] / 72, np.log1p(real["income"]) / 13])
        return np.abs(point[:, None] - made[None]).sum(axis=2).min(axis=1)

    inside, outside = nearest(ALL), nearest(site(77))
    auc = (inside[:, None] < outside[None]).mean() + (inside[:, None] == outside[None]).mean() / 2
    assert auc == pytest.approx(0.5, abs=4 / math.sqrt(12 * 800 / 2))       # four standard deviations of 800 against 800


@pytest.mark.parametrize("what", ["negative", "zero", "one cell", "giant", "contrary"])
def test_attack_whatever_is_released_ends_in_rows_or_in_a_sentence(what: str):
    released = []
    for number, one in enumerate(totals(PLAN, 5.0)):
        size = len(one.numbers)
        numbers = {"negative": [-50.0] * size, "zero": [0.0] * size, "one cell": [9e9] + [0.0] * (size - 1),
                   "giant": [1e15] * size, "contrary": [(-1.0) ** (at + number) * 1e6 for at in range(size)]}[what]
        released.append(Release(statistic=one.statistic, numbers=tuple(numbers), mechanism=one.mechanism))
    try:
        cells, rows = drawn(PLAN, released, 100)
    except ContractError as error:
        assert "ask for less noise" in str(error)
    else:
        assert what not in ("negative", "zero")
        assert rows["ill"].notna().all()
        assert cells.min() >= 0


def test_rows_that_must_have_what_nobody_has_are_a_sentence():
    empty = [Release(statistic=one.statistic, numbers=(0.0,) * (len(one.numbers) - 1) + (1000.0,), mechanism=one.mechanism)
             for one in EXACT]
    with pytest.raises(ContractError, match="every row has a gap"):
        drawn(PLAN, empty, 10)


@pytest.mark.parametrize(("change", "words"), [
    ({"columns": [{"kind": "date", "column": "day", "first": "2021-01-01", "last": "2020-01-01"}] * 2}, "before"),
    ({"whole": ["ward"]}, "no column of numbers"), ({"pairs": [["age", "nobody"]]}, "'nobody', which is no column"),
    ({"pairs": [["age", "age"]]}, "two columns"), ({"pairs": "some"}, "pairs"),
    ({"columns": [{"kind": "truth", "column": "x"}] * 2}, "said twice"),
    ({"columns": [{"kind": "truth", "column": f"x{at}"} for at in range(12)]}, "78 tables are asked for"),
    ({"columns": [{"kind": "numeric", "column": "age", "low": 0.2, "high": 0.8}, {"kind": "truth", "column": "x"}]},
     "one whole number at most")])
def test_a_blueprint_that_cannot_be_is_a_sentence(change: dict, words: str):
    said = {**PLAN.model_dump(mode="json"), **change}
    if "columns" in change and words != "one whole number at most":
        said["whole"] = []
    with pytest.raises(ContractError, match=words):
        parse(Blueprint, said, "it")
