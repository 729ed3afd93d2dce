"""Several small files as one: a ZIP archive that any program opens, and of which there is exactly one for given files.

Nothing is compressed, and there are no times, comments or extra fields. So every bit of the file either belongs to a member
or is fixed, and `unpack` refuses a file in which any fixed bit differs.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

from fedround.errors import CodecError

MAX_BYTES = 1 << 31
"""Of a whole archive: beyond this the format would need its 64-bit fields."""
MAX_FILES = 10_000
"""In one: beyond 65,535 the same."""

_LOCAL, _CENTRAL, _END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_VERSION, _MIDNIGHT, _FIRST_DAY, _UNIX, _PLAIN_FILE = 20, 0, 33, 3 << 8, 0o100644 << 16
_HEAD_BYTES = 30


def pack(files: Mapping[str, bytes]) -> bytes:
    """The archive of these files, in their order. Names are plain ASCII. Raises CodecError: too many, or too large."""
    if len(files) > MAX_FILES:
        raise CodecError(f"these are {len(files)} files, more than the {MAX_FILES} that an archive may have")
    if sum(map(len, files.values())) + 1000 * (len(files) + 1) > MAX_BYTES:
        raise CodecError(f"these files are more than the {MAX_BYTES >> 30} GiB that an archive may have")
    body, index = bytearray(), bytearray()
    for name, content in files.items():
        named = name.encode("ascii")
        fields = struct.pack("<HHHHHIIIHH", _VERSION, 0, 0, _MIDNIGHT, _FIRST_DAY, zlib.crc32(content), len(content),
                             len(content), len(named), 0)
        index += (_CENTRAL + struct.pack("<H", _UNIX | _VERSION) + fields
                  + struct.pack("<HHHII", 0, 0, 0, _PLAIN_FILE, len(body)) + named)
        body += _LOCAL + fields + named + content
    end = _END + struct.pack("<HHHHIIH", 0, 0, len(files), len(files), len(index), len(body), 0)
    return bytes(body + index + end)


def unpack(archive: bytes, source: str) -> dict[str, bytes]:
    """The files, in their order. Raises CodecError, naming `source`, for anything that `pack` does not make."""
    files, place = dict[str, bytes](), 0
    while archive[place:place + 4] == _LOCAL and place + _HEAD_BYTES <= len(archive):
        size, name_bytes = struct.unpack_from("<IH", archive, place + 22)
        begin = place + _HEAD_BYTES + name_bytes
        name = archive[place + _HEAD_BYTES:begin].decode("ascii", "replace")
        if name in files or len(files) == MAX_FILES:
            break                       # before a million of them are looked at
        files[name] = archive[begin:begin + size]
        place = begin + size
    if not all(map(str.isascii, files)) or pack(files) != archive:
        raise CodecError(f"{source}: is damaged, was altered, or was not made by fedround: get it again from who made it")
    return files
