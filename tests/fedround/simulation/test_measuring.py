"""Questions that make no model, asked of simulated sites: exact without noise, of the law that is charged with it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from fedround.agreement import Agreement
from fedround.errors import ContractError, QuorumError
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.replaced import replaced
from fedround.privacy.accounting import epsilon
from fedround.privacy.spec import GaussianCounts
from fedround.simulation.chance import Seeded
from fedround.simulation.measuring import measure
from fedround.simulation.sites import Site
from fedround.statistics import GroupCounts, Histogram, Importance, Scores

RECIPE = Recipe("two", "0" * 64, lambda: nn.Sequential(nn.Linear(3, 1)), lambda rows: rows)
AGREED = Agreement.model_validate({"name": "counted", "quorum": 2, "privacy": {"unit": "none"},
                                   "aggregation": {"rule": {"name": "weighted_mean"}}})
EDGES = (20.0, 40.0, 60.0)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def site(seed: int, rows: int = 60) -> Site:
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(2, rows, 3)).astype(np.float32), generator.integers(0, 2, (2, rows))
    age = generator.uniform(0, 90, 2 * rows)
    age[::7] = np.nan
    sex = generator.choice(np.array(["f", "m", None], dtype=object), 2 * rows)
    return Site(Examples(x[0], y[0]), Examples(x[1], y[1]), columns={"age": age, "sex": sex})


SITES = {name: site(seed) for seed, name in enumerate(("north", "east", "south"))}


def ages(noise_std: float) -> Histogram:
    return Histogram(noise_std=noise_std, column="age", edges=EDGES)


def sexes(noise_std: float) -> GroupCounts:
    return GroupCounts(noise_std=noise_std, by=({"column": "sex", "values": ("f", "m")},))


def test_without_noise_it_is_what_numpy_counts_at_each_site_and_in_all():
    told = measure(AGREED, RECIPE, SITES, (ages(0.0), sexes(0.0), Scores(noise_std=0.0, bins=5)), chance=Seeded(0))
    assert list(told.at_sites) == ["east", "north", "south"]
    pooled = {name: np.concatenate([one.columns[name] for one in SITES.values()]) for name in ("age", "sex")}
    for (histogram, groups, _), age, sex in (
            *((told.at_sites[name], one.columns["age"], one.columns["sex"]) for name, one in SITES.items()),
            (told.totals, pooled["age"], pooled["sex"])):
        there = age[~np.isnan(age)]
        counted, _ = np.histogram(there, bins=(-np.inf, *EDGES, np.inf))
        assert histogram.table.tolist() == [*counted, np.isnan(age).sum()]
        assert groups.table.tolist() == [(sex == "f").sum(), (sex == "m").sum(), sum(one is None for one in sex)]
    for name, one in SITES.items():
        marks = scores(RECIPE, initial_tensors(RECIPE, 0), one.validation)
        for truth in (0, 1):
            counted, _ = np.histogram(marks["score"][marks["truth"] == truth], bins=5, range=(0, 1))
            assert told.at_sites[name][2].table[truth].tolist() == counted.tolist()


def test_columns_are_replaced_as_in_a_live_site():
    asked = Importance(noise_std=0.0, model="5e" * 32, judged=Scores(noise_std=0.0, bins=5), of=(
        {"column": "a", "places": (0,)}, {"column": "b", "places": (1, 2)}), public=((0.0, 1.0, 2.0), (3.0, -1.0, 0.5)))
    told = measure(AGREED, RECIPE, SITES, (asked,), chance=Seeded(0))
    for name, one in SITES.items():
        changed = [one.validation, *(replaced(one.validation, np.array(asked.public), part.places, bytes.fromhex(asked.model))
                                     for part in asked.of)]
        for table, rows in zip(told.at_sites[name][0].table, changed, strict=True):
            marks = scores(RECIPE, initial_tensors(RECIPE, 0), rows)
            expected = [np.histogram(marks["score"][marks["truth"] == truth], bins=5, range=(0, 1))[0] for truth in (0, 1)]
            assert np.rint(table).tolist() == np.array(expected).tolist()


def test_with_noise_every_site_draws_its_own_of_the_size_that_is_charged_and_all_together_have_the_sum():
    columns = {"age": np.zeros(20)}
    many = {f"site-{number:02d}": dataclasses.replace(SITES["north"], columns=columns) for number in range(64)}
    wide = Histogram(noise_std=4.0, column="age", edges=tuple(map(float, range(1, 40))))
    told = measure(AGREED, RECIPE, many, (wide, ages(4.0)), chance=Seeded(0))
    noise_SB = np.stack([release.table for release, _ in told.at_sites.values()])
    noise_SB[:, 0] -= 20
    assert noise_SB.std() == pytest.approx(4.0, rel=5 / math.sqrt(2 * noise_SB.size))
    assert abs(noise_SB.mean()) < 5 * 4.0 / math.sqrt(noise_SB.size)
    correlations = np.corrcoef(noise_SB)[np.triu_indices(len(many), 1)]
    assert abs(correlations.mean()) < 5 / math.sqrt(len(correlations) * noise_SB.shape[1])
    assert told.totals[0].noise_std == pytest.approx(4.0 * 8)
    assert told.totals[0].table == pytest.approx(np.sum([release.table for release, _ in told.at_sites.values()], axis=0))
    first, second = (np.array([releases[place].numbers[1:5] for releases in told.at_sites.values()]) for place in (0, 1))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 5 / 16, "two statistics of one question share no noise"


def test_it_costs_what_its_mechanisms_cost_together():
    told = measure(AGREED, RECIPE, SITES, (ages(5.0), sexes(8.0)), chance=Seeded(0))
    assert told.epsilon(1e-5) == epsilon([GaussianCounts(noise_std=5.0), GaussianCounts(noise_std=8.0)], 1e-5)
    assert told.epsilon(1e-5, "site") == math.inf
    assert measure(AGREED, RECIPE, SITES, (ages(5.0), sexes(0.0)), chance=Seeded(0)).epsilon(1e-5) == math.inf


def test_same_seed_same_numbers_another_seed_or_round_others():
    one, same, other, later = (measure(AGREED, RECIPE, SITES, (ages(3.0),), chance=Seeded(seed), number=number).totals
                               for seed, number in ((0, 0), (0, 0), (1, 0), (0, 1)))
    assert one == same
    assert len({one, other, later}) == 3


def test_the_scores_are_those_of_the_model_that_is_given():
    model = {name: array + 3 for name, array in initial_tensors(RECIPE, 0).items()}
    asked = (Scores(noise_std=0.0, bins=5),)
    begun, given = (measure(AGREED, RECIPE, SITES, asked, chance=Seeded(0), model=start).totals for start in (None, model))
    assert begun != given


def test_a_site_that_cannot_answer_and_a_quorum_that_is_not_met_are_said():
    with pytest.raises(ContractError, match="site 'east': there is no column 'weight'; there are age, sex"):
        measure(AGREED, RECIPE, SITES, (Histogram(noise_std=1.0, column="weight", edges=(1.0,)),), chance=Seeded(0))
    bare = {**SITES, "west": Site(SITES["north"].train)}
    with pytest.raises(ContractError, match="site 'west': the site holds out no rows"):
        measure(AGREED, RECIPE, bare, (Scores(noise_std=1.0, bins=5),), chance=Seeded(0))
    with pytest.raises(QuorumError, match="1 site answers, the quorum is 2"):
        measure(AGREED, RECIPE, {"north": SITES["north"]}, (ages(1.0),), chance=Seeded(0))
