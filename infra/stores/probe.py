"""The start-up check of a store: does it really write once?"""

from __future__ import annotations

import secrets

from fedround.errors import StoreError
from infra.stores.base import ObjectStore

_FIRST, _SECOND = b"fedround: the first write", b"fedround: the second write"


def require_conditional_writes(store: ObjectStore, probe_prefix: str) -> None:
    """Raise StoreError unless `store` refuses to replace an object.

    Puts two bodies under one new key below `probe_prefix`; the second must be refused and the first must be kept. Some
    S3 servers accept ``If-None-Match: *`` and ignore it: on those, two coordinators would both commit a round.
    Leaves an object of 25 bytes behind on every call, seldom two. Proves nothing about races.
    """
    key, refuses = "", False
    for _ in range(2):                  # a first answer that is lost looks like a refusal, so that is tried once more
        key = f"{probe_prefix.rstrip('/')}/{secrets.token_hex(16)}"
        created, replaced = store.put_once(key, _FIRST), store.put_once(key, _SECOND)
        refuses = created and not replaced and store.get(key) == _FIRST
        if created:
            break
    if not refuses:
        raise StoreError(f"{store!r} ignores If-None-Match: a second write to '{key}' was not refused. Rounds are safe "
                         "only on a store with conditional writes; use another store, or a newer version of this one")
