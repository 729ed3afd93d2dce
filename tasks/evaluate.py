"""How good a committed model is on the coordinator's public test set."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedround.errors import ContractError
from fedround.files import Version, kept_while_unchanged, version_of
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe
from fedround.learning.tasks import Metrics, Scored
from fedround.records import Commit
from fedround.statistics import Judging
from infra.documents import read_tensors
from infra.history import read_checkpoint, read_rest
from tasks.coordinator import Coordinator
from validation.encoding import encoded_alone
from validation.rows import read_rows

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("fedround.coordinator")

DRAWN = 2000
"""Public rows at most, where a model is asked often."""
_SEED = 20_010_101


def evaluate(coordinator: Coordinator, commit: Commit) -> Metrics | None:
    """The committed model on the public test set. None if the coordinator has no test set, or not the whole model, or if the
    model has diverged; that is logged.

    A private part of the model is at the sites alone, and so is the choice among several models.
    """
    if (found := public_scores(coordinator, commit)) is None:
        return None
    try:
        return coordinator.recipe.task.metrics(found)
    except ContractError as error:
        log.warning("round %d of run '%s': %s", commit.round, commit.run, error)
        return None


def score_statistic(coordinator: Coordinator, commit: Commit) -> Judging:
    """What sites are asked about a committed model's scores. If `evaluate` gives a result, the bins are chosen by it."""
    return coordinator.recipe.task.statistic(coordinator.federation.evaluation, public_scores(coordinator, commit))


def public_scores(coordinator: Coordinator, commit: Commit) -> Scored | None:
    """The committed model's scores of the public test set. None where `evaluate` is None."""
    return _scores(coordinator, commit, version_of(_path(coordinator))) if _can_score(coordinator, commit) else None


def _can_score(coordinator: Coordinator, commit: Commit) -> bool:
    if coordinator.settings.test_set is None or not (
            commit.blob("rest") is not None or coordinator.federation.evaluation.clusters > 1):
        return coordinator.settings.test_set is not None
    checkpoint = read_checkpoint(coordinator.store, commit, coordinator.key)
    return checkpoint.clusters == 1 and not checkpoint.parts.private


@functools.lru_cache(maxsize=2)
def _scores(coordinator: Coordinator, commit: Commit, _version: Version) -> Scored:
    """The scores of a committed model. They are cached: the model's report needs them, and then the next plan."""
    checkpoint = read_checkpoint(coordinator.store, commit, coordinator.key)
    tensors = read_tensors(coordinator.store, commit.model, checkpoint.tensors, f"model of round {commit.round}")
    frozen = read_rest(coordinator.store, coordinator.recipe, checkpoint.parts, checkpoint.rest, commit.run).frozen
    rows = public_rows(coordinator)
    return scores(coordinator.recipe, {**tensors, **frozen}, rows)


def public_rows(coordinator: Coordinator) -> Examples:
    """The public test set, as the recipe sees it."""
    return _test_set(_path(coordinator), coordinator.recipe, coordinator.recipe_file)


def public_rows_drawn(coordinator: Coordinator) -> pd.DataFrame:
    """At most `DRAWN` of the public test set, the same ones every time. Raises ContractError if there is no test set."""
    if coordinator.settings.test_set is None:
        raise ContractError("the coordinator has no public test set")
    frame = read_rows(_path(coordinator))
    if len(frame) <= DRAWN:
        return frame
    chosen = np.sort(np.random.default_rng(_SEED).choice(len(frame), DRAWN, replace=False))
    return frame.iloc[chosen].reset_index(drop=True)


def _path(coordinator: Coordinator) -> Path:
    return coordinator.folder / (coordinator.settings.test_set or "")


@kept_while_unchanged
def _test_set(path: Path, recipe: Recipe, file: Path) -> Examples:
    return encoded_alone(path, recipe, file)
