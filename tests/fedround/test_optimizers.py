"""The server step: FedAvg is addition, momentum a geometric series; what each adaptive optimizer is for."""

import tracemalloc
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedround import optimizers
from fedround.codec import flatten
from fedround.errors import ContractError
from fedround.learning.spec import FedAdagrad, FedAdam, FedAvg, FedYogi
from fedround.optimizers import continues, state_schema, step

MODEL = {"b": np.array([10.0, 20.0], dtype=np.float32), "a": np.array([[1.0], [2.0]], dtype=np.float32)}
DELTA_D = np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32)
VECTORS = arrays(np.float32, 4, elements=st.floats(-1e6, 1e6, width=32))
ADAPTIVE = [FedAdagrad(learning_rate=0.1), FedAdam(learning_rate=0.1), FedYogi(learning_rate=0.1)]
ALL = [FedAvg(), FedAvg(momentum=0.5), *ADAPTIVE]


def after(optimizer, *aggregates, state=None):
    """Model and state after steps with these aggregates."""
    model = MODEL
    for aggregate in aggregates:
        model, state = step(model, state, np.full(4, aggregate, np.float32), optimizer)
    return model, state


def test_plain_fedavg_adds_the_aggregate_by_name_and_keeps_no_state():
    model, state = step(MODEL, None, DELTA_D, FedAvg())
    assert state is None
    assert model["a"].tolist() == [[2.0], [4.0]]        # sorted names: a comes first in the flat vector
    assert model["b"].tolist() == [13.0, 24.0]


def test_the_server_learning_rate_scales_the_step():
    assert flatten(step(MODEL, None, DELTA_D, FedAvg(learning_rate=0.5))[0]).tolist() == [1.5, 3.0, 11.5, 22.0]


def test_momentum_is_a_geometric_series():
    model, state = MODEL, None
    for _ in range(3):
        model, state = step(model, state, DELTA_D, FedAvg(momentum=0.5))
    assert state["velocity"].tolist() == (DELTA_D * 1.75).tolist()
    assert flatten(model).tolist() == (flatten(MODEL) + DELTA_D * (1 + 1.5 + 1.75)).tolist()


@given(delta_D=VECTORS, past_D=VECTORS)
@pytest.mark.parametrize("optimizer", ALL, ids=repr)
def test_no_argument_is_changed_and_the_state_is_what_the_schema_says(optimizer, delta_D, past_D):
    schema = state_schema(optimizer, 4)
    state = {spec.name: np.abs(past_D) for spec in schema} or None
    before = [a.copy() for a in (delta_D, np.abs(past_D), MODEL["a"], MODEL["b"])]
    _, following = step(MODEL, state, delta_D, optimizer)
    now = (delta_D, np.abs(past_D) if state is None else state[schema[0].name], MODEL["a"], MODEL["b"])
    assert all(np.array_equal(a, b) for a, b in zip(before, now, strict=True))
    assert {name: v.shape for name, v in (following or {}).items()} == {spec.name: spec.shape for spec in schema}


@given(st.lists(VECTORS, min_size=1, max_size=5))
def test_fedadagrads_steps_only_become_shorter(aggregates):
    state, v_D = None, np.zeros(4)
    for aggregate_D in aggregates:
        _, state = step(MODEL, state, aggregate_D, ADAPTIVE[0])
        assert (state["v"] >= v_D).all()
        v_D = state["v"]


def test_fedadams_v_becomes_the_square_of_what_stays_the_same():
    _, state = after(FedAdam(learning_rate=0.1, beta1=0.5, beta2=0.5), *[3.0] * 40)
    assert state["v"] == pytest.approx(9.0, rel=1e-6)
    assert state["m"] == pytest.approx(3.0, rel=1e-6)


@given(loud=st.floats(10, 1e4), quiet=st.floats(0.01, 1))
def test_fedyogi_forgets_a_loud_round_by_what_quiet_ones_bring_and_fedadam_by_its_size(loud, quiet):
    yogi, adam = (after(kind(learning_rate=0.1, beta2=0.9), loud)[1] for kind in (FedYogi, FedAdam))
    _, then_yogi = after(FedYogi(learning_rate=0.1, beta2=0.9), quiet, state=yogi)
    _, then_adam = after(FedAdam(learning_rate=0.1, beta2=0.9), quiet, state=adam)
    assert yogi["v"] - then_yogi["v"] == pytest.approx(0.1 * quiet ** 2, abs=1e-6 * loud ** 2)
    assert adam["v"] - then_adam["v"] == pytest.approx(0.1 * (adam["v"] - quiet ** 2), rel=1e-3)


@pytest.mark.parametrize("optimizer", ADAPTIVE, ids=lambda optimizer: optimizer.name)
@given(scale=st.floats(0.5, 1e4))
def test_a_coordinate_moves_by_about_the_learning_rate_whatever_its_scale(optimizer, scale):
    """The first step of a coordinate, in learning rates: (1 - beta1) / sqrt(1 - beta2), however large its aggregate is."""
    first = (1 - optimizer.beta1) / np.sqrt(1 - getattr(optimizer, "beta2", 0.0))
    model, _ = after(optimizer, scale)
    assert flatten(model) - flatten(MODEL) == pytest.approx(0.1 * first, rel=0.03)


@pytest.mark.parametrize("kind", [FedAdagrad, partial(FedAdam, beta2=0.999999), FedYogi])
def test_where_tau_is_far_above_every_aggregate_it_is_fedavg_with_momentum(kind):
    """Reddi et al. 2021: tau is how adaptive an optimizer is; a large one leaves m / tau, and v at tau²."""
    tiny = [1e-2, -2e-2, 3e-2]
    adaptive, _ = after(kind(learning_rate=1.0, beta1=0.5, tau=1.0), *tiny)
    averaged, _ = after(FedAvg(learning_rate=0.25, momentum=0.5), *tiny)     # (1 - beta1) / (sqrt(tau²) + tau)
    assert flatten(adaptive) == pytest.approx(flatten(averaged), abs=1e-5)


@pytest.mark.parametrize("optimizer", ALL, ids=repr)
def test_blocks_change_nothing(monkeypatch, optimizer):
    whole = after(optimizer, 1.0, -2.0, 0.5)
    monkeypatch.setattr(optimizers, "_BLOCK", 3)
    cut = after(optimizer, 1.0, -2.0, 0.5)
    assert np.array_equal(flatten(whole[0]), flatten(cut[0]))
    assert (whole[1] is None) == (cut[1] is None)
    assert all(np.array_equal(vector_D, cut[1][name]) for name, vector_D in (whole[1] or {}).items())


def test_a_state_is_continued_by_its_own_kind_only():
    assert continues(FedAdam(learning_rate=0.1), FedAdam(learning_rate=0.2))
    assert continues(FedAvg(momentum=0.5), FedAvg(momentum=0.9))
    for before in (None, FedAvg(), FedYogi(learning_rate=0.1)):
        assert not continues(FedAdam(learning_rate=0.1), before)
    assert not continues(FedAvg(momentum=0.5), FedAvg())
    with pytest.raises(ContractError, match="continues"):
        step(MODEL, {"velocity": DELTA_D}, DELTA_D, FedAdam(learning_rate=0.1))
    with pytest.raises(ContractError, match="continues"):
        step(MODEL, {"velocity": DELTA_D}, DELTA_D, FedAvg())


@pytest.mark.parametrize(("velocity_D", "delta_D"), [
    (None, DELTA_D[:3]), (DELTA_D[:3], DELTA_D), (None, DELTA_D[:, None])])
def test_a_length_that_does_not_fit_is_refused(velocity_D, delta_D):
    with pytest.raises(ContractError, match="expected"):
        step(MODEL, None if velocity_D is None else {"velocity": velocity_D}, delta_D, FedAvg(momentum=0.5))


@pytest.mark.parametrize("optimizer", [FedAvg(learning_rate=10.0), *ADAPTIVE], ids=lambda optimizer: optimizer.name)
def test_a_model_or_a_state_that_is_not_finite_is_never_made(optimizer):
    with pytest.raises(ContractError, match="range of float32"):
        after(optimizer, 3e38)


def test_no_more_is_held_than_what_is_returned_and_a_block(monkeypatch):
    monkeypatch.setattr(optimizers, "_BLOCK", 1 << 12)
    model, delta_D = {"a": np.zeros(1_000_000, np.float32)}, np.ones(1_000_000, np.float32)
    tracemalloc.start()
    try:
        step(model, None, delta_D, FedAvg(momentum=0.5))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * 4_000_000 + 500_000
