"""Whole numbers of steps instead of float32 (`spec.Quantised`).

::

    scale   float32   the largest absolute number of every block of BLOCK numbers
    steps   8 bits: int8, from -127 to 127; 4 bits: two numbers in a byte, the first in the low half, from -7 to 7, plus 8

A number is steps · scale / (largest number of steps). One file for one vector: a block whose scale is not 0 has a number of
as many steps as there are, a block whose scale is 0 has none, and a half byte that is left over stands for 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from fedround.codec import Form, form_of
from fedround.compression.spec import Quantised
from fedround.errors import CodecError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int8]
Read = Callable[[int, int], bytes]

BLOCK = 1024
"""Numbers that share a scale: 0.4 % more bytes at 8 bits."""
_AT_ONCE = 256 * BLOCK


def largest(how: Quantised) -> int:
    """How many steps a scale has."""
    return 127 if how.bits == 8 else 7


def form(how: Quantised, size: int) -> Form:
    """Scales first: they are needed to read the rest."""
    steps = ("I8", (size,)) if how.bits == 8 else ("U8", (-(-size // 2),))
    return form_of([("scale", "F32", (-(-size // BLOCK),)), ("steps", *steps)])


def encode(vector_D: Float32, how: Quantised, draws_D: Float64) -> bytes:
    """The data section. A number is rounded up if its draw is below the fraction of a step that it has."""
    size, top = len(vector_D), largest(how)
    blocks_KB = np.zeros((-(-size // BLOCK), BLOCK))
    blocks_KB.reshape(-1)[:size] = vector_D
    scale_K = np.abs(blocks_KB).max(axis=1)
    length_D = (np.abs(blocks_KB) * (top / np.where(scale_K > 0, scale_K, 1.0))[:, None]).reshape(-1)[:size]
    # The largest number is `top` steps by definition; in float64 it could come out a hair below, and be rounded down.
    length_D[np.abs(vector_D) == np.repeat(scale_K, BLOCK)[:size]] = top
    length_D[np.repeat(scale_K, BLOCK)[:size] == 0] = 0
    whole_D = np.floor(length_D)
    steps_D = np.copysign(whole_D + (draws_D < length_D - whole_D), vector_D).astype(np.int8)
    levels = steps_D if how.bits == 8 else _packed(steps_D)
    return bytes(scale_K.astype("<f4").tobytes() + levels.tobytes())


def decode(read: Read, how: Quantised, size: int, source: str) -> Iterator[Float32]:
    """The numbers, `_AT_ONCE` at a time. Raises CodecError unless the data are what `encode` would have made of them."""
    scale_K, top = scales(read, size), largest(how)
    if not (np.isfinite(scale_K) & (scale_K >= 0) & ~np.signbit(scale_K)).all():
        raise CodecError(f"{source}: a block's scale must be finite and not negative")
    for start in range(0, size, _AT_ONCE):
        count = min(_AT_ONCE, size - start)
        steps_B = _steps(read, how, size, start, count, source)
        of_block = scale_K[start // BLOCK:-(-(start + count) // BLOCK)]
        most_K = np.maximum.reduceat(np.abs(steps_B.astype(np.int16)), np.arange(0, count, BLOCK))
        if not np.array_equal(most_K, np.where(of_block > 0, top, 0)):
            raise CodecError(f"{source}: every block has a number of {top} steps, and one whose scale is 0 has none")
        yield (steps_B * (np.repeat(of_block, BLOCK)[:count].astype(np.float64) / top)).astype(np.float32)


def scales(read: Read, size: int) -> Float32:
    """The scale of every block."""
    return np.frombuffer(read(0, 4 * -(-size // BLOCK)), dtype="<f4").astype(np.float32)


def rounding(scale_K: Float32, how: Quantised, size: int) -> tuple[float, float]:
    """What rounding adds to the variance of a number, as a mean over all, and the length of the longest step.

    Rounding x at random to whole steps of length s has variance s² f (1 - f), where f is the fractional part of x/s.
    Gaussian noise of standard deviation std in x makes f uniform up to a share of exp(-2 pi² (std/s)²) (Poisson summation).
    Then the variance is s²/6, to 1 % if std >= s/2.
    """
    step_K = scale_K.astype(np.float64) / largest(how)
    counts_K = np.full(len(step_K), BLOCK)
    counts_K[-1] = size - BLOCK * (len(step_K) - 1)
    return math.fsum(counts_K * step_K ** 2) / 6 / size, float(step_K.max())


def _packed(steps_D: Steps) -> npt.NDArray[np.uint8]:
    halves_D = (np.append(steps_D, np.int8(0)) if len(steps_D) % 2 else steps_D).astype(np.int16) + 8
    return (halves_D[0::2] + 16 * halves_D[1::2]).astype(np.uint8)


def _steps(read: Read, how: Quantised, size: int, start: int, count: int, source: str) -> Steps:
    offset = 4 * -(-size // BLOCK)
    if how.bits == 8:
        steps_B = np.frombuffer(read(offset + start, count), dtype=np.int8)
    else:
        packed = np.frombuffer(read(offset + start // 2, -(-count // 2)), dtype=np.uint8)
        halves = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1).astype(np.int8) - np.int8(8)
        if (halves[count:] != 0).any():
            raise CodecError(f"{source}: the half byte that is left over must stand for 0")
        steps_B = halves[:count]
    if (steps_B < -largest(how)).any():
        raise CodecError(f"{source}: a number of more than {largest(how)} steps")
    return steps_B
