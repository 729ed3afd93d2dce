"""What a model of trees says of each feature by itself, if its trees ask about one each, with the noise in it.

No site is asked, and no privacy is spent: it is read from the model, and from what the sites declared of their noise.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.learning.law import law_of
from fedround.learning.threads import one_thread
from fedround.learning.trees.shapes import Named, noise_in_leaves, shapes
from fedround.learning.trees.spec import Trees
from infra.documents import read_federation, read_tensors
from infra.history import read_checkpoint, read_commit, read_plan
from tasks import evidence
from tasks.coordinator import Coordinator
from tasks.evaluate import public_rows
from tasks.plan import Planned


def shapes_of(coordinator: Coordinator, run: str, number: int) -> tuple[Named, ...]:
    """Of a committed round's model, in the order of the recipe's features.

    The noise is told where the coordinator has public rows and the sites noised their sums. Raises ContractError if the
    model's trees ask about several features each, or it has none.
    """
    commit, trees = read_commit(coordinator.store, run, number, coordinator.key).commit, coordinator.recipe.trees
    if trees is None:
        raise ContractError(f"recipe '{coordinator.recipe.name}' says no TREES: only of trees a feature's part can be read")
    checkpoint = read_checkpoint(coordinator.store, commit, coordinator.key)
    if checkpoint.recipe_digest != coordinator.recipe.digest:
        raise ContractError(f"round {number} of '{run}' was trained with recipe {checkpoint.recipe_digest[:16]}, and the "
                            f"coordinator's is {coordinator.recipe.digest[:16]}: put back the recipe of that run")
    model = read_tensors(coordinator.store, commit.model, checkpoint.tensors, f"model of round {number}")
    with one_thread():
        found = shapes(trees, model, _noise(coordinator, trees, model, run, number))
    columns = coordinator.recipe.declared.columns
    names = [f"feature {place}" for place in range(len(trees.axes))] if columns is None else columns.names
    return tuple(Named(names[one.feature], trees.axes[one.feature].low, trees.axes[one.feature].high, one) for one in found)


def _noise(coordinator: Coordinator, trees: Trees, model: Tensors, run: str, number: int) -> npt.NDArray[np.float64] | None:
    if coordinator.settings.test_set is None:
        return None
    stds = [_std(coordinator, trees, run, one) for one in range(1, number + 1)]
    if None in stds:
        return None
    return noise_in_leaves(trees, coordinator.recipe.task, model, public_rows(coordinator), np.array(stds, float))


def _std(coordinator: Coordinator, trees: Trees, run: str, number: int) -> float | None:
    """Of the noise in a round's aggregate: each site's, by its share of it. None: not known."""
    store, key = coordinator.store, coordinator.key
    head = read_commit(store, run, number, key)
    plan = read_plan(store, head.commit, key)
    members = read_federation(store, plan.federation_digest, key, f"federation file of round {number}")
    planned = Planned(plan, head.commit.plan or "", read_commit(store, run, number - 1, key))
    variance = []
    for told in head.commit.updates:
        if told.influence == 0:
            continue
        update = evidence.update(store, members, planned, told).update
        law = None if update is None else law_of(update.mechanism, trees, update.rows)
        if law is None:
            return None
        variance.append(told.influence ** 2 * law.variance)
    return math.sqrt(math.fsum(variance)) if variance else None
