"""Several models, each from the updates of those who chose it: laws, a naive twin, and a model with too few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround import codec
from fedround.aggregation.rows import ArrayNumbers, Row
from fedround.aggregation.verdict import Verdict
from fedround.agreement import Agreement
from fedround.errors import ContractError
from fedround.learning.clusters import chosen, model_of, schema_of_one, seeds, together
from fedround.learning.tasks import CLASSIFY
from fedround.privacy.spec import GaussianCounts
from fedround.rounds.clusters import combine_each
from fedround.statistics import LocalEvaluation, Release

MODEL = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([7], np.float32)}


def terms(clusters: int, rule: str = "weighted_mean", **more: object):
    return Agreement.model_validate({
        "name": "rounds", "quorum": 3, "privacy": {"unit": "none"}, "aggregation": {"rule": {"name": rule, **more}},
        "evaluation": {"noise_std": 0.0, "clusters": clusters}}).terms()


def row(site: str, update_D: np.ndarray, weight: float = 1.0) -> Row:
    return Row(site, weight, ArrayNumbers(update_D.astype(np.float32)), None)


def combined(rows, picked, clusters=2, **how):
    models = codec.schema_of(together([MODEL] * clusters))
    done = combine_each(terms(clusters, **how), models, rows, picked, seed=b"seed")
    return done, [codec.flatten(model_of(codec.unflatten(done.result.delta_D, models), cluster, clusters))
                  for cluster in range(clusters)]


def test_models_travel_as_one_and_are_found_again():
    others = {name: array + 100 for name, array in MODEL.items()}
    both = together([MODEL, others])
    assert {name: array.shape for name, array in both.items()} == {"a": (2, 2, 3), "b": (2, 1)}
    for cluster, one in enumerate((MODEL, others)):
        assert all(np.array_equal(model_of(both, cluster, 2)[name], one[name]) for name in one)
    assert schema_of_one(codec.schema_of(both), 2) == codec.schema_of(MODEL)
    assert together([MODEL]) is MODEL is model_of(MODEL, 0, 1)
    assert len(set(seeds(5, 20))) == 20
    assert seeds(5, 20)[:2] == seeds(5, 2)
    for wrong, many in ((lambda: model_of(both, 2, 2), 2), (lambda: model_of(both, 0, 3), 3),
                        (lambda: schema_of_one(codec.schema_of(both), 3), 3), (lambda: model_of(MODEL, 0, 2), 2)):
        with pytest.raises(ContractError, match=f"{many} models"):
            wrong()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2 ** 31), st.floats(0.5, 4)), min_size=1, max_size=7),
       st.randoms())
def test_each_is_the_mean_of_those_who_chose_it_in_any_order_and_one_that_nobody_chose_stays(sites, random):
    """Against two loops."""
    rows = [row(f"site-{place}", np.random.default_rng(seed).normal(size=7), weight)
            for place, (_, seed, weight) in enumerate(sites)]
    picked = {one.site: sites[place][0] for place, one in enumerate(rows)}
    _, found = combined(rows, picked, 3)
    for cluster in range(3):
        total_D, weight = np.zeros(7), 0.0
        for one in rows:
            if picked[one.site] == cluster:
                block_D = np.empty(7, np.float32)
                one.numbers.read(0, block_D)
                total_D, weight = total_D + one.weight * block_D, weight + one.weight
        assert np.allclose(found[cluster], total_D / weight if weight else 0, atol=1e-6)
    shuffled = random.sample(rows, len(rows))
    assert all(np.array_equal(one, other) for one, other in zip(found, combined(shuffled, picked, 3)[1], strict=True))


def test_a_liar_moves_no_other_model_and_a_model_with_too_few_stays():
    """A trimmed mean of one liar needs three."""
    honest = [row(f"site-{place}", np.full(7, place, float)) for place in range(4)]
    picked = {one.site: 0 for one in honest} | {"liar": 1}
    done, found = combined([*honest, row("liar", np.full(7, 1e9))], picked, rule="trimmed_mean", f=1)
    assert np.allclose(found[0], 1.5)
    assert not found[1].any()
    assert done.result.standings["liar"].verdict is Verdict.FEW
    assert "N >= 2f+1" in done.result.standings["liar"].reason
    assert done.result.note.startswith("model 1 stays as it is")
    assert done.used == [one.site for one in honest]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stops_no_other_model(bad):
    """The rule bears it where three remain of those who chose the model, and that model stays where they do not."""
    rows = [row(f"site-{place}", np.full(7, 1.0 + place)) for place in range(6)]
    rows[5] = row("site-5", np.full(7, bad))
    _, found = combined(rows, {one.site: int(place > 2) for place, one in enumerate(rows)}, rule="trimmed_mean", f=1)
    assert np.allclose(found[0], 2.0)
    assert np.isfinite(found[1]).all()


def told(right: float, rows: float = 100.0, noise: float = 1.0) -> Release:
    """So much of the rows' chance is where the truth is."""
    statistic = CLASSIFY.statistic(LocalEvaluation(bins=2, noise_std=noise))
    return Release(statistic=statistic, numbers=(0.0, 0.0, rows * (1 - right), rows * right),
                   mechanism=GaussianCounts(noise_std=noise))


def test_the_choice_is_the_lowest_loss_the_first_of_equals_and_what_noise_hides_is_the_worst():
    assert chosen(1, CLASSIFY, ()) is None
    assert chosen(3, CLASSIFY, [told(0.5), told(0.9), told(0.8)]) == 1
    assert chosen(2, CLASSIFY, [told(0.7), told(0.7)]) == 0
    assert chosen(2, CLASSIFY, [told(0.9, rows=1), told(0.2)]) == 1
    assert chosen(2, CLASSIFY, [told(0.9, rows=1), told(0.9, rows=1)]) == 0
    for wrong in ((), (told(0.5),), (told(0.5),) * 3):
        with pytest.raises(ContractError, match=f"scores of {len(wrong)} models? are told, and a site chooses among 2"):
            chosen(2, CLASSIFY, wrong)
