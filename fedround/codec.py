"""Named float32 tensors as bytes (safetensors), in one canonical layout.

For a given schema there is exactly one valid header: sorted names, float32, contiguous from offset 0. So a decoder compares
the header's bytes with the expected ones. This refuses every malformed file at once: overlapping offsets, giant headers,
other dtypes, other shapes, pickles. No memory is allocated from a declared size.

The data section of a canonical file is the flat vector of all coordinates, little-endian: D coordinates, 4 D bytes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from fedround.errors import CodecError
from fedround.signing import digest
from fedround.values import Payload, TensorSpec

Tensors = Mapping[str, npt.NDArray[np.float32]]
Schema = tuple[TensorSpec, ...]
ITEM_BYTES = {"F32": 4, "U32": 4, "I8": 1, "U8": 1}
CHUNK_BYTES = 8 << 20
"""A payload has a digest for each piece of this size, so that a part of it can be read and verified."""


def schema_of(tensors: Tensors) -> Schema:
    """Names and shapes, sorted by name. Raises CodecError for a name that no tensor may have, and for an empty one."""
    return tuple(_spec(name, tuple(tensors[name].shape)) for name in sorted(tensors))


def _spec(name: str, shape: tuple[int, ...]) -> TensorSpec:
    try:
        return TensorSpec(name=name, shape=shape)
    except ValidationError:
        raise CodecError(f"tensor {name[:200]!r} of shape {shape}: a name is made of at most 200 letters, digits, '.', '_' "
                         "or '-', and every dimension is 1 to 2^31; rename it, or leave it out") from None


def coordinates(schema: Schema) -> int:
    """D: how many numbers a tensor set of this schema holds."""
    return sum(math.prod(spec.shape) for spec in schema)


@dataclass(frozen=True)
class Form:
    """What a canonical file must satisfy before its numbers are read."""

    header: bytes
    """The length prefix and header that it begins with."""
    data_bytes: int
    """How many bytes follow, exactly."""

    @property
    def size_bytes(self) -> int:
        """The whole file's length."""
        return len(self.header) + self.data_bytes


def form_of(parts: Iterable[tuple[str, str, tuple[int, ...]]]) -> Form:
    """The form of a file with these tensors: name, type as safetensors names it (`ITEM_BYTES`) and shape, in order."""
    entries, offset = {}, 0
    for name, dtype, shape in parts:
        end = offset + ITEM_BYTES[dtype] * math.prod(shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return Form(struct.pack("<Q", len(text)) + text, offset)


def form(schema: Schema) -> Form:
    """The form of a file of this schema: float32 throughout."""
    return form_of((spec.name, "F32", spec.shape) for spec in schema)


def header(schema: Schema) -> bytes:
    """The length prefix and header that a canonical file of this schema begins with."""
    return form(schema).header


def size_bytes(schema: Schema) -> int:
    """The exact length of a canonical file of this schema."""
    return form(schema).size_bytes


def schema_digest(schema: Schema) -> str:
    """Names the schema: SHA-256 of the header that every canonical file of it begins with."""
    return digest(header(schema))


def payload_of(body: bytes) -> Payload:
    """What a signed document says of these bytes: their digest, their length, and the digest of every chunk."""
    view = memoryview(body)
    chunks = tuple(digest(view[start:start + CHUNK_BYTES]) for start in range(0, len(body), CHUNK_BYTES))
    return Payload(sha256=digest(body) if len(chunks) != 1 else chunks[0], size_bytes=len(body), chunks=chunks)


def encode(tensors: Tensors) -> bytes:
    """A canonical safetensors file. Deterministic: same numbers, same bytes.

    Raises CodecError for another dtype than float32 or a number that is not finite.
    """
    schema = schema_of(tensors)
    parts: list[bytes | memoryview] = [header(schema)]
    for spec in schema:
        array = tensors[spec.name]
        if array.dtype != np.float32:
            raise CodecError(f"{spec.name} is {array.dtype}, expected float32")
        if not is_finite(array):
            raise CodecError(f"{spec.name} has numbers that are not finite")
        parts.append(np.ascontiguousarray(array, dtype="<f4").reshape(-1).view(np.uint8).data)
    return b"".join(parts)      # the only copy


def is_finite(array: npt.NDArray[np.float32]) -> bool:
    """Whether no number is NaN or infinite. A minimum propagates NaN, so no boolean array is needed."""
    return array.size == 0 or bool(np.isfinite(array.min()) and np.isfinite(array.max()))


def check_header(start: bytes, total_bytes: int, form: Form, source: str) -> int:
    """Check the first bytes of a file, and its length, against `form`; returns the offset of the data section.

    start: at least the first `len(form.header)` bytes of the file.
    Raises CodecError naming `source`.
    """
    if total_bytes != form.size_bytes:
        raise CodecError(f"{source}: {total_bytes} bytes, expected {form.size_bytes}")
    if start[:len(form.header)] != form.header:
        raise CodecError(f"{source}: its tensors are not the ones that the plan names (name, shape, type or order)")
    return len(form.header)


def decode(data: bytes, schema: Schema, source: str) -> dict[str, npt.NDArray[np.float32]]:
    """Read a canonical file of exactly this schema. Raises CodecError for anything else, and for NaN or infinity."""
    flat = np.frombuffer(data, dtype="<f4", offset=check_header(data, len(data), form(schema), source))
    if not is_finite(flat):
        raise CodecError(f"{source}: has numbers that are not finite")
    return unflatten(flat.astype(np.float32), schema)


def flatten(tensors: Tensors) -> npt.NDArray[np.float32]:
    """All coordinates in schema order, (D,)."""
    return np.concatenate([np.asarray(tensors[name], dtype=np.float32).ravel() for name in sorted(tensors)])


def unflatten(flat_D: npt.NDArray[np.float32], schema: Schema) -> dict[str, npt.NDArray[np.float32]]:
    """The inverse of `flatten`: views into `flat_D`, by name."""
    tensors, offset = {}, 0
    for spec in schema:
        size = math.prod(spec.shape)
        tensors[spec.name] = flat_D[offset:offset + size].reshape(spec.shape)
        offset += size
    return tensors
