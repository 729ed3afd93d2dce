"""Weights of labels and changed copies of rows, agreed in the plan: one record, one clip."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from fedround.codec import flatten
from fedround.errors import ContractError
from fedround.learning.augmentation import Augmentation
from fedround.learning.batch import Batch
from fedround.learning.examples import Examples
from fedround.learning.gradients import Clip, RowGradients, clipped_sum, gradient_sum
from fedround.learning.guard import UNGUARDED
from fedround.learning.learn import check_learner
from fedround.learning.lesson import Lesson
from fedround.learning.objective import Objective
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.spec import LocalTraining
from fedround.learning.tasks import Classify
from fedround.learning.train import train
from fedround.learning.trial import try_out
from fedround.privacy.noise import FINE, stream
from fedround.privacy.spec import DpSgd, NoMechanism
from fedround.simulation.jobs import Job, Pool
from fedround.simulation.stacked import Stacked
from tests.parity.test_stacked_training import Streams, own

ROWS, CLASSES = 33, 3
CLIP = Clip(0.7, 0.7 / FINE)
EVERYTHING = Augmentation(copies=3, noise=0.5, drop=0.2, shift=1, flip=True)
WEIGHTS = (1.0, 1000.0, 0.01)


def pictures() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(16, CLASSES))


def batch(rows: int = ROWS, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch({"x": torch.randn(rows, 1, 3, 3, generator=generator)}, {"y": torch.arange(rows) % CLASSES})


def summed(weights, augmentation, rows: Batch, counts_B=None) -> np.ndarray:
    model = pictures().requires_grad_(False)
    of_rows = RowGradients(Objective(model, Classify(classes=CLASSES), None, weights, augmentation))
    parameters = dict(model.named_parameters())
    of_rows(parameters, rows.zeros(32))
    torch.manual_seed(7)
    return clipped_sum(of_rows, parameters, rows, CLIP, counts_B=counts_B, chunk=32)[0]


# -- sensitivity -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(), WEIGHTS])
@pytest.mark.parametrize("augmentation", [None, EVERYTHING])
def test_a_row_that_leaves_moves_the_sum_by_its_own_part_which_is_no_longer_than_the_clip_norm(weights, augmentation):
    """However it is weighed, and however many copies of it there are; another row in its place: twice that."""
    rows = batch()
    whole, others = summed(weights, augmentation, rows), torch.arange(ROWS) != 7
    part = summed(weights, augmentation, rows, ~others)
    assert np.array_equal(whole - summed(weights, augmentation, rows, others), part)
    assert 0.5 * CLIP.norm / CLIP.cell < np.linalg.norm(part) <= CLIP.norm / CLIP.cell
    exchanged = batch()
    exchanged.inputs["x"][7] = 1e20
    exchanged.targets["y"][7] = 1
    assert np.linalg.norm(whole - summed(weights, augmentation, exchanged)) <= 2 * CLIP.norm / CLIP.cell


# -- weights -----------------------------------------------------------------------------------------------------------


def test_a_rows_gradient_is_multiplied_by_the_weight_of_its_label():
    model = pictures().requires_grad_(False)
    parameters, plain = dict(model.named_parameters()), Objective(model, Classify(classes=CLASSES))
    for label in range(CLASSES):
        rows = batch().at(torch.arange(ROWS) % CLASSES == label)
        weighed = gradient_sum(dataclasses.replace(plain, class_weights=WEIGHTS), parameters, rows)
        assert weighed == pytest.approx(WEIGHTS[label] * gradient_sum(plain, parameters, rows), rel=1e-4, abs=1e-6)


def test_weights_for_another_number_of_labels_are_refused_before_anything_is_charged(three_classes):
    check_learner(three_classes, LocalTraining(class_weights=WEIGHTS))
    with pytest.raises(ContractError, match=r"2 weights, and recipe 'small' learns Classify\(classes=3\)"):
        check_learner(three_classes, LocalTraining(class_weights=(1.0, 2.0)))


@pytest.mark.parametrize("weights", [(0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_a_weight_is_a_positive_number(weights):
    with pytest.raises(ValueError, match="class_weights"):
        LocalTraining(class_weights=weights)


def test_a_rare_label_that_weighs_more_is_found_more_often(three_classes):
    """One label in thirty; without weights the model never says it."""
    generator = np.random.default_rng(0)
    y_N = (generator.random(900) < 1 / 30).astype(np.int64) * 2
    x_NF = generator.normal(size=(900, 3)).astype(np.float32) + 0.8 * (y_N == 2)[:, None].astype(np.float32)
    found = []
    for weights in ((), (1.0, 1.0, 30.0)):
        training = LocalTraining(local_steps=60, batch_size=900, learning_rate=0.5, class_weights=weights)
        base = initial_tensors(three_classes, 0)
        change = train(three_classes, Lesson(base, Examples(x_NF, y_N)), training, NoMechanism(), stream(bytes(32), b"w"),
                       UNGUARDED).delta
        w, b, v, c = (base[name] + change[name] for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
        said_N = (np.tanh(x_NF @ w.T + b) @ v.T + c).argmax(1)
        found.append(float((said_N[y_N == 2] == 2).mean()))
    assert found[0] < 0.3 < 0.6 < found[1]


# -- copies ------------------------------------------------------------------------------------------------------------


def test_a_row_learns_the_mean_of_its_copies():
    """One row, one pass, against the copies one by one with the same draws."""
    model = pictures().requires_grad_(False)
    parameters, plain = dict(model.named_parameters()), Objective(model, Classify(classes=CLASSES))
    rows = batch(1)
    torch.manual_seed(5)
    together = gradient_sum(dataclasses.replace(plain, augmentation=EVERYTHING), parameters, rows)
    torch.manual_seed(5)
    copies = EVERYTHING(rows)
    assert copies.rows == 3
    assert len({part.numpy().tobytes() for part in copies.inputs["x"]}) == 3
    alone = [gradient_sum(plain, parameters, copies.at(slice(place, place + 1))) for place in range(3)]
    assert together == pytest.approx(np.mean(alone, axis=0), abs=1e-6)


def test_what_is_shifted_is_shifted_and_what_is_mirrored_is_mirrored():
    picture = torch.zeros(1, 1, 5, 5)
    picture[0, 0, 2, 1] = 1
    torch.manual_seed(0)
    moved = Augmentation(copies=64, shift=1).changed({"x": picture})["x"]
    places = {tuple(part.nonzero()[0].tolist()) for part in moved[:, 0]}
    assert places == {(row, column) for row in (1, 2, 3) for column in (0, 1, 2)}
    gone = Augmentation(copies=64, shift=4).changed({"x": picture})["x"].sum((1, 2, 3))
    assert set(gone.tolist()) == {0.0, 1.0}, "what leaves the picture does not come in at its other side"
    mirrored = Augmentation(copies=64, flip=True).changed({"x": picture})["x"]
    assert {tuple(part.nonzero()[0].tolist()) for part in mirrored[:, 0]} == {(2, 1), (2, 3)}


def test_noise_and_drop_have_the_size_that_is_agreed_and_words_stay_words():
    torch.manual_seed(0)
    words = torch.arange(8).reshape(2, 4)
    made = Augmentation(copies=64, noise=0.3, drop=0.25).changed({"x": torch.ones(2, 200), "words": words})
    kept = made["x"][made["x"] != 0]
    assert float((made["x"] == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert (float(kept.mean()), float(kept.std())) == pytest.approx((1.0, 0.3), abs=0.02)
    assert torch.equal(made["words"], words.repeat_interleave(64, 0))


def test_an_augmentation_that_changes_nothing_or_moves_what_is_no_picture_is_refused(recipe, examples):
    with pytest.raises(ValueError, match="changes something"):
        Augmentation(copies=4)
    with pytest.raises(ContractError, match="no input of the recipe is one"):
        try_out(recipe, examples.form, training=LocalTraining(augmentation=Augmentation(shift=2)))
    assert try_out(recipe, examples.form, training=LocalTraining(augmentation=Augmentation(noise=0.1))) == ()


# -- in the simulator --------------------------------------------------------------------------------------------------


def test_simulated_sites_weigh_rows_and_draw_copies_as_live_ones_do():
    """The same numbers with weights; copies draw from another generator: of a change that draws nothing, the same numbers."""
    recipe = Recipe("pictures", "0" * 64, pictures, lambda rows: rows, Classify(classes=CLASSES))
    parts = [batch(rows, rows) for rows in (20, 31)]
    examples = [Examples(part.inputs["x"].numpy(), part.targets["y"].numpy()) for part in parts]
    training = LocalTraining(local_steps=3, batch_size=64, class_weights=(1.0, 5.0, 0.2),
                             augmentation=Augmentation(copies=2, drop=1e-12))
    base = initial_tensors(recipe, 1)
    jobs = [Job(f"site-{place}", DpSgd(noise_multiplier=0.5, clip_norm=0.8, sampling_rate=0.9, steps=3)) for place in (0, 1)]
    pool = Pool({job.site: rows for job, rows in zip(jobs, examples, strict=True)})
    learnt = Stacked(recipe, training, examples[0]).train(base, jobs, pool, Streams(2))
    for place, job in enumerate(jobs):
        alone = train(recipe, Lesson(base, examples[place]), training, job.mechanism, own(place), UNGUARDED)
        assert learnt.delta_SD[place] == pytest.approx(flatten(alone.delta), abs=3e-5)
