"""A model of a site's own: where its steps lead, and what they are, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from fedround.codec import flatten
from fedround.errors import Cancelled
from fedround.learning.algorithms import Scaffold
from fedround.learning.guard import UNGUARDED, Countdown
from fedround.learning.lesson import Lesson
from fedround.learning.personal import personalise
from fedround.learning.recipe import initial, initial_tensors
from fedround.learning.spec import LocalTraining, Parts
from fedround.learning.train import train
from fedround.privacy.noise import stream
from fedround.privacy.spec import NoMechanism
from tests.guards import Stopped

ALL = LocalTraining(local_steps=400, batch_size=40, learning_rate=0.5)


def gradient_D(weights, examples) -> np.ndarray:
    """Of the mean logistic loss of a linear model, (bias, weight)."""
    given = {name: torch.tensor(array, requires_grad=True) for name, array in weights.items()}
    logits = torch.from_numpy(examples.inputs["x"]) @ given["weight"][0] + given["bias"]
    binary_cross_entropy_with_logits(logits, torch.from_numpy(examples.targets["y"]).float()).backward()
    return np.concatenate([given[name].grad.numpy().ravel() for name in ("bias", "weight")])


@pytest.fixture
def linear(recipe_with):
    return recipe_with("nn.Linear(3, 1)")


@pytest.mark.parametrize("pull", [0.02, 0.5, 2.0])
def test_it_ends_where_its_loss_and_the_pull_balance(linear, examples, pull):
    """Ditto's local objective: loss + pull/2 |v - shared|², whatever it began at."""
    shared, start = initial_tensors(linear, 0), initial_tensors(linear, 9)
    found, _ = personalise(linear, Lesson(start, examples, towards=shared), ALL, stream(bytes(32), b""), UNGUARDED, pull=pull)
    assert gradient_D(found, examples) + pull * (flatten(found) - flatten(shared)) == pytest.approx(np.zeros(4), abs=2e-4)


def test_the_stronger_the_pull_the_nearer_it_stays(linear, examples):
    shared = initial_tensors(linear, 0)
    far = [np.linalg.norm(flatten(personalise(linear, Lesson(shared, examples, towards=shared), ALL, stream(bytes(32), b""),
                                              UNGUARDED, pull=pull)[0]) - flatten(shared)) for pull in (0.0, 0.1, 1.0, 2.0)]
    assert far == sorted(far, reverse=True)
    assert far[0] > 5 * far[-1]


def test_without_a_pull_it_is_plain_training_and_the_shared_model_means_nothing(recipe, examples):
    training = LocalTraining(local_steps=5, batch_size=20, learning_rate=0.5, momentum=0.5)
    start = initial_tensors(recipe, 0)
    plain = train(recipe, Lesson(start, examples), training, NoMechanism(), stream(bytes(32), b"a"), UNGUARDED).delta
    for shared in (None, initial_tensors(recipe, 3)):
        found, _ = personalise(recipe, Lesson(start, examples, towards=shared), training, stream(bytes(32), b"a"), UNGUARDED)
        assert all(np.array_equal(found[name], start[name] + plain[name]) for name in start)


def test_each_step_is_the_gradient_and_the_pull(linear, examples):
    """A loop with two lines, as the paper has it."""
    shared, personal = initial_tensors(linear, 0), initial_tensors(linear, 9)
    training = ALL.model_copy(update={"local_steps": 3, "algorithm": Scaffold()})       # of the shared training: not for this
    found, _ = personalise(linear, Lesson(personal, examples, towards=shared), training, stream(bytes(32), b""), UNGUARDED,
                           pull=0.7)
    for _ in range(3):
        step_D = gradient_D(personal, examples) + 0.7 * (flatten(personal) - flatten(shared))
        personal = {"bias": personal["bias"] - 0.5 * step_D[:1].astype(np.float32),
                    "weight": personal["weight"] - 0.5 * step_D[None, 1:].astype(np.float32)}
    assert flatten(found) == pytest.approx(flatten(personal), abs=1e-6)


def test_a_private_part_takes_part_and_a_frozen_one_does_not(recipe, examples):
    base, rest = initial(recipe, 0, Parts(private=("2.*",), frozen=("0.bias",)))
    found, private = personalise(recipe, Lesson(base, examples, rest), ALL, stream(bytes(32), b""), UNGUARDED)
    assert {*found} == {"0.weight"}
    assert {*private} == {"2.weight", "2.bias"}
    assert not np.array_equal(private["2.weight"], rest.private["2.weight"])


def test_it_ends_early_when_time_is_up_and_not_at_all_when_it_is_stopped(recipe, examples):
    start, training = initial_tensors(recipe, 0), ALL.model_copy(update={"partial": "refuse"})
    short, _ = personalise(recipe, Lesson(start, examples), training, stream(bytes(32), b""), Countdown(1))
    once = training.model_copy(update={"local_steps": 1})
    one, _ = personalise(recipe, Lesson(start, examples), once, stream(bytes(32), b""), UNGUARDED)
    assert all(np.array_equal(short[name], one[name]) for name in start)
    with pytest.raises(Cancelled):
        personalise(recipe, Lesson(start, examples), training, stream(bytes(32), b""), Stopped())
