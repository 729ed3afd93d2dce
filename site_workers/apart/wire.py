"""What goes between a site's process and the one in which a recipe runs: a line of JSON, then numbers as they lie in memory.

::

    4 bytes: how long the JSON is    {"do": "plain", "arrays": [["float32", [17]], ["int64", [64]]]}    the arrays' bytes

Nothing is unpickled, and no number of the JSON is how much memory is asked for before it was compared with what may come.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors
from fedround.learning.examples import Examples, Form, Shape

Array = npt.NDArray[Any]
Forms = Sequence[tuple[str, tuple[int, ...]]]
"""dtype and shape of arrays."""
Said = dict[str, Any]

LENGTH = struct.Struct("<I")
LONGEST = 16 << 20
"""Of the JSON, in bytes."""
_DIMENSIONS, _MOST = 32, 1 << 40
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64")


def packed(said: Mapping[str, Any], arrays: Sequence[Array] = ()) -> list[memoryview]:
    """A message, in pieces; arrays are not copied where they lie in one piece."""
    solid = [np.ascontiguousarray(array) for array in arrays]
    text = json.dumps({**said, "arrays": forms(solid)}).encode()
    return [memoryview(LENGTH.pack(len(text)) + text), *(_bytes(array) for array in solid)]


def forms(arrays: Sequence[Array]) -> Forms:
    """Of these arrays."""
    return [(array.dtype.name, array.shape) for array in arrays]


def read_said(read: Callable[[int], bytes]) -> Said:
    """A message's JSON. Raises ValueError if it is none."""
    length, = LENGTH.unpack(read(LENGTH.size))
    if length > LONGEST:
        raise ValueError("a message is too long")
    try:
        said = json.loads(read(length))
    except RecursionError:
        raise ValueError("a message is too deep") from None
    if not isinstance(said, dict):
        raise ValueError("a message is no object")  # noqa: TRY004 - it is the message that is wrong
    return said


def forms_of(said: Said) -> Forms:
    """Of the arrays that follow. Raises ValueError if it does not say them as it should."""
    try:
        found = [(str(dtype), tuple(int(size) for size in shape)) for dtype, shape in said["arrays"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError("a message does not say what follows") from None
    if any(dtype not in DTYPES or len(shape) > _DIMENSIONS or any(not 0 <= size <= _MOST for size in shape)
           for dtype, shape in found):
        raise ValueError("a message says arrays that there are not")
    return found


def size_of(wanted: Forms) -> int:
    """In bytes."""
    return sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in wanted)


def read_arrays(wanted: Forms, into: Callable[[memoryview], None]) -> list[Array]:
    """The arrays of a message; `into` fills memory. Raises ValueError if a truth is neither 0 nor 1."""
    made = [np.empty(shape, dtype) for dtype, shape in wanted]
    for array in made:
        into(_bytes(array))
        if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
            raise ValueError("a truth is neither 0 nor 1")      # what numpy makes of it, it does not say
    return made


def _bytes(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


# -- what is in messages -----------------------------------------------------------------------------------------------


def named(tensors: Tensors) -> tuple[list[str], list[Array]]:
    """Names, and as many arrays."""
    return list(tensors), [np.asarray(tensors[name], np.float32) for name in tensors]


def of_examples(examples: Examples) -> tuple[Said, list[Array]]:
    """Names, and as many arrays; the last one says which rows count."""
    return ({"inputs": list(examples.inputs), "targets": list(examples.targets)},
            [*examples.inputs.values(), *examples.targets.values(), examples.counts_N])


def examples_of(said: Said, arrays: list[Array]) -> Examples:
    """As `of_examples` said them."""
    inputs, targets = said["inputs"], said["targets"]
    return Examples(dict(zip(inputs, arrays, strict=False)), dict(zip(targets, arrays[len(inputs):], strict=False)),
                    arrays[-1])


def form_of(said: Any) -> Form:
    """A form, from what JSON made of it."""
    return Form(*(tuple(Shape(name, dtype, tuple(shape)) for name, dtype, shape in part) for part in said))
