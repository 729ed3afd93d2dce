"""Encoded rows: named arrays that share one first dimension. What a model is given, and what it should say.

A row may be numbers, an image, a sequence of tokens with a mask, or several of them: every array keeps its dtype and shape.

N rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError
from fedround.spoken import how_many

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
Bools = npt.NDArray[np.bool_]

INPUT, TARGET = "x", "y"
"""The names of an array that was given without one."""

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float32")
"""What an array may hold: truths (masks), whole numbers (tokens, pixels), numbers."""


class Shape(NamedTuple):
    """One row in one array."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Form(NamedTuple):
    """All that a model and a task need to know of rows before they see one."""

    inputs: tuple[Shape, ...]
    targets: tuple[Shape, ...]

    def __str__(self) -> str:
        return in_words(self.inputs)


@dataclass(frozen=True, eq=False, init=False)
class Examples:
    """Encoded rows: `inputs` for the model, `targets` for the task; each array is (N, ...), and numbers are finite."""

    inputs: Arrays
    targets: Arrays
    counts_N: Bools
    """False: the row does not count, whatever else is said of it. It keeps its place, so that no other row changes. A recipe
    does not set this: all its rows count. A site uses it to leave out rows that it cannot use."""

    def __init__(self, inputs: Array | Arrays, targets: Array | Arrays, counts_N: Bools | None = None):
        """A single array is named "x" among inputs, "y" among targets."""
        object.__setattr__(self, "inputs", named(inputs, INPUT))
        object.__setattr__(self, "targets", named(targets, TARGET))
        if both := sorted(self.inputs.keys() & self.targets.keys()):
            raise ContractError(f"'{both[0]}' names features and labels: give one of them another name")
        rows = len(next(iter(self.targets.values()), ()))
        check_arrays(self.inputs, "features")
        check_arrays(self.targets, "labels")
        for name, array in self.inputs.items():
            if len(array) != rows:
                raise ContractError(f"labels are of {how_many(rows, 'row')}, and the features '{name}' of {len(array)}")
        for name, array in self.targets.items():
            if len(array) != rows:
                raise ContractError(f"the labels '{name}' are of {how_many(len(array), 'row')}, others of {rows}")
        counts_N = np.ones(rows, np.bool_) if counts_N is None else counts_N
        if counts_N.shape != (rows,) or counts_N.dtype != np.bool_:
            raise ContractError(f"what counts is {counts_N.dtype} of shape {counts_N.shape}, expected bool of ({rows},)")
        object.__setattr__(self, "counts_N", counts_N)

    def __len__(self) -> int:
        return len(self.counts_N)

    @property
    def digest(self) -> str:
        """Names these rows: SHA-256 of every array, its name and dtype, and what counts."""
        hasher = hashlib.sha256()
        for part, arrays in (("inputs", self.inputs), ("targets", self.targets), ("counts", {"": self.counts_N})):
            for name, array in arrays.items():
                little = array.astype(array.dtype.newbyteorder("<"), copy=False)
                hasher.update(f"{part} {name} {array.dtype.name} {array.shape}\n".encode())
                hasher.update(np.ascontiguousarray(little).tobytes())
        return hasher.hexdigest()

    @property
    def form(self) -> Form:
        """What one row looks like."""
        return Form(shapes(self.inputs), shapes(self.targets))

    def at(self, rows: Any) -> Examples:
        """These rows: places, or a bool for each."""
        return Examples({name: array[rows] for name, array in self.inputs.items()},
                        {name: array[rows] for name, array in self.targets.items()}, self.counts_N[rows])

    @property
    def table_NF(self) -> npt.NDArray[np.float32]:
        """All inputs side by side, flat, as numbers: for what looks at rows without the model."""
        return table_of(self.inputs)


def joined(parts: Sequence[Examples]) -> Examples:
    """All rows, one after the other. Their forms are the same."""
    first = parts[0]
    return Examples({name: np.concatenate([part.inputs[name] for part in parts]) for name in first.inputs},
                    {name: np.concatenate([part.targets[name] for part in parts]) for name in first.targets},
                    np.concatenate([part.counts_N for part in parts]))


def named(found: Array | Arrays, alone: str) -> Arrays:
    """Arrays by name, in the order of their names; a single one is called `alone`."""
    return dict(sorted(found.items())) if isinstance(found, Mapping) else {alone: found}


def shapes(arrays: Arrays) -> tuple[Shape, ...]:
    """Of one row, by name."""
    return tuple(Shape(name, array.dtype.name, tuple(array.shape[1:])) for name, array in arrays.items())


def in_words(found: Sequence[Shape]) -> str:
    """For messages: "8 features", or "'mask': bool of (12,), 'x': int64 of (12,)"."""
    if len(found) == 1 and found[0].dtype == "float32" and len(found[0].shape) == 1:
        return how_many(found[0].shape[0], "feature")
    return ", ".join(f"'{one.name}': {one.dtype} of {one.shape}" for one in found)


def rows_in(arrays: Arrays) -> int:
    """How many rows the arrays have."""
    return len(next(iter(arrays.values())))


def table_of(arrays: Arrays) -> npt.NDArray[np.float32]:
    """All arrays side by side, (N, F), float32."""
    parts = [flat(array).astype(np.float32, copy=False) for array in arrays.values()]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def flat(array: Array) -> Array:
    """(N, all else), also of no rows."""
    return array.reshape(len(array), math.prod(array.shape[1:]))


def check_arrays(arrays: Arrays, what: str, rows: int | None = None) -> None:
    """Raise ContractError, which quotes no number, unless these are finite arrays of a dtype that is known, one at least.

    what: "features" or "labels". rows: how many there must be; None: any number.
    """
    if not arrays:
        raise ContractError(f"{what} are no array: a recipe returns one, or several by name")
    for name, array in arrays.items():
        which = what if name in (INPUT, TARGET) else f"{what} '{name}'"
        if array.ndim == 0 or array.dtype.name not in DTYPES:
            raise ContractError(f"{which} are {array.dtype} of {array.ndim} dimensions, expected one of {', '.join(DTYPES)}, "
                                "with a row in each place of the first dimension")
        if rows is not None and len(array) != rows:
            raise ContractError(f"{which} of {how_many(len(array), 'row')} for {how_many(rows, 'row')}: a recipe encodes "
                                "every row by itself, and leaves none out")
        if 0 in array.shape[1:]:
            raise ContractError(f"{which} have no columns: a model needs one at least")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ContractError(f"{which} must be finite: encode missing values as numbers")
