"""How a committed model decides, on the coordinator's public rows: calibration, thresholds with costs, which columns matter.

No site is asked here, and no privacy is spent; what sites were asked of the columns (`tasks.importance`) stands beside it. It
is made on request, and put into the round's record and page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedround.contribution.shapley import Exact, Sampled
from fedround.errors import ContractError
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe
from fedround.learning.tasks import check_numbers
from fedround.learning.threads import one_thread
from infra.documents import read_tensors
from infra.history import read_checkpoint, read_commit, read_rest
from tasks.bundle import needed
from tasks.coordinator import Coordinator
from tasks.evaluate import public_rows_drawn, public_scores
from tasks.importance import at_sites
from tasks.report import record_explained
from validation.reliability import Explained, Permuted, Pull, choices, reliability

if TYPE_CHECKING:
    import pandas as pd

    from fedround.codec import Tensors
    from fedround.records import Commit

REPEATS = 5
SHAP_ROWS, OTHERS = 100, 5
"""Rows whose chances are taken apart, and with how many others each is compared."""
_FEW_COLUMNS, _ORDERS = 7, 5
_SEED = 20_010_101


def explained(coordinator: Coordinator, run: str, number: int, missed: float = 1.0) -> Explained:
    """Explain a committed round's model. missed: what a missed row with label 1 costs in false alarms.

    Deterministic: rows and places are drawn with a fixed seed. Raises ContractError if there are no public rows, or a part of
    the model stays at the sites; DivergedError if the model says no numbers.
    """
    commit = read_commit(coordinator.store, run, number, coordinator.key).commit
    if (scored := public_scores(coordinator, commit)) is None:
        raise ContractError("a model is explained on public rows, and the coordinator has no public test set, or not the "
                            "whole model")
    check_numbers(scored)
    task = coordinator.recipe.task
    recipe, model, frame = coordinator.recipe, _whole(coordinator, commit), public_rows_drawn(coordinator)
    columns = [column.name for column in needed(recipe.features, frame)]
    with one_thread():
        importance = _importance(recipe, model, frame, columns)
        pulled = pulls(recipe, model, frame, columns)
    return Explained(
        round=number, metric=task.headline, rows=len(scored),
        reliability=None if task.labels is None else reliability(scored["score"], scored["truth"]),
        choices=choices(scored["score"], scored["truth"], missed) if task.decides else None,
        judged_rows=len(frame), importance=importance, pulls=pulled, at_sites=at_sites(coordinator, commit))


def tell(coordinator: Coordinator, run: str, found: Explained) -> None:
    """Put it into the round's record and page, if the round has them."""
    record_explained(coordinator, run, found)


def _importance(recipe: Recipe, model: Tensors, frame: pd.DataFrame, columns: Sequence[str]) -> tuple[Permuted, ...]:
    """As scikit-learn's `permutation_importance` has it: of the rows' columns, not of the features, so that all that is made
    of a column changes together.
    """
    targets, generator = recipe.encode(frame).targets, np.random.default_rng(_SEED)

    def worth(rows: pd.DataFrame) -> float:
        return recipe.task.worth(scores(recipe, model, Examples(recipe.features(rows), targets)))

    def shuffled(column: str) -> pd.DataFrame:
        return frame.assign(**{column: frame[column].to_numpy()[generator.permutation(len(frame))]})

    as_it_is, found = worth(frame), []
    for column in columns:
        lost = [as_it_is - worth(shuffled(column)) for _ in range(REPEATS)]
        found.append(Permuted(column=column, value=float(np.mean(lost)), std=float(np.std(lost))))
    return tuple(sorted(found, key=lambda one: (-one.value, one.column)))


def pulls(recipe: Recipe, model: Tensors, frame: pd.DataFrame, columns: Sequence[str]) -> tuple[Pull, ...]:
    """SHAP values of the score of a few rows: the chance of label 1 (of the predicted class), or what the task predicts.

    The players are the columns. A coalition's columns have the row's values, the others those of other rows (Štrumbelj and
    Kononenko 2014; up to 7 columns exactly, else for five orders and their reverses). A row's values add up to its score
    minus the mean score of the rows that it was compared with. Raises ContractError if the model cannot score such rows.
    """
    if not columns:
        return ()
    generator, few = np.random.default_rng(_SEED), min(SHAP_ROWS, len(frame))
    own = frame.iloc[np.repeat(np.sort(generator.choice(len(frame), few, replace=False)), OTHERS)].reset_index(drop=True)
    others = frame.iloc[generator.integers(0, len(frame), few * OTHERS)].reset_index(drop=True)
    rules = Exact(len(columns)) if len(columns) <= _FEW_COLUMNS else Sampled(len(columns), _ORDERS, generator)

    form = recipe.encode(frame.head(1)).form
    targets = recipe.task.made_up(len(own), form.targets)

    def score(members_N: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        taken = {column: own[column] for column, there in zip(columns, members_N, strict=True) if there}
        rows = Examples(recipe.features(others.assign(**taken)), targets)
        score_N = scores(recipe, model, rows)["score"]
        if len(score_N) < len(rows):
            raise ContractError("the model raises an error on rows whose columns come from two public rows: how columns pull "
                                "cannot be told")
        made_R: npt.NDArray[np.float64] = score_N.reshape(few, OTHERS).mean(axis=1)
        return made_R

    score_CR = np.array([score(members_N) for members_N in rules.coalitions_CN])
    share_RN = np.array([rules.split(value_C) for value_C in score_CR.T])
    found = [Pull(column=column, strength=float(np.abs(share_R).mean()), values=tuple(float(f"{one:.4g}") for one in share_R))
             for column, share_R in zip(columns, share_RN.T, strict=True)]
    return tuple(sorted(found, key=lambda one: (-one.strength, one.column)))


def _whole(coordinator: Coordinator, commit: Commit) -> Tensors:
    checkpoint = read_checkpoint(coordinator.store, commit, coordinator.key)
    tensors = read_tensors(coordinator.store, commit.model, checkpoint.tensors, f"model of round {commit.round}")
    rest = read_rest(coordinator.store, coordinator.recipe, checkpoint.parts, checkpoint.rest, commit.run)
    return {**tensors, **rest.frozen}
