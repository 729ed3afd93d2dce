"""What tests of a site's half of a round share: a recipe, rows, draws that say what they were asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from torch import nn

from fedround.agreement import Agreement
from fedround.learning.examples import Examples
from fedround.learning.guard import UNGUARDED, Guard
from fedround.learning.lesson import Lesson
from fedround.learning.recipe import Recipe, initial
from fedround.learning.train import train
from fedround.privacy.noise import stream
from fedround.records import Train
from fedround.rounds.offer import offer
from fedround.rounds.site import (
    Inputs,
    Kept,
    work,
)
from fedround.statistics import Histogram, Scores

RECIPE = Recipe("two", "0" * 64, lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), lambda rows: rows)
SCORES, AGES = Scores(noise_std=5.0, bins=4), Histogram(noise_std=3.0, column="age", edges=(20.0, 40.0))
SEED = bytes(32)
RECORD = {"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "rounds": 5}


def agreed(**changes: object) -> Agreement:
    return Agreement.model_validate({
        "name": "rounds", "quorum": 1, "privacy": {"unit": "none"}, "aggregation": {"rule": {"name": "weighted_mean"}},
        "training": {"local_steps": 3, "batch_size": 16, "learning_rate": 0.5}} | changes)


@dataclass(frozen=True)
class Draws:
    """Every stream by its name, and who asked for it."""

    asked: list

    def _stream(self, *what: object):
        self.asked.append(what)
        return stream(SEED, str(what).encode())

    def statistic(self, place, private):
        return self._stream("statistic", place, tuple(private))

    def training(self, shift_D, private):
        return self._stream("training", None if shift_D is None else hashlib.sha256(shift_D).hexdigest(), tuple(private))

    def compression(self):
        return self._stream("compression")

    def personal(self):
        return self._stream("personal")

    def persons(self):
        return SEED


def inputs(agreement: Agreement, kept: Kept | None = None, served=None, rows: int = 40) -> Inputs:
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(2, rows, 3)).astype(np.float32), generator.integers(0, 2, (2, rows))
    base, begun = initial(RECIPE, 0, agreement.parts)
    columns = {"age": generator.uniform(0, 90, 2 * rows)}
    return Inputs(RECIPE, base, begun, served or {}, kept or Kept(), Examples(x[0], y[0]), Examples(x[1], y[1]),
                  columns.__getitem__)


def done(asks, agreement: Agreement, kept: Kept | None = None, served=None, number: int = 2, guard: Guard = UNGUARDED):
    given_, terms, draws = inputs(agreement, kept, served), agreement.terms(), Draws([])
    offered = offer(asks, terms, len(given_.train), lambda _: True)
    return work(asks, terms, number, SEED, given_, offered, draws, guard), draws.asked, given_


def trained(agreement: Agreement, given_: Inputs, shift_D=None):
    """By hand: what the release of the training is, before it is packed."""
    mechanism = offer(Train(), agreement.terms(), len(given_.train), lambda _: True).training
    what = ("training", None if shift_D is None else hashlib.sha256(shift_D).hexdigest(), tuple(given_.rest.private))
    return train(RECIPE, Lesson(given_.base, given_.train, given_.rest, shift_D=shift_D), agreement.training, mechanism,
                 stream(SEED, str(what).encode()), UNGUARDED)
