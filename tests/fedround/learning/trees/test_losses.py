"""The slopes of each task's loss, and what trees learn of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.codec import flatten
from fedround.errors import ContractError
from fedround.learning.examples import INPUT, TARGET, Examples
from fedround.learning.tasks import CLASSIFY, Count, NextToken, Regress, Survive
from fedround.learning.trees.losses import outputs_of, slopes
from fedround.learning.trees.outputs import grown, outputs
from fedround.learning.trees.spec import LEAVES
from tests.fedround.learning.trees.planted import THREE, TREES, F, nothing, rows, trained


@given(st.floats(0, 1), st.integers(0, 1))
def test_a_row_of_two_classes_is_never_longer_than_one(chance, label):
    output = np.array([[math.log(max(chance, 1e-300)) - math.log1p(-min(chance, 1 - 1e-16))]])
    g, h = slopes(CLASSIFY, output, {TARGET: np.array([label])})
    assert g[0, 0] ** 2 + CLASSIFY.steepness.curvature ** 2 * h[0, 0] ** 2 <= 1 + 1e-12


@given(st.lists(st.floats(-40, 40), min_size=3, max_size=3), st.integers(0, 2))
def test_a_row_of_more_classes_is_never_longer_than_the_square_root_of_two(output, label):
    g_NK, h_NK = slopes(THREE, np.array([output]), {TARGET: np.array([label])})
    bound = THREE.steepness
    assert np.sum(g_NK ** 2) + bound.curvature ** 2 * np.sum(h_NK ** 2) <= bound.length ** 2 + 1e-12


SPENT = {TARGET: np.array([1.0, 5, 9, 3, 7], np.float32)}
NUMBERS = {
    "squared": (Regress(bounds=(0.0, 10.0)), SPENT),
    "huber": (Regress(bounds=(0.0, 10.0), loss="huber"), SPENT),
    "quantile": (Regress(bounds=(0.0, 10.0), loss="quantile", quantile=0.9), SPENT),
    "count": (Count(max=20.0), {TARGET: np.array([0.0, 1, 2, 5, 9], np.float32)}),
    "survival": (Survive(edges=(1.0, 2.0, 4.0)), {"time": np.array([0.5, 1.5, 1.0, 9, 3], np.float32),
                                                  "event": np.array([1, 1, 0, 1, 0])})}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_counts_and_times_have_the_slopes_of_their_loss(name):
    import torch

    task, targets = NUMBERS[name]
    raw_NK = np.random.default_rng(3).normal(size=(5, outputs_of(task)))
    raw = torch.from_numpy(raw_NK).requires_grad_()
    task.losses(task.outputs(raw, 5), {key: torch.from_numpy(array) for key, array in targets.items()}).sum().backward()
    g_NK, h_NK = slopes(task, raw_NK, targets)
    assert g_NK == pytest.approx(raw.grad.numpy(), abs=1e-6)
    assert (h_NK >= 0).all()


@pytest.mark.parametrize("name", NUMBERS)
def test_trees_learn_numbers_counts_and_times_and_pooled_is_federated(name):
    task, targets = NUMBERS[name]
    generator = np.random.default_rng(4)
    features_NF, place_N = generator.normal(size=(120, F)).astype(np.float32), generator.integers(0, 5, 120)
    features_NF[:, 0] = place_N / 5
    everything = Examples(features_NF, {key: array[place_N] for key, array in targets.items()})
    parts = [everything.at(slice(start, start + 30)) for start in range(0, 120, 30)]
    pooled = trained([everything], task)
    assert flatten(trained(parts, task)).tobytes() == flatten(pooled).tobytes()
    before, after = (_mean_loss(task, model, everything) for model in (nothing(task), pooled))
    assert after < before


def _mean_loss(task, model, examples) -> float:
    import torch

    raw = torch.from_numpy(outputs(TREES, model, examples.inputs[INPUT]))
    return float(task.losses(task.outputs(raw, len(examples)),
                             {key: torch.from_numpy(array) for key, array in examples.targets.items()}).mean())


def test_a_task_that_is_no_number_of_a_row_is_refused_in_words():
    with pytest.raises(ContractError, match="take a model of your own"):
        outputs_of(NextToken(vocabulary=5))


def test_derivatives_are_those_of_the_loss():
    for task in (CLASSIFY, THREE):
        outputs_NK, labels_N = np.random.default_rng(0).normal(size=(5, outputs_of(task))), np.arange(5) % task.classes
        g_NK, h_NK = slopes(task, outputs_NK, {TARGET: labels_N})
        for place in np.ndindex(outputs_NK.shape):
            up, down = outputs_NK.copy(), outputs_NK.copy()
            up[place] += 1e-5
            down[place] -= 1e-5
            assert g_NK[place] == pytest.approx((_loss(task, up, labels_N) - _loss(task, down, labels_N)) / 2e-5, abs=1e-8)
            above, below = (slopes(task, moved, {TARGET: labels_N})[0][place] for moved in (up, down))
            assert h_NK[place] == pytest.approx((above - below) / 2e-5, abs=1e-8)


def _loss(task, output_NK, labels_N) -> float:
    if task.classes == 2:
        sign_N = 2 * labels_N - 1
        return float(np.log1p(np.exp(-sign_N * output_NK[:, 0])).sum())
    return float((np.log(np.exp(output_NK).sum(axis=1)) - output_NK[np.arange(len(labels_N)), labels_N]).sum())


def test_more_classes_grow_as_many_outputs_in_every_tree():
    model = trained([rows(90, 5, 3)], THREE)
    assert model[LEAVES].shape == (TREES.trees, TREES.leaves, 3)
    assert grown(model) == TREES.trees
    assert all(model[LEAVES][:, :, output].any() for output in range(3))
