"""Rows drawn from sums by label: their law is that of the rows, noise moves it as it must, a federation draws better ones."""

from __future__ import annotations

import numpy as np
import pytest

from fedround.errors import ContractError
from fedround.privacy.noise import stream
from fedround.statistics import Release, release, total
from fedround.statistics.class_sums import PLACE, ClassSums
from fedround.synthetic.clouds import Clouds, fitted_clouds
from fedround.values import parse
from fedround_examples.digits.split import STORY

PLAN = Clouds(labels=3, features=2, low=-1, high=3)
DIGITS = Clouds(labels=10, features=64, low=-0.3, high=0.7)


class Encoded:
    """A site's rows."""

    def __init__(self, table_NF: np.ndarray, label_N: np.ndarray):
        self.table_NF, self.label_N = table_NF, label_N

    def encoded(self):
        return self.table_NF, self.label_N


def site(seed: int, count: int = 4000) -> Encoded:
    draw = np.random.default_rng(seed)
    label_N = draw.choice(3, count, p=[0.5, 0.3, 0.2])
    middle = np.array([[0.0, 0.0], [1.5, 0.5], [0.5, 2.0]])
    return Encoded(middle[label_N] + draw.normal(size=(count, 2)) @ [[0.3, 0.1], [0.0, 0.1]], label_N)


SITES = [site(0), site(1)]


def totals(plan: Clouds, sites: list[Encoded], noise_std: float, number: int = 0) -> list[Release]:
    told = [release(plan.statistics(noise_std)[0], one, stream(bytes(32), f"{number} {place}".encode()))
            for place, one in enumerate(sites)]
    return [total(told)]


def test_sums_are_those_of_a_loop():
    few = Encoded(np.array([[0.0, 3.0], [9.0, 1.0], [1.0, -1.0]]), np.array([2, 0, 2]))
    count_K, sum_KF, product_FF = PLAN.statistics(0.0)[0].parts(totals(PLAN, [few], 0.0)[0].table)
    half = 2 * 2 ** 0.5
    x = np.array([[-1 / half, 2 / half], [2 / half, 0.0], [0.0, -2 / half]])        # 9 counts as the bound
    assert count_K == pytest.approx([1, 0, 2], abs=1e-9)
    assert sum_KF == pytest.approx(np.array([x[1], [0, 0], x[0] + x[2]]), abs=1e-9)
    assert product_FF == pytest.approx(sum(np.outer(row, row) for row in x), abs=1e-9)
    assert totals(PLAN, [few], 0.0)[0].is_possible


def test_without_noise_drawn_rows_have_the_shares_middles_and_spread_of_the_rows():
    drawn = fitted_clouds(PLAN, totals(PLAN, SITES, 0.0)).sample(40_000, np.random.default_rng(0))
    table_NF, label_N = (np.concatenate([getattr(one, name) for one in SITES]) for name in ("table_NF", "label_N"))
    around = []
    for label in range(3):
        own, made = table_NF[label_N == label], drawn.loc[drawn["label"] == label, ["x0", "x1"]].to_numpy()
        assert len(made) / len(drawn) == pytest.approx(len(own) / len(table_NF), abs=0.01)
        assert made.mean(axis=0) == pytest.approx(own.mean(axis=0), abs=0.02)
        around.append((own - own.mean(axis=0), made - made.mean(axis=0)))
    real, made = (np.cov(np.concatenate(parts).T) for parts in zip(*around, strict=True))
    assert made == pytest.approx(real, rel=0.1, abs=0.003)
    assert drawn[["x0", "x1"]].to_numpy().min() >= -1
    assert drawn[["x0", "x1"]].to_numpy().max() <= 3


def test_noise_moves_the_middles_by_what_it_must():
    exact, asked = fitted_clouds(PLAN, totals(PLAN, SITES, 0.0)), PLAN.statistics(20.0)[0]
    apart = np.array([fitted_clouds(PLAN, totals(PLAN, SITES, 20.0, number)).middle_KF - exact.middle_KF
                      for number in range(60)])
    count_K = asked.parts(totals(PLAN, SITES, 0.0)[0].table)[0]
    # The sum's noise, and that of the count it is divided by.
    expected_KF = 20 * 2 ** 0.5 / count_K[:, None] * np.sqrt(1 / PLACE ** 2 + (exact.middle_KF / 0.2) ** 2)
    assert apart.std(axis=0) == pytest.approx(expected_KF, rel=0.35)


def test_the_same_seed_draws_the_same_rows_and_nothing_is_drawn_of_nobody():
    told = totals(PLAN, SITES, 5.0)
    one, other = (fitted_clouds(PLAN, told).sample(50, np.random.default_rng(3)) for _ in range(2))
    assert one.equals(other)
    nobody = [Encoded(np.zeros((0, 2)), np.zeros(0, np.int64))]
    with pytest.raises(ContractError, match="no records"):
        fitted_clouds(PLAN, totals(PLAN, nobody, 0.0))


def test_rows_of_another_width_or_with_other_labels_are_refused_in_words():
    with pytest.raises(ContractError, match="3 numbers of a row, and the question is about rows of 2"):
        totals(PLAN, [Encoded(np.zeros((2, 3)), np.zeros(2, np.int64))], 0.0)
    with pytest.raises(ContractError, match="labels beyond the 3"):
        totals(PLAN, [Encoded(np.zeros((2, 2)), np.array([0, 3]))], 0.0)
    with pytest.raises(ContractError, match="low must be below high"):
        parse(Clouds, {"labels": 2, "features": 2, "low": 1, "high": 1}, "blueprint")


def test_sums_that_no_rows_give_are_not_possible():
    told = totals(PLAN, SITES, 1.0)[0]
    assert told.is_possible
    numbers = list(told.numbers)
    for place, number in ((0, -1e3), (4, 1e6), (-1, -1e6)):
        lie = told.model_copy(update={"numbers": tuple(number if at == place % len(numbers) else one
                                                       for at, one in enumerate(numbers))})
        assert not Release.model_validate(lie.model_dump()).is_possible


def test_attack_who_has_all_rows_undoes_the_sum_and_noise_stops_it():
    """Half of the rows are in a release, and the attacker guesses which. Without noise it knows: that is its power."""
    rows, draw = site(5, 60), np.random.default_rng(0)

    def told_of(own: np.ndarray, noise_std: float, number: int = 0) -> np.ndarray:
        return np.array(totals(PLAN, [Encoded(rows.table_NF[own], rows.label_N[own])], noise_std, number)[0].numbers)

    few = np.arange(len(PLAN.statistics(0.0)[0].axes[0].labels) - 1)            # as many as the sum has equations for
    added_ES = np.stack([told_of(few[one:one + 1], 0.0) for one in few])
    undone_SE = np.linalg.pinv(added_ES)
    known = np.linalg.matrix_rank(added_ES) == len(few)
    rightly = {0.0: [], 3.0: []}
    for number in range(60):
        member_E = draw.random(len(few)) < 0.5
        for noise_std, found in rightly.items():
            guess_E = told_of(few[member_E], noise_std, number) @ undone_SE > 0.5
            found.append(float((guess_E == member_E).mean()))
    assert known
    assert np.mean(rightly[0.0]) == 1
    assert np.mean(rightly[3.0]) < 0.65


def test_a_classifier_of_drawn_digits_alone_beats_those_of_each_sites_own_draws():
    encoded = STORY.encoded()
    sites = [Encoded(one.table_NF.astype(float), one.targets["y"]) for one in encoded.train.values()]
    test_NF, truth_N = encoded.test.table_NF, encoded.test.targets["y"]

    def reads(of: list[Encoded]) -> float:
        """Nearest middle, of rows drawn from what was noised for epsilon 5."""
        drawn = fitted_clouds(DIGITS, totals(DIGITS, of, 0.9)).sample(3000, np.random.default_rng(0))
        middles = {label: rows.drop(columns="label").to_numpy().mean(axis=0) for label, rows in drawn.groupby("label")}
        far_NK = np.stack([np.square(test_NF - middle).sum(axis=1) for middle in middles.values()], axis=1)
        return float((np.array(list(middles))[far_NK.argmin(axis=1)] == truth_N).mean())

    together, alone = reads(sites), [reads([one]) for one in sites]
    assert together > 0.6
    assert together > max(alone) + 0.1
    assert isinstance(DIGITS.statistics(0.9)[0], ClassSums)
