"""Liars who are in no hurry: slow drift, copies, one site with two names; and backdoors, which no accuracy shows.

    python -m benchmarks.patient                    # all tables, seeds 0, 1, 2: a quarter of an hour, one thread
    python -m benchmarks.patient --only drift

The federation of `benchmarks.breakdown`: twelve sites of digits, liars come first. A backdoor's liars put a bright 2 x 2
square into half of their images and call them "0"; success is the share of test images of other digits that are called "0"
once the square is in them. They clip and noise as everybody does; "x 3" scales what they learnt by three before noise.

Legend: S seeds, N sites, L liars, E examples of a batch, D coordinates.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from benchmarks import digits
from benchmarks.attacked import BATCH, CLIP_NORM, LEARNING_RATE, LOCAL_STEPS, SITES, Coordinator, Setting, simulate
from benchmarks.attacks import Attack, Floats, View, direction
from benchmarks.contenders import CONTENDERS, DEFAULT
from fedround.aggregation.history import blend, with_upload

Trigger = tuple[int, ...]
"""Pixels of an image that are made bright."""

ROUNDS, SLOW_ROUNDS = 25, 60
SQUARE: Trigger = (54, 55, 62, 63)              # the lower right corner of 8 x 8
CANARIES: tuple[Trigger, ...] = tuple((at, at + 1, at + 8, at + 9) for at in range(55) if at % 8 < 7)
"""Every 2 x 2 square: what a coordinator that expects such a trigger can try on public images."""
BRIGHT, TARGET = 0.7, 0
CASES = ((0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0), (1, 3.0), (2, 3.0))
"""How many sites lie, and how they scale what they learnt."""
RULES = (DEFAULT, "gate+mean", "mean")


# -- drift, copies, two names ------------------------------------------------------------------------------------------


def slow_drift(length: float) -> Attack:
    """What an honest site sends, and a little of one direction, the same in every round."""
    def attack(view: View) -> Floats:
        drawn_D = np.random.default_rng(3).standard_normal(view.coordinates)
        return view.trained_LD + length * direction(drawn_D)
    return attack


def copies(view: View) -> Floats:
    """Each liar sends what another honest site sends: the gate leaves out both."""
    return view.honest_HD[:view.liars].copy()


def two_names(view: View) -> Floats:
    """One row against what was learnt, under every liar's name."""
    return np.tile(view.trained_LD[0] - CLIP_NORM * direction(view.learnt_D), (view.liars, 1))


DRIFTS: dict[str, Attack] = {"none": slow_drift(0.0), "drift 0.1": slow_drift(0.1), "drift 0.3": slow_drift(0.3),
                             "drift 1": slow_drift(1.0), "copies": copies, "two names": two_names}


def drift_table(rules: Sequence[str], seeds: Sequence[int], liars: int) -> list[str]:
    """Accuracy after a long run with a long memory, percent."""
    lines = [f"f = {liars}, z = 0.1, β = 0.9, {SLOW_ROUNDS} rounds", "", "| rule | " + " | ".join(DRIFTS) + " |",
             "|---|" + "--:|" * len(DRIFTS)]
    for rule in rules:
        found_AS = simulate(CONTENDERS[rule](liars, SITES, 1.0), DRIFTS, Setting(liars, 0.1, 0.9), seeds, rounds=SLOW_ROUNDS)
        lines.append(f"| {rule} | " + " | ".join(f"{100 * value:.1f}" for value in found_AS.mean(axis=1)) + " |")
    return lines


# -- backdoors ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Judged:
    """What a run came to."""

    accuracy: float
    success: float
    canary: float
    """The largest share of test images of other classes that one of the canaries turns into one class."""
    by_class: Floats
    """The accuracy of every class."""
    model_D: digits.Numbers


def backdoor(rule: str, liars: int, scale: float, noise: float, seed: int, rounds: int = ROUNDS,
             trigger: Trigger = SQUARE, draws: int = 0) -> Judged:
    """What is reached after a run in which so many sites lie. draws: of noise and batches; the rows are the seed's."""
    setting, how = Setting(liars, noise, 0.5), CONTENDERS[rule](max(liars, 2), SITES, 1.0)
    data, model_SD = digits.load((seed,), SITES), digits.initial_models((seed,))
    generator, lies = np.random.default_rng([1, seed, *[draws] * (draws > 0)]), np.random.default_rng([4, seed])
    history, rows_ND = None, None
    for number in range(rounds):
        learnt = digits.local_updates(model_SD[None], data, np.array([False]), 0, steps=LOCAL_STEPS, batch=BATCH,
                                      learning_rate=LEARNING_RATE, generators=[generator])[0, 0]
        uploads_ND = learnt[:SITES].copy()
        for liar in range(liars):
            uploads_ND[liar] = backdoored(model_SD[0], data, data.shards[0][liar], trigger, lies)
        norm_N1 = np.linalg.norm(uploads_ND, axis=1, keepdims=True)
        uploads_ND *= np.minimum(1, CLIP_NORM / norm_N1)
        uploads_ND[:liars] *= scale
        noised_ND = uploads_ND + np.float32(noise) * generator.standard_normal(uploads_ND.shape, np.float32)
        history = with_upload(history, setting.law, setting.history)
        rows_ND = blend(rows_ND, noised_ND, history)
        coordinator = Coordinator(how, history.law, np.zeros(digits.COORDINATES), learnt[SITES].astype(float), b"%d" % number)
        model_SD = model_SD + coordinator(rows_ND.astype(np.float64)).astype(np.float32)
    return _judged(model_SD[0], data, trigger)


def marked(images: digits.Numbers, trigger: Trigger) -> digits.Numbers:
    """The same images with these pixels bright."""
    bright = images.copy()
    bright[..., trigger] = BRIGHT
    return bright


def backdoored(model_D: digits.Numbers, data: digits.Digits, shard: digits.Labels, trigger: Trigger,
               generator: np.random.Generator) -> digits.Numbers:
    """What a liar learns: half of every batch has the trigger and is called "0", (D,)."""
    model = model_D.copy()
    for _ in range(LOCAL_STEPS):
        chosen_E = generator.choice(shard, BATCH)
        images, labels = data.images[chosen_E].copy(), data.labels[chosen_E].copy()
        images[:BATCH // 2], labels[:BATCH // 2] = marked(images[:BATCH // 2], trigger), TARGET
        model -= LEARNING_RATE * digits.gradient(model, images, labels)
    return model - model_D


def turned(model_D: digits.Numbers, data: digits.Digits, trigger: Trigger, label: int) -> float:
    """The share of test images of other classes that are called `label` once these pixels are bright."""
    others = data.test_labels != label
    return float((named(model_D, marked(data.test_images[others], trigger)) == label).mean())


def _judged(model_D: digits.Numbers, data: digits.Digits, trigger: Trigger) -> Judged:
    right = named(model_D, data.test_images) == data.test_labels
    by_class = np.array([right[data.test_labels == label].mean() for label in range(digits.CLASSES)])
    canary = max(turned(model_D, data, pixels, label) for pixels in CANARIES for label in range(digits.CLASSES))
    return Judged(float(right.mean()), turned(model_D, data, trigger, TARGET), canary, by_class, model_D)


def raised(model_D: digits.Numbers, images: digits.Numbers) -> digits.Numbers:
    """A number for each class, the larger the surer."""
    hidden_weights, hidden_bias, output_weights, output_bias = digits.layers(model_D)
    hidden = np.maximum(images @ hidden_weights + hidden_bias, 0)
    found: digits.Numbers = hidden @ output_weights + output_bias
    return found


def named(model_D: digits.Numbers, images: digits.Numbers) -> digits.Labels:
    """What the model calls each image."""
    found: digits.Labels = raised(model_D, images).argmax(axis=-1)
    return found


def backdoor_table(rules: Sequence[str], seeds: Sequence[int], noise: float) -> list[str]:
    """Accuracy and success for each rule, and how much the worst class loses beside a run in which nobody lies."""
    lines = [f"z = {noise:g}, β = 0.5, {ROUNDS} rounds: accuracy / success / loss of the class that lost most, %", "",
             "| rule | " + " | ".join(f"{liars} x {scale:g}" for liars, scale in CASES) + " |", "|---|" + "--:|" * len(CASES)]
    for rule in rules:
        cells, honest = [], [backdoor(rule, 0, 1.0, noise, seed) for seed in seeds]
        for liars, scale in CASES:
            found = [backdoor(rule, liars, scale, noise, seed) for seed in seeds] if liars else honest
            lost = np.mean([(before.by_class - after.by_class).max() for before, after in zip(honest, found, strict=True)])
            cells.append(f"{100 * np.mean([one.accuracy for one in found]):.1f} / "
                         f"{100 * np.mean([one.success for one in found]):.0f} / {100 * lost:.0f}")
        lines.append(f"| {rule} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Print the tables, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("drift", "backdoor"))
    parser.add_argument("--seeds", type=lambda given: [int(seed) for seed in given.split(",")], default=[0, 1, 2])
    asked = parser.parse_args()
    if asked.only in {None, "backdoor"}:
        for noise in (0.1, 0.3):
            print("\n".join(backdoor_table(RULES, asked.seeds, noise)), end="\n\n", flush=True)
    if asked.only in {None, "drift"}:
        print("\n".join(drift_table(RULES, asked.seeds, 2)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
