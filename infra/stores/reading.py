"""Judging what was read. Bytes can be damaged on the way, and not every store reports it. So no member is blamed for that."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

from fedround.errors import ConflictError, ContractError, NotFoundError, StoreUnavailableError, TrustError

READS = 4
T = TypeVar("T")


def there(read: Callable[[], T]) -> T:
    """Read an object that something signed names. It is asked for once more before it counts as missing."""
    try:
        return read()
    except NotFoundError:
        return read()


def judged(read: Callable[[], bytes], judge: Callable[[bytes], T], what: str) -> T:
    """The result of `judge` for the bytes. Bytes that it rejects are read again: the same bytes twice are really wrong.

    Raises what `judge` raises; StoreUnavailableError if the bytes are wrong and differ each time.
    """
    wrong = set[str]()
    for _ in range(READS):
        body = read()
        try:
            return judge(body)
        except (TrustError, ContractError, ConflictError):
            digest = hashlib.sha256(body).hexdigest()
            if digest in wrong:
                raise
            wrong.add(digest)
    raise StoreUnavailableError(f"{what} has come with other bytes each of {READS} times, and none of them is right: "
                                "something between this machine and the object store alters what passes, or somebody goes on "
                                "replacing it. Look at the network, then try again")
