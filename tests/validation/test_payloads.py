"""A payload is judged while it arrives: a bad chunk ends it there, and memory is one chunk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround import codec
from fedround.errors import TrustError
from fedround.signing import digest
from infra.stores import MemoryStore
from tasks import spool
from validation import payloads
from validation.payloads import Intake

CHUNK = 64
TENSORS = {"w": np.arange(100, dtype=np.float32)}
BODY, SCHEMA = codec.encode(TENSORS), codec.schema_of(TENSORS)


class Counting(MemoryStore):
    """Says how many bytes were asked for."""

    asked = 0

    def get_range(self, key: str, start: int, length: int) -> bytes:
        body = super().get_range(key, start, length)
        self.asked += len(body)
        return body


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "CHUNK_BYTES", 64)
    monkeypatch.setattr(payloads, "CHUNK_BYTES", 64)
    monkeypatch.setattr(codec, "check_header", lambda chunk, total, form, source: 0)    # longer than these chunks


def fetched(folder: Path, sent: bytes) -> Counting:
    """The store from which `sent` was spooled, where `BODY` was signed."""
    store, payload = Counting(), codec.payload_of(BODY)
    store.put_once("delta", sent)
    try:
        spool.fetch(store, "delta", Intake(codec.form(SCHEMA), payload.sha256, "delta", payload.chunks), folder / "delta")
    except TrustError as error:
        store.said = str(error)
    return store


def test_all_of_it_is_read_once(tmp_path: Path):
    assert fetched(tmp_path, BODY).asked == len(BODY)
    assert (tmp_path / "delta").read_bytes() == BODY


def test_what_was_spooled_before_is_not_fetched_again_and_what_was_altered_here_is(tmp_path: Path):
    fetched(tmp_path, BODY)
    assert fetched(tmp_path, BODY).asked == 0
    (tmp_path / "delta").write_bytes(BODY[:-1] + b"\0")
    assert fetched(tmp_path, BODY).asked == len(BODY)


@pytest.mark.parametrize("where", [0, CHUNK, 3 * CHUNK + 1, len(BODY) - 1])
def test_a_flipped_byte_ends_the_transfer_in_its_chunk(tmp_path: Path, where: int):
    """A chunk that is wrong is asked for once more: it is refused when it is wrong twice."""
    altered = bytearray(BODY)
    altered[where] ^= 1
    store = fetched(tmp_path, bytes(altered))
    number, count = where // CHUNK + 1, -(-len(BODY) // CHUNK)
    assert f"chunk {number} of {count}" in store.said
    assert store.asked <= (number + 1) * CHUNK + 2
    assert not (tmp_path / "delta").exists()


@given(st.integers(0, len(BODY) + 3 * CHUNK).filter(lambda size: size != len(BODY)))
def test_another_length_is_another_file(size: int):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = fetched(Path(folder), (BODY + bytes(3 * CHUNK))[:size])
        assert f"expected {len(BODY)}" in store.said
        assert store.asked <= len(BODY) + CHUNK + 2         # the last piece is asked for twice


def test_chunks_that_are_not_those_of_the_whole_are_noticed(tmp_path: Path):
    store, payload = MemoryStore(), codec.payload_of(BODY)
    store.put_once("delta", BODY)
    with pytest.raises(TrustError, match="not the one that names it"):
        spool.fetch(store, "delta", Intake(codec.form(SCHEMA), digest(b"other"), "delta", payload.chunks), tmp_path / "delta")


def test_half_of_it_is_not_all_of_it():
    intake = Intake(codec.form(SCHEMA), digest(BODY), "delta")
    intake.take(BODY[:CHUNK])
    with pytest.raises(TrustError, match=f"has {CHUNK} bytes, expected {len(BODY)}"):
        intake.done()


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK])
def test_every_chunk_is_named_once(size: int):
    body = bytes(range(256)) * 2
    payload = codec.payload_of(body[:size])
    assert payload.chunks == tuple(digest(body[:size][start:start + CHUNK]) for start in range(0, size, CHUNK))
    assert (payload.sha256, payload.size_bytes) == (digest(body[:size]), size)
