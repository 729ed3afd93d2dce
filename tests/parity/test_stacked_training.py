"""Stacked training of many sites against its slow twin, `fedround.learning.train`, with the same draws at every site."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from fedround.codec import flatten
from fedround.learning.algorithms import FedProx, Scaffold
from fedround.learning.examples import Examples
from fedround.learning.guard import UNGUARDED, Countdown
from fedround.learning.lesson import Lesson
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.spec import LocalTraining
from fedround.learning.tasks import Classify
from fedround.learning.train import train
from fedround.privacy.noise import stream
from fedround.privacy.spec import DpFtrl, DpSgd, GaussianUpdate, NoMechanism
from fedround.simulation import stacked
from fedround.simulation.jobs import Job, OneGenerator, Pool
from fedround.simulation.stacked import Stacked

SIZES = (40, 3, 25, 31)
TRAINING = LocalTraining(local_steps=5, batch_size=8, learning_rate=0.3)


class Twice(nn.Module):
    """A layer that is used twice: its rows' gradients are no outer products."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.inner(torch.tanh(self.inner(x))))


class Spare(nn.Linear):
    """A layer that takes no part."""

    def __init__(self) -> None:
        super().__init__(8, 3)
        self.spare = nn.Linear(2, 2)


MODELS = {
    "mlp": lambda: nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)),
    "norm": lambda: nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3)),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 5, 2, padding=1), nn.ReLU(), nn.Flatten(),
                                         nn.Linear(45, 3, bias=False)),
    "words": lambda: nn.Sequential(nn.Unflatten(1, (4, 2)), nn.Linear(2, 5), nn.Tanh(), nn.Flatten(), nn.Linear(20, 3)),
    "twice": Twice,
    "spare": Spare,
}


def recipe_of(model: str, classes: int = 3) -> Recipe:
    return Recipe(model, "0" * 64, MODELS[model], lambda rows: rows, Classify(classes=classes))


def rows_of(size: int, seed: int) -> Examples:
    generator = np.random.default_rng(seed)
    return Examples(generator.normal(size=(size, 8)).astype(np.float32), generator.integers(0, 3, size))


class Streams:
    """Every site's own stream, drawn in the order that its training draws."""

    def __init__(self, sites: int):
        self._streams = [own(site) for site in range(sites)]

    def seed(self) -> int:
        return int(sum(stream.random(1)[0] for stream in self._streams))

    def chosen(self, rate_S, rows_S):
        chosen_SR = np.zeros((len(rows_S), max(rows_S)), bool)
        for stream_, rate, rows, chosen in zip(self._streams, rate_S, rows_S, chosen_SR, strict=True):
            chosen[:rows] = stream_.random(int(rows)) < rate
        return torch.from_numpy(chosen_SR)

    def normal(self, sites, size):
        return torch.from_numpy(np.stack([stream.normal(1.0, size) for stream in self._streams]).astype(np.float32))


def pool_of(jobs: list[Job], rows: list[Examples]) -> Pool:
    return Pool({job.site: examples for job, examples in zip(jobs, rows, strict=True)})


def own(site: int):
    return stream(bytes(32), b"parity", str(site).encode())


def mechanisms(kind: str):
    for site, size in enumerate(SIZES):
        rate, noise = min(1.0, TRAINING.batch_size / size), 0.5 + site / 10
        match kind:
            case "none":
                yield NoMechanism()
            case "dp_sgd":
                yield DpSgd(noise_multiplier=noise, clip_norm=0.8, sampling_rate=rate, steps=5)
            case "adaptive":
                yield DpSgd(noise_multiplier=noise, count_noise_std=2.0, clip_norm=1.1, sampling_rate=rate, steps=5)
            case "update":
                yield GaussianUpdate(noise_multiplier=noise, clip_norm=0.3)


def compare(recipe: Recipe, kind: str, training: LocalTraining, steps=(None,) * 4, shifts=(None,) * 4) -> None:
    torch.set_num_threads(1)
    rows, base = [rows_of(size, size) for size in SIZES], initial_tensors(recipe, 1)
    jobs = [Job(f"site-{place}", mechanism, steps=limit, shift_D=shift) for place, (mechanism, limit, shift)
            in enumerate(zip(mechanisms(kind), steps, shifts, strict=True))]
    stacked = Stacked(recipe, training, rows[0])
    assert stacked.why_not(jobs[0].mechanism) is None
    learnt = stacked.train(base, jobs, pool_of(jobs, rows), Streams(len(jobs)))
    for place, job in enumerate(jobs):
        alone = train(recipe, Lesson(base, rows[place], shift_D=job.shift_D), training, job.mechanism, own(place),
                      Countdown(job.steps))
        assert learnt.delta_SD[place] == pytest.approx(flatten(alone.delta), abs=3e-5)
        assert learnt.done[place].steps == alone.steps
        assert (learnt.done[place].within_clip is None) == (alone.within_clip is None)
        if alone.within_clip is not None:
            assert learnt.done[place].within_clip == pytest.approx(alone.within_clip, abs=1e-5)
    assert np.abs(learnt.delta_SD).max(axis=1).min() > 1e-3


@pytest.mark.parametrize("kind", ["none", "dp_sgd", "adaptive", "update"])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_under_every_mechanism(model, kind):
    compare(recipe_of(model), kind, TRAINING)


@pytest.mark.parametrize("kind", ["none", "dp_sgd"])
@pytest.mark.parametrize("changes", [
    {"momentum": 0.7}, {"optimizer": "adam", "learning_rate": 0.02}, {"algorithm": FedProx(mu=0.5)}, {"batch_size": 64}])
def test_every_way_to_descend(kind, changes):
    if changes.get("batch_size", 0) > 40 and kind == "dp_sgd":
        pytest.skip("the sampling rates above are of batches of 8")
    compare(recipe_of("mlp"), kind, LocalTraining(**{**TRAINING.model_dump(), **changes}))


def test_scaffolds_correction():
    shifts = [None, *(np.random.default_rng(site).normal(0, 0.1, 75).astype(np.float32) for site in range(3))]
    compare(recipe_of("mlp"), "dp_sgd", TRAINING.model_copy(update={"algorithm": Scaffold()}), shifts=shifts)


@pytest.mark.parametrize("partial", ["keep", "normalise", "refuse"])
def test_time_that_is_up_early(partial):
    training = TRAINING.model_copy(update={"partial": partial, "momentum": 0.5})
    compare(recipe_of("mlp"), "dp_sgd", training, steps=(1, None, 3, 5))
    compare(recipe_of("mlp"), "none", training, steps=(1, None, 3, 5))


def test_two_classes():
    recipe = dataclasses.replace(recipe_of("mlp", classes=2), build_model=lambda: nn.Linear(8, 1))
    rows = [Examples(part.inputs["x"], part.targets["y"] % 2) for part in (rows_of(20, 1), rows_of(9, 2))]
    base, jobs = initial_tensors(recipe, 0), [Job(name, NoMechanism()) for name in ("one", "other")]
    learnt = Stacked(recipe, TRAINING, rows[0]).train(base, jobs, pool_of(jobs, rows), Streams(2))
    for place in range(2):
        alone = train(recipe, Lesson(base, rows[place]), TRAINING, NoMechanism(), own(place), UNGUARDED)
        assert learnt.delta_SD[place] == pytest.approx(flatten(alone.delta), abs=1e-6)


@pytest.mark.parametrize("layer", [nn.Linear(6, 3), nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3))])
def test_a_row_whose_gradient_is_not_finite_counts_as_zero(layer):
    class Root(nn.Module):
        """Not a number for rows that begin with a negative number."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 6), layer

        def forward(self, x):
            return self.last(self.first(x) * x[:, :1].sqrt())

    recipe = dataclasses.replace(recipe_of("mlp"), build_model=Root)
    rows = [rows_of(size, size) for size in (12, 12)]
    assert any((part.inputs["x"][:, 0] < 0).any() and (part.inputs["x"][:, 0] > 0).any() for part in rows)
    base, sgd = initial_tensors(recipe, 1), DpSgd(noise_multiplier=0.1, clip_norm=0.8, sampling_rate=0.9, steps=5)
    jobs = [Job("one", sgd), Job("other", sgd)]
    learnt = Stacked(recipe, TRAINING, rows[0]).train(base, jobs, pool_of(jobs, rows), Streams(2))
    alone = train(recipe, Lesson(base, rows[0]), TRAINING, sgd, own(0), UNGUARDED)
    assert learnt.delta_SD[0] == pytest.approx(flatten(alone.delta), abs=3e-5)


@pytest.mark.parametrize(("kind", "batch_size"), [("none", 8), ("none", 64), ("dp_sgd", 8)])
def test_a_model_may_change_its_inputs_in_place(kind, batch_size):
    class Halving(nn.Linear):
        def forward(self, x):
            x *= 0.5
            return super().forward(x)

    recipe = dataclasses.replace(recipe_of("mlp"), build_model=lambda: Halving(8, 3))
    compare(recipe, kind, TRAINING.model_copy(update={"batch_size": batch_size}))


def test_whether_a_model_can_be_stacked_is_tried_on_no_sites_own_memory():
    class Zeroing(nn.Linear):
        def forward(self, x):
            return super().forward(x.zero_())

    rows = rows_of(2, 1)
    stacked = Stacked(dataclasses.replace(recipe_of("mlp"), build_model=lambda: Zeroing(8, 3)), TRAINING, rows)
    assert stacked.why_not(NoMechanism()) is None
    assert stacked.sites_at_once(2, private=False) > 1
    assert rows.inputs["x"].all()


def test_what_cannot_be_stacked_says_why():
    class Branches(nn.Linear):
        def forward(self, x):
            return super().forward(x) * (2.0 if x.sum() > 0 else 1.0)

    recipe = dataclasses.replace(recipe_of("mlp"), build_model=lambda: Branches(8, 3))
    assert "cannot be stacked" in Stacked(recipe, TRAINING, rows_of(2, 1)).why_not(NoMechanism())
    in_order = DpFtrl(noise_multiplier=1.0, clip_norm=1.0, batch_size=4, steps=5)
    assert "in their order" in Stacked(recipe_of("mlp"), TRAINING, rows_of(2, 1)).why_not(in_order)
    assert Stacked(recipe_of("mlp"), TRAINING, rows_of(2, 1)).why_not(NoMechanism()) is None


def test_draws_of_all_sites_together_have_the_law_of_poisson_batches_and_gaussian_noise():
    draws, rate_S, rows_S = OneGenerator(7), np.array([0.25, 1.0, 0.5]), np.array([400, 10, 100])
    taken = torch.stack([draws.chosen(rate_S, rows_S).sum(1) for _ in range(200)]).double()
    assert (taken[:, 1] == 10).all()
    assert taken.mean(0).tolist() == pytest.approx([100, 10, 50], rel=0.03)
    assert taken.var(0)[[0, 2]].tolist() == pytest.approx([75, 25], rel=0.35)
    noise = draws.normal(50, 1000)
    assert (float(noise.mean()), float(noise.std())) == pytest.approx((0, 1), abs=0.02)


def test_sites_at_once_stay_within_memory_and_large_models_are_trained_alone(monkeypatch):
    small = Stacked(recipe_of("mlp"), TRAINING, rows_of(2, 1))
    assert small.sites_at_once(40, private=True) == stacked.MOST
    large = dataclasses.replace(recipe_of("mlp"), build_model=lambda: nn.Linear(8, 1 << 16))
    assert Stacked(large, TRAINING, rows_of(2, 1)).sites_at_once(40, private=False) == 1
    monkeypatch.setattr(stacked, "STACK_BYTES", 1 << 16)
    assert 1 < small.sites_at_once(40, private=True) < 30
