"""DP-SGD: who is in a batch, what is clipped, where the noise goes, and that all of it repeats."""

from __future__ import annotations

import numpy as np
import pytest

from fedround.codec import flatten
from fedround.errors import Cancelled, ContractError
from fedround.learning import sums as module
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.recipe import initial_tensors
from fedround.learning.spec import LocalTraining
from fedround.learning.train import train
from fedround.privacy.noise import FINE, stream
from fedround.privacy.spec import DpSgd, NoMechanism
from tests.guards import Stopped

SECRET = bytes(range(32))
D = 3 * 4 + 4 + 4 + 1


class Script:
    """Draws that a test writes down: who is in each batch, and noise of exactly one standard deviation, in cells."""

    def __init__(self, *batches: list[int]) -> None:
        self.batches, self.scales = list(batches), []

    def random(self, size):
        if size == 1:                               # the seed of the model's own randomness
            return np.zeros(1)
        draws = np.full(size, 0.999)
        draws[self.batches.pop(0)] = 0.0
        return draws

    def cells(self, size):
        self.scales.append(FINE)
        return np.full(size, int(FINE))


def mechanism(**changes) -> DpSgd:
    return DpSgd(**{"noise_multiplier": 1.5, "clip_norm": 0.5, "sampling_rate": 0.25, "steps": 3, **changes})


def test_same_inputs_same_bytes_and_another_secret_other_bytes(recipe, examples):
    base, training = initial_tensors(recipe, 0), LocalTraining(local_steps=3, momentum=0.5)
    one, same, other = (flatten(train(recipe, Lesson(base, examples), training, mechanism(), stream(secret, b"plan"),
                                      UNGUARDED).delta)
                        for secret in (SECRET, SECRET, SECRET[::-1]))
    assert one.tobytes() == same.tobytes()
    assert one.tobytes() != other.tobytes()


def test_the_base_model_is_left_as_it_was(recipe, examples):
    base = initial_tensors(recipe, 0)
    before = flatten(base)
    delta = train(recipe, Lesson(base, examples), LocalTraining(), NoMechanism(), stream(SECRET, b"plan"), UNGUARDED).delta
    assert np.array_equal(flatten(base), before)
    assert {name: array.shape for name, array in delta.items()} == {name: array.shape for name, array in base.items()}
    assert all(array.dtype == np.float32 for array in delta.values())


def test_plain_training_learns(recipe, examples):
    base = initial_tensors(recipe, 0)
    training = LocalTraining(local_steps=100, batch_size=20, learning_rate=0.5)
    delta = train(recipe, Lesson(base, examples), training, NoMechanism(), stream(SECRET, b"plan"), UNGUARDED).delta
    trained = {name: base[name] + delta[name] for name in base}
    assert recipe.task.metrics(scores(recipe, trained, examples)).auc > 0.95


def test_an_empty_batch_still_adds_noise_divided_by_the_expected_batch(recipe, examples):
    training, script = LocalTraining(local_steps=1, learning_rate=2.0), Script([])
    delta = train(recipe, Lesson(initial_tensors(recipe, 0), examples), training, mechanism(steps=1), script, UNGUARDED).delta
    assert script.scales == [FINE]
    assert flatten(delta) == pytest.approx(np.full(D, -2.0 * 0.75 / (0.25 * 40)), rel=1e-4)


def test_a_batch_of_any_size_is_divided_by_the_expected_size(recipe, examples):
    """Adding one row to the drawn batch moves the result by at most learning_rate · clip_norm / expected batch."""
    training, base = LocalTraining(local_steps=1, learning_rate=1.0), initial_tensors(recipe, 0)
    drawn = [flatten(train(recipe, Lesson(base, examples), training, mechanism(steps=1), Script(batch), UNGUARDED).delta)
             for batch in ([3, 4], [3, 4, 5])]
    assert 0 < np.linalg.norm(drawn[1] - drawn[0]) <= 0.5 / 10 * (1 + 1e-4)


def test_no_record_can_do_more_than_the_clip_norm(recipe, examples):
    """An attack: a record with huge, but finite, features whose gradient overflows counts as nothing."""
    hostile = Examples(examples.inputs["x"].copy(), examples.targets["y"])
    hostile.inputs["x"][7] = 3e38
    training, base = LocalTraining(local_steps=1, learning_rate=1.0), initial_tensors(recipe, 0)
    with_it, without = (flatten(train(recipe, Lesson(base, hostile), training, mechanism(steps=1), Script(batch),
                                      UNGUARDED).delta)
                        for batch in ([1, 2, 7], [1, 2]))
    assert np.isfinite(with_it).all()
    assert np.linalg.norm(with_it - without) <= 0.5 / 10 * (1 + 1e-4)


def test_momentum_and_learning_rate_are_the_textbooks(recipe, examples):
    """Noise of one standard deviation g at each empty step: velocities g, (1 + m) g."""
    training = LocalTraining(local_steps=2, learning_rate=0.1, momentum=0.5)
    delta = train(recipe, Lesson(initial_tensors(recipe, 0), examples), training, mechanism(steps=2), Script([], []),
                  UNGUARDED).delta
    assert flatten(delta) == pytest.approx(np.full(D, -0.1 * (1 + 1.5) * 0.75 / 10), rel=1e-4)


def test_rows_are_drawn_at_the_mechanisms_rate_independently(recipe, examples, monkeypatch):
    """Poisson sampling: the batch's size varies, around rate · N."""
    sizes = []

    def spy(model, parameters, batch, clip, **how):
        sizes.append(batch.rows)
        return np.zeros(D, np.int64), 0

    monkeypatch.setattr(module, "clipped_sum", spy)
    training = LocalTraining(local_steps=400)
    train(recipe, Lesson(initial_tensors(recipe, 0), examples), training, mechanism(steps=400), stream(SECRET, b"plan"),
          UNGUARDED)
    assert np.mean(sizes) == pytest.approx(10, abs=0.6)
    assert np.var(sizes) == pytest.approx(40 * 0.25 * 0.75, rel=0.3)


def test_more_steps_than_were_charged_are_refused(recipe, examples):
    with pytest.raises(ContractError, match="covers 3 steps, the plan asks for 4"):
        train(recipe, Lesson(initial_tensors(recipe, 0), examples), LocalTraining(local_steps=4), mechanism(),
              stream(SECRET, b"plan"), UNGUARDED)


def test_a_cancelled_run_stops_before_its_next_step(recipe, examples):
    script = Script([], [], [])
    with pytest.raises(Cancelled):
        train(recipe, Lesson(initial_tensors(recipe, 0), examples), LocalTraining(local_steps=3), mechanism(), script,
              Stopped(2))
    assert len(script.scales) == 2


def test_another_models_tensors_are_refused_by_name(recipe, examples):
    base = dict(initial_tensors(recipe, 0))
    base["2.weight"] = np.zeros((1, 5), np.float32)
    with pytest.raises(ContractError, match=r"differ in 2\.weight"):
        train(recipe, Lesson(base, examples), LocalTraining(), NoMechanism(), stream(SECRET, b"plan"), UNGUARDED)


def test_dropout_draws_from_the_sites_noise(recipe_with, examples):
    recipe = recipe_with("nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))")
    base, training = initial_tensors(recipe, 0), LocalTraining(local_steps=3)
    one, same = (flatten(train(recipe, Lesson(base, examples), training, mechanism(), stream(SECRET, b"plan"),
                               UNGUARDED).delta)
                 for _ in range(2))
    assert one.tobytes() == same.tobytes()


def test_the_sampling_rate_is_at_most_everybody(recipe):
    training = LocalTraining(batch_size=128)
    assert (training.sampling_rate(512), training.sampling_rate(100)) == (0.25, 1.0)
    with pytest.raises(ContractError, match="no rows"):
        training.sampling_rate(0)


@pytest.mark.parametrize("how", [NoMechanism(), mechanism(noise_multiplier=0.5, clip_norm=2.0, sampling_rate=0.5, steps=60)])
def test_three_classes_are_learnt(three_classes, three_labels, how):
    base, training = initial_tensors(three_classes, 0), LocalTraining(local_steps=60, batch_size=30, learning_rate=0.5)
    delta = train(three_classes, Lesson(base, three_labels), training, how, stream(SECRET, b"plan"), UNGUARDED).delta
    trained = {name: base[name] + delta[name] for name in base}
    assert three_classes.task.metrics(scores(three_classes, base, three_labels)).accuracy < 0.6
    assert three_classes.task.metrics(scores(three_classes, trained, three_labels)).accuracy > 0.8
