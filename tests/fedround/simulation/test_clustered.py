"""Sites of several kinds: IFCA finds them, a model for each beats one for all, and updates tell the kinds apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedround.agreement import Agreement
from fedround.codec import flatten
from fedround.errors import ContractError
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe
from fedround.learning.tasks import Classify
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.clustered import bipartition, ifca, is_incongruent, mean_loss
from fedround.simulation.sites import Site

KINDS = 3
RECIPE = Recipe("kinds", "0" * 64, lambda: nn.Sequential(nn.Linear(6, KINDS)), lambda _: None, Classify(classes=KINDS))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def rows(kind: int, count: int, seed: int) -> Examples:
    """The label is where the largest of three features is, moved on by the kind: no model is right for two kinds."""
    features = np.random.default_rng(seed).standard_normal((count, 6)).astype(np.float32)
    return Examples(features, (features[:, :KINDS].argmax(axis=1) + kind) % KINDS)


def world(sites: int = 9) -> dict[str, Site]:
    return {f"site-{place}": Site(rows(place % KINDS, 60, seed=place)) for place in range(sites)}


def agreement(**changes: object) -> Agreement:
    return Agreement.model_validate({
        "name": "kinds", "quorum": 3, "privacy": {"unit": "none"}, "aggregation": {"rule": {"name": "weighted_mean"}},
        "training": {"local_steps": 10, "batch_size": 60, "learning_rate": 0.5}} | changes)


def reached(model, kind: int) -> float:
    return RECIPE.task.metrics(scores(RECIPE, model, rows(kind, 500, seed=1000 + kind))).accuracy


def test_the_kinds_are_found_and_each_models_fits_its_kind_as_no_model_fits_all():
    found = min((ifca(agreement(), RECIPE, world(), clusters=KINDS, rounds=8, seed=seed) for seed in range(3)),
                key=lambda clustered: clustered.loss)
    groups = {frozenset(site for site, own in found.picked.items() if own == cluster) for cluster in range(KINDS)}
    assert groups == {frozenset(f"site-{place}" for place in range(kind, 9, KINDS)) for kind in range(KINDS)}
    clustered = [reached(found.models[found.picked[f"site-{kind}"]], kind) for kind in range(KINDS)]
    one = simulate(agreement(), RECIPE, world(), rounds=8, chance=Seeded(0)).model
    assert min(clustered) > 0.85
    assert max(reached(one, kind) for kind in range(KINDS)) < 0.6


def test_every_site_picks_the_model_with_the_lowest_loss_on_its_own_training_rows():
    heard = []
    sites = world(5)
    ifca(agreement(), RECIPE, sites, clusters=2, rounds=3, seed=4, told=heard.append)
    before, after = heard[-2:]
    for name, site in sites.items():
        losses = [mean_loss(RECIPE, model, site.train) for model in before.models]
        assert after.picked[name] == int(np.argmin(losses))


def test_with_more_models_every_site_is_shown_more_and_sends_no_more():
    one, three = (ifca(agreement(), RECIPE, world(), clusters=clusters, rounds=1, seed=0) for clusters in (1, 3))
    assert set(one.picked.values()) == {0}
    assert three.sent_bytes == one.sent_bytes / 2 * (1 + 3)


def test_a_model_that_nobody_picks_stays_as_it_is():
    heard = []
    alike = {name: world()[name] for name in ("site-0", "site-3")}
    ifca(agreement(quorum=1), RECIPE, alike, clusters=2, rounds=2, seed=0, told=heard.append)
    unpicked = ({0, 1} - set(heard[1].picked.values())).pop()
    assert np.array_equal(flatten(heard[0].models[unpicked]), flatten(heard[1].models[unpicked]))


def test_what_stays_in_memory_or_costs_privacy_is_refused():
    privacy = {"unit": "record", "epsilon": 5.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 8}
    for changes, message in (({"privacy": privacy}, "privacy unit 'none'"),
                             ({"optimizer": {"name": "fedadam", "learning_rate": 0.1}}, "do without optimizer"),
                             ({"compression": {"name": "top_k", "share": 0.1}}, "do without compression"),
                             ({"quorum": 10}, "quorum 10")):
        with pytest.raises(ContractError, match=message):
            ifca(agreement(**changes), RECIPE, world(), clusters=2, rounds=8, seed=0)
    with pytest.raises(ContractError, match="10 clusters of 9 sites"):
        ifca(agreement(), RECIPE, world(), clusters=10, rounds=1, seed=0)


# -- updates -----------------------------------------------------------------------------------------------------------


def largest_cosine_across(delta_ND: np.ndarray, group: set[int]) -> float:
    direction = delta_ND / np.linalg.norm(delta_ND, axis=1, keepdims=True)
    others = [place for place in range(len(delta_ND)) if place not in group]
    return float((direction[sorted(group)] @ direction[others].T).max())


@given(st.integers(2, 7), st.integers(0, 2**31))
def test_no_other_two_groups_are_farther_apart(sites, seed):
    """Against all 2^(N-1) - 1 pairs of groups."""
    delta_ND = np.random.default_rng(seed).standard_normal((sites, 4)).astype(np.float32)
    one, other = bipartition(delta_ND)
    assert sorted((*one, *other)) == list(range(sites))
    assert one[0] == 0
    every = (({0} | {place for place in range(1, sites) if bits >> (place - 1) & 1}) for bits in range(2**(sites - 1) - 1))
    best = min(largest_cosine_across(delta_ND, group) for group in every)
    assert largest_cosine_across(delta_ND, set(one)) == pytest.approx(best, abs=1e-6)


def test_lengths_do_not_matter_and_equal_updates_make_two_groups_all_the_same():
    delta_ND = np.array([[1, 0.1], [0, 1], [100, 1], [-0.1, 3]], np.float32)
    assert bipartition(delta_ND) == ((0, 2), (1, 3))
    assert [len(group) for group in bipartition(np.ones((3, 2), np.float32))].count(0) == 0
    for bad in (np.ones((1, 2)), np.zeros((3, 2)), np.array([[1, np.nan], [1, 1]])):
        with pytest.raises(ContractError, match="two updates at least"):
            bipartition(bad.astype(np.float32))


def test_at_rest_together_the_updates_of_the_kinds_point_apart():
    """One model for two kinds comes to rest; then what each site would still learn tells its kind."""
    kinds = [0, 1, 0, 1, 1, 0]
    sites = {f"site-{place}": Site(rows(kind, 60, seed=place)) for place, kind in enumerate(kinds)}
    plan = agreement(training={"local_steps": 5, "batch_size": 60, "learning_rate": 0.5})
    model = simulate(plan, RECIPE, sites, rounds=25, chance=Seeded(0), stacked=True).model
    single = plan.model_copy(update={"quorum": 1})
    alone = [simulate(single, RECIPE, {name: site}, rounds=1, chance=Seeded(1), model=model).model
             for name, site in sites.items()]
    delta_ND = np.stack([flatten(own) - flatten(model) for own in alone])
    weight_N = np.full(6, 60.0)
    assert is_incongruent(delta_ND, weight_N, still=0.1, moving=0.3)
    assert not is_incongruent(delta_ND[[0, 2, 5]], weight_N[:3], still=0.1, moving=0.3)     # one kind still moves together
    assert bipartition(delta_ND) == ((0, 2, 5), (1, 3, 4))
