"""Baselines for a simulated federation: training on all rows in one place, and each site on its own rows only. Neither is
private. And where members share noise: the same budget with noise of each site's own, which is.

The comparison is fair: a baseline that holds out rows may use a smaller learning rate, if it does better on them. (A rate
that suits clipped and noised gradients is often too large for others. Of trees it may use a smaller `l2`.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.agreement import Agreement
from fedround.codec import Tensors
from fedround.errors import ContractError, DivergedError
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples, joined
from fedround.learning.foreign.spec import Foreign
from fedround.learning.recipe import Recipe
from fedround.learning.spec import FedAvg, LocalTraining, Parts, Training
from fedround.learning.trees.spec import Trees
from fedround.learning.union.spec import UnionStep
from fedround.privacy.spec import NoPrivacy
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Chance
from fedround.simulation.sites import Site

SLOWER = (1.0, 0.25, 0.0625)
"""Shares of the agreed learning rate, or of the trees' `l2`, that a baseline tries."""

LARGEST_BATCH, LARGEST_RATE = 65_536, 100.0


def centralised(agreement: Agreement, recipe: Recipe, sites: Mapping[str, Site], rounds: int, chance: Chance,
                asked: int) -> Tensors:
    """What the same model learns on all rows, in as many steps, each on as many rows as `asked` sites take together."""
    held_out = [site.validation for site in sites.values() if site.validation is not None]
    everything = Site(joined([site.train for site in sites.values()]), joined(held_out) if held_out else None)
    return _best(agreement, recipe, everything, rounds, chance, asked)


def alone(agreement: Agreement, recipe: Recipe, site: Site, rounds: int, chance: Chance) -> Tensors:
    """What the same model learns from one site's rows, in as many steps as in the federation."""
    return _best(agreement, recipe, site, rounds, chance, 1)


def with_own_noise(agreement: Agreement, sites: Mapping[str, Site]) -> Agreement:
    """The same rounds and budget without `combine`: every site noises by itself what it sends, and takes a step by itself
    where all took one together, on a batch of the same share of its rows, or as near as one size for all comes.
    """
    said = {name: getattr(agreement, name) for name in agreement.model_fields_set if name != "combine"}
    if isinstance(agreement.training, UnionStep):
        how, rows = agreement.training, [len(site.train) for site in sites.values()]
        rate = how.sampling_rate(sum(rows))
        batch = max(rows) if rate == 1 else math.ceil(rate * sum(rows) / len(rows))
        said["training"] = LocalTraining(
            local_steps=1, batch_size=min(LARGEST_BATCH, batch), learning_rate=min(how.learning_rate, LARGEST_RATE),
            class_weights=how.class_weights, augmentation=how.augmentation)
    return Agreement(**said, aggregation=Aggregation(rule=WeightedMean()))


def _best(agreement: Agreement, recipe: Recipe, site: Site, rounds: int, chance: Chance, batches: int) -> Tensors:
    tried = [_trained(agreement, recipe, site, rounds, chance, batches, rate)
             for rate in (SLOWER if site.validation is not None else SLOWER[:1])]
    return max(tried, key=lambda model: _quality(recipe, model, site.validation))


def _trained(agreement: Agreement, recipe: Recipe, site: Site, rounds: int, chance: Chance, batches: int,
             slower: float) -> Tensors:
    """The agreement's learning, and nothing else of it. batches: of how many sites a step takes together."""
    plain = Agreement(
        name=agreement.name, quorum=1, privacy=NoPrivacy(), aggregation=Aggregation(rule=WeightedMean()), optimizer=FedAvg(),
        parts=Parts(frozen=agreement.parts.frozen),
        training=_slower(agreement.training, batches, slower))
    return simulate(plain, recipe.growing(plain.training), {"alone": Site(site.train)}, rounds=rounds, chance=chance,
                    judge_every=rounds, stacked=True).model


def _slower(training: Training, batches: int, share: float) -> Training:
    if isinstance(training, Trees):
        return training.model_copy(update={"l2": training.l2 * share})
    if isinstance(training, UnionStep):
        return LocalTraining(local_steps=1, batch_size=min(LARGEST_BATCH, training.batch_size),
                             learning_rate=min(training.learning_rate * share, LARGEST_RATE))
    if isinstance(training, Foreign):
        raise ContractError("a foreign client is not simulated")
    return LocalTraining(local_steps=training.local_steps, batch_size=min(LARGEST_BATCH, training.batch_size * batches),
                         optimizer=training.optimizer, learning_rate=training.learning_rate * share,
                         momentum=training.momentum)


def _quality(recipe: Recipe, model: Tensors, rows: Examples | None) -> float:
    """On rows held out: the task's headline; 0 if it is not defined for these rows, and less than any for a model that has
    diverged.
    """
    if rows is None:
        return 0.0
    try:
        found = recipe.task.metrics(scores(recipe, model, rows))
    except DivergedError:
        return -math.inf
    except ContractError:       # rows of one label only
        return 0.0
    return found.of(recipe.task.headline) or 0.0
