"""How trees split: from public settings alone, the same in every version."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.learning.examples import INPUT, TARGET, Examples
from fedround.learning.trees.outputs import outputs
from fedround.learning.trees.spec import LEAVES, Axis, Trees
from fedround.learning.trees.structure import splits
from tests.fedround.learning.trees.planted import TREES, rows, trained

FIRST_FEATURES, FIRST_THRESHOLDS = [2, 0, 1, 0, 1, 0, 0], [0.591447, 0.574268]


def test_structure_is_a_function_of_public_settings_alone_and_grows_at_its_end():
    """No argument holds a row; settings that do not belong to the structure do not change it."""
    few, many = splits(TREES), splits(TREES.model_copy(update={"rounds": 9, "learning_rate": 1.0, "l2": 1.0}))
    assert many.threshold_TM[:TREES.trees].tobytes() == few.threshold_TM.tobytes()
    assert many.feature_TM[:TREES.trees].tobytes() == few.feature_TM.tobytes()
    assert (splits(TREES.model_copy(update={"seed": 1})).threshold_TM != few.threshold_TM).any()


def test_structure_is_the_same_in_every_version():
    found = splits(TREES)
    assert found.feature_TM[0].tolist() == FIRST_FEATURES
    assert found.threshold_TM[0, :2].tolist() == pytest.approx(FIRST_THRESHOLDS, abs=1e-6)


def test_a_split_divides_what_the_splits_above_it_have_left():
    trees = Trees(rounds=50, per_round=1, depth=3, axes=(Axis(either=True), Axis(either=True), Axis(either=True), Axis()))
    found, repeated = splits(trees), 0
    for feature_M, threshold_M in zip(found.feature_TM, found.threshold_TM, strict=True):
        for node in range(1, 7):
            below, low, high = node, 0.0, 1.0
            while below:
                above = (below - 1) // 2
                if feature_M[above] == feature_M[node]:
                    repeated += feature_M[node] < 3
                    at, is_right = threshold_M[above], below % 2 == 0
                    low, high = (max(low, at), high) if is_right else (low, min(high, at))
                below = above
            if feature_M[node] == 3:
                assert low < threshold_M[node] < high
    assert repeated < 10        # of 300 nodes: what is 0 or 1 is asked about once; a fourth of them would be, by chance


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([-1, 1]))
def test_what_should_rise_rises_and_what_should_fall_falls_whatever_the_rows_say(seed, sign):
    """The labels are against it, or chance; every tree keeps it, and so does their sum."""
    trees = TREES.model_copy(update={"axes": (Axis(low=-3, high=3, rises=sign), Axis(low=-3, high=3), Axis(low=-3, high=3))})
    examples = rows(80, seed)
    against_N = (examples.inputs[INPUT][:, 0] * sign < 0).astype(np.int64) if seed % 2 else examples.targets[TARGET]
    model = trained([Examples(examples.inputs[INPUT], against_N)], trees=trees)
    walk_NF = np.repeat(examples.inputs[INPUT][:10], 40, axis=0)
    walk_NF[:, 0] = np.tile(np.linspace(-3, 3, 40), 10)
    steps = np.diff(outputs(trees, model, walk_NF)[:, 0].reshape(10, 40), axis=1) * sign
    assert steps.min() >= -1e-9
    assert seed % 2 or model[LEAVES].any()
