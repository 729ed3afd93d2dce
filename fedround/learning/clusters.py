"""Sites of several kinds: a run trains K models at once, and each site the one whose noised scores are best there (IFCA:
Ghosh et al. 2020, arXiv:2006.04088, with averages of models).

What travels is one file: its tensors are the recipe's with one more axis, the first, of length K. An update is of one model.
Which one follows from the site's own answer: it tells the noised scores of all K, and `chosen` reads them. So a choice costs
what these scores cost, whoever has the answer finds it again, and nobody can say another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from fedround.aggregation.spec import Aggregation
from fedround.codec import Schema, Tensors
from fedround.compression.spec import Compression, is_unbiased
from fedround.errors import ContractError
from fedround.learning.spec import FedAvg, LocalTraining, Parts, ServerOptimizer, Training
from fedround.learning.tasks import Task
from fedround.privacy.spec import Privacy, SitePrivacy
from fedround.spoken import how_many
from fedround.statistics import Release


def seeds(seed: int, clusters: int) -> list[int]:
    """From which each model's first parameters are drawn. They differ, so that sites can tell the models apart."""
    return [seed, *(int(hashlib.sha256(f"{seed} {cluster}".encode()).hexdigest()[:8], 16) for cluster in range(1, clusters))]


def together(models: Sequence[Tensors]) -> Tensors:
    """The models as they travel; a single one as it is."""
    if len(models) == 1:
        return models[0]
    return {name: np.stack([model[name] for model in models]) for name in models[0]}


def model_of(tensors: Tensors, cluster: int, clusters: int) -> Tensors:
    """One of the models. Raises ContractError if there are not so many."""
    if clusters == 1:
        return tensors
    if not 0 <= cluster < clusters or any(array.shape[:1] != (clusters,) for array in tensors.values()):
        raise ContractError(f"expected {clusters} models of one form, and model {cluster} of them")
    return {name: np.ascontiguousarray(array[cluster]) for name, array in tensors.items()}


def schema_of_one(tensors: Schema, clusters: int) -> Schema:
    """Of one of the models. Raises ContractError if there are not so many."""
    if clusters == 1:
        return tensors
    if any(spec.shape[:1] != (clusters,) for spec in tensors):
        raise ContractError(f"expected {clusters} models of one form: a tensor's first axis has another length")
    return tuple(spec.model_copy(update={"shape": spec.shape[1:]}) for spec in tensors)


def chosen(clusters: int, task: Task, told: Sequence[Release]) -> int | None:
    """Which of so many models a site trains that told these scores, one release for each: the one whose loss is lowest by
    them, the first of equals. A loss that noise hides counts as 1. None: there is one model for all.

    Raises ContractError unless each model is told of.
    """
    if clusters == 1:
        return None
    if len(told) != clusters:
        raise ContractError(f"scores of {how_many(len(told), 'model')} are told, and a site chooses among {clusters}")
    losses = [1.0 if (loss := task.mean_loss(one)) is None else loss for one in told]
    return losses.index(min(losses))


def objection_to_clusters(training: Training, privacy: Privacy, aggregation: Aggregation | None, optimizer: ServerOptimizer,
                          compression: Compression | None, parts: Parts, beside: Sequence[str]) -> str | None:
    """Why several models cannot be trained so; None if they can. beside: other settings that look at one model."""
    if not isinstance(training, LocalTraining):
        return "sites choose among models that are trained by steps: leave trees, union_step and foreign clients out"
    if isinstance(privacy, SitePrivacy):
        return "a site chooses by counts of scores, and under the unit 'site' none leave: agree on the unit 'record'"
    if aggregation is None:
        return "say [aggregation]: its rule is applied to each model's updates, and must bear as few as one model may have"
    remembers = {
        "a server optimizer with momentum": not isinstance(optimizer, FedAvg) or optimizer.momentum > 0,
        f"the algorithm '{training.algorithm.name}'": bool(training.algorithm.keeps or training.algorithm.serves),
        "training.rule": training.rule is not None,
        "aggregation.history": aggregation.history > 0,
        "aggregation.fairness": aggregation.fairness is not None,
        f"the rule '{aggregation.rule.name}'": aggregation.rule.begins_with_last or aggregation.rule.needs_root,
        "a compression that keeps numbers back": not is_unbiased(compression),
        "[parts]": parts != Parts()}
    found = [*(name for name, does in remembers.items() if does), *beside]
    return f"sites change between models, and these are of one model: leave out {', '.join(found)}" if found else None
