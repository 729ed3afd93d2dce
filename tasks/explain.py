"""How a committed model decides, on the coordinator's public rows: calibration, thresholds with costs, which columns matter.

No site is asked, and no privacy is spent. It is made on request, and put into the round's record and page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedround.errors import ContractError
from fedround.learning.evaluate import scores
from fedround.learning.recipe import Examples
from infra.history import read_checkpoint, read_commit, read_rest, read_tensors
from tasks.bundle import needed
from tasks.coordinator import Coordinator
from tasks.evaluate import public_scores
from tasks.report import record_explained
from validation.reliability import Explained, Importance, choices, reliability
from validation.rows import read_rows

if TYPE_CHECKING:
    import pandas as pd

    from fedround.codec import Tensors
    from fedround.learning.task import Scored
    from fedround.records import Commit

ROWS, REPEATS = 2000, 5
_SEED = 20_010_101


def explained(coordinator: Coordinator, run: str, number: int, missed: float = 1.0) -> Explained:
    """Explain a committed round's model. missed: what a missed row with label 1 costs in false alarms.

    Deterministic: rows and places are drawn with a fixed seed. Raises ContractError if there are no public rows, or a part of
    the model stays at the sites.
    """
    commit = read_commit(coordinator.store, run, number, coordinator.identity.key).commit
    if (scored := public_scores(coordinator, commit)) is None:
        raise ContractError("a model is explained on public rows, and the coordinator has no public test set, or not the "
                            "whole model")
    task = coordinator.recipe.task
    found, judged_rows = _importance(coordinator, commit)
    return Explained(
        round=number, metric=task.headline, rows=len(scored), reliability=reliability(scored.chance_N, scored.truth_N),
        choices=choices(scored.chance_N, scored.truth_N, missed) if task.classes == 2 else None,
        judged_rows=judged_rows, importance=found)


def tell(coordinator: Coordinator, run: str, found: Explained) -> None:
    """Put it into the round's record and page, if the round has them."""
    record_explained(coordinator, run, found)


def _importance(coordinator: Coordinator, commit: Commit) -> tuple[tuple[Importance, ...], int]:
    """Of every column that the recipe needs, as scikit-learn's `permutation_importance` has it: of the rows' columns, not of
    the features, so that all that is made of a column changes together.
    """
    recipe, model = coordinator.recipe, _whole(coordinator, commit)
    frame = read_rows(coordinator.folder / (coordinator.settings.test_set or ""))
    generator = np.random.default_rng(_SEED)
    if len(frame) > ROWS:
        frame = frame.iloc[np.sort(generator.choice(len(frame), ROWS, replace=False))].reset_index(drop=True)
    labels_N = recipe.encode(frame).labels_N

    def worth(rows: pd.DataFrame) -> float:
        judged: Scored = scores(recipe, model, Examples(recipe.features(rows), labels_N))
        return recipe.task.worth(judged)

    def shuffled(column: str) -> pd.DataFrame:
        return frame.assign(**{column: frame[column].to_numpy()[generator.permutation(len(frame))]})

    as_it_is, found = worth(frame), []
    for column in needed(recipe.features, frame):
        lost = [as_it_is - worth(shuffled(column.name)) for _ in range(REPEATS)]
        found.append(Importance(column=column.name, value=float(np.mean(lost)), std=float(np.std(lost))))
    return tuple(sorted(found, key=lambda one: (-one.value, one.column))), len(frame)


def _whole(coordinator: Coordinator, commit: Commit) -> Tensors:
    checkpoint = read_checkpoint(coordinator.store, commit, coordinator.identity.key)
    tensors = read_tensors(coordinator.store, commit.model, checkpoint.tensors, f"model of round {commit.round}")
    rest = read_rest(coordinator.store, coordinator.recipe, checkpoint.parts, checkpoint.rest, commit.run)
    return {**tensors, **rest.frozen}
