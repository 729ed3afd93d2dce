"""What a recipe says of trees: `TREES = Trees(depth=4, rises={"days_late": 1})`, by the names of its columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from fedround.errors import ContractError
from fedround.learning.columns import Category, Column, Columns, Truth
from fedround.learning.tasks import Task
from fedround.learning.trees.losses import outputs_of
from fedround.learning.trees.spec import Axis, Trees
from fedround.values import in_words

if TYPE_CHECKING:
    from torch import nn

_MISSING = 0.1
"""How often a split asks whether a value is missing, compared with asking what it is."""


def trees_of(module: Mapping[str, Any], columns: Columns | None, recipe: str) -> Trees | None:
    """The trees that a recipe's file declares, with the bounds of its features; None: it defines a model.

    recipe: the file, in words. Raises ContractError, which says what to write.
    """
    if "TREES" not in module:
        return None
    said = module["TREES"]
    if not isinstance(said, Trees):
        raise ContractError(f"{recipe}: TREES must be trees, for example Trees(depth=4, rounds=30)")
    if "build_model" in module:
        raise ContractError(f"{recipe}: says both TREES and build_model(); remove one of them: trees are the model")
    if (columns is None) == (not said.axes):
        raise ContractError(f"{recipe}: TREES needs the bounds of the features: say COLUMNS, or, with a function "
                            "features(rows), Trees(axes=(Axis(low=0, high=1), …)), one for each feature; and not both")
    if columns is None:
        return said
    try:
        return _with_axes(said, columns)
    except ValidationError as error:
        raise ContractError(f"{recipe}: TREES: {in_words(error)}") from None


def builder_of(trees: Trees, task: Task) -> Callable[[], nn.Module]:
    """What stands for the recipe's `build_model`. Raises ContractError for a task that trees cannot learn."""
    outputs = outputs_of(task)

    def build_model() -> nn.Module:
        from fedround.learning.trees.module import Ensemble

        return Ensemble(trees, outputs)

    return build_model


def _with_axes(said: Trees, columns: Columns) -> Trees:
    names = {one.column for one in columns.columns}
    often, rises = dict(said.often), dict(said.rises)
    if strange := sorted({*often, *rises} - names):
        raise ContractError(f"TREES names '{strange[0]}', which is not among the COLUMNS: {', '.join(sorted(names))}")
    axes = tuple(axis for one in columns.columns for axis in _axes(one, often.get(one.column, 1.0), rises.get(one.column, 0)))
    return Trees(**{**dict(said), "axes": axes, "often": (), "rises": ()})


def _axes(column: Column, chance: float, rises: Literal[-1, 0, 1]) -> list[Axis]:
    """One for each place of the column, in their order."""
    if isinstance(column, Category):
        if rises:
            raise ContractError(f"TREES: '{column.column}' is a category: nothing rises with it")
        places = column.width - column.missing
        axes = [Axis(either=True, chance=chance / places)] * places
    else:
        axes = [Axis(either=isinstance(column, Truth), chance=chance, rises=rises)]
    return axes + [Axis(either=True, chance=chance * _MISSING)] * column.missing
