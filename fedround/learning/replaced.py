"""Rows of which some numbers are those of public rows.

N rows, K public rows, P numbers of an encoded row, all arrays side by side.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError
from fedround.learning.examples import Array, Arrays, Examples
from fedround.spoken import how_many

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def replaced(examples: Examples, public_KP: Float64, places: Sequence[int], key: bytes) -> Examples:
    """The same rows with the numbers at these places taken from a public row, one for each row.

    Which one follows from the row's own bytes (inputs and targets), by a hash under `key`, and from no other row; equal rows
    get the same. Raises ContractError if a public row is not as long as a row is.
    """
    inputs = examples.inputs
    widths = [_flat(array).shape[1] for array in inputs.values()]
    if sum(widths) != public_KP.shape[1]:
        raise ContractError(f"public rows have {how_many(public_KP.shape[1], 'number')}, and the recipe makes {sum(widths)} "
                            "of a row")
    from_N, made, start, wanted = _drawn(examples, len(public_KP), key), {}, 0, np.array(places)
    for (name, array), width in zip(inputs.items(), widths, strict=True):
        there = wanted[(start <= wanted) & (wanted < start + width)]
        flat_NW = _flat(array).copy()
        flat_NW[:, there - start] = public_KP[from_N][:, there].astype(array.dtype)
        made[name], start = flat_NW.reshape(array.shape), start + width
    return Examples(made, examples.targets, examples.counts_N)


def side_by_side(inputs: Arrays) -> Float64:
    """All numbers of a row, (N, P), in the order in which `replaced` has them."""
    return np.concatenate([_flat(array).astype(np.float64) for array in inputs.values()], axis=1)


def _flat(array: Array) -> Array:
    """(N, numbers of a row), also of no rows."""
    return array.reshape(len(array), math.prod(array.shape[1:]))


def _drawn(examples: Examples, among: int, key: bytes) -> Int64:
    columns = [np.ascontiguousarray(_flat(array)).view(np.uint8)
               for array in (*examples.inputs.values(), *examples.targets.values())]
    drawn = [int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8, key=key).digest(), "big") % among
             for row in np.concatenate(columns, axis=1)]
    return np.array(drawn, dtype=np.int64)
