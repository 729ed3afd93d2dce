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
from fedround.learning.clusters import model_of
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe
from fedround.learning.tasks import Classify
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.clustered import bipartition, is_incongruent
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
    return {f"site-{place}": Site(rows(place % KINDS, 60, seed=place), rows(place % KINDS, 40, seed=100 + place))
            for place in range(sites)}


def agreement(clusters: int = 1, **changes: object) -> Agreement:
    return Agreement.model_validate({
        "name": "kinds", "quorum": 3, "privacy": {"unit": "none"}, "aggregation": {"rule": {"name": "weighted_mean"}},
        "evaluation": {"noise_std": 0.0, "clusters": clusters},
        "training": {"local_steps": 10, "batch_size": 60, "learning_rate": 0.5}} | changes)


def reached(model, kind: int) -> float:
    return RECIPE.task.metrics(scores(RECIPE, model, rows(kind, 500, seed=1000 + kind))).accuracy


def test_the_kinds_are_found_and_each_models_fits_its_kind_as_no_model_fits_all():
    found, one = (simulate(agreement(clusters), RECIPE, world(6), rounds=6, chance=Seeded(0), stacked=True, judge_every=6)
                  for clusters in (KINDS, 1))
    groups = {frozenset(site for site, own in found.picked.items() if own == cluster) for cluster in range(KINDS)}
    assert groups == {frozenset(f"site-{place}" for place in range(kind, 6, KINDS)) for kind in range(KINDS)}
    assert min(reached(found.at(f"site-{kind}"), kind) for kind in range(KINDS)) > 0.8
    assert max(reached(one.at(f"site-{kind}"), kind) for kind in range(KINDS)) < 0.6
    assert min(told.accuracy for told in found.at_sites.values()) > 0.7


def test_every_site_chooses_the_model_with_the_lowest_loss_on_what_it_holds_out():
    """A twin in loops, from the models of the round before. The loss of three labels is the share of wrong ones."""
    before, after = (simulate(agreement(2), RECIPE, world(5), rounds=rounds, chance=Seeded(4)) for rounds in (2, 3))
    for name, site in world(5).items():
        wrong = [sum(truth == 0 for truth in scores(RECIPE, model_of(before.model, cluster, 2), site.validation)["truth"])
                 for cluster in range(2)]
        assert after.picked[name] == wrong.index(min(wrong))


def test_with_more_models_every_site_is_shown_more_and_sends_no_more():
    one, three = (simulate(agreement(clusters), RECIPE, world(), rounds=1, chance=Seeded(0)) for clusters in (1, 3))
    assert one.picked == {}
    assert three.last.received_bytes == one.last.received_bytes
    body = sum(array.nbytes for array in one.model.values())
    assert 9 * body < three.last.sent_bytes - one.last.sent_bytes < 9 * 3 * body


def test_a_model_that_nobody_chose_stays_as_it_is():
    alike = {name: world()[name] for name in ("site-0", "site-3")}
    before, after = (simulate(agreement(2, quorum=1), RECIPE, alike, rounds=rounds, chance=Seeded(0)) for rounds in (1, 2))
    assert set(after.picked.values()) == {(chosen := after.picked["site-0"])}
    for cluster in range(2):
        moved = not np.array_equal(*(flatten(model_of(one.model, cluster, 2)) for one in (before, after)))
        assert moved == (cluster == chosen)


def test_counts_of_every_model_are_paid_by_training_with_more_noise():
    promise = {"unit": "record", "epsilon": 5.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3}
    noise = []
    for clusters in (1, 2):
        plan = agreement(clusters, privacy=promise, evaluation={"noise_std": 5.0, "clusters": clusters})
        found = simulate(plan, RECIPE, world(3), rounds=3, chance=Seeded(0), stacked=True, judge_every=3)
        assert 4.5 < found.epsilon <= 5.0
        noise.append(found.mechanisms["site-0"].noise_multiplier)
    assert noise[1] > 1.05 * noise[0]


@pytest.mark.parametrize(("changes", "message"), [
    ({"privacy": {"unit": "site", "epsilon": 5.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3}}, "under the unit 'site'"),
    ({"optimizer": {"name": "fedadam", "learning_rate": 0.1}}, "leave out a server optimizer with momentum"),
    ({"optimizer": {"name": "fedavg", "momentum": 0.5}}, "leave out a server optimizer with momentum"),
    ({"compression": {"name": "top_k", "share": 0.1}}, "a compression that keeps numbers back"),
    ({"training": {"algorithm": {"name": "scaffold"}}}, "the algorithm 'scaffold'"),
    ({"training": {"rule": {"name": "decay", "every": 2}}}, "training.rule"),
    ({"parts": {"private": ("0.*",)}}, r"leave out \[parts\]"), ({"personal": {"name": "ditto", "pull": 0.1}}, "personal"),
    ({"aggregation": None}, r"say \[aggregation\]"),
    ({"aggregation": {"rule": {"name": "centered_clipping", "radius": 1.0}}}, "the rule 'centered_clipping'"),
    ({"aggregation": {"rule": {"name": "weighted_mean"}, "history": 0.5}}, "aggregation.history"),
    ({"aggregation": {"rule": {"name": "weighted_mean"}, "fairness": {"name": "q_ffl", "q": 1.0, "cap": 2.0}}}, "fairness"),
    ({"reputation": {"window": 2, "exclude_after": 1, "exclude_for": 1}}, "reputation")])
def test_what_is_of_one_model_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        agreement(2, **changes)
    assert agreement(1, **({} if "privacy" in changes else changes)).evaluation.clusters == 1


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
