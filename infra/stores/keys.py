"""Which keys an object may have: one rule for every store."""

from __future__ import annotations

import re

from fedround.errors import ContractError

MAX_KEY_LENGTH = 900        # S3 allows 1024 bytes, and a bucket may put a prefix before ours
MAX_PART_LENGTH = 200       # a file name may have 255 bytes

_PART = re.compile(r"[A-Za-z0-9._-]+")


def check_key(key: str) -> None:
    """Raise ContractError unless `key` is relative and made of ``[A-Za-z0-9._-]`` parts, none of them '.' or '..'."""
    if len(key) > MAX_KEY_LENGTH:
        raise ContractError(f"a key may have {MAX_KEY_LENGTH} characters, this one has {len(key)}: {key[:60]!r}…")
    for part in key.split("/"):
        if part in {".", ".."} or len(part) > MAX_PART_LENGTH or not _PART.fullmatch(part):
            raise ContractError(f"bad key {key!r}: expected parts of letters, digits, '.', '_' or '-' between single "
                                f"'/', at most {MAX_PART_LENGTH} characters each, none of them '.' or '..'")


def check_prefix(prefix: str) -> None:
    """Raise ContractError unless `prefix` is made like a key; it may end with '/', and '' is every key."""
    if prefix:
        check_key(prefix.removesuffix("/"))


def check_range(key: str, start: int, length: int) -> None:
    """Raise ContractError for a negative start or length."""
    if start < 0 or length < 0:
        raise ContractError(f"{key!r}: a range has no negative start or length, got {start} and {length}")
