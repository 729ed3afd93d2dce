"""An archive of files: as many as it may have, and no work for more than that."""

from __future__ import annotations

import struct

import pytest

from fedround import archive
from fedround.errors import CodecError


def heads(names: list[bytes]) -> bytes:
    """The beginning of an archive with these empty files."""
    return b"".join(b"PK\3\4" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0) + name for name in names)


def test_more_files_than_the_format_can_count_are_one_sentence():
    names = [f"{number:05d}" for number in range(70_000)]
    with pytest.raises(CodecError, match="it: is damaged"):
        archive.unpack(heads([name.encode() for name in names]), "it")
    with pytest.raises(CodecError, match="70000 files, more than the 10000"):
        archive.pack(dict.fromkeys(names, b""))


def test_a_name_that_comes_twice_ends_the_reading():
    assert archive.unpack(archive.pack({"a": b"1", "b": b""}), "it") == {"a": b"1", "b": b""}
    with pytest.raises(CodecError, match="it: is damaged"):
        archive.unpack(heads([b"a", b"a"]) + archive.pack({}), "it")
