"""The local step against the papers' loops: one coordinate, one Python float, one line of the algorithm at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.learning.algorithms import FedProx, Scaffold
from fedround.learning.descent import Descent
from fedround.learning.spec import LocalTraining

RATE = 0.25
GRADIENTS = st.lists(st.floats(-10, 10), min_size=1, max_size=8)
BASE = 1.5


def float32(number: float) -> float:
    return float(np.float32(number))


def ours(training: LocalTraining, gradients: list[float], shift: float | None = None) -> float:
    """Where one coordinate ends that begins at BASE."""
    base_D, weights_D = np.full(1, BASE, np.float32), np.full(1, BASE, np.float32)
    descent = Descent(training, base_D, None if shift is None else np.full(1, shift, np.float32))
    for gradient in gradients:
        weights_D += descent.change(weights_D, np.full(1, gradient))
    return float(weights_D[0])


@given(GRADIENTS)
def test_sgd_with_momentum(gradients):
    y, velocity = BASE, 0.0
    for g in gradients:
        velocity = 0.5 * velocity + g
        y = float32(y - float32(RATE * velocity))
    assert ours(LocalTraining(learning_rate=RATE, momentum=0.5), gradients) == y


@given(GRADIENTS)
def test_fedprox_steps_down_the_gradient_of_its_objective(gradients):
    """Li et al. 2020, equation 2: the gradient of F(y) + mu/2 |y - base|²."""
    y = BASE
    for g in gradients:
        y = float32(y - float32(RATE * (g + 2.0 * (y - BASE))))
    assert ours(LocalTraining(learning_rate=RATE, algorithm=FedProx(mu=2.0)), gradients) == pytest.approx(y, abs=1e-5)


@given(GRADIENTS)
def test_adam(gradients):
    """Kingma and Ba 2015, algorithm 1."""
    y, m, v = BASE, 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        y = float32(y - RATE * (m / (1 - 0.9 ** t)) / (math.sqrt(v / (1 - 0.999 ** t)) + 1e-8))
    assert ours(LocalTraining(learning_rate=RATE, optimizer="adam"), gradients) == pytest.approx(y, abs=1e-5)


@given(st.lists(st.lists(st.floats(-10, 10), min_size=4, max_size=4), min_size=1, max_size=5), st.integers(1, 3))
def test_scaffold_is_algorithm_1_with_option_ii(rounds, sampled):
    """Karimireddy et al. 2020: three sites, of which the first `sampled` take part in every round after the first."""
    steps, sites = 4, 3
    scaffold = Scaffold()
    training = LocalTraining(learning_rate=RATE, local_steps=steps, algorithm=scaffold)
    c, own = 0.0, [0.0] * sites
    our_c, our_own = {}, [{}] * sites
    for number, gradients in enumerate(rounds):
        part = range(sites if number == 0 else sampled)
        changes, controls, our_deltas = [], [], []
        for i in part:
            y = BASE
            for g in gradients:
                y -= RATE * ((g + i) - own[i] + c)
            changes.append(y - BASE)
            controls.append(own[i] - c + (BASE - y) / (steps * RATE))
            shift = scaffold.shift(our_c, our_own[i])
            moved = ours(training, [g + i for g in gradients], None if shift is None else float(shift[0])) - BASE
            our_deltas.append(np.full(1, moved, np.float32))
            our_own[i] = scaffold.at_site(shift, our_deltas[-1], training)
        c += len(part) / sites * sum(new - own[i] for i, new in zip(part, controls, strict=True)) / len(part)
        for i, new in zip(part, controls, strict=True):
            own[i] = new
        our_c = scaffold.at_server(our_c, np.mean(our_deltas, axis=0), training, len(part) / sites)
        assert np.array(our_deltas).ravel() == pytest.approx(changes, abs=1e-3)
        assert our_c["control"][0] == pytest.approx(c, abs=1e-3)
        assert [float(our_own[i]["control"][0]) for i in part] == pytest.approx([own[i] for i in part], abs=1e-3)
