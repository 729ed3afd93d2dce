"""Which columns matter at the sites: the question about a committed model, and what its finding says.

F columns, K public rows, P numbers of an encoded row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedround.errors import ContractError
from fedround.learning.columns import Columns
from fedround.learning.examples import Array
from fedround.learning.recipe import Recipe
from fedround.learning.replaced import side_by_side
from fedround.learning.tasks import Task
from fedround.privacy.spec import GaussianCounts, NoMechanism
from fedround.records import Commit, Finding
from fedround.statistics import Importance, MadeOf, Release
from fedround.statistics.importance import MOST_PUBLIC
from fedround.values import parse
from infra.documents import NOT_OURS
from infra.history import findings, read_commit, read_finding, read_plan
from tasks.ask import MeasurementRequest
from tasks.bundle import needed
from tasks.coordinator import Coordinator
from tasks.evaluate import public_rows_drawn, score_statistic
from tasks.partition import partition_of
from validation.reliability import AtSites, Drop

if TYPE_CHECKING:
    import pandas as pd

    from fedround.learning.tasks import Metrics

MOST_ROWS, FEWEST_ROWS = 100, 10
"""Public rows from which values are taken."""
_REPEATS = 200


def question(coordinator: Coordinator, run: str, number: int, noise_std: float, columns: Sequence[str] = (),
             asker: str | None = None) -> MeasurementRequest:
    """What to ask all sites about this round's model. columns: about which; none: all that the recipe needs.

    Deterministic, so what was asked before is read again. Raises ContractError if it is not the run's last round, a column is
    not known, there are no public rows, or a row has too many numbers for a plan.
    """
    head = read_commit(coordinator.store, run, number, coordinator.key).commit
    if (last := coordinator.last_round(run)) != number:
        raise ContractError(f"sites answer about the last model of a run, and run '{run}' has round {last}: ask about that "
                            "one, or leave out --at-sites")
    frame = public_rows_drawn(coordinator)
    made = _made_of(coordinator.recipe, frame)
    if unknown := sorted({*columns} - {one.column for one in made}):
        raise ContractError(f"the recipe makes nothing of a column '{unknown[0]}'; it knows "
                            f"{', '.join(one.column for one in made)}")
    judged = score_statistic(coordinator, head).model_dump()
    statistic = parse(Importance, {
        "noise_std": noise_std, "model": head.model, "judged": judged | {"noise_std": 0.0},
        "of": [one.model_dump() for one in made if not columns or one.column in columns],
        "public": _public(coordinator.recipe, frame)}, "the question about columns")
    return MeasurementRequest(run=run, statistics=(statistic,), partition=partition_of(coordinator, head), asker=asker)


def at_sites(coordinator: Coordinator, commit: Commit) -> AtSites | None:
    """What sites said last of this round's model; None: nobody was asked."""
    found = _finding(coordinator, commit)
    return None if found is None else read(coordinator.recipe.task, found.totals[0], len(found.answers))


def read(task: Task, total: Release, sites: int) -> AtSites:
    """What the sum of so many sites' releases says. Raises ContractError if it is of another statistic."""
    asked = total.statistic
    if not isinstance(asked, Importance):
        raise ContractError(f"expected a release of importance, got {asked.kind}")
    table, noise_std = total.table / asked.judged.scale, total.noise_std * asked.scale / asked.judged.scale
    as_it_is, *changed = [_known(task, asked, one, noise_std) for one in table]
    generator = np.random.default_rng(0)                # the same margins whenever it is read

    def again(one: np.ndarray) -> list[float | None]:
        drawn = generator.normal(0.0, noise_std, (_REPEATS, *one.shape))
        return [_known(task, asked, one + noise, 0.0) for noise in drawn]

    repeated = again(table[0]) if noise_std > 0 and as_it_is is not None else []
    drops = []
    for column, value, one in zip(asked.of, changed, table[1:], strict=True):
        drop = None if as_it_is is None or value is None else as_it_is - value
        apart = [1.0 if before is None or after is None else abs(before - after - drop)
                 for before, after in zip(repeated, again(one), strict=True)] if repeated and drop is not None else []
        drops.append(Drop(column=column.column, value=drop, margin=float(np.quantile(apart, 0.95)) if apart else None))
    return AtSites(sites=sites, noise_std=asked.noise_std, public_rows=len(asked.public), worth=as_it_is, drops=tuple(
        sorted(drops, key=lambda one: (one.value is None, -(one.value or 0.0), one.column))))


def _known(task: Task, asked: Importance, numbers: np.ndarray, noise_std: float) -> float | None:
    """The task's headline of one table; None if noise of this size hides it."""
    told = Release(statistic=asked.judged, numbers=tuple(numbers.ravel().tolist()),
                   mechanism=NoMechanism() if noise_std == 0 else GaussianCounts(noise_std=noise_std))
    found: Metrics | None = task.metrics_of([told])
    return None if found is None else found.of(task.headline)


def _finding(coordinator: Coordinator, commit: Commit) -> Finding | None:
    """The newest one about this model."""
    key = coordinator.key
    for number, attempt in reversed([*findings(coordinator.store, commit.run, "measure")]):
        if number != commit.round:
            continue
        try:
            finding = read_finding(coordinator.store, commit.run, number, attempt, "measure", key)
            asked = read_plan(coordinator.store, finding, key, "measure").asks.statistics
        except NOT_OURS:
            continue                    # somebody else's object
        if len(asked) == 1 and isinstance(asked[0], Importance):
            return finding
    return None


def _made_of(recipe: Recipe, frame: pd.DataFrame) -> tuple[MadeOf, ...]:
    """What is made of each column: as COLUMNS say; or else the numbers that change if the column's values move up a row."""
    declared = recipe.declared.columns
    if declared is not None:
        return _declared(declared)
    as_they_are, found = side_by_side(recipe.features(frame)), []
    for name in (column.name for column in needed(recipe.features, frame)):
        moved = side_by_side(recipe.features(frame.assign(**{name: np.roll(frame[name].to_numpy(), 1)})))
        if len(places := np.flatnonzero((moved != as_they_are).any(axis=0))):
            found.append(MadeOf(column=name, places=tuple(places.tolist())))
    if not found:
        raise ContractError("no column of the public rows changes what the recipe makes of them: nothing can be asked")
    return tuple(found)


def _declared(declared: Columns) -> tuple[MadeOf, ...]:
    ends = np.cumsum([0, *(one.width for one in declared.columns)]).tolist()
    return tuple(MadeOf(column=one.column, places=tuple(range(start, start + one.width)))
                 for one, start in zip(declared.columns, ends[:-1], strict=True))


def _public(recipe: Recipe, frame: pd.DataFrame) -> tuple[tuple[float, ...], ...]:
    """Public rows, encoded. Raises ContractError if a row has more numbers than a plan has room for."""
    encoded = recipe.encode(frame)
    inputs = encoded.at(encoded.counts_N).inputs
    rows, width = int(encoded.counts_N.sum()), side_by_side(inputs).shape[1]
    if (taken := min(rows, MOST_ROWS, MOST_PUBLIC // width)) < FEWEST_ROWS:
        raise ContractError(f"values come from {FEWEST_ROWS} public rows at least, which stand in the plan; here are {rows} "
                            f"rows of {width} numbers, and a plan has room for {MOST_PUBLIC}")
    return tuple(zip(*(column for array in inputs.values() for column in _shortest(array[:taken])), strict=True))


def _shortest(array: Array) -> list[list[float]]:
    """Column by column, in the fewest digits that give the same number."""
    flat = array.reshape(len(array), -1)
    flat = flat.astype(np.uint8) if flat.dtype == np.bool_ else flat
    return [[float(str(one)) for one in column] for column in flat.T]
