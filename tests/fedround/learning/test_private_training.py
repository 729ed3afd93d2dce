"""The other ways to train privately: a noised update, counts within the clip norm, a tree over a fixed order."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedround.codec import flatten
from fedround.errors import ContractError
from fedround.learning import sums as module
from fedround.learning.examples import Examples
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.recipe import initial_tensors
from fedround.learning.spec import LocalTraining
from fedround.learning.train import train
from fedround.privacy.noise import GRID, stream
from fedround.privacy.spec import DpFtrl, DpSgd, GaussianUpdate, NoMechanism

SECRET = bytes(range(32))
D = 3 * 4 + 4 + 4 + 1


class Silence:
    """Draws nothing for noise, and everybody for a batch: what is left is the signal."""

    def random(self, size):
        return np.zeros(size)

    def normal(self, scale, size):
        return np.full(size, 0.5)       # the middle of the cell at zero

    def cells(self, size):
        return np.zeros(size, np.int64)


def delta(recipe, examples, mechanism, noise=None, start=0, **changes):
    training = LocalTraining(**{"local_steps": 3, "batch_size": 10, "learning_rate": 0.5, **changes})
    return train(recipe, Lesson(initial_tensors(recipe, 0), examples, start=start), training, mechanism,
                 noise or stream(SECRET, b"plan"), UNGUARDED)


# -- the unit `site` -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_norm", [1e-3, 0.05, 100.0])
def test_the_whole_update_is_clipped_to_its_norm_and_otherwise_left_as_it_was(recipe, examples, clip_norm):
    plain = flatten(delta(recipe, examples, NoMechanism(), Silence()).delta)
    noised = flatten(delta(recipe, examples, GaussianUpdate(noise_multiplier=1e-3, clip_norm=clip_norm), Silence()).delta)
    norm = np.linalg.norm(plain)
    assert np.linalg.norm(noised) <= clip_norm * (1 + 1e-6)
    assert noised == pytest.approx(plain * min(1.0, clip_norm / norm), rel=1e-4, abs=1e-9)


def test_the_noise_on_an_update_has_the_standard_deviation_that_is_charged(recipe, examples):
    how = GaussianUpdate(noise_multiplier=3.0, clip_norm=0.2)
    signal = flatten(delta(recipe, examples, how, Silence()).delta)
    drawn = np.concatenate([flatten(delta(recipe, examples, how, stream(SECRET, b"noise", bytes([k]))).delta) - signal
                            for k in range(60)])
    # Batches differ too, but their signal is at most 0.2 long against noise of 0.6 for each coordinate.
    assert drawn.std() == pytest.approx(0.6, rel=5 / math.sqrt(2 * len(drawn)) + 0.02)


def test_training_under_the_unit_site_has_no_noise_before_the_end(recipe, examples):
    """One draw of D numbers, after the last step."""
    calls = []

    class Spy(Silence):
        def normal(self, scale, size):
            calls.append((scale, size))
            return super().normal(scale, size)

    delta(recipe, examples, GaussianUpdate(noise_multiplier=1.0, clip_norm=1.0), Spy())
    assert calls == [(GRID, D)]


def test_attack_an_update_that_is_not_finite_counts_as_nothing(recipe, examples):
    """Otherwise a site that diverges would tell so."""
    hostile = Examples(np.full_like(examples.inputs["x"], 3e38), examples.targets["y"])
    moved = flatten(delta(recipe, hostile, GaussianUpdate(noise_multiplier=1.0, clip_norm=1.0), learning_rate=100.0).delta)
    assert np.isfinite(moved).all()


# -- adaptive clipping ---------------------------------------------------------------------------------------------------


def adaptive(clip_norm=0.5, std=3.0, **changes):
    return DpSgd(**{"noise_multiplier": 1.0, "count_noise_std": std, "clip_norm": clip_norm, "sampling_rate": 0.5,
                            "steps": 3, **changes})


def norms(recipe, examples):
    """Of every row's gradient at the base model, by a clip that bites nobody."""
    found = []
    for i in range(len(examples)):
        one = Examples(examples.inputs["x"][i:i + 1], examples.targets["y"][i:i + 1])
        how = DpSgd(noise_multiplier=1e-3, clip_norm=1e3, sampling_rate=1.0, steps=1)
        found.append(np.linalg.norm(flatten(delta(recipe, one, how, Silence(), local_steps=1, learning_rate=1.0).delta)))
    return np.array(found)


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.8, 1.0])
def test_the_share_within_the_clip_norm_is_the_share_of_rows(recipe, examples, quantile):
    lengths = norms(recipe, examples)
    clip_norm = float(np.quantile(lengths, quantile)) * (0.999 if quantile == 0 else 1.001)
    how = adaptive(clip_norm, std=1e-3, steps=1, sampling_rate=1.0)
    share = delta(recipe, examples, how, Silence(), local_steps=1).within_clip
    assert share == pytest.approx(float((lengths <= clip_norm).mean()), abs=1e-3)


def test_the_noise_on_the_share_is_that_which_is_charged(recipe, examples):
    """Of T counts: std sqrt(T) / (T · expected batch), plus what the draw of batches adds."""
    how = adaptive(clip_norm=1e3, std=40.0)                 # everybody is within
    shares = [delta(recipe, examples, how, stream(SECRET, bytes([k]))).within_clip for k in range(200)]
    expected = 20
    noise = 40 / (math.sqrt(3) * expected)
    sampling = 0.5 * math.sqrt(expected * 0.5) / (math.sqrt(3) * expected)
    assert np.std(shares) == pytest.approx(math.hypot(noise, sampling), rel=0.2)
    assert np.mean(shares) == pytest.approx(1.0, abs=5 * noise / math.sqrt(200))


def test_one_row_moves_the_centred_count_by_a_half(recipe, examples):
    """What `joint_noise` takes as the count's sensitivity: within adds a half, not within takes one away."""
    fewer = Examples(examples.inputs["x"][:-1], examples.targets["y"][:-1])
    for clip_norm, sign in ((1e3, 1), (1e-6, -1)):
        how = adaptive(clip_norm, steps=1, sampling_rate=1.0)
        sums = [(delta(recipe, rows, how, Silence(), local_steps=1).within_clip - 0.5) * len(rows)
                for rows in (examples, fewer)]
        assert sums[0] - sums[1] == pytest.approx(sign * 0.5, abs=1e-6)


def test_without_adaptive_clipping_no_share_is_told(recipe, examples):
    assert delta(recipe, examples, NoMechanism()).within_clip is None
    assert delta(recipe, examples, DpSgd(noise_multiplier=1.0, clip_norm=1.0, sampling_rate=0.5, steps=3)).within_clip is None


# -- DP-FTRL -------------------------------------------------------------------------------------------------------------


def ftrl(**changes):
    return DpFtrl(**{"noise_multiplier": 1.0, "clip_norm": 0.5, "batch_size": 10, "steps": 3, **changes})


@pytest.mark.parametrize("start", [0, 7, 35])
def test_rows_come_in_their_order_each_at_most_once_and_nothing_is_drawn(recipe, examples, start, monkeypatch):
    seen = []
    places = {row.tobytes(): i for i, row in enumerate(examples.inputs["x"])}

    def spy(model, parameters, batch, clip, **how):
        seen.append([places[x.numpy().tobytes()] for x in batch.inputs["x"]])
        return np.zeros(D, np.int64), 0

    monkeypatch.setattr(module, "clipped_sum", spy)
    delta(recipe, examples, ftrl(), stream(SECRET, b"plan"), start)
    flat = [place for batch in seen for place in batch]
    assert flat == [(start + i) % len(examples) for i in range(30)]
    assert len(set(flat)) == 30


def test_a_round_that_would_use_a_row_twice_is_refused(recipe, examples):
    with pytest.raises(ContractError, match="twice"):
        delta(recipe, examples, ftrl(steps=5), local_steps=5)
    with pytest.raises(ContractError, match="covers 3 steps"):
        delta(recipe, examples, ftrl(), local_steps=2)


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_the_upload_of_rows_without_gradient_is_the_trees_noise(recipe_with, steps):
    """Momentum 0: learning rate · z · C / batch · sqrt(bit_count(T)) for every coordinate."""
    recipe = recipe_with("nn.Sequential(nn.Linear(3, 400, bias=False), nn.Tanh(), nn.Linear(400, 1, bias=False))")
    nothing = Examples(np.zeros((40, 3), np.float32), np.zeros(40, np.int64))
    noised = np.concatenate([flatten(delta(recipe, nothing, ftrl(steps=steps, batch_size=5), stream(SECRET, bytes([k])),
                                           local_steps=steps, learning_rate=2.0).delta) for k in range(5)])
    expected = 2.0 * 1.0 * 0.5 / 5 * math.sqrt(steps.bit_count())
    assert noised.std() == pytest.approx(expected, rel=5 / math.sqrt(2 * len(noised)))


def test_without_noise_it_is_ordinary_descent_over_the_order(recipe, examples):
    """A clip norm that bites nobody and hardly any noise: the steps are those of plain gradients, batch after batch."""
    private = flatten(delta(recipe, examples, ftrl(noise_multiplier=1e-4, clip_norm=1e3)).delta)
    weights = initial_tensors(recipe, 0)
    for step in range(3):
        rows = Examples(examples.inputs["x"][10 * step:10 * step + 10], examples.targets["y"][10 * step:10 * step + 10])
        one = train(recipe, Lesson(weights, rows), LocalTraining(local_steps=1, batch_size=10, learning_rate=0.5),
                    NoMechanism(), Silence(), UNGUARDED).delta
        weights = {name: weights[name] + one[name] for name in weights}
    assert private == pytest.approx(flatten(weights) - flatten(initial_tensors(recipe, 0)), abs=0.05)


# -- all of them ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", [adaptive(), ftrl(), GaussianUpdate(noise_multiplier=2.0, clip_norm=1.0)],
                         ids=lambda m: m.kind)
def test_a_retry_repeats_the_bytes_and_another_secret_does_not(recipe, examples, mechanism):
    one, same, other = (delta(recipe, examples, mechanism, stream(secret, b"plan"))
                        for secret in (SECRET, SECRET, SECRET[::-1]))
    assert flatten(one.delta).tobytes() == flatten(same.delta).tobytes() != flatten(other.delta).tobytes()
    assert one.within_clip == same.within_clip


def test_noise_so_little_that_sums_would_not_be_exact_is_refused(recipe, examples):
    with pytest.raises(ContractError, match="summed exactly"):
        delta(recipe, examples, DpSgd(noise_multiplier=1e-6, clip_norm=1.0, sampling_rate=0.5, steps=3))
