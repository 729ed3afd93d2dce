"""A count sketch, and the numbers that seem largest in it (`spec.CountSketch`).

::

    table   float32   rows x columns

Legend: R rows, C columns. In row r coordinate i is added, times a sign, at one column; both follow from the seed, r and i.
Every table of finite numbers is a valid file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from fedround.codec import Form, form_of
from fedround.compression.sparse import kept, largest
from fedround.compression.spec import CountSketch
from fedround.errors import CodecError

Float32 = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint64]
Read = Callable[[int, int], bytes]

_AT_ONCE = 1 << 16


def form(how: CountSketch, size: int) -> Form:
    """As long for every vector of this size."""
    return form_of([("table", "F32", (how.rows, columns(how, size)))])


def columns(how: CountSketch, size: int) -> int:
    """C: the table's numbers, shared out among its rows; one at least."""
    return max(1, int(how.size * size) // how.rows)


def encode(vector_D: Float32, how: CountSketch, seed: bytes) -> bytes:
    """The data section: the table, scaled by the factor that brings the decoded vector nearest to the vector.

    The residual is then never longer than the vector, so error feedback contracts. Without the scale the residual would grow
    every round, because the read error is as long as what is read.
    """
    table_RC = sketched(vector_D, how, seed)
    read_D = _largest_in(_rounded(table_RC), how, len(vector_D), seed).astype(np.float64)
    square = float(read_D @ read_D)
    nearest = float(read_D @ vector_D.astype(np.float64)) / square if square > 0 else 0.0
    return _rounded(nearest * table_RC).tobytes()


def _rounded(table_RC: npt.NDArray[np.float64]) -> Float32:
    """In float32, limited to half of its largest number: sums may be too large for it, and a mean of two numbers must not
    overflow.
    """
    largest_number = float(np.finfo(np.float32).max) / 2
    return np.clip(table_RC, -largest_number, largest_number).astype("<f4")


def sketched(vector_D: Float32, how: CountSketch, seed: bytes) -> npt.NDArray[np.float64]:
    """The table as it is, (R, C); linear in the vector."""
    table_RC = np.zeros((how.rows, columns(how, len(vector_D))))
    for start in range(0, len(vector_D), _AT_ONCE):
        block_B = vector_D[start:start + _AT_ONCE].astype(np.float64)
        for row in range(how.rows):
            column_B, sign_B = _places(seed, row, start, len(block_B), table_RC.shape[1])
            table_RC[row] += np.bincount(column_B, weights=sign_B * block_B, minlength=table_RC.shape[1])
    return table_RC


def decode(read: Read, how: CountSketch, size: int, seed: bytes, source: str) -> Iterator[Float32]:
    """The vector in one block: the numbers that seem largest, zero elsewhere."""
    width = columns(how, size)
    table_RC = np.frombuffer(read(0, 4 * how.rows * width), dtype="<f4").astype(np.float32).reshape(how.rows, width)
    if not np.isfinite(table_RC).all():
        raise CodecError(f"{source}: has numbers that are not finite")
    yield _largest_in(table_RC, how, size, seed)


def _largest_in(table_RC: Float32, how: CountSketch, size: int, seed: bytes) -> Float32:
    """The numbers that seem largest, zero elsewhere, (D,)."""
    seeming_D = np.empty(size, np.float32)
    for start in range(0, size, _AT_ONCE):
        count = min(_AT_ONCE, size - start)
        lines_RB = np.empty((how.rows, count), np.float32)
        for row, line_C in enumerate(table_RC):
            column_B, sign_B = _places(seed, row, start, count, len(line_C))
            lines_RB[row] = sign_B * line_C[column_B]
        seeming_D[start:start + count] = np.median(lines_RB, axis=0)
    found_D = np.zeros(size, np.float32)
    places = largest(seeming_D, kept(how.share, size))
    found_D[places] = seeming_D[places]
    return found_D


def _places(seed: bytes, row: int, start: int, count: int, width: int) -> tuple[npt.NDArray[np.int64], Float32]:
    """Column and sign of coordinates from `start` on in a row, by SplitMix64 (Steele et al. 2014): in whole numbers, so the
    same on every machine. Whoever knows the plan knows them.
    """
    key = int.from_bytes(seed[:8], "little") ^ (0x9E3779B97F4A7C15 * (row + 1) & (2 ** 64 - 1))
    with np.errstate(over="ignore"):
        word_B = np.arange(start + 1, start + count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
        word_B = (word_B ^ (word_B >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word_B = (word_B ^ (word_B >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        word_B ^= word_B >> np.uint64(31)
    column_B = ((word_B >> np.uint64(33)) * np.uint64(width) >> np.uint64(31)).astype(np.int64)
    return column_B, np.where(word_B & np.uint64(1), 1, -1).astype(np.float32)
