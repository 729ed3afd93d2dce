"""What a recipe says instead of writing functions: `COLUMNS` instead of `features`, `TARGET` instead of `labels`.

N rows, F features.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from fedround.errors import ContractError
from fedround.learning.cells import Bool, check_there, numbers
from fedround.learning.columns import Category, Columns, OfColumn, Truth
from fedround.values import in_words

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

Int64 = npt.NDArray[np.int64]
LARGEST_LABEL = 2 ** 31


@dataclass(frozen=True)
class Target:
    """The column of labels: whole numbers from 0 up or truths, or a list of values, whose places on the list they are."""

    column: str
    values: Category | None = None

    @property
    def classes(self) -> int:
        """How many labels the list has; 2 without one."""
        return 2 if self.values is None else max(2, len(self.values.values))

    def read(self, rows: pd.DataFrame) -> tuple[Int64, Bool]:
        """The labels, (N,), and which rows have one, (N,): all others are 0. A value that is not on the list is no label.

        Raises ContractError if the column is not there.
        """
        check_there(rows, [self.column])
        if self.values is not None:
            place_N, there_N, _ = self.values.places(rows[self.column])
            there_N = there_N & (place_N < len(self.values.values))
            return np.where(there_N, place_N, 0), there_N
        number_N, there_N, _ = numbers(rows[self.column])
        number_N = np.where(there_N, number_N, -1)
        there_N = (number_N >= 0) & (number_N <= LARGEST_LABEL) & (number_N % 1 == 0)
        return np.where(there_N, number_N, 0).astype(np.int64), there_N

    def all_of(self, rows: pd.DataFrame) -> Int64:
        """The labels of rows all of which have one. Raises ContractError otherwise."""
        labels_N, there_N = self.read(rows)
        if not there_N.all():
            raise ContractError(f"column '{self.column}', the target, must hold " + (
                "whole numbers from 0 up, or true or false" if self.values is None else "values that are on its list"))
        return labels_N


@dataclass(frozen=True)
class Declared:
    """What stands in the recipe's file; None: it has a function for that."""

    columns: Columns | None = None
    target: Target | None = None

    @property
    def target_columns(self) -> tuple[Truth | Category, ...]:
        """The target as a column is said: a list of values, or 0 and 1."""
        if self.target is None:
            return ()
        column, values = self.target.column, self.target.values
        return (Truth(column=column, missing=False) if values is None else values.model_copy(update={"missing": False}),)


def declared(module: Mapping[str, Any], recipe: str) -> Declared:
    """What a recipe's file declares. recipe: the file, in words.

    Raises ContractError, which says what to write, unless there is exactly one of COLUMNS and features, and one of TARGET
    and labels.
    """
    for said, function, example in (("COLUMNS", "features", 'COLUMNS = (Numeric("age", low=18, high=95),)'),
                                    ("TARGET", "labels", 'TARGET = "default"')):
        if said in module and function in module:
            raise ContractError(f"{recipe}: says both {said} and {function}(rows); remove one of them: {said} is the short "
                                "way, a function can compute whatever it wants")
        if said not in module and not callable(module.get(function)):
            raise ContractError(f"{recipe}: must define a function '{function}', or say {example}; every recipe has "
                                "build_model(), features(rows) or COLUMNS, and labels(rows) or TARGET")
    columns = _columns(module["COLUMNS"], recipe) if "COLUMNS" in module else None
    target = _target(module["TARGET"], recipe) if "TARGET" in module else None
    if columns is not None and target is not None and target.column in {one.column for one in columns.columns}:
        raise ContractError(f"{recipe}: '{target.column}' is the TARGET, and in COLUMNS: a model that sees what it is to "
                            "learn learns nothing else; remove it from COLUMNS")
    return Declared(columns, target)


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
        raise ContractError(f"{recipe}: build_model takes {len(wanted)} arguments, expected none" + (
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


def _target(said: object, recipe: str) -> Target:
    if isinstance(said, Category):
        return Target(said.column, said)
    if isinstance(said, str) and said:
        return Target(said)
    raise ContractError(f"{recipe}: TARGET must be the name of a column, or a list of its values: "
                        'Category("outcome", values=("no", "yes"))')
