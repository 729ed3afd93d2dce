"""Experiments of docs/literature.md that are more than a campaign: sites of four kinds, answers instead of weights, ten draws
of the hospitals, and what top-k keeps back.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from benchmarks.papers import mnist, recipe
from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.agreement import Agreement
from fedround.compression.spec import TopK
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples, joined
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.spec import LocalTraining
from fedround.learning.tasks import Classify
from fedround.privacy.spec import NoPrivacy, Privacy, RecordPrivacy
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.distilled import Party, Study, Teacher, distil, fedmd
from fedround.simulation.partition import Iid, Shards, deal, take
from fedround.simulation.sites import Site
from fedround.statistics import LocalEvaluation
from fedround_examples.digits.split import STORY as DIGITS
from fedround_examples.hospitals.split import STORY, hospitals
from fedround_examples.judging import Predict, auc, predictor
from fedround_examples.rivals import best, fit_logistic_regression, fit_mlp

ROTATIONS = 4


def _agreement(steps: int, rate: float, privacy: Privacy | None = None, batch: int = 20) -> Agreement:
    return Agreement(name="papers", quorum=1, privacy=NoPrivacy() if privacy is None else privacy,
                     aggregation=Aggregation(rule=WeightedMean()),
                     training=LocalTraining(local_steps=steps, batch_size=batch, learning_rate=rate))


# -- rotated images ----------------------------------------------------------------------------------------------------


def rotated(seed: int, rounds: int = 30) -> dict[str, float]:
    """Mean test accuracy of 80 sites, twenty for each rotation: one model for all, one for each cluster, each site alone.

    A fifth of each site's images is held out, to choose by; nothing is noised. Also how many of the four clusters are exactly
    one rotation's sites.
    """
    train, test = mnist()
    dealt, sites = list(deal(Iid(), train, 20 * ROTATIONS, seed).values()), {}
    for place, rows in enumerate(dealt):
        held_out, own_rows = np.split(rows, [len(rows) // 5])
        sites[f"site-{place:02d}"] = Site(*(_turned(take(train, part), place % ROTATIONS) for part in (own_rows, held_out)))
    tests, own, agreement = [_turned(test, turns) for turns in range(ROTATIONS)], recipe("mlp"), _agreement(10, 0.3)
    choosing = agreement.model_copy(update={"evaluation": LocalEvaluation(noise_std=0.0, clusters=ROTATIONS)})
    found, one = (simulate(how, own, sites, rounds=rounds, chance=Seeded(seed), stacked=True, judge_every=rounds)
                  for how in (choosing, agreement))
    alone = [simulate(agreement, own, {name: sites[name]}, rounds=rounds, chance=Seeded(seed), stacked=True,
                      judge_every=rounds).model for name in list(sites)[:2 * ROTATIONS]]

    def reached(model: dict[str, np.ndarray], turns: int) -> float:
        return own.task.metrics(scores(own, model, tests[turns])).known()["accuracy"]

    groups = {frozenset(int(name[-2:]) % ROTATIONS for name, picked in found.picked.items() if picked == cluster)
              for cluster in range(ROTATIONS)}
    return {
        "clustered": float(np.mean([reached(found.at(name), int(name[-2:]) % ROTATIONS) for name in sites])),
        "one": float(np.mean([reached(one.model, turns) for turns in range(ROTATIONS)])),
        "alone": float(np.mean([reached(model, place % ROTATIONS) for place, model in enumerate(alone)])),
        "found": float(sum(len(group) == 1 for group in groups))}


def _turned(images: Examples, quarters: int) -> Examples:
    square = images.inputs["x"].reshape(-1, 28, 28)
    return Examples(np.ascontiguousarray(np.rot90(square, quarters, axes=(1, 2))).reshape(-1, 784), images.targets["y"])


# -- answers instead of weights ----------------------------------------------------------------------------------------


def answers(seed: int, rounds: int = 5) -> dict[str, float]:
    """Test accuracies, means over ten sites of about three digits each, 1,000 of 4,000 images public and without labels; and
    a student a tenth as large as its teacher.
    """
    train, test = mnist()
    public, owned = take(train, np.arange(1000)), take(train, np.arange(1000, len(train)))
    kinds = [recipe("mlp"), _hidden(16), recipe("linear")]
    rows = [take(owned, places) for places in deal(Shards(each=3), owned, 10, seed).values()]
    parties = {f"site-{place:02d}": Party(kinds[place % 3], own) for place, own in enumerate(rows)}
    agreement, private = _agreement(20, 0.1), _agreement(10, 0.5, RecordPrivacy(
        epsilon=8.0, delta_dp=1e-5, rounds=rounds), batch=4096)
    how = Study(passes=3)

    def mean(models: Mapping[str, dict[str, np.ndarray]]) -> float:
        return float(np.mean([parties[name].recipe.task.metrics(scores(parties[name].recipe, model, test)).known()["accuracy"]
                              for name, model in models.items()]))

    alone = {name: simulate(agreement, party.recipe, {name: Site(party.train)}, rounds=rounds, chance=Seeded(seed)).model
             for name, party in parties.items()}
    free = fedmd(agreement, parties, public.inputs["x"], rounds=rounds, seed=seed, how=how)
    noised = fedmd(private, parties, public.inputs["x"], rounds=rounds, seed=seed, how=how)
    sites = {name: Site(party.train) for name, party in parties.items()}
    weights = simulate(agreement, recipe("mlp"), sites, rounds=rounds, chance=Seeded(seed), stacked=True, test=test)
    student, small = distil(_hidden(6), [Teacher(recipe("mlp"), weights.model)], public.inputs["x"], seed=seed,
                            how=Study(passes=30)), _hidden(6)
    return {"alone": mean(alone), "fedmd": mean(free.models), "fedmd_private": mean(noised.models),
            "fedmd_bytes": free.sent_bytes, "fedavg": weights.last.test.known()["accuracy"] if weights.last.test else 0.0,
            "fedavg_bytes": weights.sent_bytes,
            "student": small.task.metrics(scores(small, student, test)).known()["accuracy"]}


@cache
def _hidden(size: int) -> Recipe:
    from torch import nn

    large = recipe("linear")
    return Recipe(f"mnist-mlp-{size}", large.digest, lambda: nn.Sequential(
        nn.Linear(784, size), nn.ReLU(), nn.Linear(size, 10)), large.encode, Classify(classes=10))


# -- hospitals ---------------------------------------------------------------------------------------------------------


def hospital_draw(seed: int) -> dict[str, list[float]]:
    """For another draw of who is tested on: AUC over all patients tested, and over pairs of patients of the same hospital."""
    own, settings, parts = STORY.recipe(), STORY.settings(), hospitals(seed=seed)
    train = {part.name: own.encode(part.train) for part in parts}
    held_out = {part.name: own.encode(part.validation) for part in parts}
    tests = [own.encode(part.test) for part in parts]
    fits = {"logistic regression": fit_logistic_regression, "recipe's model": fit_mlp}
    open_ = settings.model_copy(update={"privacy": NoPrivacy()})
    sites = {name: Site(rows) for name, rows in train.items()}

    def federation(agreement: Agreement) -> Predict:
        return predictor(own, simulate(agreement, own, sites, rounds=20, chance=Seeded(seed)).model)

    def fit(rows: Examples, validation: Examples) -> Predict:
        return best(own, rows, validation, fits, seed)[1]

    found = {"pooled": fit(joined(list(train.values())), joined(list(held_out.values()))),
             "federation": federation(open_), "federation, epsilon 5": federation(settings)}
    found |= {name: fit(train[name], held_out[name]) for name in train}
    return {name: [auc(predict, joined(tests)), _within(predict, tests)] for name, predict in found.items()}


def _within(predict: Predict, tests: list[Examples]) -> float:
    """The share of pairs (one ill, one healthy, of the same hospital) that a model puts in the right order."""
    right, pairs = 0.0, 0
    for rows in tests:
        count = int((rows.targets["y"] == 1).sum() * (rows.targets["y"] == 0).sum())
        right, pairs = right + count * auc(predict, rows), pairs + count
    return right / pairs


# -- what top-k keeps back ---------------------------------------------------------------------------------------------


def residual(seed: int, share: float, rounds: int = 20) -> dict[str, float]:
    """Test accuracy of the digits' federation without privacy, when the `share` of numbers that are largest leaves: with
    what is kept back added to the next round, and without.
    """
    rows, own = DIGITS.encoded(), DIGITS.recipe()
    sites = {name: Site(train) for name, train in rows.train.items()}
    agreement = _agreement(10, 0.5, batch=64).model_copy(update={"compression": TopK(share=share)})
    kept = simulate(agreement, own, sites, rounds=rounds, chance=Seeded(seed), stacked=True).model
    model = initial_tensors(own, seed)
    for number in range(rounds):        # what a campaign keeps back ends with it: so many campaigns of one round
        model = simulate(agreement, own, sites, rounds=1, chance=Seeded(1000 * seed + number), stacked=True,
                         model=model).model
    return {name: own.task.metrics(scores(own, tensors, rows.test)).known()["accuracy"]
            for name, tensors in (("kept", kept), ("dropped", model))}
