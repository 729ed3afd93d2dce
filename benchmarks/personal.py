"""What personalisation is for: sites that differ, and how well each of them is served; fills docs/personalisation.md.

    python -m benchmarks.personal        # 54 campaigns, a few minutes of CPU time; remembered in build/personal.json

Ten sites with scikit-learn's digits, a quarter of each site's images held out; a multilayer perceptron 64-32-10; 30 rounds of
10 steps, without privacy. The campaigns run in the simulator, whose numbers are a live federation's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from torch import nn

from benchmarks.pages import Memory, fill, table
from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.agreement import Agreement
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.parts import WHOLE
from fedround.learning.personal import personalise
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.spec import LocalTraining, Parts
from fedround.learning.tasks import Classify
from fedround.privacy.noise import stream
from fedround.privacy.spec import NoPrivacy
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.partition import Dirichlet, Iid, deal, take
from fedround.simulation.sites import Site

SITES, SEEDS, ROUNDS = 10, (0, 1, 2), 30
TRAINING = LocalTraining(local_steps=10, batch_size=20, learning_rate=0.1)
PULL = 0.1

Sites = Mapping[str, Site]


def plain() -> nn.Module:
    """64-32-10."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def normed() -> nn.Module:
    """The same behind a normalisation of the pixels; the statistics of a batch, so the layer must be private."""
    return nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


DIGITS = Classify(classes=10)
PLAIN, NORMED = (Recipe(model.__name__, "0" * 64, model, lambda rows: rows, DIGITS) for model in (plain, normed))

# -- how sites differ --------------------------------------------------------------------------------------------------


def by_labels(seed: int) -> Sites:
    """Most sites have seen few of the ten digits."""
    return _split(_dealt(Dirichlet(concentration=0.1), seed), seed)


def by_names(seed: int) -> Sites:
    """Every site calls the digits by other names."""
    generator = np.random.default_rng(seed)
    return _split([Examples(part.inputs["x"], generator.permutation(10)[part.targets["y"]])
                   for part in _dealt(Iid(), seed)], seed)


def by_scale(seed: int) -> Sites:
    """Every site's images have a brightness and a contrast of their own."""
    generator = np.random.default_rng(seed)
    return _split([Examples((part.inputs["x"] * np.exp(generator.uniform(-1.6, 1.6)) + generator.uniform(-2, 2)).astype(
        np.float32), part.targets["y"]) for part in _dealt(Iid(), seed)], seed)


WORLDS: dict[str, Callable[[int], Sites]] = {"few labels": by_labels, "other names": by_names, "other scales": by_scale}


def _dealt(how: Dirichlet | Iid, seed: int) -> list[Examples]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    digits = Examples((images / 16 - 0.3).astype(np.float32), labels.astype(np.int64))
    return [take(digits, places) for places in deal(how, digits, SITES, seed).values()]


def _split(parts: list[Examples], seed: int) -> Sites:
    """A quarter of each site's images is held out."""
    sites = {}
    for number, part in enumerate(parts):
        order = np.random.default_rng((seed, number)).permutation(len(part))
        cut = max(1, len(part) // 4)
        sites[f"site-{number}"] = Site(take(part, order[cut:]), take(part, order[:cut]))
    return sites


# -- how they are served -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """What is agreed, and what a site does with it."""

    recipe: Recipe = PLAIN
    parts: Parts = WHOLE
    alone: bool = False
    ditto: bool = False
    tuned: bool = False


WAYS = {"alone": Way(alone=True), "FedAvg": Way(), "FedAvg, fine-tuned": Way(tuned=True),
        "FedPer": Way(parts=Parts(private=("2.*",))), "FedBN": Way(NORMED, Parts(private=("0.*",))), "Ditto": Way(ditto=True)}


def at_the_sites(way: Way, sites: Sites, seed: int, rounds: int = ROUNDS) -> list[float]:
    """Each site's accuracy on what it holds out."""
    if way.alone:
        longer = TRAINING.model_copy(update={"local_steps": rounds * TRAINING.local_steps})
        begun = initial_tensors(way.recipe, seed)
        return [_accuracy(way, personalise(way.recipe, Lesson(begun, site.train), longer, _draws(name), UNGUARDED)[0], site)
                for name, site in sites.items()]
    agreement = Agreement(name="digits", quorum=len(sites), training=TRAINING, privacy=NoPrivacy(), parts=way.parts,
                          aggregation=Aggregation(rule=WeightedMean()))
    if way.ditto:
        return _beside(way, agreement, sites, seed, rounds)
    done = simulate(agreement, way.recipe, sites, rounds=rounds, chance=Seeded(seed), judge_every=rounds)
    if not way.tuned:
        return [_accuracy(way, {**done.model, **done.rests[name].whole}, site) for name, site in sites.items()]
    longer = TRAINING.model_copy(update={"local_steps": 50})
    return [_accuracy(way, personalise(way.recipe, Lesson(done.model, site.train), longer, _draws(name), UNGUARDED)[0], site)
            for name, site in sites.items()]


def _beside(way: Way, agreement: Agreement, sites: Sites, seed: int, rounds: int) -> list[float]:
    """Ditto: the personal models' rounds between those of the shared one."""
    shared = initial_tensors(way.recipe, seed)
    own = dict.fromkeys(sites, shared)
    for number in range(rounds):
        own = {name: personalise(way.recipe, Lesson(own[name], site.train, towards=shared), TRAINING, _draws(name, number),
                                 UNGUARDED, pull=PULL)[0] for name, site in sites.items()}
        shared = simulate(agreement, way.recipe, sites, rounds=1, chance=Seeded(1000 * seed + number), model=shared).model
    return [_accuracy(way, own[name], site) for name, site in sites.items()]


def _draws(*context: object):
    return stream(bytes(32), repr(context).encode())


def _accuracy(way: Way, model: Mapping[str, np.ndarray], site: Site) -> float:
    assert site.validation is not None
    return way.recipe.task.metrics(scores(way.recipe, model, site.validation)).accuracy or 0.0


def _reached(way: Way, make: Callable[[int], Sites], seed: int) -> list[float]:
    return at_the_sites(way, make(seed), seed)


def rows(memory: Memory) -> list[list[str]]:
    """A line for each way: mean over sites, standard deviation over sites, and the worst site; each a mean over seeds."""
    lines = []
    for name, way in WAYS.items():
        line = [name]
        for world, make in WORLDS.items():
            found = np.array([memory.recall(name, [world, seed, ROUNDS, PULL], partial(_reached, way, make, seed))
                              for seed in SEEDS])
            line.append(f"{found.mean():.3f} / {found.std(axis=1).mean():.3f} / {found.min(axis=1).mean():.3f}")
        lines.append(line)
    return lines


def main() -> None:
    """Run what is not remembered, then write the table."""
    import torch

    torch.set_num_threads(1)
    text = table(["", *WORLDS], rows(Memory(Path("build/personal.json"))))
    fill(Path("docs/personalisation.md"), "table", text)
    print(text)


if __name__ == "__main__":
    main()
