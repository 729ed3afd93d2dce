"""The server step against Algorithm 2 of Reddi et al. 2021 (and FedAvgM), one coordinate and one Python float at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.learning.spec import FedAdagrad, FedAdam, FedAvg, FedYogi
from fedround.optimizers import step

OPTIMIZERS = [
    FedAvg(learning_rate=0.7), FedAvg(learning_rate=0.7, momentum=0.8), FedAdagrad(learning_rate=0.1, beta1=0.3, tau=0.01),
    FedAdam(learning_rate=0.1, beta1=0.8, beta2=0.9, tau=0.01), FedYogi(learning_rate=0.1, beta1=0.8, beta2=0.9, tau=0.01)]
ROUNDS = st.lists(st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3), min_size=1, max_size=6)


def float32(number: float) -> float:
    return float(np.float32(number))


def slow(optimizer, rounds: list[list[float]]) -> list[float]:
    """Every coordinate of a model that begins at 1, 2, 3."""
    end = []
    for begin, aggregates in zip((1.0, 2.0, 3.0), zip(*rounds, strict=True), strict=True):
        x, velocity, m, v = begin, 0.0, 0.0, getattr(optimizer, "tau", 0.0) ** 2
        for delta in aggregates:
            if optimizer.name == "fedavg":
                velocity = float32(optimizer.momentum * velocity + delta)
                x = float32(x + optimizer.learning_rate * velocity)
                continue
            m = float32(optimizer.beta1 * m + (1 - optimizer.beta1) * delta)
            if optimizer.name == "fedadagrad":
                v = float32(v + delta ** 2)
            elif optimizer.name == "fedadam":
                v = float32(optimizer.beta2 * v + (1 - optimizer.beta2) * delta ** 2)
            elif v > delta ** 2:
                v = float32(v - (1 - optimizer.beta2) * delta ** 2)
            elif v < delta ** 2:
                v = float32(v + (1 - optimizer.beta2) * delta ** 2)
            x = float32(x + optimizer.learning_rate * (m / (math.sqrt(v) + optimizer.tau)))
        end.append(x)
    return end


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
@given(rounds=ROUNDS)
def test_the_step_is_the_loop(optimizer, rounds):
    model, state = {"w": np.array([1, 2, 3], np.float32)}, None
    for aggregate in rounds:
        model, state = step(model, state, np.array(aggregate, np.float32), optimizer)
    assert model["w"].tolist() == slow(optimizer, rounds)
