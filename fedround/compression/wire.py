"""One float32 vector of D numbers becomes a canonical file, and that a vector again, by the compression that a plan names."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from fedround.codec import Form
from fedround.compression import quantised, sketch, sparse
from fedround.compression.spec import Compression, CountSketch, Quantised, TopK
from fedround.errors import CodecError

Float32 = npt.NDArray[np.float32]
Read = Callable[[int, int], bytes]
"""Gives so many bytes of a file's data section, from a place on."""


def form(how: Compression, size: int) -> Form:
    """What the file of a vector of `size` numbers is, whatever the numbers are."""
    match how:
        case Quantised():
            return quantised.form(how, size)
        case TopK():
            return sparse.form(how, size)
        case CountSketch():
            return sketch.form(how, size)


def compress(vector_D: Float32, how: Compression, draws_D: Callable[[int], npt.NDArray[np.float64]], seed: bytes) -> bytes:
    """The file of a vector. Same arguments, same bytes. Raises CodecError if it is not finite.

    draws_D: gives uniform numbers in [0, 1) that nobody else can predict; used by `Quantised` only. seed: known to both
    sides (the plan's digest); a sketch derives its places from it.
    """
    if not np.isfinite(vector_D).all():
        raise CodecError("an update that has numbers that are not finite cannot be compressed")
    match how:
        case Quantised():
            data = quantised.encode(vector_D, how, draws_D(len(vector_D)))
        case TopK():
            data = sparse.encode(vector_D, how)
        case CountSketch():
            data = sketch.encode(vector_D, how, seed)
    return form(how, len(vector_D)).header + data


def expand(read: Read, how: Compression, size: int, seed: bytes, source: str) -> Iterator[Float32]:
    """The vector that a file's data section stands for, in blocks. The file's form was checked before.

    Memory: one block (for a sketch the table, and what is read from it). For every vector that can arrive there is one valid
    file: raises CodecError naming `source` for any other.
    """
    match how:
        case Quantised():
            return quantised.decode(read, how, size, source)
        case TopK():
            return sparse.decode(read, how, size, source)
        case CountSketch():
            return sketch.decode(read, how, size, seed, source)


def expanded(body: bytes, how: Compression, size: int, seed: bytes) -> Float32:
    """The vector that our own file stands for, (D,)."""
    offset = len(form(how, size).header)
    return np.concatenate(list(expand(lambda start, count: body[offset + start:offset + start + count], how, size, seed,
                                      "the compressed update")))
