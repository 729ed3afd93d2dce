"""What each local algorithm is for, on problems whose answer is known; and that noise is drawn before any of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.codec import flatten
from fedround.errors import ContractError
from fedround.learning.algorithms import FedProx, Scaffold
from fedround.learning.descent import Descent, counts, scale
from fedround.learning.guard import UNGUARDED, Countdown
from fedround.learning.lesson import Lesson
from fedround.learning.recipe import initial_tensors
from fedround.learning.spec import LocalTraining
from fedround.learning.train import train
from fedround.privacy.noise import stream
from fedround.privacy.spec import DpSgd, NoMechanism
from fedround.values import parse

STEEPNESS, OPTIMA = np.array([1.0, 4.0]), np.array([0.0, 10.0])
"""Two sites with losses a/2 (y - b)²: their mean is least at sum(a b) / sum(a) = 8."""
TRUTH = 8.0


def local(training: LocalTraining, base: float, site: int, steps: int | None = None, shift=None) -> np.ndarray:
    """One site's change on its own loss, exactly known."""
    base_D = np.full(1, base, np.float32)
    weights_D, descent = base_D.copy(), Descent(training, base_D, shift)
    done = training.local_steps if steps is None else steps
    for _ in range(done):
        weights_D += descent.change(weights_D, STEEPNESS[site] * (weights_D.astype(np.float64) - OPTIMA[site]))
    return (weights_D - base_D) * np.float32(scale(training, done))


def federated(training: LocalTraining, rounds: int, steps=(None, None)) -> float:
    """Where the mean of both sites ends."""
    how, model, served, kept = training.algorithm, 0.0, {}, [{}, {}]
    for _ in range(rounds):
        shifts = [how.shift(served, kept[site]) for site in (0, 1)]
        deltas = [local(training, model, site, steps[site], shifts[site]) for site in (0, 1)]
        mean_D = np.mean(deltas, axis=0)
        kept = [how.at_site(shifts[site], deltas[site], training) for site in (0, 1)]
        served = how.at_server(served, mean_D, training, 1.0)
        if isinstance(how, Scaffold):
            c, own = served["control"], [one["control"] for one in kept]
            assert c[0] == pytest.approx((own[0][0] + own[1][0]) / 2, abs=1e-4)      # c is the mean of all c_i
        model += float(mean_D[0])
    return model


def test_sites_that_differ_pull_plain_averaging_away_and_scaffold_finds_the_truth():
    """Karimireddy et al. 2020: client drift, and its correction."""
    many = {"local_steps": 10, "learning_rate": 0.1}
    assert abs(federated(LocalTraining(**many), 200) - TRUTH) > 0.5
    assert federated(LocalTraining(**many, algorithm=Scaffold()), 200) == pytest.approx(TRUTH, abs=1e-3)


def test_a_proximal_term_makes_drift_smaller():
    many = {"local_steps": 10, "learning_rate": 0.1}
    plain, near = (abs(federated(LocalTraining(**many, **more), 400) - TRUTH)
                   for more in ({}, {"algorithm": FedProx(mu=8.0)}))
    assert near < 0.5 * plain


def test_fedprox_ends_where_its_own_objective_is_least():
    """y minimises a/2 (y - b)² + mu/2 (y - base)²."""
    training = LocalTraining(local_steps=500, learning_rate=0.05, algorithm=FedProx(mu=3.0))
    assert 5.0 + float(local(training, 5.0, 1)[0]) == pytest.approx((4 * 10 + 3 * 5) / (4 + 3), abs=1e-4)


def test_unequal_work_moves_the_optimum_and_normalised_work_does_not():
    """Wang et al. 2020: 20 steps at one site and 2 at the other solve another problem; steps are small, so drift is, too."""
    few = {"local_steps": 20, "learning_rate": 0.001}
    kept = federated(LocalTraining(**few, partial="keep"), 2000, steps=(20, 2))
    normalised = federated(LocalTraining(**few, partial="normalise"), 2000, steps=(20, 2))
    assert kept == pytest.approx(4 * 10 * 2 / (20 + 4 * 2), abs=0.2)       # weights 20 and 2 instead of 1 and 1
    assert normalised == pytest.approx(TRUTH, abs=0.2)


@given(gradients=st.lists(st.floats(-10, 10), min_size=1, max_size=12), momentum=st.sampled_from([0.0, 0.5, 0.9]),
       mu=st.sampled_from([None, 0.5, 4.0]))
def test_a_change_is_its_gradients_times_what_they_count(gradients, momentum, mu):
    algorithm = {} if mu is None else {"algorithm": FedProx(mu=mu)}
    training = LocalTraining(learning_rate=0.25, momentum=momentum, **algorithm)
    base_D = np.zeros(1, np.float32)
    weights_D, descent = base_D.copy(), Descent(training, base_D)
    for gradient in gradients:
        weights_D += descent.change(weights_D, np.full(1, gradient))
    assert weights_D[0] == pytest.approx(-0.25 * np.dot(counts(training, len(gradients)), gradients), abs=1e-3)


def test_adams_steps_are_as_long_as_the_learning_rate_whatever_the_gradient():
    for gradient in (1e-3, 1.0, 1e3):
        change_D = Descent(LocalTraining(learning_rate=0.2, optimizer="adam"), np.zeros(1, np.float32)).change(
            np.zeros(1, np.float32), np.full(1, gradient))
        assert change_D[0] == pytest.approx(-0.2, rel=1e-4)


def test_stacked_sites_move_as_each_alone():
    """A simulator's (N, D) arrays go through the same lines."""
    generator = np.random.default_rng(0)
    for training in (LocalTraining(momentum=0.9), LocalTraining(optimizer="adam"), LocalTraining(algorithm=FedProx(mu=1.0))):
        base_D = generator.normal(size=3).astype(np.float32)
        stacked, alone = np.tile(base_D, (4, 1)), [base_D.copy() for _ in range(4)]
        together, each = Descent(training, base_D), [Descent(training, base_D) for _ in range(4)]
        for _ in range(5):
            gradients_ND = generator.normal(size=(4, 3))
            stacked += together.change(stacked, gradients_ND)
            for n in range(4):
                alone[n] += each[n].change(alone[n], gradients_ND[n])
        assert np.array_equal(stacked, alone)


# -- with noise --------------------------------------------------------------------------------------------------------

SECRET = bytes(range(32))
HOW = DpSgd(noise_multiplier=1.5, clip_norm=0.5, sampling_rate=0.25, steps=1)
ALGORITHMS = [{"algorithm": FedProx(mu=5.0)}, {"algorithm": Scaffold()}, {"optimizer": "adam"}, {"partial": "keep"}]


class Recorded:
    """A site's stream that remembers what was asked of it."""

    def __init__(self):
        self.stream, self.asked = stream(SECRET, b"plan"), []

    def random(self, size):
        self.asked.append(("random", size))
        return self.stream.random(size)

    def normal(self, scale, size):
        self.asked.append(("normal", scale, size))
        return self.stream.normal(scale, size)

    def cells(self, size):
        self.asked.append(("cells", size))
        return self.stream.cells(size)


def one(recipe, examples, changes, steps=1, guard=UNGUARDED, **more):
    noise = Recorded()
    training = LocalTraining(local_steps=steps, batch_size=10, learning_rate=0.1, **changes)
    return noise, train(recipe, Lesson(initial_tensors(recipe, 0), examples, **more), training,
                        HOW.model_copy(update={"steps": steps}), noise, guard)


@pytest.mark.parametrize("changes", ALGORITHMS, ids=str)
def test_the_noise_is_drawn_as_without_the_algorithm(recipe, examples, changes):
    """So the accountant's word about the mechanism holds as it stands: all that follows is post-processing."""
    plain, _ = one(recipe, examples, {}, steps=4)
    noise, _ = one(recipe, examples, changes, steps=4)
    assert noise.asked == plain.asked
    assert ("cells", 21) in noise.asked


def test_the_first_steps_noised_gradient_is_the_same_whatever_is_made_of_it(recipe, examples):
    """At the base model a proximal term is zero, and a correction is added to what is noised already."""
    plain = flatten(one(recipe, examples, {})[1].delta)
    assert np.array_equal(flatten(one(recipe, examples, {"algorithm": FedProx(mu=5.0)})[1].delta), plain)
    shift_D = np.linspace(-1, 1, 21, dtype=np.float32)
    corrected = flatten(one(recipe, examples, {"algorithm": Scaffold()}, shift_D=shift_D)[1].delta)
    assert corrected == pytest.approx(plain - np.float32(0.1) * shift_D, abs=1e-6)
    assert np.abs(corrected - plain).max() > 0.09


def test_a_site_whose_time_is_up_returns_the_steps_that_it_did(recipe, examples):
    """The same as if the plan had asked for so few, but charged, and drawn, as part of the whole."""
    _, kept = one(recipe, examples, {"partial": "keep"}, steps=8, guard=Countdown(3))
    _, few = one(recipe, examples, {}, steps=3)
    assert kept.steps == 3
    assert np.array_equal(flatten(kept.delta), flatten(few.delta))
    _, normalised = one(recipe, examples, {"partial": "normalise"}, steps=8, guard=Countdown(3))
    assert flatten(normalised.delta) == pytest.approx(flatten(few.delta) * 8 / 3, rel=1e-5)
    _, refused = one(recipe, examples, {}, steps=8, guard=Countdown(1))
    assert refused.steps == 8


def test_the_mean_gradient_of_a_round_is_the_sites_control(recipe, examples):
    base, training = initial_tensors(recipe, 0), LocalTraining(local_steps=1, learning_rate=0.1, algorithm=Scaffold())
    plain = flatten(train(recipe, Lesson(base, examples), LocalTraining(local_steps=1, learning_rate=0.1), NoMechanism(),
                          stream(SECRET, b"plan"), UNGUARDED).delta)
    shift_D = np.linspace(-1, 1, 21, dtype=np.float32)
    trained = train(recipe, Lesson(base, examples, shift_D=shift_D), training, NoMechanism(), stream(SECRET, b"plan"),
                    UNGUARDED)
    kept = training.algorithm.at_site(shift_D, flatten(trained.delta), training)
    assert kept["control"] == pytest.approx(-plain / 0.1, abs=1e-5)


@pytest.mark.parametrize(("changes", "says"), [
    ({"optimizer": "adam", "momentum": 0.5}, "momentum goes with"), ({"optimizer": "adam", "partial": "normalise"}, "adam"),
    ({"algorithm": {"name": "fedprox", "mu": 20.0}}, "overshoots"),
    ({"algorithm": {"name": "scaffold"}, "momentum": 0.5}, "without momentum"),
    ({"algorithm": {"name": "scaffold"}, "optimizer": "adam"}, "without momentum"),
    ({"algorithm": {"name": "scaffold"}, "partial": "keep"}, "normalise"), ({"algorithm": {"name": "moon"}}, "algorithm"),
    ({"algorithm": {"name": "fedprox"}}, "mu"), ({"algorithm": {"name": "plain", "mu": 1.0}}, "unknown key")])
def test_what_does_not_go_together_is_refused_when_the_file_is_read(changes, says):
    with pytest.raises(ContractError, match=says):
        parse(LocalTraining, changes, "training")


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_servers_control_needs_a_share(share):
    with pytest.raises(ContractError, match="share"):
        Scaffold().at_server({}, np.zeros(1, np.float32), LocalTraining(algorithm=Scaffold()), share)


def test_a_control_that_is_not_finite_is_never_made():
    with pytest.raises(ContractError, match="range of float32"):
        Scaffold().at_server({}, np.full(1, 3e38, np.float32), LocalTraining(local_steps=1, learning_rate=0.01), 1.0)
