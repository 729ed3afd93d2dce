"""The server step: FedAvg is addition, momentum is a geometric series."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedround.codec import flatten
from fedround.errors import ContractError
from fedround.optimizers import step
from fedround.types import FedAvg

MODEL = {"b": np.array([10.0, 20.0], dtype=np.float32), "a": np.array([[1.0], [2.0]], dtype=np.float32)}
DELTA_D = np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32)
VECTORS = arrays(np.float32, 4, elements=st.floats(-1e6, 1e6, width=32))


def test_plain_fedavg_adds_the_aggregate_by_name_and_keeps_no_state():
    model, velocity_D = step(MODEL, None, DELTA_D, FedAvg())
    assert velocity_D is None
    assert model["a"].tolist() == [[2.0], [4.0]]        # sorted names: a comes first in the flat vector
    assert model["b"].tolist() == [13.0, 24.0]


def test_the_server_learning_rate_scales_the_step():
    assert flatten(step(MODEL, None, DELTA_D, FedAvg(learning_rate=0.5))[0]).tolist() == [1.5, 3.0, 11.5, 22.0]


def test_momentum_is_a_geometric_series():
    model, velocity_D = MODEL, None
    for _ in range(3):
        model, velocity_D = step(model, velocity_D, DELTA_D, FedAvg(momentum=0.5))
    assert velocity_D.tolist() == (DELTA_D * 1.75).tolist()
    assert flatten(model).tolist() == (flatten(MODEL) + DELTA_D * (1 + 1.5 + 1.75)).tolist()


@given(delta_D=VECTORS, velocity_D=VECTORS, rate=st.floats(0.01, 10), momentum=st.floats(0, 0.99))
def test_the_step_is_the_two_lines_in_float64_and_changes_no_argument(delta_D, velocity_D, rate, momentum):
    before = [a.copy() for a in (delta_D, velocity_D, MODEL["a"], MODEL["b"])]
    model, state_D = step(MODEL, velocity_D, delta_D, FedAvg(learning_rate=rate, momentum=momentum))
    moved_D = [np.float32(momentum * float(v) + float(d)) for v, d in zip(velocity_D, delta_D, strict=True)]
    expected_D = [np.float32(float(m) + rate * float(v)) for m, v in zip(flatten(MODEL), moved_D, strict=True)]
    assert flatten(model).tolist() == expected_D
    assert (state_D is None) if momentum == 0 else (state_D.tolist() == moved_D)
    assert all(np.array_equal(a, b) for a, b in zip(before, (delta_D, velocity_D, MODEL["a"], MODEL["b"]), strict=True))


@pytest.mark.parametrize(("velocity_D", "delta_D"), [
    (None, DELTA_D[:3]), (DELTA_D[:3], DELTA_D), (None, DELTA_D[:, None])])
def test_a_length_that_does_not_fit_is_refused(velocity_D, delta_D):
    with pytest.raises(ContractError, match="expected"):
        step(MODEL, velocity_D, delta_D, FedAvg(momentum=0.5))


def test_a_model_that_is_not_finite_is_never_made():
    with pytest.raises(ContractError, match="range of float32"):
        step(MODEL, None, np.full(4, 3e38, dtype=np.float32), FedAvg(learning_rate=10))
