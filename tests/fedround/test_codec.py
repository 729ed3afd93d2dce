"""Tensors as bytes: one layout, nothing that is not finite, and nothing believed of a file's own header."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from fedround import codec
from fedround.errors import CodecError

TENSORS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.float32([7.5])}
SCHEMA = codec.schema_of(TENSORS)


@st.composite
def tensor_sets(draw) -> dict[str, np.ndarray]:
    names = draw(st.lists(st.text("abcz._-09", min_size=1, max_size=8), min_size=1, max_size=4, unique=True))
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    return {name: generator.normal(size=draw(st.lists(st.integers(1, 4), max_size=3))).astype(np.float32) for name in names}


@given(tensor_sets())
def test_what_is_encoded_is_decoded_and_is_an_ordinary_safetensors_file(tensors: dict[str, np.ndarray]):
    body, schema = codec.encode(tensors), codec.schema_of(tensors)
    assert len(body) == codec.size_bytes(schema)
    for found in (codec.decode(body, schema, "it"), safetensors.numpy.load(body)):
        assert found.keys() == tensors.keys()
        assert all(np.array_equal(found[name], array) and found[name].shape == array.shape for name, array in tensors.items())
    assert codec.encode(dict(reversed(tensors.items()))) == body
    flat_D = codec.flatten(tensors)
    assert flat_D.tobytes() == body[len(codec.header(schema)):]
    assert all(np.array_equal(array, tensors[name]) for name, array in codec.unflatten(flat_D, schema).items())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_neither_written_nor_read(value: float):
    with pytest.raises(CodecError, match="b has numbers that are not finite"):
        codec.encode({**TENSORS, "b": np.full((2, 3), value, dtype=np.float32)})
    body = codec.encode(TENSORS)
    with pytest.raises(CodecError, match="it: has numbers that are not finite"):
        codec.decode(body[:-4] + np.float32(value).tobytes(), SCHEMA, "it")


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_another_type_is_not_written(dtype: type):
    with pytest.raises(CodecError, match="expected float32"):
        codec.encode({**TENSORS, "b": TENSORS["b"].astype(dtype)})


@pytest.mark.parametrize("change", [lambda body: body[:-4], lambda body: body + bytes(4), lambda body: b""],
                         ids=["short", "long", "empty"])
def test_a_file_of_another_length_is_refused_before_its_header_is_looked_at(change):
    with pytest.raises(CodecError, match=r"it: \d+ bytes, expected \d+"):
        codec.decode(change(codec.encode(TENSORS)), SCHEMA, "it")


def test_chunks_are_named_one_by_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(codec, "CHUNK_BYTES", 10)
    payload = codec.payload_of(bytes(range(25)))
    assert (len(payload.chunks), payload.size_bytes) == (3, 25)
    assert len({payload.sha256, *payload.chunks}) == 4
