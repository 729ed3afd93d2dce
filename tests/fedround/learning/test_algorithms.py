"""What every local algorithm promises, whichever it is: a new member of the union is judged by the same laws."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.learning.algorithms import Algorithm, FedProx, LocalAlgorithm, Plain, Scaffold
from fedround.learning.spec import LocalTraining

UNION = get_args(get_args(Algorithm)[0])
EXAMPLES: dict[type[LocalAlgorithm], LocalAlgorithm] = {Plain: Plain(), FedProx: FedProx(mu=0.5), Scaffold: Scaffold()}
"""One value of each."""
EVERY = pytest.mark.parametrize("algorithm", EXAMPLES.values(), ids=lambda algorithm: algorithm.name)
D = 4
VECTOR = st.lists(st.floats(-10, 10, width=32), min_size=D, max_size=D).map(lambda found: np.array(found, np.float32))
MEAN = Aggregation(rule=WeightedMean())


def training(algorithm: LocalAlgorithm) -> LocalTraining:
    return LocalTraining(local_steps=5, learning_rate=0.25, algorithm=algorithm)


def some(names: tuple[str, ...]):
    """Vectors with these names, or some of them."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, VECTOR))


def test_every_member_of_the_union_is_tested_here():
    assert set(EXAMPLES) == set(UNION)
    assert len({algorithm.name for algorithm in EXAMPLES.values()}) == len(UNION)


@EVERY
@given(data=st.data())
def test_what_is_kept_and_served_has_the_names_that_are_announced(algorithm, data):
    """The plan, the store and a site's folder are read by these names, before anything is computed."""
    served, kept, sent_D = data.draw(some(algorithm.serves)), data.draw(some(algorithm.keeps)), data.draw(VECTOR)
    shift_D = algorithm.shift(served, kept)
    at_site = algorithm.at_site(shift_D, sent_D, training(algorithm))
    at_server = algorithm.at_server(served, sent_D, training(algorithm), 0.5)
    assert set(at_site) == set(algorithm.keeps)
    assert set(at_server) == set(algorithm.serves)
    for vector_D in (*at_site.values(), *at_server.values(), *([] if shift_D is None else [shift_D])):
        assert vector_D.shape == (D,)
        assert vector_D.dtype == np.float32
        assert np.isfinite(vector_D).all()


@EVERY
def test_nothing_kept_and_nothing_served_shifts_nothing(algorithm):
    """So whoever begins anew, or lost what was kept, takes plain steps."""
    assert algorithm.shift({}, {}) is None


@EVERY
@given(data=st.data())
def test_a_vector_that_is_not_there_stands_for_zeros(algorithm, data):
    served, kept = data.draw(some(algorithm.serves)), data.draw(some(algorithm.keeps))
    zeros = np.zeros(D, np.float32)
    full = [{name: given.get(name, zeros) for name in names}
            for given, names in ((served, algorithm.serves), (kept, algorithm.keeps))]
    found, explicit = algorithm.shift(served, kept), algorithm.shift(*full)
    assert (zeros if found is None else found).tolist() == (zeros if explicit is None else explicit).tolist()
    one, other = (algorithm.at_server(given, np.ones(D, np.float32), training(algorithm), 0.5) for given in (served, full[0]))
    assert all(np.array_equal(one[name], other[name]) for name in algorithm.serves)


@EVERY
@given(data=st.data())
def test_what_is_not_its_own_is_not_looked_at(algorithm, data):
    """A residual of compression, or another algorithm's vector, lies beside what it keeps."""
    served, kept, other_D = data.draw(some(algorithm.serves)), data.draw(some(algorithm.keeps)), data.draw(VECTOR)
    found = algorithm.shift({**served, "other": other_D}, {**kept, "residual": other_D})
    expected = algorithm.shift(served, kept)
    assert (found is None) == (expected is None)
    assert found is None or np.array_equal(found, expected)
    assert set(algorithm.at_server({**served, "other": other_D}, other_D, training(algorithm), 1.0)) == set(algorithm.serves)


@EVERY
@given(data=st.data())
def test_what_is_given_is_left_as_it_was(algorithm, data):
    served, kept, sent_D = data.draw(some(algorithm.serves)), data.draw(some(algorithm.keeps)), data.draw(VECTOR)
    before = [vector_D.tobytes() for vector_D in (*served.values(), *kept.values(), sent_D)]
    algorithm.at_site(algorithm.shift(served, kept), sent_D, training(algorithm))
    algorithm.at_server(served, sent_D, training(algorithm), 0.5)
    assert [vector_D.tobytes() for vector_D in (*served.values(), *kept.values(), sent_D)] == before


@EVERY
def test_whoever_shifts_by_what_was_noised_before_has_no_law_that_a_gate_could_know(algorithm):
    """`law_is_known` is what a gate's judgement rests on: old noise in an upload would not be told from a lie."""
    if algorithm.keeps or algorithm.serves:
        assert not algorithm.law_is_known
    assert training(algorithm).is_linear == algorithm.law_is_known


@EVERY
def test_a_pull_that_overshoots_is_refused(algorithm):
    if algorithm.pull > 0:
        with pytest.raises(ValueError, match="overshoots"):
            LocalTraining(learning_rate=1.1 / algorithm.pull, algorithm=algorithm)
    assert algorithm.objection(training(algorithm)) is None
    assert algorithm.objection_to(None, MEAN) is None


def test_the_defaults_are_nothing():
    """So that an algorithm is what it overrides, and no more."""
    class Nothing(LocalAlgorithm):
        name: str = "nothing"

    nothing, vector_D = Nothing(), np.ones(D, np.float32)
    assert (nothing.keeps, nothing.serves, nothing.pull, nothing.law_is_known) == ((), (), 0.0, True)
    assert nothing.shift({"control": vector_D}, {"control": vector_D}) is None
    assert nothing.at_site(vector_D, vector_D, training(Plain())) == {}
    assert nothing.at_server({}, vector_D, training(Plain()), 1.0) == {}
    assert nothing.objection(training(Plain())) is nothing.objection_to(None, MEAN) is None


# -- the sum of the parts ----------------------------------------------------------------------------------------------


@given(st.lists(VECTOR, min_size=1, max_size=4), st.lists(VECTOR, min_size=1, max_size=3))
def test_with_all_sites_and_a_mean_scaffolds_server_serves_the_mean_of_what_sites_keep(first, later):
    """Whatever their updates were, over the rounds; so the shifts of all sites add up to nothing."""
    algorithm, how = Scaffold(), training(Scaffold())
    kept, served = [{} for _ in first], {}
    for number in range(1 + len(later)):
        sent = [vector_D if number == 0 else vector_D + later[number - 1] * place for place, vector_D in enumerate(first)]
        shifts = [algorithm.shift(served, one) for one in kept]
        kept = [algorithm.at_site(shift_D, sent_D, how) for shift_D, sent_D in zip(shifts, sent, strict=True)]
        served = algorithm.at_server(served, np.mean(sent, axis=0, dtype=np.float64).astype(np.float32), how, 1.0)
        mean_D = np.mean([one["control"] for one in kept], axis=0)
        assert served["control"] == pytest.approx(mean_D, abs=1e-3)
        assert np.sum([algorithm.shift(served, one) for one in kept], axis=0) == pytest.approx(np.zeros(D), abs=1e-2)
