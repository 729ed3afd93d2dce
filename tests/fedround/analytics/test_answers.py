"""Answers without noise are numpy's; with noise their intervals hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.analytics.compiled import compiled
from fedround.analytics.components import bounds_for
from fedround.analytics.counting import Common, Count, HistogramOf, Missing, Top
from fedround.analytics.describing import Correlations, Mean, Quantiles, Table1
from fedround.analytics.fitting import Components
from fedround.analytics.quantiles import consistent, quantiles
from fedround.errors import ContractError
from fedround.privacy.noise import stream
from fedround.statistics import Between, Bounded, Levels, Ranges, release, total

AGE, DOSE = Bounded(column="age", low=0.0, high=100.0), Bounded(column="dose", low=-3.0, high=3.0)
SEX = Levels(column="sex", values=("f", "m"))


class Rows:
    """A site's records."""

    def __init__(self, seed: int, count: int = 2000):
        draw = np.random.default_rng(seed)
        self.sex = draw.choice(np.array(["f", "m", "x"], dtype=object), count)
        self.age = np.clip(draw.normal(50, 15, count) + 5 * (self.sex == "f"), 1, 99)
        self.dose = np.clip(0.04 * (self.age - 50) + draw.normal(0, 0.5, count), -2.9, 2.9)

    def column(self, name):
        return getattr(self, name)


SITES = [Rows(seed, 900) for seed in range(3)]
ALL = Rows(0, 0)
for name in ("sex", "age", "dose"):
    setattr(ALL, name, np.concatenate([getattr(site, name) for site in SITES]))


def answers(query, noise_std: float = 0.0, draw: int = 0):
    asked = compiled([query], len(SITES), None, noise_std)
    releases = [[release(one, site, stream(bytes(32), b"answers", f"{draw} {place} {number}".encode()))
                 for number, one in enumerate(asked.statistics)] for place, site in enumerate(SITES)]
    return asked.read([total(of_one) for of_one in zip(*releases, strict=True)])


def numbers(table) -> dict[tuple[str, ...], float]:
    return {one.words: one.value for one in table.estimates}


def test_means_and_spreads_are_numpys_by_group_and_filter():
    (table,) = answers(Mean(of=(AGE, DOSE), spread=True, by=(SEX,), where=(Between(column="age", low=30.0),)))
    told = numbers(table)
    for sex in ("f", "m"):
        kept = (ALL.sex == sex) & (ALL.age >= 30)
        assert told[sex, "age", "records"] == pytest.approx(kept.sum())
        assert told[sex, "age", "mean"] == pytest.approx(ALL.age[kept].mean(), abs=1e-6)
        assert told[sex, "dose", "sd"] == pytest.approx(ALL.dose[kept].std(), abs=1e-6)
    assert table.head == ("sex", "column", "what", "value")


def test_correlations_are_numpys():
    means, table = answers(Correlations(of=(AGE, DOSE)))
    assert numbers(table)["age", "dose"] == pytest.approx(np.corrcoef(ALL.age, ALL.dose)[0, 1], abs=1e-6)
    assert numbers(means)["age", "mean"] == pytest.approx(ALL.age.mean(), abs=1e-6)


def test_counts_histograms_and_the_commonest_are_numpys():
    (table,) = answers(Count(by=(SEX, Ranges(column="age", edges=(50.0,)))))
    assert numbers(table)["f", "from 50"] == ((ALL.sex == "f") & (ALL.age >= 50)).sum()
    (table,) = answers(HistogramOf(of=Ranges(column="age", edges=(40.0, 60.0)), by=(SEX,)))
    assert numbers(table)["m", "40 to 60"] == ((ALL.sex == "m") & (ALL.age >= 40) & (ALL.age < 60)).sum()
    (table,) = answers(Top(of=Levels(column="sex", values=("q", "m", "f", "x")), most=2))
    counts = {sex: (ALL.sex == sex).sum() for sex in "fmx"}
    assert [one.words[0] for one in table.estimates] == sorted(counts, key=counts.get, reverse=True)[:2]


def test_the_share_that_is_missing():
    rows = Rows(9, 500)
    rows.age[:100] = math.nan
    asked = compiled([Missing(of=("age", "sex"))], 1, None, 0.0)
    (table,) = asked.read([release(asked.statistics[0], rows, None)])
    assert numbers(table) == pytest.approx({("age",): 0.2, ("sex",): 0.0}, abs=1e-9)


def test_quantiles_are_numpys_to_a_leaf():
    (table,) = answers(Quantiles(of=AGE, depth=10, at=(0.1, 0.5, 0.9)))
    assert list(numbers(table).values()) == pytest.approx(np.quantile(ALL.age, (0.1, 0.5, 0.9)), abs=100 / 2 ** 10)


def test_table_one_asks_nothing_twice_and_has_numbers_counts_and_shares():
    asked = compiled([Table1(numbers=(AGE,), levels=(SEX,)), Count(by=(SEX,))], 3, None, 2.0)
    assert len(asked.statistics) == 2
    told = {table.title: numbers(table) for table in answers(Table1(numbers=(AGE,), levels=(SEX,)))}
    assert told["means of columns"]["age", "mean"] == pytest.approx(ALL.age.mean(), abs=1e-6)
    assert told["shares of sex"]["f",] == pytest.approx((ALL.sex == "f").mean())


@given(st.integers(1, 7), st.integers(0, 2 ** 32 - 1), st.sampled_from([0.1, 3.0, 50.0]))
def test_consistent_leaves_are_the_least_squares_fit_and_quantiles_are_monotone(depth, seed, noise_std):
    draw = np.random.default_rng(seed)
    leaf_L = draw.poisson(20.0, 2 ** depth).astype(float)
    sums = np.vstack([np.repeat(np.eye(2 ** level), 2 ** (depth - level), axis=1) for level in range(1, depth + 1)])
    node_K = sums @ leaf_L + noise_std * draw.standard_normal(len(sums))
    fitted_L = consistent(node_K, depth)
    assert fitted_L == pytest.approx(np.linalg.lstsq(sums, node_K, rcond=None)[0], abs=1e-6)
    at = tuple(np.linspace(0, 1, 11).tolist())
    found = quantiles(fitted_L, at, 10.0, 20.0)
    assert np.isnan(found).all() or ((np.diff(found) >= 0).all() and found.min() >= 10 and found.max() <= 20)


@pytest.mark.parametrize(("query", "noise_std"), [
    (Mean(of=(AGE,), spread=True, by=(SEX,)), 4.0), (Correlations(of=(AGE, DOSE)), 4.0), (Quantiles(of=AGE, depth=6), 2.0),
    (Count(by=(SEX,)), 20.0)], ids=lambda one: getattr(one, "what", ""))
def test_in_95_of_100_draws_of_noise_the_exact_answer_lies_in_the_interval(query, noise_std):
    """Within four standard errors of 95 %; quantiles are cut to a grid, so theirs may hold more often."""
    exact = {(table.title, words): value for table in answers(query) for words, value in numbers(table).items()}
    draws, held = 100, []
    for draw in range(draws):
        held += [one.low <= exact[table.title, one.words] <= one.high
                 for table in answers(query, noise_std, draw) for one in table.estimates]
    tolerance = 4 * math.sqrt(0.05 * 0.95 / draws)
    assert 0.95 - tolerance <= np.mean(held) <= (1.0 if query.what == "quantiles" else 0.95 + tolerance)


def test_the_noise_for_a_wished_error_is_the_most_that_keeps_it():
    query = Mean(of=(AGE,), error=0.5)
    asked = compiled([query], 3, 2700, 1.0)
    (table,) = answers(query.model_copy(update={"error": None}), asked.noise[0])
    half = {one.words: (one.high - one.low) / 2 for one in table.estimates}
    assert 0.2 < half["age", "mean"] <= 0.5
    with pytest.raises(ContractError, match="of how many records"):
        compiled([query], 3, None, 1.0)
    with pytest.raises(ContractError, match="cannot be promised"):
        compiled([Correlations(of=(AGE, DOSE), error=0.1)], 3, 100, 1.0)


def test_noise_that_leaves_nothing_says_so_and_raises_nothing():
    (table,) = answers(Mean(of=(AGE,), by=(Levels(column="sex", values=("nobody",)),)))
    assert math.isnan(numbers(table)["nobody", "age", "mean"])
    for draw in range(5):
        for one in answers(Mean(of=(AGE,), spread=True, by=(SEX,)), 1e4, draw)[0].estimates:
            assert math.isnan(one.value) or math.isfinite(one.value)


def test_a_group_of_nobody_has_no_quantiles_whatever_the_noise():
    nobody = Levels(column="sex", values=("nobody",))
    told = [one for draw in range(10) for one in answers(Quantiles(of=AGE, depth=6, by=(nobody,)), 5.0, draw)[0].estimates]
    assert all(math.isnan(one.value) for one in told if one.words[0] == "nobody")
    assert not any(math.isnan(one.value) for one in told if one.words[0] == "other")


def test_too_many_questions_for_one_plan_are_refused():
    with pytest.raises(ContractError, match="one plan has room for 64"):
        compiled([Count(by=(Levels(column="sex", values=(place,)),)) for place in range(65)], 3, None, 1.0)
    with pytest.raises(ContractError, match="numbers are more than"):
        compiled([Quantiles(of=AGE, depth=12, by=(SEX,))], 3, None, 1.0)


def test_the_commonest_of_thousands_of_codes_are_found_in_few_numbers():
    draw = np.random.default_rng(5)
    codes = np.array([f"I{number:04d}" for number in range(3000)], dtype=object)
    shares = 1 / np.arange(1, 3001) ** 1.2
    rows = Rows(1, 10)
    rows.code = draw.choice(codes, 20_000, p=shares / shares.sum())
    asked = compiled([Common(of="code", candidates=tuple(codes.tolist()), most=5, width=1024, depth=4)], 1, None, 5.0)
    assert math.prod(asked.statistics[0].shape) == 4096
    (table,) = asked.read([release(asked.statistics[0], rows, stream(bytes(32), b"common"))])
    exact = {code: (rows.code == code).sum() for code in codes[:10]}
    assert [one.words[0] for one in table.estimates][:3] == sorted(exact, key=exact.get, reverse=True)[:3]
    for one in table.estimates[:3]:
        assert one.value == pytest.approx(exact[one.words[0]], abs=0.02 * 20_000 / 4 + 30)


def test_a_number_is_one_value_however_it_is_kept_and_what_is_missing_is_none():
    rows = Rows(1, 10)
    rows.code = np.array([7, 7.0, "7", None, math.nan, ""], dtype=object)
    asked = compiled([Common(of="code", candidates=(7, "", 8))], 1, None, 0.0)
    (table,) = asked.read([release(asked.statistics[0], rows, None)])
    assert numbers(table) == pytest.approx({("7",): 3.0, ("",): 1.0, ("8",): 0.0}, abs=0.02)


def test_components_are_numpys_and_bounds_for_a_recipe_are_round():
    shares, loadings = answers(Components(of=(AGE, DOSE)))
    value, vector = np.linalg.eigh(np.corrcoef(ALL.age, ALL.dose))
    assert list(numbers(shares).values()) == pytest.approx(value[::-1] / 2, abs=1e-6)
    assert [abs(one.value) for one in loadings.estimates] == pytest.approx(np.abs(vector[:, ::-1].T.ravel()), abs=1e-6)
    (means,) = answers(Mean(of=(AGE, DOSE), spread=True))
    low, high = bounds_for(means)["age"]
    mean, spread = ALL.age.mean(), ALL.age.std()
    assert (low, high) == (float(f"{mean - 3 * spread:.2g}"), float(f"{mean + 3 * spread:.2g}"))
