"""What is promised of an upload before it is seen, and the gate that relies on it, on uploads of the real training code."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.aggregation.gate import admit, pair_bounds
from fedround.aggregation.noise_law import NoiseLaw, averaged, with_rounding
from fedround.aggregation.spec import Gate
from fedround.aggregation.verdict import Verdict
from fedround.codec import flatten
from fedround.compression import quantised, wire
from fedround.compression.spec import Quantised
from fedround.errors import ContractError
from fedround.learning.algorithms import FedProx, Scaffold
from fedround.learning.examples import Examples
from fedround.learning.guard import UNGUARDED, Countdown
from fedround.learning.law import law_of
from fedround.learning.lesson import Lesson
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.spec import LocalTraining
from fedround.learning.train import train
from fedround.privacy.noise import FINE
from fedround.privacy.spec import DpFtrl, DpSgd, GaussianCounts, GaussianUpdate, NoMechanism
from tests.geometries import geometry_of

TRAINING = LocalTraining(local_steps=5, batch_size=8, learning_rate=0.2, momentum=0.7)
FEATURES = 50
D = 40 * FEATURES + 40                      # two layers without bias: zero rows have zero gradients


@pytest.fixture(scope="module")
def recipe():
    import torch
    from torch import nn

    torch.set_num_threads(1)
    def build_model():
        return nn.Sequential(nn.Linear(FEATURES, 40, bias=False), nn.Tanh(), nn.Linear(40, 1, bias=False))

    return Recipe(name="wide", digest="", build_model=build_model, encode=lambda rows: rows)


def mechanism(rows, noise=2.0, training=TRAINING):
    return DpSgd(noise_multiplier=noise, clip_norm=0.5, sampling_rate=training.sampling_rate(rows),
                 steps=training.local_steps)


def upload(recipe, features_NF, labels_N, how, seed, training=TRAINING):
    examples = Examples(features_NF.astype(np.float32), labels_N)
    base = initial_tensors(recipe, 0)
    return flatten(train(recipe, Lesson(base, examples), training, how, Source(seed), UNGUARDED).delta).astype(np.float64)


class Source:
    """A numpy generator as a noise source."""

    def __init__(self, seed):
        self.generator = np.random.default_rng(seed)

    def random(self, size):
        return self.generator.random(size)

    def normal(self, scale, size):
        return self.generator.normal(0, scale, size)

    def cells(self, size):
        return np.floor(self.generator.normal(0, FINE, size)).astype(np.int64)


@pytest.mark.parametrize("rows", [5, 100])
def test_the_variance_is_that_of_real_uploads(recipe, rows):
    """Rows of zeros have no gradient: what is uploaded is noise alone. Five rows are all drawn, and divide by five."""
    how = mechanism(rows)
    law = law_of(how, TRAINING, rows)
    noise_D = np.concatenate([upload(recipe, np.zeros((rows, FEATURES)), np.zeros(rows, dtype=np.int64), how, seed)
                              for seed in range(10)])
    assert len(noise_D) == 10 * D
    assert noise_D.var() == pytest.approx(law.variance, rel=4 * math.sqrt(2 / len(noise_D)))


@pytest.mark.parametrize("how", [mechanism(100), DpFtrl(noise_multiplier=2.0, clip_norm=0.5, batch_size=7, steps=5)],
                         ids=lambda how: how.kind)
@pytest.mark.parametrize("changes", [
    {"algorithm": FedProx(mu=1.5)}, {"algorithm": FedProx(mu=4.0), "momentum": 0.0}, {"partial": "keep"},
    {"partial": "normalise"}, {"partial": "normalise", "algorithm": FedProx(mu=1.5)}], ids=str)
def test_a_proximal_term_and_partial_work_leave_a_law_that_is_known(recipe, how, changes):
    """Noise alone, again: three of five steps are done where partial work is kept."""
    training = LocalTraining(**{**TRAINING.model_dump(exclude={"algorithm"}), **changes})
    done = 5 if training.partial == "refuse" else 3
    nothing = Examples(np.zeros((100, FEATURES), np.float32), np.zeros(100, dtype=np.int64))
    noise_D = np.concatenate([flatten(train(recipe, Lesson(initial_tensors(recipe, 0), nothing), training, how, Source(seed),
                                            Countdown(3)).delta).astype(np.float64) for seed in range(10)])
    law = law_of(how, training, steps=done)
    assert noise_D.var() == pytest.approx(law.variance, rel=4 * math.sqrt(2 / len(noise_D)))


@pytest.mark.parametrize("changes", [{"algorithm": Scaffold()}, {"optimizer": "adam"}], ids=str)
def test_where_an_upload_is_not_linear_in_its_gradients_there_is_no_law(changes):
    training = LocalTraining(**changes)
    assert law_of(mechanism(100, training=training), training) is None
    assert law_of(GaussianUpdate(noise_multiplier=3.0, clip_norm=0.01), training) is not None


@pytest.mark.parametrize("momentum", [0.0, 0.7])
@pytest.mark.parametrize("rows", [5, 100])
def test_the_signal_is_within_its_bound_and_the_bound_is_not_idle(recipe, rows, momentum):
    """Rows that are all the same, and far from fitted, pull the same way with all that clipping leaves them."""
    training = TRAINING.model_copy(update={"momentum": momentum})
    how = mechanism(rows, noise=1e-4, training=training)
    features_NF = np.full((rows, FEATURES), 3.0)
    bound = law_of(how, training, rows).signal_bound
    labels_N = np.ones(rows, dtype=np.int64)
    longest = max(np.linalg.norm(upload(recipe, features_NF, labels_N, how, seed, training)) for seed in range(5))
    assert 0.3 * bound < longest <= bound


@pytest.mark.parametrize(("bits", "heard"), [(8, False), (4, True)])
def test_rounding_adds_to_the_variance_what_the_law_says_and_at_4_bits_a_gate_would_hear_it(bits, heard):
    """Noise of standard deviation 2 and a signal, quantised: the law of what arrives is the law with rounding."""
    size, how, generator = 400_000, Quantised(bits=bits), np.random.default_rng(5)
    noise_D = generator.normal(0, 2, size)
    sent_D = (noise_D + np.sin(np.arange(size))).astype(np.float32)
    body = wire.compress(sent_D, how, generator.random, b"")
    head = len(wire.form(how, size).header)
    scale_K = quantised.scales(lambda start, count: body[head + start:head + start + count], size)
    law = with_rounding(NoiseLaw(signal_bound=1.0, variance=4.0), *quantised.rounding(scale_K, how, size))
    noise = wire.expanded(body, how, size, b"") - np.sin(np.arange(size))
    assert np.square(noise).mean() == pytest.approx(law.variance, rel=4 * math.sqrt(2 / size))
    assert (law.variance > 4 * (1 + 4 * math.sqrt(2 / size))) == heard
    assert with_rounding(NoiseLaw(signal_bound=1.0, variance=1e-4), 0.1, 0.1) is None      # too long for so little noise


def test_the_law_by_hand():
    """Three steps, momentum 0.5: the steps count 1 + 0.5 + 0.25, 1 + 0.5 and 1."""
    training = LocalTraining(local_steps=3, batch_size=10, learning_rate=0.1, momentum=0.5)
    how = DpSgd(noise_multiplier=4.0, clip_norm=2.0, sampling_rate=1.0, steps=3)
    law = law_of(how, training, rows=10)
    assert law.signal_bound == pytest.approx(0.1 * 2.0 * (1.75 + 1.5 + 1))
    assert law.variance == pytest.approx((0.1 * 4.0 * 2.0 / 10) ** 2 * (1.75**2 + 1.5**2 + 1))
    assert law_of(how, training, rows=5).variance == pytest.approx(4 * law.variance)


def test_poisson_batches_exceed_the_bound_as_rarely_as_promised():
    """With x = 20 never in reach; the same inequality at x = 3 must hold in 95 % of draws, and does not by much."""
    generator = np.random.default_rng(0)
    rate, rows, counts = 0.08, 100, np.array([1.75, 1.5, 1.0])
    batch = rate * rows
    sums = generator.binomial(rows, rate, (20_000, 3)) @ counts / batch
    x, thin = 3.0, 1 - rate
    bound = counts.sum() + math.sqrt(2 * x * thin * (counts**2).sum() / batch) + thin * x * counts.max() / (3 * batch)
    assert (sums > bound).mean() <= math.exp(-x)
    assert (sums > counts.sum() + 0.5 * (bound - counts.sum())).mean() > 0.05
    training = LocalTraining(local_steps=3, batch_size=8, learning_rate=1.0, momentum=0.5)
    how = DpSgd(noise_multiplier=1.0, clip_norm=1.0, sampling_rate=rate, steps=3)
    assert sums.max() < law_of(how, training).signal_bound


@pytest.mark.parametrize("momentum", [0.0, 0.7])
@pytest.mark.parametrize("steps", [1, 5, 8])
def test_the_law_of_a_trees_noise_is_that_of_real_uploads(recipe, steps, momentum):
    """Nodes that later nodes replace count what they count until then, also through the momentum."""
    training = TRAINING.model_copy(update={"local_steps": steps, "momentum": momentum})
    how = DpFtrl(noise_multiplier=2.0, clip_norm=0.5, batch_size=7, steps=steps)
    noise_D = np.concatenate([upload(recipe, np.zeros((80, FEATURES)), np.zeros(80, dtype=np.int64), how, seed, training)
                              for seed in range(10)])
    law = law_of(how, training)
    assert noise_D.var() == pytest.approx(law.variance, rel=4 * math.sqrt(2 / len(noise_D)))
    if momentum == 0:
        assert law.variance == pytest.approx((0.2 * 2.0 * 0.5 / 7) ** 2 * steps.bit_count())
        assert law.signal_bound == pytest.approx(0.2 * 0.5 * steps)


def test_the_law_of_a_noised_update_is_that_of_real_uploads(recipe):
    how = GaussianUpdate(noise_multiplier=3.0, clip_norm=0.01)
    features_NF = np.full((30, FEATURES), 3.0)
    sent_D = np.concatenate([upload(recipe, features_NF, np.ones(30, dtype=np.int64), how, seed) for seed in range(10)])
    law = law_of(how, TRAINING)
    signal = law.signal_bound**2 / D / law.variance
    assert sent_D.var() == pytest.approx(law.variance, rel=4 * math.sqrt(2 / len(sent_D)) + signal)
    silent = how.model_copy(update={"noise_multiplier": 1e-4})
    assert 0.99 * law.signal_bound < np.linalg.norm(upload(recipe, features_NF, np.ones(30, dtype=np.int64), silent, 1)) <= (
        law.signal_bound * 1.001)


def test_counting_rows_within_the_clip_norm_changes_no_law():
    how = mechanism(rows=100)
    counting = how.model_copy(update={"count_noise_std": 9.0})
    assert law_of(counting, TRAINING) == law_of(how, TRAINING)
    assert law_of(counting.model_copy(update={"sampling_rate": 1.0}), TRAINING) is None


def test_who_declares_nothing_has_no_law():
    assert law_of(NoMechanism(), TRAINING) is None
    assert law_of(GaussianCounts(noise_std=3.0), TRAINING) is None
    assert law_of(mechanism(rows=5), TRAINING) is None              # all its rows, but how many?


@pytest.mark.parametrize("changes", [{"noise_multiplier": 1e200}, {"noise_multiplier": 1e-200}, {"clip_norm": 1e300}])
def test_an_absurd_mechanism_is_no_law(changes):
    with pytest.raises(ContractError, match="check the declared mechanism"):
        law_of(mechanism(rows=100).model_copy(update=changes), TRAINING)


@pytest.mark.parametrize("rows", [0, -3, 9])
def test_rows_that_cannot_be_are_refused(rows):
    with pytest.raises(ContractError, match="from 1 to 8 rows"):
        law_of(mechanism(rows=5), TRAINING, rows)


@pytest.mark.parametrize(("signal", "variance"), [(-1, 1), (1, 0), (1, -1), (math.nan, 1), (1, math.nan), (math.inf, 1),
                                                  (1, math.inf)])
def test_what_is_no_law_cannot_be_built(signal, variance):
    with pytest.raises(ContractError):
        NoiseLaw(signal, variance)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=30), st.floats(0, 0.99))
def test_the_moving_average_of_equal_signals_keeps_their_bound_and_lowers_the_noise(stds, beta):
    law, weight = NoiseLaw(2.0, stds[0] ** 2), 1.0
    for std in stds[1:]:
        weight = beta * weight + 1
        law = averaged(law, NoiseLaw(2.0, std * std), 1 / weight)
    shares = np.array([beta ** age for age in range(len(stds))][::-1])
    shares /= shares.sum()
    assert law.signal_bound == pytest.approx(2.0)
    assert law.variance == pytest.approx(float(shares**2 @ np.square(stds)))


def test_the_law_of_the_moving_average_is_that_of_simulated_uploads():
    generator, beta = np.random.default_rng(1), 0.9
    laws = [NoiseLaw(1.0, 0.04), NoiseLaw(3.0, 0.25), NoiseLaw(2.0, 0.01), NoiseLaw(0.5, 1.0)]
    mean_D, weight, law = np.zeros(200_000), 0.0, laws[0]
    for now in laws:
        weight = beta * weight + 1
        upload_D = generator.normal(0, now.std, len(mean_D))
        upload_D[0] = now.signal_bound
        mean_D += (upload_D - mean_D) / weight
        law = averaged(law, now, 1 / weight)
    assert mean_D[1:].var() == pytest.approx(law.variance, rel=0.02)
    assert mean_D[0] == pytest.approx(law.signal_bound)


# -- the gate on uploads of the real training code ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def uploaded(recipe):
    """What a site of `federation` sends, computed once: the same in a round with a history and in one without."""
    return cache(lambda place, turn, noise: upload(recipe, *sites()[place], mechanism(len(sites()[place][1]), noise),
                                                   100 * turn + place))


@cache
def sites():
    """The rows of twelve sites."""
    generator = np.random.default_rng(7)
    truth_F = generator.standard_normal(FEATURES)
    made = []
    for _ in range(12):
        features_NF = generator.standard_normal((int(generator.integers(40, 200)), FEATURES))
        features_NF += 0.3 * generator.standard_normal(FEATURES)
        made.append((features_NF, (features_NF @ truth_F > 0).astype(np.int64)))
    return made


def federation(uploaded, rounds, beta, forgetful=None):
    """Twelve sites with rows of their own learn from one model: what the gate sees in the last round, and the laws."""
    memory_ND, laws, weight = np.zeros((12, D)), [None] * 12, 0.0
    for turn in range(rounds):
        weight = beta * weight + 1
        for place, (_, labels_N) in enumerate(sites()):
            how = mechanism(len(labels_N), noise=2.0 + 0.2 * place)
            sent_D = uploaded(place, turn, 1e-4 if place == forgetful else how.noise_multiplier)
            memory_ND[place] += (sent_D - memory_ND[place]) / weight
            law = law_of(how, TRAINING)
            laws[place] = law if turn == 0 else averaged(laws[place], law, 1 / weight)
    return memory_ND, laws


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_the_gate_leaves_out_no_honest_upload(uploaded, beta):
    """Steps with momentum whose later gradients see the earlier noise; with a history, everybody's."""
    memory_ND, laws = federation(uploaded, 6, beta)
    admission = admit(Gate(f=3), geometry_of(memory_ND), laws, D)
    assert set(admission.verdicts) == {Verdict.USED}
    ratio_NN = np.abs(memory_ND @ memory_ND.T) / pair_bounds(laws, D, 4.0)
    assert ratio_NN[~np.eye(12, dtype=bool)].max() < 0.9


def test_the_gate_hears_that_a_site_forgot_its_noise(uploaded):
    memory_ND, laws = federation(uploaded, 1, 0.0, forgetful=5)
    admission = admit(Gate(f=3), geometry_of(memory_ND), laws, D)
    assert [place for place, verdict in enumerate(admission.verdicts) if verdict is not Verdict.USED] == [5]
    assert admission.verdicts[5] is Verdict.NOISE
