"""Encodes rows for a model, and checks that every row is encoded independently of the others.

If a recipe standardises by the mean of the given rows, every row's features depend on all other rows. Then no clipping
bounds the effect of one record. So rows are encoded twice, and any difference of a bit is refused:

* in their order, in chunks of one size, the last one filled up with copies of its last row;
* by the recipe loaded anew, in a fixed shuffled order, in chunks of that size that hold half as many different rows at most.

No row is beside the same others twice, and the second pass sees nothing that the first pass left in the recipe's module. So,
on the given rows, this detects a recipe that pools (even only above or below some number of rows), remembers, draws at
random or reads the clock. Not noticed: state that a recipe hides elsewhere (in another module, in a file) and uses the same
way twice, and pooling that only other rows would cause.

A recipe gets numbers in numpy's own types, and those cannot say that a whole number misses, or is a fraction in one row. So
rows where that is so are encoded apart from the others: in those rows whole numbers are float64, in all others int64.
Otherwise one row without an age, or with an age of 34.5, would change the type of all other ages.

What a recipe says by `COLUMNS` and `TARGET` alone runs no code of the recipe's. It is encoded once, all rows together:
`columns` sees no other row, which its tests prove.

A row that the recipe cannot encode counts for nothing (`Examples.counts_N`) and keeps its place: one record stops no site.

N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError
from fedround.learning.columns import Columns
from fedround.learning.examples import Array, Arrays, Examples, flat, in_words, shapes
from fedround.learning.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 256
_HALF = CHUNK // 2
_SEED = 20_240_229

Places = npt.NDArray[np.int64]


def encode(frame: pd.DataFrame, recipe: Recipe, loaded_anew: Callable[[], Recipe]) -> Examples:
    """What the recipe makes of the rows.

    Raises ContractError, which quotes no value, if a row's encoding depends on the other rows, or if no row can be encoded;
    MemoryError.
    """
    if recipe.declared.is_whole and recipe.declared.columns is not None:
        return _declared(frame, recipe, recipe.declared.columns)
    alike = by_types(frame)
    found = _encoded(alike, recipe, _in_order)
    again = _encoded(alike, loaded_anew(), _shuffled)
    _compare(found, again, recipe.name)
    return found


def _declared(frame: pd.DataFrame, recipe: Recipe, columns: Columns) -> Examples:
    targets, learnt_N = recipe.declared.read_targets(frame, recipe.task)
    features_NF, good_N = columns.encode(frame)
    counts_N = learnt_N & good_N
    if not counts_N.any():
        why = columns.why_not(frame) if learnt_N.any() else recipe.declared.why_no_target(recipe.task)
        raise ContractError(f"recipe '{recipe.name}' cannot encode a single row: {why}")
    features_NF[~counts_N] = 0
    return Examples(features_NF, {name: np.where(counts_N, array_N, 0).astype(array_N.dtype)
                                  for name, array_N in targets.items()}, counts_N)


def by_types(frame: pd.DataFrame) -> list[tuple[Places, pd.DataFrame]]:
    """All rows, as a recipe gets them: the places of rows whose columns have the same types, and a table of these types in
    which they stand at these places. A row's types depend on the row alone.

    frame: whole numbers and truths, where one row has none, as pandas' `Int64` and `boolean`; where other numbers are among
    whole ones, as Arrow's structures of `whole` and `fraction`.
    """
    import pandas as pd

    gaps: dict[str, Any] = {str(name): values for name, values in frame.items()
                            if isinstance(values.dtype, pd.Int64Dtype | pd.BooleanDtype | pd.ArrowDtype)}
    if not gaps:
        return [(np.arange(len(frame)), frame)]
    forms = {name: _both_forms(values) for name, values in gaps.items()}
    odd_N = np.any([is_odd_N for is_odd_N, _, _ in forms.values()], axis=0)
    usual = frame.assign(**{name: as_usual for name, (_, as_usual, _) in forms.items()})
    odd = frame.assign(**{name: as_odd for name, (_, _, as_odd) in forms.items()})
    return [(places, table) for places, table in ((np.flatnonzero(~odd_N), usual), (np.flatnonzero(odd_N), odd))
            if len(places)]


def _both_forms(values: Any) -> tuple[npt.NDArray[np.bool_], npt.NDArray[Any], npt.NDArray[Any]]:
    """Which rows have no value of the column's usual type, the values in that type, and in the type that holds all, (N,)."""
    import pandas as pd

    if isinstance(values.dtype, pd.BooleanDtype):
        return values.isna().to_numpy(), values.to_numpy(np.bool_, na_value=False), values.to_numpy(object, na_value=None)
    if isinstance(values.dtype, pd.Int64Dtype):
        return values.isna().to_numpy(), values.to_numpy(np.int64, na_value=0), values.to_numpy(np.float64, na_value=np.nan)
    whole, fraction = (values.struct.field(name) for name in ("whole", "fraction"))
    odd_N = whole.isna().to_numpy()
    whole_N = whole.to_numpy(np.int64, na_value=0)
    return odd_N, whole_N, np.where(odd_N, fraction.to_numpy(np.float64, na_value=np.nan), whole_N.astype(np.float64))


def _in_order(places: Places) -> Iterator[Places]:
    for start in range(0, len(places), CHUNK):
        yield places[start:start + CHUNK]


def _shuffled(places: Places) -> Iterator[Places]:
    """Chunks in shuffled order, with at most half of all rows, and half of the rows that fit into a chunk."""
    order = np.random.default_rng(_SEED).permutation(places)
    size = min(_HALF, -(-len(places) // 2))
    for start in range(0, len(places), size):
        yield order[start:start + size]


def _encoded(alike: Sequence[tuple[Places, pd.DataFrame]], recipe: Recipe,
             chunks: Callable[[Places], Iterator[Places]]) -> Examples:
    found: Examples | None = None
    rows, counts_N = sum(len(places) for places, _ in alike), np.zeros(sum(len(places) for places, _ in alike), np.bool_)
    for frame, places in ((frame, places) for all_of_them, frame in alike for places in chunks(all_of_them)):
        made = _chunk(frame, recipe, places)
        if made is None and found is None and _misses_a_column(frame, recipe):
            break
        if made is None:
            continue
        if found is None:
            found = Examples(_empty(made.inputs, rows), _empty(made.targets, rows), counts_N)
        if made.form != found.form:
            raise ContractError(_otherwise(recipe.name, _differently(made, found)))
        for whole, part in ((found.inputs, made.inputs), (found.targets, made.targets)):
            for name, array in whole.items():
                array[places] = part[name]
        counts_N[places] = made.counts_N
    if found is None:
        raise ContractError(f"recipe '{recipe.name}' cannot encode a single row{_why(alike[0][1], recipe)}: does a column "
                            "that it needs miss, or hold another type?")
    return Examples(found.inputs, found.targets, counts_N)


def _empty(arrays: Arrays, rows: int) -> dict[str, Array]:
    """Zeros for so many rows like these."""
    return {name: np.zeros((rows, *array.shape[1:]), array.dtype) for name, array in arrays.items()}


def _differently(made: Examples, found: Examples) -> str:
    what = "inputs" if made.form.inputs != found.form.inputs else "targets"
    here, there = (in_words(shapes(getattr(one, what))) for one in (made, found))
    return f"{here} in one part of the rows, {there} in another"


def _misses_a_column(frame: pd.DataFrame, recipe: Recipe) -> bool:
    """Whether it asks for a column that is not there, whatever the rows are: then none of them needs to be tried."""
    try:
        recipe.features(frame.head(0))
    except KeyError:
        return True
    except Exception:       # of the recipe's code
        return False
    return False


def _why(frame: pd.DataFrame, recipe: Recipe) -> str:
    """What it raises on the first row, by its kind: the words may quote the row."""
    try:
        recipe.encode(frame.iloc[:1])
    except Exception as error:
        return f" ({error})" if isinstance(error, ContractError) else f" ({type(error).__name__})"
    return ""


def _chunk(frame: pd.DataFrame, recipe: Recipe, places: Places) -> Examples | None:
    """The rows at these places, beside no others; None if none of them can be encoded."""
    made = _tried(frame, recipe, _filled(places))
    if made is not None:
        return made.at(slice(len(places)))
    good_B = np.array([_tried(frame, recipe, _filled(places[at:at + 1])) is not None for at in range(len(places))])
    if not good_B.any():
        return None
    # A copy of a good row stands where one cannot be encoded: the others are encoded as they would be without it.
    stand_in = np.where(good_B, places, places[good_B.argmax()])
    made = _tried(frame, recipe, _filled(stand_in))
    if made is None:
        raise ContractError(_otherwise(recipe.name, "it can encode rows alone that it cannot encode together"))
    kept = [{name: array[:len(places)].copy() for name, array in part.items()} for part in (made.inputs, made.targets)]
    for array in (*kept[0].values(), *kept[1].values()):
        array[~good_B] = 0
    return Examples(kept[0], kept[1], good_B)


def _filled(places: Places) -> Places:
    return np.concatenate([places, np.full(CHUNK - len(places), places[-1])])


def _tried(frame: pd.DataFrame, recipe: Recipe, places: Places) -> Examples | None:
    try:
        return recipe.encode(frame.iloc[places].reset_index(drop=True))
    except MemoryError:
        raise
    except Exception:       # of the recipe's code; its words may quote the rows
        return None


def _compare(found: Examples, again: Examples, recipe: str) -> None:
    if found.form.inputs != again.form.inputs:
        raise ContractError(_otherwise(recipe, f"{in_words(found.form.inputs)}, then {in_words(again.form.inputs)}"))
    for name, array in found.inputs.items():
        differs_F = (_bits(array) != _bits(again.inputs[name])).any(axis=0)
        if differs_F.any():
            places = np.flatnonzero(differs_F)
            raise ContractError(_otherwise(recipe, f"{len(places)} of {len(differs_F)} features differ, the first at place "
                                                   f"{places[0]} (counted from 0)"))
    if found.form.targets != again.form.targets or not np.array_equal(found.counts_N, again.counts_N) or any(
            not np.array_equal(_bits(array), _bits(again.targets[name])) for name, array in found.targets.items()):
        raise ContractError(_otherwise(recipe, "its labels differ"))


def _bits(array: Array) -> Array:
    """(N, F). Numbers by their bits, not by ==, which takes a negative zero for a positive one."""
    whole = np.ascontiguousarray(array)
    return flat(whole.view(np.int32) if whole.dtype == np.float32 else whole)


def _otherwise(recipe: str, how: str) -> str:
    return (f"recipe '{recipe}' encodes a row otherwise beside other rows: {how}. Every row must be encoded by itself, with "
            "bounds that everybody knows: no mean, maximum or rank of rows, nothing remembered, drawn or read from a clock")
