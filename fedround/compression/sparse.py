"""The largest numbers and their places (`spec.TopK`).

::

    index   uint32    k places, ascending
    value   float32   the numbers there

One file for one vector: places ascend, and there are always k of them, whatever their numbers are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from fedround.codec import Form, form_of
from fedround.compression.spec import TopK
from fedround.errors import CodecError, ContractError

Float32 = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
Read = Callable[[int, int], bytes]

_AT_ONCE = 1 << 18


def form(how: TopK, size: int) -> Form:
    """As long for every vector of this size. Raises ContractError for more numbers than a place can name."""
    if size > 2 ** 32:
        raise ContractError(f"top_k names places by 32 bits: {size} numbers are too many")
    count = kept(how.share, size)
    return form_of([("index", "U32", (count,)), ("value", "F32", (count,))])


def kept(share: float, size: int) -> int:
    """How many numbers leave."""
    return max(1, math.ceil(share * size))


def largest(vector_D: Float32, count: int) -> Places:
    """The places of the `count` numbers that are largest in absolute value, ascending; of equal ones the first."""
    by_size = np.argsort(-np.abs(vector_D), kind="stable")
    return np.sort(by_size[:count])


def encode(vector_D: Float32, how: TopK) -> bytes:
    """The data section."""
    places = largest(vector_D, kept(how.share, len(vector_D)))
    return places.astype("<u4").tobytes() + vector_D[places].astype("<f4").tobytes()


def decode(read: Read, how: TopK, size: int, source: str) -> Iterator[Float32]:
    """The vector, `_AT_ONCE` numbers at a time, zero where nothing was sent."""
    places, values, pairs = np.empty(0, np.int64), np.empty(0, np.float32), _pairs(read, kept(how.share, size), size, source)
    for start in range(0, size, _AT_ONCE):
        block_B = np.zeros(min(_AT_ONCE, size - start), np.float32)
        while True:
            here = int(np.searchsorted(places, start + len(block_B)))
            block_B[places[:here] - start] = values[:here]
            places, values = places[here:], values[here:]
            if len(places) > 0 or (more := next(pairs, None)) is None:
                break
            places, values = more
        yield block_B


def _pairs(read: Read, count: int, size: int, source: str) -> Iterator[tuple[Places, Float32]]:
    last = -1
    for start in range(0, count, _AT_ONCE):
        some = min(_AT_ONCE, count - start)
        places = np.frombuffer(read(4 * start, 4 * some), dtype="<u4").astype(np.int64)
        values = np.frombuffer(read(4 * (count + start), 4 * some), dtype="<f4").astype(np.float32)
        if places[0] <= last or (np.diff(places) <= 0).any() or places[-1] >= size:
            raise CodecError(f"{source}: its places must ascend, and be below {size}")
        if not np.isfinite(values).all():
            raise CodecError(f"{source}: has numbers that are not finite")
        last = int(places[-1])
        yield places, values
