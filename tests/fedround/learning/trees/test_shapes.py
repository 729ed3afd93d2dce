"""Trees that ask about few features each; about one: the model is the sum of its shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.codec import flatten
from fedround.errors import ContractError
from fedround.learning.examples import Examples
from fedround.learning.tasks import CLASSIFY
from fedround.learning.trees.outputs import outputs
from fedround.learning.trees.server import grow
from fedround.learning.trees.shapes import noise_in_leaves, shapes
from fedround.learning.trees.site import sums
from fedround.learning.trees.spec import GROWN, LEAVES, Axis, Trees
from fedround.learning.trees.structure import splits
from fedround.privacy.noise import stream
from fedround.privacy.spec import RowSum

TREES = Trees(rounds=3, per_round=8, depth=3, learning_rate=0.1, l2=0.05, features_per_tree=1,
              axes=(Axis(), Axis(low=-2, high=2, chance=3), Axis(either=True), Axis(chance=0)))


def changed(**what: object) -> Trees:
    return Trees(**{**dict(TREES), **what})


def model_of(trees: Trees, leaf_TLK: np.ndarray, count: int) -> dict[str, np.ndarray]:
    return {GROWN: np.array([count], np.float32), LEAVES: leaf_TLK.astype(np.float32)}


@given(st.integers(1, 3), st.integers(0, 50))
def test_every_split_of_a_tree_asks_about_one_of_its_few_features(few, seed):
    trees = changed(features_per_tree=few, seed=seed)
    found = splits(trees)
    assert all(len(set(feature_M)) <= few for feature_M in found.feature_TM)
    assert 3 not in found.feature_TM
    longer = splits(changed(features_per_tree=few, seed=seed, rounds=5))
    assert np.array_equal(longer.feature_TM[:trees.trees], found.feature_TM)
    assert np.array_equal(longer.threshold_TM[:trees.trees], found.threshold_TM)


def test_features_are_drawn_by_their_chances():
    feature_T = splits(changed(rounds=100, per_round=30)).feature_TM[:, 0]
    assert np.bincount(feature_T, minlength=4) / 3000 == pytest.approx([0.2, 0.6, 0.2, 0.0], abs=0.03)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3), st.sampled_from([1, 3]))
def test_a_model_is_the_sum_of_its_shapes(seed, rounds, width):
    """To the last bit: these leaves are multiples of 2**-10, whose sums are exact in any order."""
    generator = np.random.default_rng(seed)
    leaf_TLK = generator.integers(-2000, 2000, (TREES.trees, TREES.leaves, width)) / 1024
    model = model_of(TREES, leaf_TLK, rounds * TREES.per_round)
    at_an_edge = splits(TREES).threshold_TM.ravel()[generator.integers(0, 100, (40, 4))]
    x_NF = np.concatenate([at_an_edge, generator.normal(size=(40, 4))]).astype(np.float32)
    found = shapes(TREES, model)
    assert np.array_equal(sum((one.at(x_NF[:, one.feature]) for one in found), np.zeros((80, width))),
                          outputs(TREES, model, x_NF))


def test_the_told_noise_of_a_round_is_the_spread_of_repeats():
    """One round: nothing takes back what the noise did."""
    trees, generator = changed(rounds=1), np.random.default_rng(5)
    rows = Examples(generator.normal(size=(4000, 4)).astype(np.float32), generator.integers(0, 2, 4000))
    nothing = model_of(trees, np.zeros((trees.trees, trees.leaves, 1)), 0)
    z, values = 20.0, []
    for repeat in range(60):
        sent = sums(trees, CLASSIFY, nothing, rows, RowSum(noise_multiplier=z), stream(bytes(32), b"%d" % repeat))
        model = grow(trees, CLASSIFY, nothing, flatten(sent), None, noised=True)
        values.append(shapes(trees, model)[1].value_QK[:, 0])
    told = noise_in_leaves(trees, CLASSIFY, model, rows, np.array([z * np.sqrt(trees.per_round) / len(rows)]))
    seen_Q, std_Q = np.std(values, axis=0), shapes(trees, model, told)[1].std_QK[:, 0]
    assert np.median(std_Q / seen_Q) == pytest.approx(1, abs=0.15)
    assert (std_Q > 0).all()


def test_where_trees_ask_about_several_features_there_is_no_shape():
    trees = changed(features_per_tree=None)
    with pytest.raises(ContractError, match="features_per_tree = 1"):
        shapes(trees, model_of(trees, np.zeros((24, 8, 1)), 0))
