"""What a recipe says instead of writing functions: `COLUMNS` instead of `features`, `TARGET` instead of `labels`.

N rows, F features.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from fedround.errors import ContractError
from fedround.learning.cells import Bool, check_there, numbers
from fedround.learning.columns import Category, Columns, OfColumn, Truth
from fedround.learning.examples import TARGET, Array, Arrays
from fedround.learning.tasks import Classify, Kind
from fedround.spoken import how_many
from fedround.values import LARGEST_WHOLE, in_words

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


@dataclass(frozen=True)
class Target:
    """The column of what is learnt: numbers or truths, or a list of values, whose places on the list are the labels."""

    column: str
    values: Category | None = None

    def read(self, rows: pd.DataFrame, dtype: str) -> tuple[Array, Bool]:
        """The column in this dtype, (N,), and which rows have such a value, (N,): all others are 0.

        A value that is not on the list is none, and neither is a fraction among whole numbers. Raises ContractError if the
        column is not there.
        """
        check_there(rows, [self.column])
        if self.values is not None:
            place_N, there_N, _ = self.values.places(rows[self.column])
            there_N = there_N & (place_N < len(self.values.values))
            return np.where(there_N, place_N, 0).astype(dtype), there_N
        number_N, there_N, _ = numbers(rows[self.column])
        number_N = np.where(there_N, number_N, 0)
        most = np.finfo(np.float32).max if dtype == "float32" else LARGEST_WHOLE
        there_N = there_N & (abs(number_N) <= most)
        number_N = np.where(there_N, number_N, 0)
        there_N = there_N & ((dtype == "float32") | (number_N % 1 == 0))
        return np.where(there_N, number_N, 0).astype(dtype), there_N


@dataclass(frozen=True)
class InFile:
    """What stands in the recipe's file; none: it has a function for that."""

    columns: Columns | None = None
    targets: Mapping[str, Target] = field(default_factory=dict, hash=False)
    """By what the task calls them."""

    @property
    def is_whole(self) -> bool:
        """Whether rows are encoded by these values alone, with no line of the recipe's code."""
        return self.columns is not None and bool(self.targets)

    @property
    def target_columns(self) -> tuple[Truth | Category, ...]:
        """The targets as columns are said: a list of values, or a number of which nothing more is said."""
        return tuple(Truth(column=one.column, missing=False) if one.values is None else
                     one.values.model_copy(update={"missing": False}) for one in self.targets.values())

    @property
    def task(self) -> Classify:
        """What is learnt, if the recipe does not say it: as many labels as the list has, or two."""
        values = [len(one.values.values) for one in self.targets.values() if one.values is not None]
        return Classify(classes=max(2, *values, 2))

    def read_targets(self, rows: pd.DataFrame, task: Kind) -> tuple[Arrays, Bool]:
        """What is learnt, in the task's dtypes, and which rows have what the task can learn, (N,): all others are 0.

        A value that is missing where the task allows it is one that is not known.
        """
        read = {name: self.targets[name].read(rows, dtype) for name, dtype in task.dtypes_by_name.items()
                if name not in task.presence}
        found = {name: array_N for name, (array_N, _) in read.items()}
        own_N = {name: there_N for name, (_, there_N) in read.items()}
        for name, whose in task.presence.items():
            found[name] = np.all([own_N.pop(one) for one in whose], axis=0).astype(np.int64)
        there_N = np.all([*own_N.values(), task.fits(found)], axis=0)
        return {name: np.where(there_N, array_N, 0).astype(array_N.dtype) for name, array_N in found.items()}, there_N

    def all_targets(self, rows: pd.DataFrame, task: Kind) -> Arrays:
        """What is learnt, of rows all of which have it. Raises ContractError otherwise."""
        found, there_N = self.read_targets(rows, task)
        if not there_N.all():
            raise ContractError(self.why_no_target(task))
        return found

    def why_no_target(self, task: Kind) -> str:
        """What the target's columns must hold."""
        names = ", ".join(f"'{one.column}'" for one in self.targets.values())
        listed = [one.column for one in self.targets.values() if one.values is not None]
        return f"the target {names} must hold {task.expects}" + (f", as a value that is on the list of '{listed[0]}'"
                                                                 if listed else "")


def declared(module: Mapping[str, Any], recipe: str) -> InFile:
    """What a recipe's file declares. recipe: the file, in words.

    Raises ContractError, which says what to write, unless there is exactly one of COLUMNS and features, and one of TARGET
    and labels; neither of the last two, if the task's rows have no labels.
    """
    task, unlabelled = module.get("TASK"), False
    if isinstance(task, Kind) and (unlabelled := task.unlabelled) and (
            needless := [one for one in ("TARGET", "labels") if one in module]):
        raise ContractError(f"{recipe}: {task.in_words} learns from rows without labels, and the recipe says {needless[0]}; "
                            "remove it")
    pairs = (("COLUMNS", "features", 'COLUMNS = (Numeric("age", low=18, high=95),)'),
             ("TARGET", "labels", 'TARGET = "default"'))
    for said, function, example in pairs[:1] if unlabelled else pairs:
        if said in module and function in module:
            raise ContractError(f"{recipe}: says both {said} and {function}(rows); remove one of them: {said} is the short "
                                "way, a function can compute whatever it wants")
        if said not in module and not callable(module.get(function)):
            raise ContractError(f"{recipe}: must define a function '{function}', or say {example}; every recipe has "
                                "build_model(), features(rows) or COLUMNS, and labels(rows) or TARGET")
    columns = _columns(module["COLUMNS"], recipe) if "COLUMNS" in module else None
    targets = _targets(module["TARGET"], recipe) if "TARGET" in module else {}
    inputs = set() if columns is None else {one.column for one in columns.columns}
    if both := [one.column for one in targets.values() if one.column in inputs]:
        raise ContractError(f"{recipe}: '{both[0]}' is the TARGET, and in COLUMNS: a model that sees what it is to learn "
                            "learns nothing else; remove it from COLUMNS")
    return InFile(columns, targets)


def check_targets(targets: Mapping[str, Target], task: Kind, recipe: str) -> None:
    """Raise ContractError unless there is a column for all that the task learns from."""
    wanted = [name for name in task.dtypes_by_name if name not in task.presence]
    if targets and set(targets) != set(wanted):
        how = '"COLUMN"' if set(wanted) == {TARGET} else "{" + ", ".join(f'"{name}": "COLUMN"' for name in wanted) + "}"
        raise ContractError(f"{recipe}: {task.in_words} learns from {' and '.join(map(repr, wanted))}: say TARGET = {how}")


def built_for(build_model: Callable[..., nn.Module], columns: Columns | None, recipe: str) -> Callable[[], nn.Module]:
    """The recipe's function, with the number of features as its argument if it takes one. Raises ContractError."""
    try:
        wanted = [one for one in inspect.signature(build_model).parameters.values() if one.default is one.empty
                  and one.kind in {one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD}]
    except (TypeError, ValueError):     # a callable without a signature
        wanted = []
    if not wanted:
        return build_model
    if columns is None or len(wanted) > 1:
        raise ContractError(f"{recipe}: build_model takes {how_many(len(wanted), 'argument')}, expected none" + (
            " without COLUMNS, whose number of features it could take" if columns is None else ", or the number of features"))
    return functools.partial(build_model, columns.width)


def _columns(said: object, recipe: str) -> Columns:
    if not isinstance(said, tuple | list) or not all(isinstance(one, OfColumn) for one in said):
        raise ContractError(f"{recipe}: COLUMNS must be a list of columns, for example (Numeric(\"age\", low=18, high=95), "
                            "Category(\"sex\", values=(\"f\", \"m\")))")
    try:
        return Columns(columns=tuple(said))
    except ValidationError as error:
        raise ContractError(f"{recipe}: COLUMNS: {in_words(error)}") from None


def _targets(said: object, recipe: str) -> dict[str, Target]:
    several = said if isinstance(said, Mapping) and said else {TARGET: said}
    found = {}
    for name, one in several.items():
        if isinstance(one, Category):
            found[str(name)] = Target(one.column, one)
        elif isinstance(one, str) and one:
            found[str(name)] = Target(one)
        else:
            raise ContractError(f"{recipe}: TARGET must be the name of a column, or a list of its values: "
                                'Category("outcome", values=("no", "yes")); for several, {"time": "days", "event": "dead"}')
    return found
