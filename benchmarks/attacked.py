"""Training under attack: a federation of digits whose every round goes through the engine.

Legend: A attacks, S seeds, N sites (liars first), D coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import digits
from benchmarks.attacks import Attack, Floats, View
from fedround.aggregation.engine import aggregate
from fedround.aggregation.history import History, blend, with_upload
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.rows import ArrayNumbers, Row
from fedround.aggregation.spec import Aggregation

SITES, ROUNDS, MEASURED_ROUNDS = 12, 25, 3
CLIP_NORM = 1.0
LOCAL_STEPS, BATCH, LEARNING_RATE = 5, 32, 0.4
LABEL_FLIP = "label_flip"


@dataclass(frozen=True)
class Setting:
    """What one table fixes."""

    liars: int
    noise: float
    """z: standard deviation of the noise in a coordinate of an upload, in clip norms."""
    history: float
    """beta of the coordinator's moving average of each site's uploads."""

    def __str__(self) -> str:
        return f"f = {self.liars}, z = {self.noise:g}, β = {self.history:g}"

    @property
    def law(self) -> NoiseLaw | None:
        """The law of one upload: clipped, then noised."""
        return NoiseLaw(CLIP_NORM, (self.noise * CLIP_NORM) ** 2) if self.noise > 0 else None


@dataclass(frozen=True, eq=False)
class Coordinator:
    """Who turns rows into one result; all that it has in a round besides them."""

    how: Aggregation
    law: NoiseLaw | None
    centre_D: Floats
    """The last result, where centered clipping starts."""
    root_D: Floats
    """What the coordinator's own root set taught; FLTrust alone looks at it."""
    seed: bytes

    def __call__(self, rows_ND: Floats) -> Floats:
        """(N, D) to (D,)."""
        rows = [Row(f"site-{place:02d}", 1.0, ArrayNumbers(row_D), self.law)
                for place, row_D in enumerate(rows_ND.astype(np.float32))]
        result = aggregate(rows, self.how, rows_ND.shape[1], seed=self.seed, centre=_numbers(self.centre_D),
                           root=_numbers(self.root_D))
        return result.delta_D.astype(np.float64)


def simulate(how: Aggregation, attacks: Mapping[str, Attack], setting: Setting, seeds: Sequence[int], *,
             rounds: int = ROUNDS) -> Floats:
    """Test accuracy under each attack for each seed, the mean over the last rounds, (A, S).

    attacks: by name; the liars of "label_flip" train on wrong labels, all others on right ones.
    """
    data, names = digits.load(tuple(seeds), SITES), list(attacks)
    flipped_A = np.array([name == LABEL_FLIP for name in names])
    models_ASD = np.repeat(digits.initial_models(tuple(seeds))[None], len(names), axis=0)
    generators = [np.random.default_rng([1, seed]) for seed in seeds]
    history: History | None = None
    rows_ASND, learnt_ASND, first_ASND = None, None, None
    last_ASD, accuracies = np.zeros(models_ASD.shape), []
    for number in range(rounds):
        updates = digits.local_updates(models_ASD, data, flipped_A, setting.liars, steps=LOCAL_STEPS, batch=BATCH,
                                       learning_rate=LEARNING_RATE, generators=generators)
        uploads_ASND, roots_ASD = _clipped(updates[:, :, :SITES]), updates[:, :, SITES]
        noise_SND = np.array([generator.standard_normal(uploads_ASND.shape[2:], np.float32) for generator in generators])
        history = with_upload(history, setting.law, setting.history)
        rows_ASND = blend(rows_ASND, uploads_ASND + np.float32(setting.noise * CLIP_NORM) * noise_SND, history)
        learnt_ASND = blend(learnt_ASND, uploads_ASND, history)
        first_ASND = rows_ASND if first_ASND is None else first_ASND
        for a, s in np.ndindex(last_ASD.shape[:2]):
            coordinator = Coordinator(how, history.law, last_ASD[a, s], roots_ASD[a, s], b"%d/%d" % (seeds[s], number))
            rows_ND = _attacked(attacks[names[a]], setting.liars, rows_ASND[a, s], learnt_ASND[a, s], first_ASND[a, s],
                                coordinator, np.random.default_rng([2, number, seeds[s]]))
            last_ASD[a, s] = coordinator(rows_ND)
        models_ASD += last_ASD.astype(np.float32)
        if number >= rounds - MEASURED_ROUNDS:
            accuracies.append(digits.accuracy(models_ASD, data))
    return np.mean(accuracies, axis=0)


def _attacked(attack: Attack, liars: int, trained_ND: digits.Numbers, learnt_ND: digits.Numbers, first_ND: digits.Numbers,
              coordinator: Coordinator, generator: np.random.Generator) -> Floats:
    """What the coordinator gets when the first `liars` sites attack, (N, D)."""
    rows_ND = trained_ND.astype(np.float64)
    view = View(honest_HD=rows_ND[liars:], learnt_D=learnt_ND[liars:].mean(axis=0, dtype=np.float64),
                own_D=learnt_ND[:liars].mean(axis=0, dtype=np.float64), first_HD=first_ND[liars:].astype(np.float64),
                trained_LD=rows_ND[:liars], clip_norm=CLIP_NORM, law=coordinator.law, server=coordinator, generator=generator)
    return np.vstack([attack(view), rows_ND[liars:]])


def _clipped(updates: digits.Numbers) -> digits.Numbers:
    norms = np.linalg.norm(updates, axis=-1, keepdims=True)
    return updates * np.minimum(1, CLIP_NORM / np.maximum(norms, 1e-12))


def _numbers(vector_D: Floats) -> ArrayNumbers:
    return ArrayNumbers(vector_D.astype(np.float32))
