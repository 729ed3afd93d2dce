"""Rows, a part at a time, with the columns that a model needs and no others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedround.bundle import Column
from fedround.errors import ContractError
from fedround.learning.encoding import by_types
from fedround.learning.examples import Array, Arrays, shapes
from fedround.learning.recipe import Recipe
from validation.tables import Table, to_frame

if TYPE_CHECKING:
    import pandas as pd


def read(path: Path, columns: Sequence[Column], batch: int) -> Iterator[pd.DataFrame]:
    """The rows that a path names, `batch` at a time; one at least. No message quotes a value.

    Raises as `tables.Table`; ContractError also for a column that misses or holds another kind of values.
    """
    wanted = [column.name for column in columns]
    table = Table(path, wanted)
    _check_names(table.every, wanted, path)
    for column in columns:
        if column.kind == "number" and table.kinds[column.name] in {"text", "date"}:
            raise ContractError(f"rows at {path}: the column '{column.name}' must hold numbers, and holds something else"
                                + "".join(f"; {hint}" for hint in table.hints if f"'{column.name}'" in hint))
    for part in table.batches(batch, exactly=True):
        if part.num_rows:
            yield to_frame([part])


def encoded(recipe: Recipe, frame: pd.DataFrame, before: int) -> Arrays:
    """What the recipe makes of a part. before: how many rows stand before it, for the message."""
    kind = ""
    try:
        return _encoded(recipe, frame)
    except MemoryError:
        raise
    except ContractError as error:
        kind = str(error)
    except Exception as error:      # of the recipe's code; its words may quote the rows
        kind = type(error).__name__
    raise ContractError(f"recipe '{recipe.name}' cannot encode rows {before + 1} to {before + len(frame)} ({kind}): does one "
                        "of them lack a value, or hold another type?")


def _encoded(recipe: Recipe, frame: pd.DataFrame) -> Arrays:
    """As in training: each row in the types that it had there."""
    alike = by_types(frame)
    if len(alike) == 1:
        return recipe.features(alike[0][1])
    made = [(places, recipe.features(table.iloc[places].reset_index(drop=True))) for places, table in alike]
    first = made[0][1]
    if any(shapes(part) != shapes(first) for _, part in made):
        raise ContractError("it makes more features of some rows than of others")
    whole: dict[str, Array] = {name: np.empty((len(frame), *array.shape[1:]), array.dtype) for name, array in first.items()}
    for places, part in made:
        for name, array in whole.items():
            array[places] = part[name]
    return whole


def _check_names(found: Sequence[str], wanted: Sequence[str], path: Path) -> None:
    if missing := [name for name in wanted if name not in found]:
        shown = ", ".join(f"'{name}'" for name in missing[:5]) + (" …" if len(missing) > 5 else "")
        raise ContractError(f"rows at {path}: the model needs the column{'s' if len(missing) > 1 else ''} {shown}, which "
                            f"{'are' if len(missing) > 1 else 'is'} not there; check the spelling in the head of the file")
